"""A disk that gives back something else: errors that say so, and never a wrong byte."""

from __future__ import annotations

import random
import shutil

import pytest
import trio
from trio.testing import MockClock

from lafsfs.errors import JournalFormatError, StagingCorruptError
from lafsfs.journal import Journal, Put
from tests.journal.model import KEY, State, Story, contents_of, copied


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A journal after many things happened to it, closed; and as it is if its process is killed."""
    story = Story(tmp_path_factory.mktemp("told") / "j", 11)

    async def tell():
        async with Journal.open(story.directory, KEY) as journal:
            for _ in range(60):
                await story.act(journal)
            return copied(story.directory, story.directory.parent / "killed")

    return story, trio.run(tell, clock=MockClock())  # it does not sync by itself


async def readable(directory) -> tuple[State, int]:
    """What the journal gives; and how many contents it does not."""
    state: State = {}
    refused = 0
    async with Journal.open(directory, KEY) as journal:
        for row in journal.take_rows():
            try:
                state[row.id] = (row.value, contents_of(journal, row.contents))
            except (StagingCorruptError, FileNotFoundError):
                refused += 1
    return state, refused


def is_part_of(state: State, states: list[State]) -> bool:
    return any(state.items() <= old.items() for old in states)


@pytest.mark.parametrize("name", ["journal.db", "journal.db-wal", "contents"])
async def test_flipped_bits_are_noticed(told, tmp_path, name):
    story, image = told[0], image_of(name, told)
    chance = random.Random(name)
    outcomes: set[str] = set()
    for number in range(60):
        damaged = copied(image, tmp_path / str(number))
        path = damaged / name
        if path.is_dir():
            path = chance.choice(sorted(path.iterdir()))
        raw = bytearray(path.read_bytes())
        for _ in range(chance.choice([1, 1, 30])):
            raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        path.write_bytes(raw)
        outcomes.add(await outcome_of(damaged, story))
        shutil.rmtree(damaged)
    assert outcomes - {"as it was"}
    assert name == "journal.db-wal" or "went back" not in outcomes


def image_of(name: str, told):
    """SQLite's log says again what is in the database itself, until it is closed."""
    story, killed = told
    return story.directory if name == "journal.db" else killed


async def outcome_of(damaged, story: Story) -> str:
    before = {path: path.read_bytes() for path in damaged.rglob("*") if path.is_file()}
    try:
        state, refused = await readable(damaged)
    except JournalFormatError:
        for path, raw in before.items():
            assert path.read_bytes() == raw or path.name in ("lock", "journal.db-shm")
        return "refused"
    assert is_part_of(state, story.states)
    if refused:
        return "contents refused"
    return "as it was" if state == story.now else "went back"


@pytest.mark.parametrize("name", ["journal.db", "journal.db-wal", "secret"])
async def test_truncated_files_are_noticed(told, tmp_path, name):
    story, image = told[0], image_of(name, told)
    size = (image / name).stat().st_size
    for number in range(20):
        damaged = copied(image, tmp_path / str(number))
        (damaged / name).write_bytes((image / name).read_bytes()[: size * number // 20])
        outcome = await outcome_of(damaged, story)
        assert outcome in ("refused", "as it was" if name == "journal.db" else "went back")
        shutil.rmtree(damaged)


async def test_a_log_that_lost_what_was_synced_is_kept_until_somebody_decides(tmp_path, mock_clock):
    async with Journal.open(tmp_path / "j", KEY) as journal:
        journal.commit({1: Put(b"one")})
        await journal.sync()
        middle = (tmp_path / "j" / "journal.db-wal").stat().st_size
        journal.commit({2: Put(b"two")})
        await journal.sync()
        damaged = copied(tmp_path / "j", tmp_path / "damaged")
    raw = bytearray((damaged / "journal.db-wal").read_bytes())
    raw[middle + 100] ^= 1
    (damaged / "journal.db-wal").write_bytes(raw)
    for _ in range(2):
        with pytest.raises(JournalFormatError, match="delete the file 'synced'"):
            async with Journal.open(damaged, KEY):
                pass
    assert (damaged / "journal.db-wal").read_bytes() == raw
    (damaged / "synced").unlink()
    async with Journal.open(damaged, KEY) as journal:
        assert [row.value for row in journal.take_rows()] == [b"one"]
