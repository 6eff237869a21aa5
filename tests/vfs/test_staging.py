"""Staged contents against a plain byte array, on the disk and in memory."""

from __future__ import annotations

import errno
import os
import random

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.errors import JournalFullError, LocalError, StagingCorruptError
from lafsfs.vfs import staging
from lafsfs.vfs.staging import RECORD_SIZE, StagingArea


class Base:
    def __init__(self, data: bytes) -> None:
        self.data = data

    async def read(self, offset: int, size: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.data[offset : offset + size]


async def everything(contents) -> bytes:
    return await contents.read(0, contents.size)


@pytest.fixture
async def area(tmp_path):
    async with StagingArea.open(tmp_path / "staging") as opened:
        yield opened


steps = st.lists(
    st.tuples(st.sampled_from(["write", "write", "truncate"]), st.integers(0, 90), st.binary()),
    max_size=20,
)


@given(steps, st.integers(0, 40))
@settings(max_examples=30, deadline=None)
def test_behaves_as_a_file(tmp_path_factory, steps, budget):
    base = bytes(range(50))

    async def scenario() -> None:
        async with StagingArea.open(tmp_path_factory.mktemp("s") / "d", budget) as area:
            contents = area.stage(Base(base), len(base))
            model = bytearray(base)
            for step, at, data in steps:
                if step == "truncate":
                    contents.truncate(at)
                    model = model[:at] + bytes(max(0, at - len(model)))
                elif data:
                    await contents.write(at, data)
                    model += bytes(max(0, at - len(model)))
                    model[at : at + len(data)] = data
                assert await everything(contents) == bytes(model)
            contents.discard()
            assert area.buffered == 0

    trio.run(scenario)


async def test_large_files_go_to_the_disk_sealed(area, tmp_path):
    contents = area.stage(None, 0)
    data = random.Random(1).randbytes(5 * RECORD_SIZE + 1234)
    for offset in range(0, len(data), 100_000):
        await contents.write(offset, data[offset : offset + 100_000])
        assert area.buffered <= 2 * RECORD_SIZE + 100_000
    assert await everything(contents) == data
    on_disk = os.pread(contents._descriptor, 10 * RECORD_SIZE, 0)
    assert len(on_disk) >= 3 * RECORD_SIZE
    assert data[:64] not in on_disk
    assert list((tmp_path / "staging").iterdir()) == []
    assert (tmp_path / "staging").stat().st_mode & 0o777 == 0o700


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


async def test_what_the_disk_changed_is_noticed(area):
    contents = area.stage(None, 0)
    area.budget = 0
    await contents.write(0, b"precious")
    assert await everything(contents) == b"precious"
    area.cache.clear()
    os.pwrite(contents._descriptor, b"!", 3)
    with pytest.raises(StagingCorruptError):
        await everything(contents)


async def test_a_full_disk_loses_nothing(area, tmp_path):
    contents = area.stage(None, 0)
    area.budget = 0
    full = os.open("/dev/full", os.O_RDWR)
    contents._descriptor = os.dup(full)
    with pytest.raises(JournalFullError) as caught:
        await contents.write(0, b"kept")
    assert caught.value.errno == errno.ENOSPC
    assert await everything(contents) == b"kept"
    os.close(contents._descriptor)
    os.close(full)
    contents._descriptor = staging._nameless_file(tmp_path)
    await contents.write(4, b" too")
    assert await everything(contents) == b"kept too"
    assert area.buffered == 0


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


async def test_a_staging_directory_that_cannot_be(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LocalError):
        async with StagingArea.open(tmp_path / "file"):
            pass
