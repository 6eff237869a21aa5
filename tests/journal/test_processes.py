"""Journals of other processes: killed for real, holding the lock, on a disk that is full."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from lafsfs.errors import JournalBusyError
from lafsfs.journal import Journal
from lafsfs.journal.faultpoints import VARIABLE, killer
from tests.journal.actors import digest
from tests.journal.model import KEY, Story
from tests.journal.test_crashes import PLACES

ROOT = Path(__file__).parent.parent.parent


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tests.journal.actors", *map(str, arguments)]


@pytest.mark.parametrize("fault", ["any:7", "any:40", "journal.sync.log:2", "journal.commit.after"])
async def test_a_process_that_is_killed_has_lost_nothing(tmp_path, fault):
    result = await trio.run_process(
        command("story", tmp_path / "j", 3),
        cwd=ROOT,
        env={**os.environ, VARIABLE: fault},
        capture_stdout=True,
        check=False,
    )
    assert result.returncode == -signal.SIGKILL
    lines = result.stdout.decode().split()
    found = digest(await Story(tmp_path / "j", 0).found(tmp_path / "j"))
    if lines[-1] == "accepted":
        assert found == lines[-2]
    else:
        assert found in (lines[-1], lines[-3] if len(lines) > 1 else digest({}))


async def test_a_story_that_is_not_disturbed_ends_well(tmp_path):
    result = await trio.run_process(
        command("story", tmp_path / "j", 4), cwd=ROOT, capture_stdout=True
    )
    found = digest(await Story(tmp_path / "j", 0).found(tmp_path / "j"))
    assert found == result.stdout.decode().split()[-2]


async def test_another_process_is_named(tmp_path):
    process = await trio.lowlevel.open_process(
        command("hold", tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    said = b""
    while not said.endswith(b"\n"):
        more = await process.stdout.receive_some()
        assert more, "it ended"
        said += more
    assert said == b"open\n"
    with pytest.raises(JournalBusyError, match=f"process {process.pid} .*: unmount it"):
        async with Journal.open(tmp_path, KEY):
            pass
    await process.stdin.aclose()
    assert await process.wait() == 0
    async with Journal.open(tmp_path, KEY):
        pass


def can_mount_tmpfs(path: Path) -> bool:
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(path)]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(probe, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.parametrize("actor", ["fill", "overfill"])
async def test_a_full_disk(tmp_path, actor):
    if not can_mount_tmpfs(tmp_path):
        pytest.skip("no file system of its own can be mounted here")
    script = 'mount -t tmpfs -o size=16m tmpfs "$1" && shift && exec "$@"'
    result = await trio.run_process(
        ["unshare", "-rm", "sh", "-c", script, "sh", tmp_path, *command(actor, tmp_path / "j")],
        cwd=ROOT,
        capture_stdout=True,
    )
    assert result.stdout == b"full\n"


def test_a_fault_counts_its_own_place_only():
    reached: list[str] = []
    for text, names in (("a.b:3", "a.b x a.b"), ("any:4", "a b c"), ("a", "b c")):
        watcher = killer(text)
        for name in names.split():
            watcher(name)
            reached.append(name)
    assert len(reached) == 8  # nobody was killed
    with pytest.raises(ValueError, match="invalid literal"):
        killer("a.b:many")


def test_every_place_has_a_name_of_its_own():
    assert len(PLACES) >= 10
    assert all(place.startswith("journal.") for place in PLACES)
