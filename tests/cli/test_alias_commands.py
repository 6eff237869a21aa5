"""``lafsfs alias`` and ``lafsfs cap``, as typed."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from lafsfs.caps import parse
from tests import golden_data as golden

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run

TREE = golden.TREES["dir-sdmf"]
FILE = golden.OBJECTS["imm-1000"]


def test_create_and_list(run: Run, home: Path) -> None:
    assert run("alias", "list").output == ""
    run("alias", "create", "home:")
    run("alias", "create", "--format", "mdmf", "work")
    lines = run("alias", "list").output.splitlines()
    assert [line.rpartition(" ")[0] for line in lines] == [
        "home: DIR2 read-write",
        "work: DIR2-MDMF read-write",
    ]
    stored = (home / "config" / "aliases").read_text()
    assert stored.startswith("home: URI:DIR2:")
    assert "URI:" not in "".join(lines)
    assert run("ls").output == ""
    assert "already" in run("alias", "create", "home", ok=False).stderr
    assert (home / "config" / "aliases").read_text() == stored


def test_the_first_alias_makes_the_grid_and_secrets_private(run: Run, home: Path) -> None:
    run("alias", "create", "home")
    assert list((home / "data" / "storage" / "shares").iterdir())
    for name in ("aliases", "private/secret", "private/convergence"):
        assert stat.S_IMODE((home / "config" / name).stat().st_mode) == 0o600


def test_add_reads_standard_input(run: Run, home: Path) -> None:
    assert (
        run("alias", "add", "old", input=f"  {TREE.cap}\n").output == "old: is DIR2, read-write\n"
    )
    run("alias", "add", "reader", input=TREE.ro)
    assert (home / "config" / "aliases").read_text() == f"old: {TREE.cap}\nreader: {TREE.ro}\n"
    listed = run("alias", "list").output
    assert listed.splitlines()[1].startswith("reader: DIR2 read-only")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no capability"),
        (TREE.cap[:-1], "fingerprint"),
        (TREE.cap + " " + TREE.ro, "one capability"),
        (TREE.verify, "verifies"),
        (FILE.cap, "of a file"),
        ("hello", "not a capability"),
        (b"\xff\xfe", "not a capability"),
    ],
)
def test_add_refuses_what_is_no_folder(run: Run, home: Path, text: str, fault: str) -> None:
    result = run("alias", "add", "old", input=text, ok=False)
    assert fault in result.stderr
    assert TREE.cap.split(":")[2] not in result.output
    assert not (home / "config" / "aliases").exists()


def test_remove(run: Run, home: Path) -> None:
    run("alias", "add", "old", input=TREE.cap)
    run("alias", "remove", "old")
    assert (home / "config" / "aliases").read_text() == ""
    result = run("alias", "remove", "old", ok=False)
    assert result.exit_code == 2
    assert "no alias 'old'" in result.stderr


def test_a_broken_line_hides_no_other(run: Run, home: Path) -> None:
    (home / "config").mkdir()
    (home / "config" / "aliases").write_text(f"bad: URI:DIR2:x\ngood: {TREE.cap}\n")
    result = run("alias", "list")
    assert result.stdout.startswith("bad: broken\ngood: DIR2 read-write")
    assert "'bad'" in result.stderr


@pytest.mark.parametrize(
    "entry", [*golden.OBJECTS.values(), *golden.TREES.values()], ids=lambda entry: entry.name
)
def test_cap_show(run: Run, entry: golden.GoldenObject) -> None:
    rows = dict(
        line.split(":", 1) for line in run("cap", "show", "-", input=entry.cap).stdout.splitlines()
    )
    rows = {label: value.strip() for label, value in rows.items()}
    cap = parse(entry.cap)
    assert rows["kind"] == cap.kind
    assert rows["rights"] == cap.rights
    assert rows.get("read cap", entry.cap) == entry.ro
    assert rows.get("verify cap") == entry.verify
    if entry.storage_index is not None:
        assert rows["storage index"] == golden.to_base32(entry.storage_index)
    if cap.kind == "CHK":
        assert rows["shares"] == "any 3 of 10"
    if cap.kind in ("CHK", "LIT"):
        assert rows["size"] == f"{entry.size} bytes"
    assert "capability" not in rows


def test_cap_show_keeps_the_write_capability_to_itself(run: Run) -> None:
    assert TREE.cap not in run("cap", "show", input=TREE.cap).output
    assert TREE.cap in run("cap", "show", "--secret", "-", input=TREE.cap).output


def test_cap_show_of_an_alias_and_a_path(run: Run) -> None:
    run("alias", "create", "home")
    run("put", "-", "home:a", input=b"x" * 100)
    assert "kind:           DIR2" in run("cap", "show", "home:").output
    output = run("cap", "show", "home:a").output
    assert "kind:           CHK" in output
    assert "any 1 of 1" in output
    assert "home:b does not exist" in run("cap", "show", "home:b", ok=False).stderr


def test_a_capability_on_the_command_line_works_and_warns(run: Run) -> None:
    result = run("cap", "show", TREE.ro)
    assert "read-only" in result.stdout
    assert "others can see" in result.stderr
    assert TREE.ro not in result.stderr
