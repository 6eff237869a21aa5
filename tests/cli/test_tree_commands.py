"""``ls get put mkdir rm mv ln`` on an embedded grid, as typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests import golden_data as golden

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run


@pytest.fixture
def tree(run: Run) -> Run:
    """A home: to work in."""
    run("alias", "create", "home")
    return run


def names(run: Run, where: str = "home:") -> list[str]:
    return run("ls", where).stdout.splitlines()


def listed(run: Run, where: str = "home:") -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in json.loads(run("ls", "--json", where).stdout)}


def get(run: Run, where: str) -> bytes:
    return run("get", where, "-").stdout_bytes


@pytest.mark.parametrize("size", [0, 55, 56, 300_000])
@pytest.mark.parametrize("kind", ["chk", "sdmf", "mdmf"])
def test_put_and_get(tree: Run, tmp_path: Path, size: int, kind: str) -> None:
    data = golden.generated("cli", size)
    (tmp_path / "in").write_bytes(data)
    tree("put", "--format", kind, str(tmp_path / "in"), "home:file")
    assert get(tree, "home:file") == data
    tree("get", "home:file", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == data
    shown = listed(tree)["file"]
    assert shown["kind"] == {"chk": "LIT" if size <= 55 else "CHK"}.get(kind, kind.upper())
    assert shown["size"] == (size if kind == "chk" else None)


def test_put_from_standard_input(tree: Run) -> None:
    data = golden.generated("stdin", 200_000)
    tree("put", "-", "home:file", input=data)
    assert get(tree, "home:file") == data
    assert "say what to call it" in tree("put", "-", "home:", input=b"", ok=False).stderr


def test_put_from_a_pipe_that_has_a_name(tree: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"through",))
    writer.start()
    tree("put", str(tmp_path / "pipe"), "home:")
    writer.join()
    assert get(tree, "home:pipe") == b"through"


def test_local_files_that_are_not_there(tree: Run, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert "No such file" in tree("put", missing, "home:x", ok=False).stderr
    assert "directory" in tree("put", str(tmp_path), "home:x", ok=False).stderr
    tree("put", "-", "home:file", input=b"data")
    assert "No such file" in tree("get", "home:file", f"{missing}/x", ok=False).stderr


def test_put_into_directories(tree: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("contents")
    tree("mkdir", "home:dir")
    tree("put", str(tmp_path / "a.txt"), "home:")
    tree("put", str(tmp_path / "a.txt"), "home:dir")
    tree("put", str(tmp_path / "a.txt"), "home:dir/b.txt")
    assert names(tree) == ["a.txt", "dir/"]
    assert names(tree, "home:dir") == ["a.txt", "b.txt"]


def test_put_replaces_files_but_not_directories(tree: Run, tmp_path: Path) -> None:
    (tmp_path / "dir").write_text("1")
    tree("mkdir", "-p", "home:dir/dir")
    assert "is a directory" in tree("put", str(tmp_path / "dir"), "home:dir", ok=False).stderr
    tree("put", str(tmp_path / "dir"), "home:file")
    (tmp_path / "dir").write_text("2" * 100)
    tree("put", str(tmp_path / "dir"), "home:file")
    assert get(tree, "home:file") == b"2" * 100


def test_put_writes_mutable_files_in_place(tree: Run) -> None:
    tree("put", "--format", "sdmf", "-", "home:file", input=b"one")
    before = tree("cap", "show", "--secret", "home:file").stdout
    tree("put", "-", "home:file", input=b"two")
    tree("put", "--format", "sdmf", "-", "home:file", input=b"three")
    assert tree("cap", "show", "--secret", "home:file").stdout == before
    assert get(tree, "home:file") == b"three"
    tree("put", "--format", "chk", "-", "home:file", input=b"four")
    assert listed(tree)["file"]["kind"] == "LIT"
    tree("put", "--format", "mdmf", "-", "home:file", input=b"five")
    assert listed(tree)["file"]["kind"] == "MDMF"
    assert get(tree, "home:file") == b"five"


def test_a_failed_get_leaves_no_file(tree: Run, tmp_path: Path, home: Path) -> None:
    tree("put", "-", "home:file", input=bytes(1000))
    tree("mkdir", "home:dir")
    for share in (home / "data" / "storage" / "shares").rglob("0"):
        data = share.read_bytes()
        if not data.startswith(b"Tahoe mutable"):
            share.write_bytes(data[:-1100] + bytes(1100))
    (tmp_path / "out").write_text("precious")
    for where in ("home:file", "home:dir"):
        tree("get", where, str(tmp_path / "out"), ok=False)
    assert (tmp_path / "out").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_get_into_a_directory(tree: Run, tmp_path: Path) -> None:
    tree("put", "-", "home:file", input=b"data")
    tree("get", "home:file", str(tmp_path))
    assert (tmp_path / "file").read_bytes() == b"data"


@pytest.mark.parametrize(
    ("format_name", "kind"), [("sdmf", "DIR2"), ("mdmf", "DIR2-MDMF"), ("immutable", "DIR2-LIT")]
)
def test_mkdir(tree: Run, format_name: str, kind: str) -> None:
    tree("mkdir", "--format", format_name, "home:dir")
    assert listed(tree)["dir"]["kind"] == kind
    assert names(tree, "home:dir") == []
    assert "already" in tree("mkdir", "home:dir", ok=False).stderr
    tree("mkdir", "-p", "home:dir")
    result = tree("put", "-", "home:dir/a", input=b"x", ok=format_name != "immutable")
    assert ("reads only" in result.stderr) == (format_name == "immutable")


def test_mkdir_with_parents(tree: Run) -> None:
    assert "home:a does not exist" in tree("mkdir", "home:a/b/c", ok=False).stderr
    tree("mkdir", "-p", "home:a/b/c")
    tree("mkdir", "-p", "home:a/b/d")
    assert names(tree, "home:a/b") == ["c/", "d/"]
    tree("mkdir", "-p", "home:")
    tree("put", "-", "home:file", input=b"")
    assert "already" in tree("mkdir", "-p", "home:file/x", ok=False).stderr
    assert "already" in tree("mkdir", "-p", "home:file", ok=False).stderr


def test_rm(tree: Run) -> None:
    tree("put", "-", "home:file", input=b"")
    tree("mkdir", "-p", "home:full/empty")
    tree("rm", "home:file")
    assert "not empty" in tree("rm", "home:full", ok=False).stderr
    tree("rm", "home:full/empty")
    tree("mkdir", "home:full/again")
    tree("rm", "-r", "home:full")
    assert names(tree) == []
    assert "home:file does not exist" in tree("rm", "home:file", ok=False).stderr
    assert "whole tree" in tree("rm", "-r", "home:", ok=False).stderr


def test_mv(tree: Run) -> None:
    tree("put", "-", "home:a", input=b"contents")
    tree("mkdir", "home:dir")
    tree("mv", "home:a", "home:b")
    tree("mv", "home:b", "home:dir")
    tree("mv", "home:dir/b", "home:dir/c")
    assert names(tree) == ["dir/"]
    assert get(tree, "home:dir/c") == b"contents"
    tree("put", "-", "home:dir/other", input=b"other")
    tree("mv", "home:dir/other", "home:dir/c")
    assert get(tree, "home:dir/c") == b"other"
    assert names(tree, "home:dir") == ["c"]


def test_mv_never_makes_a_directory_unreachable(tree: Run) -> None:
    tree("mkdir", "-p", "home:a/b")
    tree("mkdir", "-p", "home:c/a")
    assert "into itself" in tree("mv", "home:a", "home:a/b", ok=False).stderr
    assert "into itself" in tree("mv", "home:a", "home:a/b/x", ok=False).stderr
    assert "directory" in tree("mv", "home:a", "home:c", ok=False).stderr
    assert "home:x does not exist" in tree("mv", "home:x", "home:y", ok=False).stderr
    assert "whole tree" in tree("mv", "home:", "home:a", ok=False).stderr
    tree("mv", "home:a", "home:c/a")
    assert names(tree, "home:c/a") == ["a/"]


def test_ln(tree: Run) -> None:
    cap = golden.TREES["dir-sdmf"].ro
    tree("ln", "home:attached", input=cap)
    assert listed(tree)["attached"]["rights"] == "read-only"
    tree("ln", "home:future", input="ro.x-tahoe-future:abc")
    assert listed(tree)["future"]["kind"] == "unknown"
    for text, fault in (
        ("x-tahoe-future:abc", "beside a read capability"),
        (cap[:-3], "fingerprint"),
        ("", "no capability"),
    ):
        assert fault in tree("ln", "home:bad", input=text, ok=False).stderr
    assert "already" in tree("ln", "home:attached", input=cap, ok=False).stderr
    assert names(tree) == ["attached/", "future"]
    tree("mv", "home:future", "home:kept")
    assert "cannot read" in tree("get", "home:kept", "-", ok=False).stderr


def test_ls(tree: Run) -> None:
    tree("put", "-", "home:b\x1b[31m", input=b"x" * 1000)
    tree("mkdir", "home:a")
    assert names(tree) == ["a/", r"b\x1b[31m"]
    long = tree("ls", "-l").stdout.splitlines()
    assert long[0].split()[:3] == ["DIR2", "read-write", "-"]
    assert long[1].split()[:3] == ["CHK", "read-only", "1000"]
    assert names(tree, "home:b\x1b[31m") == [r"b\x1b[31m"]
    assert "b\x1b[31m" in listed(tree)
    assert "home:x does not exist" in tree("ls", "home:x", ok=False).stderr


def test_through_a_read_capability_nothing_changes(tree: Run) -> None:
    tree("put", "-", "home:file", input=b"data")
    shown = tree("cap", "show", "home:").stdout
    read_cap = next(line.split()[-1] for line in shown.splitlines() if "read cap" in line)
    tree("alias", "add", "reader", input=read_cap)
    assert get(tree, "reader:file") == b"data"
    for command in (
        ("put", "-", "reader:new"),
        ("mkdir", "reader:new"),
        ("rm", "reader:file"),
        ("mv", "reader:file", "reader:new"),
    ):
        assert "reads only" in tree(*command, input="x", ok=False).stderr
    assert names(tree, "reader:") == ["file"]


def test_a_path_through_a_file(tree: Run) -> None:
    tree("put", "-", "home:file", input=b"data")
    assert "not a directory" in tree("ls", "home:file/x", ok=False).stderr


def test_several_directories_are_several_servers(run: Run, home: Path) -> None:
    disks = [str(home / f"disk{number}") for number in range(3)]
    storage = [argument for disk in disks for argument in ("--storage", disk)]
    run("alias", "create", "home", *storage)
    run("put", "-", "home:file", *storage, input=bytes(1000))
    for missing in disks:
        left = [argument for disk in disks if disk != missing for argument in ("--storage", disk)]
        assert run("get", "home:file", "-", *left).stdout_bytes == bytes(1000)
    assert "any 2 of 3" in run("cap", "show", "home:file", *storage).stdout
    result = run("get", "home:file", "-", "--storage", disks[0], ok=False)
    assert result.stderr.startswith("lafsfs: ")


def test_a_disk_that_is_away_is_warned_about(
    run: Run, home: Path, environment: dict[str, str | None]
) -> None:
    storage = ["--storage", str(home / "here"), "--storage", str(home / "away")]
    run("alias", "create", "home", *storage)
    (home / "away").rename(home / "unplugged")
    known = {**os.environ, **environment}
    ended = subprocess.run(
        [sys.executable, "-m", "lafsfs", "mkdir", "home:made", *storage],
        env={name: value for name, value in known.items() if value is not None},
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    warnings = ended.stderr.splitlines()
    assert warnings
    assert all(line.startswith("lafsfs: warning: ") for line in warnings)
    assert str(home / "away") in warnings[0]


def test_a_storage_directory_that_is_none(run: Run, home: Path) -> None:
    (home / "file").write_text("")
    result = run("alias", "create", "home", "--storage", str(home / "file"), ok=False)
    assert "file" in result.stderr
    assert not (home / "config" / "aliases").exists()


def test_a_broken_configuration_is_one_line(run: Run, home: Path) -> None:
    (home / "config").mkdir()
    (home / "config" / "config.toml").write_text("[encoding]\nneeded = 'x'\n")
    assert "encoding.needed" in run("ls", ok=False).stderr
