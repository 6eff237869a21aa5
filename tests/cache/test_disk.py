"""The disk cache: bounded, least recently used first out, and safe against everything."""

from __future__ import annotations

import os
import random
import stat

import pytest

from lafsfs.cache.disk import DiskCache
from lafsfs.errors import ConfigError

SECRET = b"s" * 32
KB = 1 << 10
MB = 1 << 20


def opened(path, max_bytes=MB, secret=SECRET, **more):
    return DiskCache.open(path, secret, max_bytes, **{"reserve": 0, **more})


def blobs(path):
    return [p for p in path.glob("*/*") if p.parent.name != "drafts"]


def noise(number, size=8 * KB):
    return random.Random(number).randbytes(size)


async def filled(path, numbers, **more):
    """A directory with these blobs of one shelf, each used later than the one before."""
    async with opened(path, **more) as cache:
        for number in numbers:
            cache.shelf(b"file").keep(number, noise(number))
        await cache.settled()
    spread_out(path)


def spread_out(path, step=1_000_000_000):
    """Let the times of use be a second apart: the file system's clock is coarse."""
    order = sorted(blobs(path), key=lambda p: p.stat().st_mtime_ns)
    for age, blob in enumerate(reversed(order)):
        when = blob.stat().st_mtime_ns - age * step
        os.utime(blob, ns=(when, when))


async def there(path, numbers, **more):
    async with opened(path, **more) as cache:
        shelf = cache.shelf(b"file")
        return [n for n in numbers if await shelf.load(n) == noise(n)]


async def test_what_was_kept_is_there_at_once_and_after_a_remount(tmp_path):
    async with opened(tmp_path) as cache:
        shelf = cache.shelf(b"file")
        assert await shelf.load(7) is None
        shelf.keep(7, noise(7))
        assert await shelf.load(7) == noise(7)
        await cache.settled()
        assert await shelf.load(7) == noise(7)
        assert await cache.shelf(b"other").load(7) is None
        assert await shelf.load(8) is None
    assert await there(tmp_path, [7]) == [7]


async def test_shows_nothing_and_opens_for_nobody_else(tmp_path):
    async with opened(tmp_path) as cache:
        cache.shelf(b"file").keep(1, b"plain text " * 999)
        await cache.settled()
    (blob,) = blobs(tmp_path)
    assert b"plain text" not in blob.read_bytes()
    assert stat.S_IMODE(blob.stat().st_mode) == 0o600
    assert stat.S_IMODE(blob.parent.stat().st_mode) == 0o700
    async with opened(tmp_path, secret=b"t" * 32) as stranger:
        assert await stranger.shelf(b"file").load(1) is None


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "grow", "swap"])
async def test_what_was_damaged_is_deleted(tmp_path, damage):
    await filled(tmp_path, [1, 2])
    one, two = blobs(tmp_path)
    raw = bytearray(one.read_bytes())
    if damage == "flip":
        raw[len(raw) // 2] ^= 1
    elif damage == "cut":
        del raw[-1:]
    elif damage == "empty":
        raw.clear()
    elif damage == "grow":
        raw += b"0"
    else:
        raw = bytearray(two.read_bytes())
    one.write_bytes(raw)
    assert len(await there(tmp_path, [1, 2])) == 1
    assert not one.exists()
    assert two.exists()


async def test_stays_within_its_bound(tmp_path):
    async with opened(tmp_path, 100 * KB) as cache:
        for number in range(60):
            cache.shelf(b"file").keep(number, noise(number))
            await cache.settled()
            assert cache.size <= 100 * KB
    taken = sum(p.stat().st_blocks * 512 for p in blobs(tmp_path))
    assert 60 * KB < taken <= 100 * KB
    assert 59 in await there(tmp_path, range(60))


async def test_a_smaller_bound_is_kept_from_the_start(tmp_path):
    await filled(tmp_path, range(20))
    async with opened(tmp_path, 40 * KB) as cache:
        await cache.settled()
        cache.shelf(b"file").keep(99, noise(99))
        await cache.settled()
        assert cache.size <= 40 * KB
    assert len(blobs(tmp_path)) <= 4


async def test_the_least_recently_used_goes_first_over_remounts(tmp_path):
    await filled(tmp_path, range(8))
    assert await there(tmp_path, [0]) == [0]  # used once more
    async with opened(tmp_path, 8 * 12 * KB) as cache:
        await cache.settled()
        cache.shelf(b"file").keep(8, noise(8))
        await cache.settled()
    left = await there(tmp_path, range(9))
    assert 0 in left
    assert 8 in left
    assert 1 not in left


async def test_a_flood_is_not_all_kept(tmp_path):
    async with opened(tmp_path, 64 * MB) as cache:
        shelf = cache.shelf(b"file")
        for number in range(24):
            shelf.keep(number, bytes(MB))
        assert await shelf.load(15) == bytes(MB)
        assert await shelf.load(16) is None
        await cache.settled()
        shelf.keep(16, bytes(MB))
        assert await shelf.load(16) == bytes(MB)


async def test_what_is_too_big_is_not_kept(tmp_path):
    async with opened(tmp_path, 100 * KB) as cache:
        cache.shelf(b"file").keep(1, bytes(90 * KB))
        await cache.settled()
        assert await cache.shelf(b"file").load(1) is None


async def test_what_others_added_counts(tmp_path):
    async with opened(tmp_path, 200 * KB) as one, opened(tmp_path, 200 * KB) as two:
        for number in range(200):
            (one, two)[number % 2].shelf(b"file").keep(number, noise(number, 4 * KB))
            await one.settled()
            await two.settled()
    assert sum(p.stat().st_blocks * 512 for p in blobs(tmp_path)) <= 250 * KB


async def test_what_vanished_is_a_miss(tmp_path):
    async with opened(tmp_path) as cache:
        shelf = cache.shelf(b"file")
        shelf.keep(1, noise(1))
        await cache.settled()
        for blob in blobs(tmp_path):
            blob.unlink()
        assert await shelf.load(1) is None
        assert cache.size == 0
        shelf.keep(1, noise(1))
        await cache.settled()
        assert await shelf.load(1) == noise(1)


async def test_a_full_volume_is_left_alone(tmp_path, caplog):
    async with opened(tmp_path, reserve=1 << 60) as cache:
        cache.shelf(b"file").keep(1, noise(1))
        await cache.settled()
        assert await cache.shelf(b"file").load(1) is None
        cache.shelf(b"file").keep(1, noise(1))  # not even tried
        assert await cache.shelf(b"file").load(1) is None
    assert blobs(tmp_path) == []
    assert caplog.text == ""


async def test_a_disk_that_refuses_is_only_a_pity(tmp_path, caplog):
    async with opened(tmp_path) as cache:
        (tmp_path / "drafts").rmdir()
        (tmp_path / "drafts").write_bytes(b"")
        cache.shelf(b"file").keep(1, noise(1))
        await cache.settled()
        assert await cache.shelf(b"file").load(1) is None
    assert "for a while" in caplog.text


async def test_drafts_of_the_dead_are_deleted(tmp_path):
    await filled(tmp_path, [1])
    old, new = tmp_path / "drafts" / "old", tmp_path / "drafts" / "new"
    for draft in (old, new):
        draft.write_bytes(b"half")
    os.utime(old, (1, 1))
    async with opened(tmp_path) as cache:
        cache.shelf(b"file").keep(2, noise(2))
        await cache.settled()
    assert (old.exists(), new.exists()) == (False, True)


async def test_a_directory_that_cannot_be_is_said(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot cache in"):
        async with opened(tmp_path / "file"):
            pass
