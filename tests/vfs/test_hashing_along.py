"""The convergent key of a file that was hashed while it was written is the same as any other's."""

from __future__ import annotations

import random

import pytest

from lafsfs.errors import StagingCorruptError
from lafsfs.immutable.source import BytesSource
from lafsfs.journal import Journal, Put
from lafsfs.vfs.staging.area import StagingArea
from lafsfs.vfs.staging.kept import Kept
from lafsfs.vfs.staging.staged import RECORD_SIZE
from tests.fakes import fake_grid
from tests.vfs.conftest import WallClock, open_maker

SIZE = 3 * RECORD_SIZE + 12_345
DATA = random.Random(5).randbytes(SIZE)


@pytest.fixture
async def maker(broker):
    async with open_maker(broker, WallClock()) as made:
        yield made


@pytest.fixture
async def area(maker, tmp_path):
    async with (
        Journal.open(tmp_path / "journal", bytes(32)) as journal,
        StagingArea.over(journal, hashed=maker.begin_hash) as opened,
    ):
        yield opened


async def written(area, *writes: tuple[int, bytes]):
    contents = area.stage(None, 0)
    for offset, data in writes:
        if data:
            for at in range(0, len(data), 128 << 10):
                await contents.write(offset + at, data[at : at + (128 << 10)])
        else:
            contents.truncate(offset)
        await contents.seal()
    return contents


class Counted:
    """A snapshot that counts what is read of it."""

    def __init__(self, snapshot) -> None:
        self.snapshot = snapshot
        self.size = snapshot.size
        self.hashed = snapshot.hashed
        self.read_bytes = 0

    async def read(self, offset: int, size: int) -> bytes:
        self.read_bytes += size
        return await self.snapshot.read(offset, size)


async def uploaded(maker, contents, wanted: bytes) -> Counted:
    """Upload; the capability is the one that the contents alone lead to."""
    with contents.snapshot() as snapshot:
        counted = Counted(snapshot)
        cap = await maker.upload(counted)
        assert cap == await maker.upload(BytesSource(wanted))
        assert await maker.node(cap).read(0, len(wanted)) == wanted
    return counted


async def test_what_was_written_in_order_is_read_once(area, maker):
    contents = await written(area, (0, DATA))
    await contents.seal()
    counted = await uploaded(maker, contents, DATA)
    assert counted.hashed.length == SIZE
    assert counted.read_bytes == SIZE


async def test_what_waits_in_memory_is_hashed_later(area, maker):
    contents = await written(area, (0, DATA))
    await contents.seal()
    more = DATA[:70_000]
    await contents.write(SIZE, more)
    counted = await uploaded(maker, contents, DATA + more)
    assert counted.hashed.length == SIZE
    assert counted.read_bytes == SIZE + 2 * len(more)


@pytest.mark.parametrize(
    ("late", "offset"),
    [(b"over the first bytes", 0), (b"x", SIZE - 1), (b"further", 2 * RECORD_SIZE)],
)
async def test_what_was_written_again_is_hashed_again(area, maker, late, offset):
    contents = await written(area, (0, DATA))
    await contents.seal()
    await contents.write(offset, late)
    wanted = bytearray(DATA)
    wanted[offset : offset + len(late)] = late
    counted = await uploaded(maker, contents, bytes(wanted))
    assert counted.hashed is None
    await contents.seal()
    await uploaded(maker, contents, bytes(wanted))


async def test_what_was_cut_and_grew_again_is_hashed_again(area, maker):
    contents = await written(area, (0, DATA))
    await contents.seal()
    contents.truncate(RECORD_SIZE)
    contents.truncate(SIZE)
    await contents.seal()
    wanted = DATA[:RECORD_SIZE].ljust(SIZE, b"\0")
    assert (await uploaded(maker, contents, wanted)).hashed is None


async def test_a_gap_ends_what_is_hashed(area, maker):
    half = SIZE // 2
    contents = await written(area, (half, DATA[half:]), (0, DATA[:half]))
    await contents.seal()
    assert (await uploaded(maker, contents, DATA)).hashed is None
    sparse = await written(area, (0, DATA), (SIZE + 100, b"behind a hole"))
    await sparse.seal()
    wanted = DATA + bytes(100) + b"behind a hole"
    assert (await uploaded(maker, sparse, wanted)).hashed.length == SIZE


async def test_a_file_of_one_segment_is_not_hashed_along(area, maker):
    contents = await written(area, (0, DATA[:100_000]))
    await contents.seal()
    assert (await uploaded(maker, contents, DATA[:100_000])).hashed is None


async def test_another_encoding_does_not_use_it(area, maker):
    contents = await written(area, (0, DATA))
    await contents.seal()
    async with open_maker(fake_grid(3), WallClock(), max_segment_size=1 << 17) as other:
        counted = await uploaded(other, contents, DATA)
    assert counted.hashed.length == SIZE
    assert counted.read_bytes == 2 * SIZE


async def test_a_restored_file_is_hashed_when_it_is_uploaded(area, maker):
    contents = await written(area, (0, DATA))
    await contents.seal()
    kept = contents.describe()
    area.journal.commit({1: Put(b"", kept.ref)})
    again = await area.restore(Kept(kept.ref, None))
    assert (await uploaded(maker, again, DATA)).hashed is None


async def test_contents_that_changed_on_the_disk_are_not_uploaded(area, maker, tmp_path):
    """The key was made from other bytes: they must not be encrypted under it."""
    contents = await written(area, (0, DATA))
    await contents.seal()
    (path,) = (tmp_path / "journal" / "contents").iterdir()
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with contents.snapshot() as snapshot, pytest.raises(StagingCorruptError):
        await maker.upload(snapshot)


async def test_a_random_key_is_used_again(maker):
    """What is written down before an upload has it repeated exactly."""
    async with open_maker(fake_grid(3), WallClock(), convergence=None) as other:
        assert other.begin_hash() is None
        first = await other.upload(BytesSource(DATA[:1000]), key=bytes(16))
        assert first == await other.upload(BytesSource(DATA[:1000]), key=bytes(16))
        assert first != await other.upload(BytesSource(DATA[:1000]))
    convergent = await maker.upload(BytesSource(DATA[:1000]))
    assert convergent == await maker.upload(BytesSource(DATA[:1000]), key=bytes(16))
