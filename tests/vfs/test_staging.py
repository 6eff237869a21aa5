"""Staged contents against a plain byte array, on the disk and in memory."""

from __future__ import annotations

import itertools
import random
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.errors import JournalFullError, LocalError, StagingCorruptError
from lafsfs.journal import Journal, Limits, Put
from lafsfs.journal.faultpoints import watch
from lafsfs.vfs.staging.area import StagingArea
from lafsfs.vfs.staging.kept import Kept
from lafsfs.vfs.staging.small import INLINE_LIMIT
from lafsfs.vfs.staging.staged import LOOK_AT, MOST_WAITING, RECORD_SIZE

KEY = bytes(range(32))


class Base:
    def __init__(self, data: bytes) -> None:
        self.data = data

    async def read(self, offset: int, size: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.data[offset : offset + size]


async def everything(contents) -> bytes:
    return await contents.read(0, contents.size)


@asynccontextmanager
async def open_area(directory, budget=64 << 20, limits=None, hashed=None, draws_keys=False):
    async with (
        Journal.open(directory, KEY, limits) as journal,
        StagingArea.over(journal, budget, hashed, draws_keys) as area,
    ):
        yield area


@pytest.fixture
async def area(tmp_path):
    async with open_area(tmp_path / "journal") as opened:
        yield opened


async def accept(area, contents, row: int = 1) -> None:
    await contents.seal()
    kept = contents.describe()
    await area.journal.ready()
    area.journal.commit({row: Put(b"", kept.ref)}, blobs=kept.blobs)
    contents.accepted(kept)


def files_of(directory):
    return [path for path in (directory / "contents").iterdir() if path.stat().st_size]


steps = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "truncate", "accept"]), st.integers(0, 90), st.binary()
    ),
    max_size=20,
)


@given(steps, st.sampled_from([0, 5, 40, 1 << 20]))
@settings(max_examples=60, deadline=None)
def test_behaves_as_a_file(tmp_path_factory, steps, budget):
    """Whatever is accepted is there again after a restart, however it came to be."""
    base = Base(bytes(range(50)))
    directory = tmp_path_factory.mktemp("s") / "d"

    async def scenario() -> None:
        accepted, model = None, bytearray(base.data)
        async with open_area(directory, budget) as area:
            contents = area.stage(base, len(base.data))
            for step, at, data in steps:
                model = done(step, at, data, model)
                if step == "truncate":
                    contents.truncate(at)
                elif step == "write":
                    await contents.write(at, data)
                else:
                    await accept(area, contents)
                    accepted = bytes(model)
                assert await everything(contents) == bytes(model)
            if accepted is None:
                contents.discard()
                assert area.buffered == area.journal.room.promised == 0
        async with open_area(directory, budget) as area:
            rows = area.journal.take_rows()
            assert bool(rows) == (accepted is not None)
            for row in rows:
                contents = await area.restore(Kept(row.contents, base))
                assert await everything(contents) == accepted
                await contents.write(7, b"goes on")
                await accept(area, contents)
                model = done("write", 7, b"goes on", bytearray(accepted))
                assert await everything(contents) == bytes(model)
                contents.discard()
            assert area.buffered == area.journal.room.promised == 0

    trio.run(scenario)


@given(steps, st.sampled_from([0, 5, 40, 1 << 20]))
@settings(max_examples=60, deadline=None)
def test_no_two_contents_have_the_same_key(tmp_path_factory, steps, budget):
    """Whatever of them is accepted when; and accepted whole, they have one that stays theirs."""
    base = Base(bytes(range(50)))
    directory = tmp_path_factory.mktemp("s") / "d"

    async def scenario() -> None:
        found: dict[bytes, bytes] = {}
        async with open_area(directory, budget, draws_keys=True) as area:
            contents = area.stage(base, len(base.data))
            for step, at, data in steps:
                if step == "truncate":
                    contents.truncate(at)
                    assert contents.kept_key is None
                elif step == "write":
                    await contents.write(at, data)
                    assert contents.kept_key is None
                elif data:
                    await accept(area, contents)
                    assert contents.kept_key is not None or not contents.size
                elif (kept := contents.describe()).ref is not None:  # what is sealed of it
                    area.journal.commit({1: Put(b"", kept.ref)}, blobs=kept.blobs)
                    contents.accepted(kept)
                kept = contents.kept
                if kept is not None and kept.key is not None:
                    again = await area.restore(kept)
                    assert again.kept_key == kept.key
                    assert await everything(again) == found.setdefault(
                        kept.key, await everything(again)
                    )
                if contents.kept_key is not None:
                    assert found[contents.kept_key] == await everything(contents)
            contents.discard()

    trio.run(scenario)


def done(step, at: int, data: bytes, model: bytearray) -> bytearray:
    if step == "truncate":
        return model[:at] + bytes(max(0, at - len(model)))
    if step == "write" and data:
        model += bytes(max(0, at - len(model)))
        model[at : at + len(data)] = data
    return model


async def test_small_files_never_become_files(area, tmp_path):
    for row in range(20):
        contents = area.stage(None, 0)
        await contents.write(0, b"x" * INLINE_LIMIT)
        await accept(area, contents, row)
        await contents.write(3, b"yy")
        await accept(area, contents, row)
        area.cache.clear()
        assert await everything(contents) == b"xxxyy".ljust(INLINE_LIMIT, b"x")
    assert files_of(tmp_path / "journal") == []
    assert area.buffered == area.journal.room.promised == 0
    await area.journal.sync()
    assert area.journal.room.used < 21 * INLINE_LIMIT  # what was accepted before is gone


async def test_large_files_go_to_the_disk_while_they_are_written(area, tmp_path):
    contents = area.stage(None, 0)
    data = random.Random(1).randbytes(9 * RECORD_SIZE + 1234)
    for offset in range(0, len(data), 100_000):
        await contents.write(offset, data[offset : offset + 100_000])
        assert area.buffered == area.journal.room.promised <= MOST_WAITING + 100_000
    assert await everything(contents) == data
    (path,) = files_of(tmp_path / "journal")
    assert path.stat().st_size >= 4 * RECORD_SIZE
    assert data[:64] not in path.read_bytes()
    await accept(area, contents)
    assert area.buffered == 0
    assert await everything(contents) == data


async def test_writing_goes_on_while_a_log_is_begun(area):
    """What falls over bytes on their way to the disk counts, whichever arrives first."""
    contents = area.stage(Base(b"base" * 100_000), 400_000)
    model = bytearray(b"base" * 100_000)
    chance = random.Random(2)

    async def writer() -> None:
        for _ in range(200):
            at, data = chance.randrange(500_000), chance.randbytes(chance.randrange(1, 9000))
            model.extend(bytes(max(0, at + len(data) - len(model))))
            model[at : at + len(data)] = data
            await contents.write(at, data)
            if chance.random() < 0.05:
                del model[400_000:]
                contents.truncate(400_000 if len(model) == 400_000 else len(model))
            await trio.lowlevel.checkpoint()

    async def accepter() -> None:
        for _ in range(20):
            await accept(area, contents)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer)
        nursery.start_soon(accepter)
    assert await everything(contents) == bytes(model)
    await accept(area, contents)
    again = await area.restore(Kept(contents.kept.ref, contents.base))
    assert await everything(again) == bytes(model)


async def test_what_is_not_accepted_is_not_there_after_a_restart(tmp_path):
    async with open_area(tmp_path) as area:
        contents = area.stage(Base(b"old"), 3)
        await contents.write(0, b"n")
        await accept(area, contents)
        await contents.write(1, b"ope")
    async with open_area(tmp_path) as area:
        (row,) = area.journal.take_rows()
        contents = await area.restore(Kept(row.contents, Base(b"old")))
        assert await everything(contents) == b"nld"


async def test_a_new_file_takes_no_place(area, tmp_path):
    used = area.journal.room.used
    for row in (1, 2):
        contents = area.stage(None, 0)
        await accept(area, contents, row)
        assert contents.kept.ref.id == 0
    assert area.journal.room.used < used + 250
    again = await area.restore(Kept(contents.kept.ref, None))
    assert await everything(again) == b""
    await again.write(0, b"now")
    await accept(area, again, 2)
    again.truncate(0)
    await accept(area, again, 2)
    assert again.kept.ref.id == 0
    over = area.stage(Base(b"old"), 3)
    over.truncate(0)
    await accept(area, over, 3)
    assert await everything(await area.restore(Kept(over.kept.ref, Base(b"old")))) == b""


async def test_describing_again_says_the_same(area):
    contents = area.stage(None, 0)
    await contents.write(0, b"x")
    await accept(area, contents)
    assert contents.describe() == contents.kept
    assert contents.describe().blobs == {}
    await contents.write(0, b"x")
    assert contents.describe().ref != contents.kept.ref


async def test_a_file_written_over_and_over_does_not_pile_up(area, tmp_path):
    contents = area.stage(None, 0)
    await contents.write(0, b"first" * 100_000)
    for round in range(150):
        await contents.write(200_000, bytes([round]) * RECORD_SIZE)
        if round % 40 == 39:
            await accept(area, contents)
            await area.journal.sync()
    await accept(area, contents)
    await area.journal.sync()
    wanted = b"first" * 40_000 + bytes([149]) * RECORD_SIZE
    assert await everything(contents) == wanted
    assert sum(path.stat().st_size for path in files_of(tmp_path / "journal")) < LOOK_AT
    again = await area.restore(Kept(contents.kept.ref, None))
    assert await everything(again) == wanted


async def test_a_snapshot_stands_still_while_writing_goes_on(area):
    contents = area.stage(Base(b"base"), 4)
    await contents.write(2, b"XYZ")
    with contents.snapshot() as snapshot:
        await contents.write(2, b"123456")
        contents.truncate(1)
        assert snapshot.size == 5
        for _ in range(2):
            assert await snapshot.read(0, 5) == b"baXYZ"
        assert await snapshot.written() == [(2, b"XYZ")]
        contents.discard()
        assert await snapshot.read(1, 3) == b"aXY"
    assert area.buffered == 0


async def test_what_the_disk_changed_is_noticed(area, tmp_path):
    contents = area.stage(None, 0)
    await contents.write(0, b"precious" * 10_000)
    await accept(area, contents)
    assert len(await everything(contents)) == 80_000
    area.cache.clear()
    (path,) = files_of(tmp_path / "journal")
    raw = path.read_bytes()
    path.write_bytes(raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:])
    with pytest.raises(StagingCorruptError):
        await everything(contents)
    path.unlink()
    with pytest.raises(StagingCorruptError):
        await everything(contents)
    with pytest.raises(StagingCorruptError):
        await area.restore(Kept(contents.kept.ref, None))


async def test_a_disk_that_refuses_loses_nothing(area, tmp_path):
    contents = area.stage(None, 0)
    await contents.write(0, b"kept" * 50_000)
    directory = tmp_path / "journal" / "contents"
    directory.rename(tmp_path / "away")
    with pytest.raises(LocalError, match="cannot be written"):
        await accept(area, contents)
    await contents.write(200_000, b" too")
    (tmp_path / "away").rename(directory)
    await accept(area, contents)
    assert await everything(contents) == b"kept" * 50_000 + b" too"
    contents.discard()
    assert area.buffered == area.journal.room.promised == 0


async def test_a_log_that_cannot_be_written_anew_goes_on(area, tmp_path):
    contents = area.stage(None, 0)
    directory, away = tmp_path / "journal" / "contents", tmp_path / "away"

    def take_away(place: str) -> None:
        """The directory, when it is time to write the log anew."""
        if not away.exists() and files_of(tmp_path / "journal")[0].stat().st_size >= LOOK_AT:
            directory.rename(away)
            directory.touch()

    async def write_over_and_over() -> None:
        for round in itertools.count(1):
            await contents.write(0, bytes([round]) * RECORD_SIZE)
            await contents.seal()

    with watch(take_away), pytest.raises(LocalError):
        await write_over_and_over()
    directory.unlink()
    away.rename(directory)
    last = await contents.read(0, 1)
    assert last[0] >= LOOK_AT // RECORD_SIZE
    contents.truncate(1000)
    await contents.write(2000, b"end")
    wanted = (last * 1000).ljust(2000, b"\0") + b"end"
    assert await everything(contents) == wanted
    await accept(area, contents)
    assert await everything(await area.restore(Kept(contents.kept.ref, None))) == wanted


async def test_a_full_journal_is_told_to_write_and_not_to_close(tmp_path):
    limits = Limits(staged=1_000_000, margin=0, patience=0)
    async with open_area(tmp_path, limits=limits) as area:
        small = area.stage(None, 0)
        await small.write(0, b"small")
        large = area.stage(None, 0)
        for offset in range(0, 900_000, 100_000):
            await large.write(offset, bytes(100_000))
        with pytest.raises(JournalFullError) as caught:
            await large.write(900_000, bytes(100_000))
        assert caught.value.errno == 28
        await accept(area, small, 1)
        await accept(area, large, 2)
        assert await everything(large) == bytes(900_000)
        large.discard()
        area.journal.commit({}, [2])
        await area.journal.sync()
        await small.write(0, bytes(500_000))


async def test_a_base_that_shrank_reads_as_zeros(area):
    contents = area.stage(Base(b"ab"), 4)
    assert await everything(contents) == b"ab\0\0"


async def test_concurrent_writers_of_one_file(area):
    contents = area.stage(None, 0)
    area.budget = 1000

    async def writer(start: int) -> None:
        for at in range(start, 40_000, 4_000):
            await contents.write(at, bytes([start // 1000]) * 1000)

    async with trio.open_nursery() as nursery:
        for start in range(0, 4_000, 1_000):
            nursery.start_soon(writer, start)
    wanted = b"".join(bytes([number % 4]) * 1000 for number in range(40))
    assert await everything(contents) == wanted


async def test_appending_goes_behind_whatever_is_there(area):
    contents = area.stage(None, 0)
    await contents.write(None, b"one")
    await contents.write(None, b"two")
    assert await everything(contents) == b"onetwo"


async def test_an_area_of_its_own_leaves_nothing_behind(tmp_path):
    async with StagingArea.open(tmp_path / "staging") as area:
        contents = area.stage(None, 0)
        await contents.write(0, bytes(3 * RECORD_SIZE))
        assert len(list((tmp_path / "staging").iterdir())) == 1
    assert list((tmp_path / "staging").iterdir()) == []


async def test_a_staging_directory_that_cannot_be(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LocalError):
        async with StagingArea.open(tmp_path / "file"):
            pass
