"""Large mutable files are read by segments: what it costs, and that it is right all the same."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import pytest
import trio

from lafsfs.cache.disk import DiskCache
from lafsfs.cache.segments import SegmentCache
from lafsfs.caps import MutableFormat
from lafsfs.errors import NotEnoughSharesError
from lafsfs.mutable.file import MutableFile
from lafsfs.mutable.reader import WHOLE_SIZE
from tests.mutable.conftest import SECRETS

SEGMENT = 131_072  # bytes, of which two shares make one
BLOCK = SEGMENT // 2 + 16  # bytes with the salt
CONTENTS = random.Random(6).randbytes(20 * SEGMENT + 1000)
HOUR = 3600.0  # seconds: no version is asked for again


@asynccontextmanager
async def reader(client, made, *, disk=None, read_only=True):
    """The file as a mount reads it, with a segment cache."""
    cap = made.cap.read_cap() if read_only else made.cap
    async with SegmentCache.open(8 << 20, disk) as segments:
        file = MutableFile(cap, client.broker, SECRETS, encoding=client.encoding, segments=segments)
        await file.version()
        yield file


def record_reads(client):
    """From now on: (offset, size) of everything that servers hand out of shares."""
    reads = []

    def note(kind, storage_index, shnum, offset, data):
        reads.append((offset, len(data)))
        return data

    for server in client.servers:
        server.lie = note
    return reads


@pytest.fixture
async def made(five):
    return await five.create(MutableFormat.MDMF, CONTENTS)


async def test_any_range_is_right(five, made):
    rng = random.Random(1)
    async with reader(five, made) as file:
        for _ in range(60):
            offset, size = rng.randrange(len(CONTENTS) + 10), rng.randrange(3 * SEGMENT)
            assert await file.read(offset, size, HOUR) == CONTENTS[offset : offset + size]
        assert await file.read(len(CONTENTS), 10, HOUR) == b""


async def test_a_small_read_fetches_one_segment(five, made):
    async with reader(five, made) as file:
        reads = record_reads(five)
        assert await file.read(5 * SEGMENT + 7, 100, HOUR) == CONTENTS[5 * SEGMENT + 7 :][:100]
        assert sum(size for _, size in reads) < 2 * (BLOCK + 4096)


async def test_hash_chains_and_trees_are_fetched_once(five, made):
    async with reader(five, made) as file:
        await file.read(0, 100, HOUR)
        reads = record_reads(five)
        await file.read(9 * SEGMENT, 100, HOUR)
        assert [size for _, size in reads] == [BLOCK] * 2


async def test_what_was_read_is_not_fetched_again(five, made):
    async with reader(five, made) as file:
        await file.read(0, 3 * SEGMENT, HOUR)
        calls = five.calls()
        assert await file.read(SEGMENT, SEGMENT, HOUR) == CONTENTS[SEGMENT : 2 * SEGMENT]
        assert five.calls() == calls


async def test_ten_readers_of_one_segment_fetch_it_once(five, made):
    async with reader(five, made) as file:
        reads = record_reads(five)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(file.read, 4 * SEGMENT, 1000, HOUR)
        assert len([size for _, size in reads if size >= BLOCK]) == 2


async def test_prefetched_segments_come_in_runs(five, made):
    async with reader(five, made) as file:
        await file.read(0, 1, HOUR)
        reads = record_reads(five)
        prefetch = file.prefetch(SEGMENT, 19 * SEGMENT)
        while not prefetch.is_done:
            await trio.lowlevel.checkpoint()
        assert len(reads) == 2
        assert await file.read(0, len(CONTENTS) - 1000, HOUR) == CONTENTS[:-1000]
        assert len(reads) == 2
        prefetch.cancel()


async def test_small_files_are_not_prefetched(five):
    small = await five.create(MutableFormat.MDMF, bytes(WHOLE_SIZE), key=1)
    async with reader(five, small) as file:
        assert file.prefetch(0, WHOLE_SIZE) is None


async def test_a_large_sdmf_file_is_one_segment(five):
    contents = CONTENTS[: WHOLE_SIZE + 5]
    sdmf = await five.create(MutableFormat.SDMF, contents, key=1)
    async with reader(five, sdmf) as file:
        assert await file.read(WHOLE_SIZE - 5, 100, HOUR) == contents[-10:]
        calls = five.calls()
        assert await file.read(10, 100, HOUR) == contents[10:110]
        assert five.calls() == calls


async def test_two_bad_shares_of_five_do_not_matter(five, made):
    for server in five.servers[:2]:
        (shnum,) = server.held(made.storage_index)
        server.corrupt(made.storage_index, shnum, 10_000)
    async with reader(five, made) as file:
        assert await file.read(0, 4 * SEGMENT, HOUR) == CONTENTS[: 4 * SEGMENT]


async def test_two_dead_servers_of_five_do_not_matter(five, made):
    async with reader(five, made) as file:
        for server in five.servers[1:3]:
            server.down = True
        assert await file.read(0, 4 * SEGMENT, HOUR) == CONTENTS[: 4 * SEGMENT]


async def test_a_version_that_was_replaced_gives_way_to_the_new_one(five, made):
    new = CONTENTS[::-1]
    async with reader(five, made) as file:
        await file.read(0, 100, HOUR)
        await five.rival().open(made).overwrite(new)
        assert await file.read(10 * SEGMENT, 100, HOUR) == new[10 * SEGMENT :][:100]
        assert await file.read(0, 100, HOUR) == new[:100]


async def test_what_is_here_can_be_read_with_every_server_down(five, made, autojump_clock):
    async with reader(five, made) as file:
        await file.read(0, 2 * SEGMENT, HOUR)
        for server in five.servers:
            server.down = True
        await trio.sleep(100)
        assert await file.read(100, 100) == CONTENTS[100:200]
        with pytest.raises(NotEnoughSharesError):
            await file.read(9 * SEGMENT, 100)


async def test_segments_survive_on_the_disk_as_ciphertext(five, made, tmp_path):
    async with DiskCache.open(tmp_path, b"s" * 32, 1 << 30, reserve=0) as disk:
        async with reader(five, made, disk=disk) as file:
            await file.read(0, 6 * SEGMENT, HOUR)
        await disk.settled()
    async with (
        DiskCache.open(tmp_path, b"s" * 32, 1 << 30, reserve=0) as disk,
        reader(five, made, disk=disk) as file,
    ):
        calls = five.calls()
        assert await file.read(SEGMENT, 4 * SEGMENT, HOUR) == CONTENTS[SEGMENT : 5 * SEGMENT]
        assert five.calls() == calls


async def test_a_write_shows_at_once(five, made):
    async with reader(five, made, read_only=False) as file:
        await file.read(0, 100, HOUR)
        await file.modify(lambda old: b"new" + old[3:])
        assert await file.read(0, 10, HOUR) == b"new" + CONTENTS[3:10]
        assert await file.read(7 * SEGMENT, 10, HOUR) == CONTENTS[7 * SEGMENT :][:10]
