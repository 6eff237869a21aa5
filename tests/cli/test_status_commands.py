"""``lafsfs status``, ``flush`` and what ``umount`` says of what is pending, with real mounts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from lafsfs.cli.mount_table import find_mount
from tests.cli.shell import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.shell import Shell

REST = "quiet=3600"  # nothing goes to the grid by itself


def state_of(shell: Shell, name: str) -> str:
    return os.getxattr(shell.mountpoint / name, "user.lafs.state").decode()


@contextlib.contextmanager
def unplugged(shell: Shell) -> Iterator[None]:
    """The grid is not there."""
    storage = shell.home / "data" / "storage"
    storage.rename(shell.home / "away")
    yield
    (shell.home / "away").rename(storage)


def test_nothing_is_mounted(shell: Shell) -> None:
    assert shell.run("status") == ""
    assert "nothing of lafsfs" in shell.run("status", str(shell.mountpoint), code=1)
    assert "nothing of lafsfs" in shell.run("flush", str(shell.mountpoint), code=1)


def test_accepted_then_on_the_grid(shell: Shell) -> None:
    shell.mount("-o", REST)
    where = str(shell.mountpoint)
    assert shell.run("status") == f"{where}: everything is on the grid\n"
    (shell.mountpoint / "hello").write_text("hello\n" * 100)
    said = shell.run("status", where)
    assert said.startswith(f"{where}: 1 file (600 bytes) not on the grid yet\n")
    assert ["accepted", "600", "bytes", "hello"] in [line.split() for line in said.splitlines()]
    assert state_of(shell, "hello") == "accepted"
    told = json.loads(shell.run("status", "--json", str(shell.mountpoint / "hello")))
    assert (told["mountpoint"], told["files"], told["size"]) == (where, 1, 600)
    assert told["pending"][0]["path"] == "hello"
    assert shell.run("flush", where) == ""
    assert state_of(shell, "hello") == "on the grid"
    assert shell.run("status", where) == f"{where}: everything is on the grid\n"
    assert shell.run("get", "home:hello", "-") == "hello\n" * 100
    shell.umount()


def test_unmounting_waits_for_the_grid(shell: Shell) -> None:
    shell.mount("-o", REST)
    (shell.mountpoint / "hello").write_text("hello\n" * 100)
    assert shell.umount() == ""
    assert shell.run("get", "home:hello", "-") == "hello\n" * 100


def test_a_flush_that_takes_too_long(shell: Shell) -> None:
    shell.mount("-o", REST)
    (shell.mountpoint / "hello").write_text("hello\n" * 100)
    with unplugged(shell):
        said = shell.run("flush", "--timeout", "1", str(shell.mountpoint), code=1)
        assert "1 seconds were over before everything was on the grid" in said
        assert "1 file (600 bytes) pending" in said
        assert (shell.mountpoint / "hello").read_text() == "hello\n" * 100
    shell.run("flush", str(shell.mountpoint))
    shell.umount()
    assert shell.run("get", "home:hello", "-") == "hello\n" * 100


def test_unmounting_now_says_what_stays_behind(shell: Shell) -> None:
    shell.mount("-o", REST)
    (shell.mountpoint / "hello").write_text("hello\n" * 100)
    with unplugged(shell):
        said = shell.run("umount", "--now", str(shell.mountpoint))
    assert said.startswith("1 file (600 bytes) not on the grid")
    assert "stays in the journal" in said
    assert find_mount(shell.mountpoint) is None
    assert not shell.record.is_held()
    assert not shell.record.socket.exists()
    assert "nothing of lafsfs" in shell.umount(code=1)


def test_unmounting_now_with_nothing_pending(shell: Shell) -> None:
    shell.mount()
    assert shell.run("umount", "--now", str(shell.mountpoint)) == ""


def test_being_told_twice_to_stop_leaves_the_rest_in_the_journal(shell: Shell) -> None:
    shell.mount("-o", REST)
    (shell.mountpoint / "hello").write_text("hello\n" * 100)
    mount = shell.record.read()
    assert mount is not None
    with unplugged(shell):
        os.kill(mount.pid, signal.SIGTERM)
        os.kill(mount.pid, signal.SIGINT)
        ended = shell.record.wait()
    assert ended is not None
    assert ended.error is None
    assert ended.left is not None
    assert ended.left.startswith("1 file (600 bytes) not on the grid")
    assert "stays in the journal" in (shell.home / "state" / "lafsfs.log").read_text()
    assert find_mount(shell.mountpoint) is None


def test_watching_until_it_is_unmounted(shell: Shell) -> None:
    shell.mount("-o", REST)
    (shell.mountpoint / "hello").write_text("hello\n" * 100)
    with subprocess.Popen(
        shell.command("status", "--watch", "--json"),
        env=shell.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["files"] == 1
        shell.umount()
        assert process.wait(TIMEOUT) == 0
        last = [json.loads(line) for line in process.stdout][-1:]
    assert all(status["files"] in (0, 1) for status in last)


@pytest.mark.parametrize("command", ["status", "flush", "umount"])
def test_help_teaches(shell: Shell, command: str) -> None:
    said = " ".join(shell.run(command, "--help").split())
    assert "on the grid" in said
