"""The segment cache: what it keeps, and who its fetches belong to."""

import pytest
import trio

from lafsfs.cache.segments import Segment, SegmentCache
from lafsfs.caps import CHKVerifyCap
from lafsfs.errors import LocalError, NotEnoughSharesError
from lafsfs.formats.geometry import CHKGeometry

GEOMETRY = CHKGeometry.plan(1000, 1, 1, 100)
FILE = CHKVerifyCap(bytes(16), bytes(32), 1, 1, 1000)
OTHER = CHKVerifyCap(bytes(16), b"\1" * 32, 1, 1, 1000)


class Fetches:
    """Makes fetches, and counts how they began and ended."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.begun = []
        self.ended = []

    def of(self, number):
        async def fetch():
            self.begun.append(number)
            await trio.sleep(self.seconds)
            self.ended.append(number)
            return Segment(number, GEOMETRY, bytes([number]) * 100)

        return fetch


async def test_a_segment_is_fetched_once():
    fetches = Fetches()
    async with SegmentCache.open(1000) as cache:
        for _ in range(3):
            assert (await cache.get(FILE, 1, fetches.of(1))).ciphertext == b"\1" * 100
        assert cache.size == 100
    assert fetches.ended == [1]


async def test_files_do_not_mix():
    fetches = Fetches()
    async with SegmentCache.open(1000) as cache:
        await cache.get(FILE, 1, fetches.of(1))
        await cache.get(OTHER, 1, fetches.of(1))
    assert fetches.ended == [1, 1]


async def test_the_least_recently_used_goes_first():
    fetches = Fetches()
    async with SegmentCache.open(300) as cache:
        for number in (1, 2, 3, 1, 4):
            await cache.get(FILE, number, fetches.of(number))
        assert cache.size == 300
        assert fetches.begun == [1, 2, 3, 4]
        await cache.get(FILE, 1, fetches.of(1))
        assert fetches.begun == [1, 2, 3, 4]
        await cache.get(FILE, 2, fetches.of(2))
        assert fetches.begun == [1, 2, 3, 4, 2]


async def test_a_segment_larger_than_the_cache_is_passed_on():
    fetches = Fetches()
    async with SegmentCache.open(99) as cache:
        assert len((await cache.get(FILE, 1, fetches.of(1))).ciphertext) == 100
        assert cache.size == 0


async def test_a_segment_is_kept_under_the_number_it_turned_out_to_have():
    fetches = Fetches()
    async with SegmentCache.open(1000) as cache:
        assert (await cache.get(FILE, 0, fetches.of(5))).number == 5
        await cache.get(FILE, 5, fetches.of(5))
        assert fetches.begun == [5]
        await cache.get(FILE, 0, fetches.of(0))
        assert fetches.begun == [5, 0]


async def test_waiting_readers_share_a_flight(autojump_clock):
    fetches = Fetches(1.0)
    async with SegmentCache.open() as cache:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(cache.get, FILE, 1, fetches.of(1))
        assert fetches.begun == [1]
        assert trio.current_time() == 1.0


async def test_the_flight_ends_with_its_last_reader(autojump_clock):
    fetches = Fetches(10.0)

    async def read(seconds):
        with trio.move_on_after(seconds):
            await cache.get(FILE, 1, fetches.of(1))

    async with SegmentCache.open() as cache:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, 1.0)
            nursery.start_soon(read, 2.0)
        await trio.sleep(20)
        assert fetches.ended == []
        await cache.get(FILE, 1, fetches.of(1))  # and the next one begins afresh
        assert fetches.begun == [1, 1]
        assert fetches.ended == [1]


async def test_a_reader_that_comes_as_the_last_one_leaves(autojump_clock):
    fetches = Fetches(10.0)
    async with SegmentCache.open() as cache:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cache.get, FILE, 1, fetches.of(1))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert (await cache.get(FILE, 1, fetches.of(1))).number == 1
    assert fetches.begun == [1, 1]


async def test_an_error_reaches_every_reader_and_is_not_kept():
    failures = []

    async def fail():
        await trio.lowlevel.checkpoint()
        raise NotEnoughSharesError("none")

    async def read():
        try:
            await cache.get(FILE, 1, fail)
        except NotEnoughSharesError as error:
            failures.append(str(error))

    async with SegmentCache.open() as cache:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(read)
        assert failures == ["none", "none"]
        assert (await cache.get(FILE, 1, Fetches().of(1))).number == 1


async def test_a_bug_in_a_fetch_reaches_its_reader_and_the_cache_lives_on():
    async def fail():
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    async with SegmentCache.open() as cache:
        with pytest.raises(ZeroDivisionError):
            await cache.get(FILE, 1, fail)
        assert (await cache.get(FILE, 1, Fetches().of(1))).number == 1


async def test_readers_of_a_closed_cache_do_not_wait_for_ever(autojump_clock):
    errors = []

    async def read():
        try:
            await cache.get(FILE, 1, Fetches(10.0).of(1))
        except LocalError as error:
            errors.append(error)

    async with trio.open_nursery() as nursery, SegmentCache.open() as cache:
        nursery.start_soon(read)
        await trio.sleep(1)
    assert len(errors) == 1


async def test_what_the_user_of_the_cache_raises_comes_out_as_it_is():
    with pytest.raises(ZeroDivisionError):
        async with SegmentCache.open():
            raise ZeroDivisionError


async def test_an_errand_that_fails_is_logged_and_ends_nothing(caplog):
    async def fail():
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    async with SegmentCache.open() as cache:
        cache.run_errand(fail)
        await trio.testing.wait_all_tasks_blocked()
        assert (await cache.get(FILE, 1, Fetches().of(1))).number == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]
