"""Killed processes and power failures, at every place between two durable actions.

Where it says ``mock_clock``, time stands still: the journal syncs when the test says so, and never
by itself while its directory is being copied.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import threading
from pathlib import Path

import pytest
import trio

import lafsfs.journal
from lafsfs.journal import ContentsRef, Entry, Journal, Kind, Put
from lafsfs.journal.faultpoints import watch
from tests.journal.model import KEY, Story, contents_of, copied

PLACES = {
    name
    for path in Path(lafsfs.journal.__file__).parent.glob("*.py")
    for name in re.findall(r'^ +reached\("([\w.]+)"\)', path.read_text(), re.MULTILINE)
} | {"journal.checkpoint.passive", "journal.checkpoint.truncate"}


class Camera:
    """Copies the directory whenever a place is reached, with what is accepted at that moment."""

    def __init__(self, story: Story, album: Path) -> None:
        self.story = story
        self.album = album
        self.taken: list[tuple[str, Path, int]] = []

    def __call__(self, place: str) -> None:
        target = self.album / str(len(self.taken))
        self.taken.append((place, copied(self.story.directory, target), len(self.story.states)))


@pytest.mark.parametrize("seed", range(2))
async def test_a_process_killed_anywhere_loses_nothing(tmp_path, mock_clock, seed):
    story = Story(tmp_path / "j", seed)
    camera = Camera(story, tmp_path / "album")
    with watch(camera):
        for _ in range(2):
            async with Journal.open(story.directory, KEY) as journal:
                story.logs.clear()
                for _ in range(15):
                    await story.act(journal)
    assert {place for place, _, _ in camera.taken} >= {p for p in PLACES if "recovery" not in p}
    for place, image, count in camera.taken:
        # while a commit is under way, its state is in the list already
        wanted = story.states[count - 2 if place == "journal.commit.before" else count - 1]
        assert await story.found(image) == wanted, place
        shutil.rmtree(image)


BLOCK = 4096


def after_power_failure(safe: Path, last: Path, target: Path, chance: random.Random) -> None:
    """Of what was written since ``safe``, some blocks, sizes and names reached the disk."""
    names = {path.relative_to(side) for side in (safe, last) for path in side.rglob("*")}
    for name in sorted(names):
        old, new = safe / name, last / name
        if new.is_dir() or old.is_dir():
            (target / name).mkdir(parents=True, exist_ok=True)
            continue
        if not (new.exists() and old.exists()) and chance.random() < 0.5:
            if not old.exists():
                continue  # its name was lost
            new = old  # its deletion was lost
        elif not new.exists():
            continue
        before = old.read_bytes() if old.exists() else b""
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(mixed(before, new.read_bytes(), chance))


def mixed(old: bytes, new: bytes, chance: random.Random) -> bytes:
    likely = chance.choice([0.0, 0.5, 0.9, 1.0])
    size = len(new) if chance.random() < 0.7 else chance.randint(*sorted((len(old), len(new))))
    result = bytearray(old.ljust(size, b"\0")[:size])
    for at in range(0, size, BLOCK):
        if chance.random() < likely:
            result[at : at + BLOCK] = new[at : at + BLOCK].ljust(min(BLOCK, size - at), b"\0")
    return bytes(result)


@pytest.mark.parametrize("seed", range(6))
async def test_a_power_failure_goes_back_to_one_moment_behind_the_last_sync(
    tmp_path, mock_clock, seed
):
    story = Story(tmp_path / "j", seed)
    chance = random.Random(seed)
    safe = tmp_path / "safe"

    def remember(place: str) -> None:
        if place.startswith("journal.checkpoint") or place == "journal.sync.after":
            shutil.rmtree(safe, ignore_errors=True)
            copied(story.directory, safe)

    with watch(remember):
        async with Journal.open(story.directory, KEY) as journal:
            await journal.sync()
            journal.commit({100: Put(b"")})
            journal.commit({}, [100])
            await journal.sync()
            for number in range(40):
                await story.act(journal)
                if chance.random() < 0.3:
                    last = copied(story.directory, tmp_path / f"last{number}")
                    lost = tmp_path / f"lost{number}"
                    after_power_failure(safe, last, lost, chance)
                    state = await story.found(lost)
                    assert state in story.states[story.safe :]
                    assert await story.found(lost) == state
                    shutil.rmtree(last)
                    shutil.rmtree(lost)


async def test_contents_that_did_not_reach_the_disk_take_everything_behind_them_along(
    tmp_path, mock_clock
):
    """The row did, its contents did not: neither it nor what was done later is shown by halves."""
    async with Journal.open(tmp_path / "j", KEY) as journal:
        old = journal.new_contents()
        journal.commit({1: Put(b"name", ContentsRef(old)), 2: Put(b"other")}, blobs={old: b"old"})
        await journal.sync()
        log = journal.hold(journal.new_contents())
        await journal.append(log, [Entry(Kind.WRITE, 0, bytes(100_000))])
        journal.commit({1: Put(b"name", ContentsRef(log.number, log.end))})
        journal.commit({3: Put(b"later")}, [2])
        lost = copied(tmp_path / "j", tmp_path / "lost")
    os.truncate(lost / "contents" / str(log.number), 50_000)
    for _ in range(2):
        async with Journal.open(lost, KEY) as journal:
            rows = {row.id: row for row in journal.take_rows()}
            assert {id: row.value for id, row in rows.items()} == {1: b"name", 2: b"other"}
            assert contents_of(journal, rows[1].contents) == b"old"
    assert list((lost / "contents").iterdir()) == []


async def test_a_sync_under_way_does_not_vouch_for_what_comes_meanwhile(tmp_path, mock_clock):
    """Committed while a sync runs, contents and all: that sync's end is what is gone back to."""
    images: list[Path] = []
    async with Journal.open(tmp_path / "j", KEY) as journal:
        first = journal.hold(journal.new_contents())
        await journal.append(first, [Entry(Kind.WRITE, 0, b"first")])
        journal.commit({1: Put(b"first", ContentsRef(first.number, first.end))})
        second = journal.hold(journal.new_contents())
        await journal.append(second, [Entry(Kind.WRITE, 0, b"second")])

        def meanwhile(place: str) -> None:
            if place == "journal.sync.log" and not images:
                images.append(tmp_path)
                journal.commit({2: Put(b"second", ContentsRef(second.number, second.end))})

        with watch(meanwhile):
            await journal.sync()
        journal.commit({3: Put(b"behind it")})
        lost = copied(tmp_path / "j", tmp_path / "lost")
    (lost / "contents" / str(second.number)).write_bytes(b"")
    async with Journal.open(lost, KEY) as journal:
        assert journal.went_back
        (row,) = journal.take_rows()
        assert contents_of(journal, row.contents) == b"first"


async def test_contents_that_arrive_while_a_sync_runs_are_synced_by_the_next(tmp_path, mock_clock):
    """What is being written when a sync begins is not taken for synced."""
    may_go_on = threading.Event()
    async with Journal.open(tmp_path, KEY) as journal:
        log = journal.hold(journal.new_contents())
        await journal.append(log, [Entry(Kind.WRITE, 0, b"first")])
        journal.commit({1: Put(b"", ContentsRef(log.number, log.end))})
        writing = trio.Event()

        def hold_up(place: str) -> None:
            if place == "journal.contents.appended":
                trio.from_thread.run_sync(writing.set)
                may_go_on.wait()

        with watch(hold_up):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(journal.append, log, [Entry(Kind.WRITE, 5, b"second")])
                await writing.wait()
                await journal.sync()
                assert log.synced == log.end
                may_go_on.set()
        assert log.synced < log.end
        journal.commit({1: Put(b"", ContentsRef(log.number, log.end))})
        await journal.sync()
        assert log.synced == log.end


async def test_contents_lost_behind_a_sync_do_not_hold_up_the_rest(tmp_path):
    async with Journal.open(tmp_path / "j", KEY) as journal:
        log = journal.hold(journal.new_contents())
        await journal.append(log, [Entry(Kind.WRITE, 0, b"gone")])
        journal.commit({1: Put(b"a", ContentsRef(log.number, log.end)), 2: Put(b"b")})
    (tmp_path / "j" / "contents" / str(log.number)).unlink()
    async with Journal.open(tmp_path / "j", KEY) as journal:
        assert not journal.went_back
        assert [row.value for row in journal.take_rows()] == [b"a", b"b"]
        with pytest.raises(FileNotFoundError):
            journal.hold(log.number).records(log.end)
