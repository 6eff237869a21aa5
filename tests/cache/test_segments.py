"""The segment cache: what it keeps, in which runs it fetches, and who its fetches belong to."""

from contextlib import asynccontextmanager

import pytest
import trio

from lafsfs.cache.disk import DiskCache
from lafsfs.cache.segments import MAX_FLYING, ROOM_PATIENCE, Segment, SegmentCache
from lafsfs.errors import LocalError, NotEnoughSharesError
from lafsfs.formats.geometry import CHKGeometry

GEOMETRY = CHKGeometry.plan(1000, 1, 1, 100)


class Source:
    """A file of ten segments; tells of each run when it began and when it ended."""

    def __init__(self, identity=b"file", seconds=0.0, longest_run=4, geometry=GEOMETRY):
        self.identity = identity
        self.seconds = seconds
        self.longest_run = longest_run
        self.geometry = geometry
        self.begun = []
        self.ended = []
        self.error = None
        self.instead = {}  # number -> the number that it turns out to be

    async def fetch(self, geometry, numbers, deliver):
        self.begun.append(tuple(numbers))
        for number in numbers:
            await trio.sleep(self.seconds)
            if self.error is not None:
                raise self.error
            number = self.instead.get(number, number)
            deliver(Segment(number, geometry, bytes([number]) * geometry.segment_size))
        self.ended.append(tuple(numbers))


async def test_a_segment_is_fetched_once():
    source = Source()
    async with SegmentCache.open(1000) as cache:
        for _ in range(3):
            assert (await cache.get(source, 1)).ciphertext == b"\1" * 100
        assert cache.size == 100
    assert source.ended == [(1,)]


async def test_files_do_not_mix_and_neither_do_ways_to_cut_them():
    cut = CHKGeometry.plan(1000, 1, 1, 50)
    sources = [Source(b"a"), Source(b"b"), Source(b"a", geometry=cut)]
    async with SegmentCache.open(1000) as cache:
        for source in sources:
            segment = await cache.get(source, 1)
            assert segment.offset == source.geometry.segment_size
    assert [source.ended for source in sources] == [[(1,)]] * 3


async def test_the_least_recently_used_goes_first():
    source = Source()
    async with SegmentCache.open(300) as cache:
        for number in (1, 2, 3, 1, 4):
            await cache.get(source, number)
        assert cache.size == 300 == cache.max_bytes
        assert source.begun == [(1,), (2,), (3,), (4,)]
        await cache.get(source, 1)
        assert len(source.begun) == 4
        await cache.get(source, 2)
        assert source.begun[4:] == [(2,)]


async def test_a_segment_larger_than_the_cache_is_passed_on():
    async with SegmentCache.open(99) as cache:
        assert len((await cache.get(Source(), 1)).ciphertext) == 100
        assert cache.size == 0


async def test_a_segment_is_kept_under_the_number_it_turned_out_to_have():
    source = Source()
    source.instead[0] = 5
    async with SegmentCache.open(1000) as cache:
        assert (await cache.get(source, 0)).number == 5
        await cache.get(source, 5)
        assert source.begun == [(0,)]
        source.instead.clear()
        assert (await cache.get(source, 0)).number == 0


# --- runs -----------------------------------------------------------------------------------------


async def test_a_prefetch_fetches_in_runs_what_is_not_there_yet():
    source = Source()
    async with SegmentCache.open(1000) as cache:
        await cache.get(source, 2)
        prefetch = cache.prefetch(source, range(10))
        assert not prefetch.is_done
        await trio.testing.wait_all_tasks_blocked()
        assert prefetch.is_done
        assert sorted(source.ended[1:]) == [(0, 1), (3, 4, 5, 6), (7, 8, 9)]
        assert cache.prefetch(source, range(10)).is_done
        assert cache.size == 1000


async def test_each_segment_of_a_run_is_there_as_soon_as_it_has_come(autojump_clock):
    source = Source(seconds=1.0)
    async with SegmentCache.open(1000) as cache:
        prefetch = cache.prefetch(source, range(4))
        for number in range(4):
            await cache.get(source, number)
            assert trio.current_time() == number + 1
        prefetch.cancel()
    assert source.begun == [(0, 1, 2, 3)]


async def test_a_run_ends_when_nobody_wants_the_rest_of_it(autojump_clock):
    source = Source(seconds=1.0)
    async with SegmentCache.open(1000) as cache:
        prefetch = cache.prefetch(source, range(4))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.get, source, 1)
            await trio.sleep(0.5)
            prefetch.cancel()
            prefetch.cancel()
        await trio.sleep(10)
        assert cache.size == 200
        assert source.ended == []
        assert cache.flying == 0


async def test_a_newer_prefetch_takes_over_without_a_break(autojump_clock):
    source = Source(seconds=1.0)
    async with SegmentCache.open(1000) as cache:
        prefetch = cache.prefetch(source, range(4))
        await trio.sleep(1.5)
        prefetch = prefetch.then(cache.prefetch(source, range(2, 6)))
        await trio.sleep(3)
        assert prefetch.is_done
    assert sorted(source.ended) == [(0, 1, 2, 3), (4, 5)]


async def test_an_error_in_the_middle_of_a_run_leaves_what_came_before_it(autojump_clock):
    source = Source(seconds=1.0)
    async with SegmentCache.open(1000) as cache:
        prefetch = cache.prefetch(source, range(4))
        await cache.get(source, 0)
        source.error = NotEnoughSharesError("none")
        with pytest.raises(NotEnoughSharesError):
            await cache.get(source, 3)
        assert prefetch.is_done
        assert cache.size == 100
        assert (await cache.get(source, 0)).number == 0


async def test_no_more_is_started_than_there_is_room_for(autojump_clock):
    huge = CHKGeometry.plan(16 * MAX_FLYING, 1, 1, MAX_FLYING // 2)
    source = Source(seconds=1.0, longest_run=1, geometry=huge)
    source.error = NotEnoughSharesError("none")  # no need to make the bytes
    async with SegmentCache.open(1000) as cache:
        prefetch = cache.prefetch(source, range(4))
        assert cache.flying == MAX_FLYING
        with pytest.raises(NotEnoughSharesError):
            await cache.get(source, 9)
        assert trio.current_time() == 2.0  # had to wait for room
        source.seconds = 100.0
        prefetch.then(cache.prefetch(source, range(4)))
        with pytest.raises(NotEnoughSharesError):
            await cache.get(source, 9)
        assert trio.current_time() == 2.0 + ROOM_PATIENCE + 100.0  # but not for ever
    assert sorted(source.begun) == sorted([(0,), (1,), (9,)] * 2)


# --- who a fetch belongs to -----------------------------------------------------------------------


async def test_waiting_readers_share_a_flight(autojump_clock):
    source = Source(seconds=1.0)
    async with SegmentCache.open() as cache:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(cache.get, source, 1)
        assert source.begun == [(1,)]
        assert trio.current_time() == 1.0


async def test_the_flight_ends_with_its_last_reader(autojump_clock):
    source = Source(seconds=10.0)

    async def read(seconds):
        with trio.move_on_after(seconds):
            await cache.get(source, 1)

    async with SegmentCache.open() as cache:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, 1.0)
            nursery.start_soon(read, 2.0)
        await trio.sleep(20)
        assert source.ended == []
        await cache.get(source, 1)  # and the next one begins afresh
        assert source.begun == [(1,), (1,)]
        assert source.ended == [(1,)]


async def test_a_reader_that_comes_as_the_last_one_leaves(autojump_clock):
    source = Source(seconds=10.0)
    async with SegmentCache.open() as cache:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cache.get, source, 1)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert (await cache.get(source, 1)).number == 1
    assert source.begun == [(1,), (1,)]


async def test_an_error_reaches_every_reader_and_is_not_kept():
    source = Source()
    source.error = NotEnoughSharesError("none")
    failures = []

    async def read():
        try:
            await cache.get(source, 1)
        except NotEnoughSharesError as error:
            failures.append(str(error))

    async with SegmentCache.open() as cache:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(read)
        assert failures == ["none", "none"]
        source.error = None
        assert (await cache.get(source, 1)).number == 1


async def test_a_bug_in_a_fetch_reaches_its_reader_and_the_cache_lives_on():
    source = Source()
    source.error = ZeroDivisionError()
    async with SegmentCache.open() as cache:
        with pytest.raises(ZeroDivisionError):
            await cache.get(source, 1)
        source.error = None
        assert (await cache.get(source, 1)).number == 1


async def test_readers_of_a_closed_cache_do_not_wait_for_ever(autojump_clock):
    errors = []

    async def read():
        try:
            await cache.get(Source(seconds=10.0), 1)
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
        assert (await cache.get(Source(), 1)).number == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]


# --- on the disk ----------------------------------------------------------------------------------


@asynccontextmanager
async def cache_over(directory, max_bytes=1000):
    """A memory cache over a disk cache."""
    async with (
        DiskCache.open(directory, b"secret", 1 << 20, reserve=0) as disk,
        SegmentCache.open(max_bytes, disk) as cache,
    ):
        yield cache
        await disk.settled()


async def test_what_was_fetched_once_is_there_when_nobody_answers(tmp_path):
    async with cache_over(tmp_path) as cache:
        await cache.get(Source(), 1)
        await cache.get(Source(), 2)
    source = Source()
    source.error = NotEnoughSharesError("none")
    async with cache_over(tmp_path) as cache:
        assert (await cache.get(source, 2)).ciphertext == b"\2" * 100
        assert (await cache.get(source, 1)).ciphertext == b"\1" * 100
        with pytest.raises(NotEnoughSharesError):
            await cache.get(source, 3)
        other = Source(b"another file")
        await cache.get(other, 1)
        assert other.begun == [(1,)]


async def test_only_the_gaps_of_a_run_are_fetched(tmp_path):
    async with cache_over(tmp_path) as cache:
        await cache.get(Source(), 1)
    source = Source(longest_run=9)
    async with cache_over(tmp_path, 0) as cache:
        prefetch = cache.prefetch(source, range(5))
        assert (await cache.get(source, 4)).ciphertext == b"\4" * 100
        prefetch.cancel()
    assert source.begun == [(0,), (2, 3, 4)]
