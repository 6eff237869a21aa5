"""``lafsfs grid`` and ``lafsfs lease``, and every way to name servers, as typed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lafsfs.gbs.discovery.announcements import FOOLSCAP_ONLY
from tests.gbs.discovery.announced import Signer, announcement, furl, nurl
from tests.gbs.discovery.nodes import cached, make_node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Run

CONTENTS = b"x" * 1000


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    """A directory that ``lafsfs serve`` serves."""
    directory = tmp_path / "served"
    places = {f"LAFSFS_{p}_DIR": str(tmp_path / "serving") for p in ("CONFIG", "DATA", "STATE")}
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "lafsfs", "serve", "--storage", str(directory)),
            *("--listen", "127.0.0.1:0", "--nickname", "attic"),
        ],
        env=places,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("pb://")
    yield directory
    process.terminate()
    assert process.wait(60) == 0
    process.stdout.close()


def nurl_of(served: Path) -> str:
    return (served / "nurl").read_text().splitlines()[0]


def shares(served: Path) -> list[Path]:
    return [path for path in (served / "shares").glob("??/*/*") if path.is_file()]


def listed(run: Run, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("grid", "servers", "--json", *arguments).stdout)
    return found


def store_and_read(run: Run, *arguments: str) -> None:
    run("put", *arguments, "-", "home:file", input=CONTENTS)
    assert run("get", *arguments, "home:file", "-").stdout_bytes == CONTENTS


# --- every way to name a server -------------------------------------------------------------------


def test_storage_may_be_a_nurl(run: Run, served: Path) -> None:
    arguments = ("--storage", nurl_of(served))
    result = run("alias", "create", "home", *arguments)
    assert "others can see a NURL" in result.stderr
    assert "swissnum" not in result.stderr
    store_and_read(run, *arguments)
    assert len(shares(served)) == 2


def test_servers_in_the_configuration(run: Run, served: Path, home: Path) -> None:
    (home / "config").mkdir()
    (home / "config" / "config.toml").write_text(
        f"[[grid.servers]]\nname = 'attic'\nnurl = '{nurl_of(served)}'\n"
    )
    run("alias", "create", "home")
    store_and_read(run)
    assert len(shares(served)) == 2
    (found,) = listed(run)
    assert (found["name"], found["connected"], found["problem"]) == ("attic", True, None)
    assert found["version"].startswith("lafsfs/")
    assert found["free_space"] > 0
    assert found["round_trip"] > 0
    assert "nurl" not in json.dumps(found)


def test_servers_in_a_servers_yaml_of_ours(run: Run, served: Path, home: Path) -> None:
    private = home / "config" / "private"
    private.mkdir(parents=True)
    (private / "servers.yaml").write_text((served / "announcement.yaml").read_text())
    run("alias", "create", "home")
    store_and_read(run)
    (found,) = listed(run)
    assert (found["name"], found["connected"]) == ("attic", True)
    assert found["origin"] == f"{private / 'servers.yaml'}, line 2"


def test_a_nodes_directory(run: Run, served: Path, tmp_path: Path) -> None:
    node = make_node(tmp_path / "node")
    (node / "private" / "servers.yaml").write_text((served / "announcement.yaml").read_text())
    (node / "tahoe.cfg").write_text(
        "[client]\nshares.needed = 1\nshares.happy = 1\nshares.total = 1\n"
    )
    cap = made_directory(run, served)
    (node / "private" / "aliases").write_text(f"home: {cap}\n")
    before = {path: path.stat().st_mtime_ns for path in node.rglob("*")}
    store_and_read(run, "--node-dir", str(node))
    assert run("ls", "--node-dir", str(node), "home:").stdout == "file\n"
    assert "only read" in run("alias", "create", "x", "--node-dir", str(node), ok=False).stderr
    assert "only read" in run("alias", "remove", "home", "--node-dir", str(node), ok=False).stderr
    assert {path: path.stat().st_mtime_ns for path in node.rglob("*")} == before


def made_directory(run: Run, served: Path) -> str:
    arguments = ("--storage", nurl_of(served))
    run("alias", "create", "made", *arguments)
    shown = run("cap", "show", "--secret", "made:", *arguments).stdout
    return next(word for word in shown.split() if word.startswith("URI:DIR2:"))


def test_a_directory_here_and_a_server_elsewhere(run: Run, served: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    arguments = ("--storage", str(here), "--storage", nurl_of(served))
    run("alias", "create", "home", *arguments)
    store_and_read(run, *arguments)
    assert len(shares(served)) == len(shares(here)) == 2
    assert [found["name"] for found in listed(run, *arguments)][:1] == [str(here)]


def test_one_directory_twice(run: Run, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "here")
    arguments = ("--storage", str(tmp_path / "here"))
    run("alias", "create", "home", *arguments)
    for again in (tmp_path / "here", tmp_path / "link"):
        result = run("ls", "home:", *arguments, "--storage", str(again), ok=False)
        assert result.exit_code == 2
        assert "named twice" in result.stderr


# --- what goes wrong ------------------------------------------------------------------------------


def test_nobody_can_be_reached(run: Run) -> None:
    nobody = nurl("nobody", "127.0.0.1:1")
    result = run("alias", "create", "home", "--storage", nobody, ok=None)
    assert result.exit_code == 1
    assert "there is no storage server that can be used" in result.stderr.splitlines()[-1]
    (server,) = listed(run, "--storage", nobody)
    assert server["problem"].endswith("127.0.0.1:1: Connection refused")


def test_what_is_wrong_with_servers_is_listed(run: Run, tmp_path: Path) -> None:
    node = make_node(tmp_path / "node")
    old = cached("old", **{"anonymous-storage-NURLs": None})
    away = cached("away", **{"anonymous-storage-NURLs": [nurl("away", "127.0.0.1:1")]})
    (node / "private" / "introducer_default_cache.yaml").write_text(old + away)
    found = {server["name"]: server for server in listed(run, "--node-dir", str(node))}
    assert found["old"]["problem"] == FOOLSCAP_ONLY
    assert "127.0.0.1:1" in found["away"]["problem"]
    assert not any(server["connected"] for server in found.values())
    table = run("grid", "servers", "--node-dir", str(node)).stdout
    assert "1.19" in table
    assert "away" in table
    assert "swissnum" not in table


def test_foreign_names_are_not_markup(run: Run, tmp_path: Path) -> None:
    node = make_node(tmp_path / "node")
    entry = {"ann": announcement("x") | {"nickname": "[red]x[/red]"}, "key_s": Signer("x").key}
    (node / "private" / "introducer_default_cache.yaml").write_text(yaml.safe_dump([entry]))
    assert "[red]x[/red]" in run("grid", "servers", "--node-dir", str(node)).stdout


def test_a_node_that_is_none(run: Run, tmp_path: Path) -> None:
    result = run("ls", "--node-dir", str(tmp_path), ok=False)
    assert "no tahoe.cfg" in result.stderr


def test_no_servers_at_all(run: Run, tmp_path: Path) -> None:
    node = make_node(tmp_path / "node")
    result = run("grid", "servers", "--node-dir", str(node))
    assert "no storage server is configured" in result.stderr


# --- joining --------------------------------------------------------------------------------------


def test_joining_needs_foolscap_or_the_introducer(run: Run, home: Path) -> None:
    """Whether the extra is installed or not: this introducer is not there."""
    result = run("grid", "join", furl("x", "tcp:127.0.0.1:1").replace("pb://", "pb:/"), ok=False)
    assert result.exit_code == 2
    assert "swissnum" not in result.stderr
    assert not (home / "config" / "private" / "introducers").exists()


def test_joining_is_for_the_configured_grid(run: Run, tmp_path: Path) -> None:
    result = run("grid", "join", furl("x"), env={"LAFSFS_STORAGE": str(tmp_path)}, ok=False)
    assert "unset LAFSFS_STORAGE" in result.stderr


# --- leases ---------------------------------------------------------------------------------------


def test_renewing_leases(run: Run, tmp_path: Path) -> None:
    disks = [str(tmp_path / name) for name in ("a", "b")]
    arguments = [part for disk in disks for part in ("--storage", disk)]
    assert "no alias" in run("lease", "renew", *arguments, ok=False).stderr
    run("alias", "create", "home", *arguments)
    run("mkdir", "-p", "home:d/e", *arguments)
    run("put", *arguments, "-", "home:d/file", input=CONTENTS)
    run("put", *arguments, "-", "home:d/tiny", input=b"tiny")
    assert run("lease", "renew", *arguments).stdout == "4 objects have new leases\n"
    assert run("lease", "renew", "home:d/file", *arguments).stdout == "1 object has a new lease\n"
    for share in [share for disk in disks for share in shares(tmp_path / disk)]:
        if b"mutable container" not in share.read_bytes():
            share.unlink()
    result = run("lease", "renew", "home:d/file", *arguments, ok=None)
    assert result.exit_code == 1
    assert "no server has a share of home:d/file" in result.stderr
