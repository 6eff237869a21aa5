"""Scenarios of reading, on the virtual clock: exact times, and exact counts of what was asked.

The stage is :mod:`tests.immutable.stage`'s. Overdue interval of a server that always took RTT for a
small answer: see ``overdue()``.
"""

import random
from collections import Counter

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from lafsfs.cache.places import PlaceMemory, Places
from lafsfs.errors import NotEnoughSharesError
from lafsfs.grid.broker import Broker
from lafsfs.grid.encoding import Encoding
from lafsfs.immutable import BytesSource, CHKFile, SegmentCache, upload
from tests.fakes import fake_servers
from tests.immutable.grids import SECRETS
from tests.immutable.stage import RTT, SEGMENT, SIZE, K, N, Stage, reader_of, store

# --- round trips ----------------------------------------------------------------------------------


async def test_cold_is_two_round_trips(cold, autojump_clock):
    assert await cold.segment(7) == 2 * RTT
    assert cold.asked("list_shares") == [1] * N
    assert sum(count > 0 for count in cold.asked()) == K


async def test_where_places_are_known_it_is_one_round_trip(cold, autojump_clock):
    places = {server.server_id: {shnum} for shnum, server in enumerate(cold.servers)}
    assert await cold.segment(7, reader_of(cold, places)) == RTT
    assert cold.asked("list_shares") == [0] * N
    assert [count > 0 for count in cold.asked()] == [True, True, True, False, False]


async def test_places_are_noted_for_the_next_life(autojump_clock):
    servers, cap = await store()
    places = PlaceMemory(None, b"")
    async with SegmentCache.open() as cache:
        stage = Stage(servers, Broker(servers), cap, cache)
        await stage.segment(0, CHKFile(cap, stage.broker, cache, places))
        await wait_all_tasks_blocked()
    noted = places.recall(cap.storage_index)
    assert noted == Places(
        {server.server_id: frozenset({shnum}) for shnum, server in enumerate(servers)}, SEGMENT
    )


async def test_a_place_that_is_wrong_costs_its_round_trip_and_no_more(cold, autojump_clock):
    cold.servers[0].lose(cold.cap.storage_index)
    places = {server.server_id: {shnum} for shnum, server in enumerate(cold.servers)}
    assert await cold.segment(5, reader_of(cold, places)) == 2 * RTT
    assert cold.asked("list_shares") == [0] * N


async def test_a_further_segment_is_one_round_trip_and_one_range_of_each_share(
    warm, autojump_clock
):
    assert await warm.segment(5) == RTT
    assert warm.asked() == [1, 1, 1, 0, 0]  # and the primary ones


async def test_consecutive_segments_are_one_range_of_each_share(warm, autojump_clock):
    assert await warm.everything() == RTT
    assert warm.asked() == [1, 1, 1, 0, 0]


async def test_what_is_cached_costs_nothing(warm, autojump_clock):
    await warm.everything()
    warm.forget_calls()
    for server in warm.servers:
        server.down = True
    assert await warm.everything() == 0
    assert warm.asked() == [0] * N


async def test_two_files_do_not_wait_for_each_other(cold, autojump_clock):
    other = reader_of(cold)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cold.segment, 1)
        nursery.start_soon(cold.segment, 8, other)
    assert trio.current_time() == 2 * RTT


async def test_ten_readers_of_one_segment_are_one_fetch(cold, autojump_clock):
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(cold.segment, 3)
    assert trio.current_time() == 2 * RTT
    assert cold.asked("list_shares") == [1] * N
    assert sum(count > 0 for count in cold.asked()) == K


async def test_ten_segments_at_once_of_a_cold_file_take_no_longer_than_one(cold, autojump_clock):
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(cold.segment, number)
    assert trio.current_time() == 2 * RTT
    # header, first block and hashes in three ranges, then nine blocks
    assert max(cold.asked()) <= 3 + 9


async def test_a_thousand_random_readers(cold, autojump_clock):
    chosen = random.Random(4)
    times = []

    async def read():
        await trio.sleep(chosen.random() * 5)
        times.append(await cold.segment(chosen.randrange(10)))

    async with trio.open_nursery() as nursery:
        for _ in range(1000):
            nursery.start_soon(read)
    assert max(times) <= 2 * RTT
    assert sum(cold.asked()) <= K * (3 + 9)


async def test_hashes_are_fetched_once(cold, autojump_clock):
    spans = Counter()
    for server in cold.servers:

        def note(kind, index, shnum, offset, data, server=server):
            spans[server.name, offset] += 1
            return data

        server.lie = note
    for number in (9, 0, 5, 2):
        await cold.segment(number)
    await cold.everything()
    assert set(spans.values()) == {1}


# --- slow and silent ------------------------------------------------------------------------------


async def test_a_slow_server_is_waited_for_as_long_as_it_is_not_overdue(warm, autojump_clock):
    warm.servers[1].delay = warm.overdue(1) - 0.01
    assert await warm.segment(5) == pytest.approx(warm.servers[1].delay)
    assert warm.asked() == [1, 1, 1, 0, 0]


async def test_a_spare_for_a_server_that_is_late(warm, autojump_clock):
    interval = warm.overdue(1)
    warm.servers[1].delay = 100 * interval
    assert await warm.segment(5) == interval + RTT
    assert warm.asked()[:3] == [1, 1, 1]
    assert min(warm.asked()[3:]) == 0  # one spare is enough


async def test_one_hung_server_costs_one_interval_once(warm, autojump_clock):
    interval = warm.overdue(1)
    warm.servers[1].hang()
    assert await warm.segment(1) == interval + RTT
    for number in range(2, 10):
        assert await warm.segment(number) == RTT


async def test_a_server_that_hangs_from_the_beginning_costs_nothing(cold, autojump_clock):
    cold.servers[1].hang()
    assert await cold.segment(1) == 2 * RTT
    assert await cold.everything() == RTT


async def test_a_hung_server_is_not_asked_anew_for_every_file(cold, autojump_clock):
    hung = cold.servers[1]
    hung.hang()
    for number in range(10):
        assert await cold.segment(number, reader_of(cold)) <= 2 * RTT
        await trio.sleep(RTT)
    assert hung.count() <= 5  # the first time, and then when a probe was due


async def test_servers_that_were_down_when_a_file_was_looked_for_help_later(cold, autojump_clock):
    for server in cold.servers[:2]:
        server.down = True
    await cold.segment(0)
    for number, server in enumerate(cold.servers):
        server.down = number in (2, 3)
    assert await cold.segment(1) <= 5 * RTT
    assert await cold.segment(2) == RTT


async def test_a_server_that_hung_is_used_again_once_it_answers(warm, autojump_clock):
    warm.servers[1].hang()
    await warm.segment(1)
    warm.servers[1].wake()
    await trio.sleep(5)
    await warm.segment(2)  # has it probed
    await trio.sleep(RTT)
    warm.forget_calls()
    assert await warm.segment(3) == RTT
    assert warm.asked() == [1, 1, 1, 0, 0]


async def test_all_that_are_asked_first_hang_mid_block(warm, autojump_clock):
    interval = warm.overdue(0)
    for server in warm.servers[:2]:
        server.hang()
    assert await warm.segment(1) == interval + RTT
    assert await warm.segment(2) == RTT


async def test_spares_get_twice_the_time(warm, autojump_clock):
    interval = warm.overdue(0)
    warm.servers[0].hang()
    warm.servers[3].hang()
    assert await warm.segment(1) == interval + 2 * warm.overdue(3) + RTT


async def test_overdue_is_not_failed(warm, autojump_clock):
    interval = warm.overdue(1)
    warm.servers[1].delay = interval + 0.5
    for server in warm.servers[3:]:
        server.delay = 50.0
    assert await warm.segment(5) == interval + 0.5


async def test_nobody_answers(warm, autojump_clock):
    for server in warm.servers:
        server.hang()
    with pytest.raises(NotEnoughSharesError, match="did not answer within"):
        await warm.segment(5)
    assert trio.current_time() < 200
    for server in warm.servers:
        server.wake()
    await trio.sleep(61)
    assert await warm.segment(5) <= 2 * RTT


# --- dead -----------------------------------------------------------------------------------------


async def test_dead_servers_cost_nothing_after_the_first_read(warm, autojump_clock):
    for server in warm.servers[:2]:
        server.down = True
    assert await warm.segment(1) == 2 * RTT  # found out, and replaced
    for number in range(2, 10):
        assert await warm.segment(number) == RTT


async def test_dead_at_connect(cold, autojump_clock):
    for server in cold.servers[:2]:
        server.down = True
        server.delay = 0.0
    assert await cold.segment(1) == 2 * RTT


async def test_dead_mid_block(warm, autojump_clock):
    warm.servers[0].fail_after = 1
    await warm.segment(1)
    assert await warm.segment(2) == 2 * RTT
    assert await warm.segment(3) == RTT


async def test_too_few_is_an_error_at_once_and_says_why(warm, autojump_clock):
    for server in warm.servers[:3]:
        server.down = True
    with pytest.raises(NotEnoughSharesError) as caught:
        await warm.segment(1)
    text = str(caught.value)
    assert text.startswith("2 good shares of 5 found, and 3 are needed")
    assert all(f"{server.name} is down" in text for server in warm.servers[:3])
    for server in warm.servers[:3]:
        server.down = False
    assert await warm.segment(1) <= 3 * RTT  # those in doubt are asked after the others


async def test_a_server_that_was_slow_is_tried_again_in_the_end(warm, autojump_clock):
    warm.servers[0].delay = 6 * RTT
    for number in range(1, 3):
        await warm.segment(number)
    warm.servers[0].delay = RTT
    for number in range(3, 9):
        await trio.sleep(50)
        warm.forget_calls()
        assert await warm.segment(number) == RTT
    assert warm.asked() == [1, 1, 1, 0, 0]


# --- readers that go away -------------------------------------------------------------------------


async def test_a_reader_that_goes_away_cancels_only_its_own(warm, autojump_clock):
    done = []

    async def read(number):
        done.append((number, await warm.segment(number)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, 5)
        with trio.move_on_after(0.5 * RTT):
            async with trio.open_nursery() as others:
                others.start_soon(warm.segment, 5)
                others.start_soon(warm.segment, 6)
        assert warm.cache.flying == 2 * SEGMENT
        await trio.sleep(0.1 * RTT)
        assert warm.cache.flying == SEGMENT
    assert done == [(5, RTT)]


async def test_a_cancelled_read_can_be_repeated(cold, autojump_clock):
    for patience in (0.5, 1.25, 0.5):
        with trio.move_on_after(patience * RTT) as scope:
            await cold.segment(5)
        assert scope.cancelled_caught
        await wait_all_tasks_blocked()
    assert await cold.segment(5) == RTT  # where the shares are is known by now
    assert cold.asked("list_shares") == [1] * N


async def test_prefetching_keeps_going_while_somebody_reads(warm, autojump_clock):
    prefetch = warm.file.prefetch(0, SIZE)
    assert await warm.segment(9) == RTT
    assert prefetch.is_done
    assert warm.asked() == [1, 1, 1, 0, 0]
    assert await warm.everything() == 0


async def test_runs_are_under_way_side_by_side(patient_clock):
    servers = fake_servers(1)
    data = bytes(8 << 20)
    cap = await upload(
        BytesSource(data),
        broker=Broker(servers),
        secrets=SECRETS,
        encoding=Encoding(1, 1, 1),
        convergence=b"",
    )
    servers[0].delay = RTT
    servers[0].calls.clear()
    started = trio.current_time()
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, Broker(servers), cache)
        prefetch = file.prefetch(0, len(data))
        assert await file.read(0, len(data)) == data
        assert prefetch.is_done
    assert trio.current_time() - started == pytest.approx(2 * RTT, abs=0.1)
    assert servers[0].count("read_share") <= 3 + 7  # header, hashes, and eight blocks


async def test_what_is_prefetched_and_not_wanted_any_more_is_cancelled(warm, autojump_clock):
    prefetch = warm.file.prefetch(0, SIZE)
    await trio.sleep(0.5 * RTT)
    prefetch.cancel()
    await trio.sleep(10 * RTT)
    assert warm.cache.size == SEGMENT
    assert warm.cache.flying == 0


async def test_an_explanation_is_there_before_the_read_fails(warm, autojump_clock):
    assert warm.file.explain() == ""
    for server in warm.servers[:3]:
        server.hang()
    with trio.move_on_after(10):
        await warm.segment(5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(warm.segment, 5)
        await trio.sleep(20)
        text = warm.file.explain()
        nursery.cancel_scope.cancel()
    assert text.startswith("2 good shares of 5 found, and 3 are needed: ")
    assert f"share 0 on {warm.servers[0].name} is being waited for" in text


class Line:
    """Our own line: it carries so many bytes in a second, one answer after the other."""

    def __init__(self, servers, rate):
        self.rate = rate
        self.free_at = 0.0
        for server in servers:
            read = server.read_share
            server.read_share = lambda *args, read=read: self.carry(read, *args)

    async def carry(self, read, kind, index, shnum, offset, size):
        data = await read(kind, index, shnum, offset, size)
        self.free_at = max(self.free_at, trio.current_time()) + len(data) / self.rate
        await trio.sleep_until(self.free_at)
        return data


class SharedLine(Line):
    """The same, but what is on its way at once comes evenly, and so ends together."""

    async def carry(self, read, kind, index, shnum, offset, size):
        self.free_at = max(self.free_at, trio.current_time()) + size / self.rate
        data = await read(kind, index, shnum, offset, size)
        while (left := self.free_at - trio.current_time()) > 0:  # noqa: ASYNC110 (it may have grown)
            await trio.sleep(left)
        return data


@pytest.mark.parametrize("line", [Line, SharedLine])
async def test_a_line_that_is_full_is_not_taken_for_servers_that_are_late(line, patient_clock):
    servers = fake_servers(5)
    data = bytes(12 << 20)
    cap = await upload(
        BytesSource(data),
        broker=Broker(servers),
        secrets=SECRETS,
        encoding=Encoding(3, 5, 5),
        convergence=b"",
    )
    for server in servers:
        server.delay = 0.05
    line(servers, 1 << 20)
    broker = Broker(servers)
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        await file.read(0, 10)
        started = trio.current_time()
        prefetch = file.prefetch(0, len(data))
        assert await file.read(0, len(data)) == data
        prefetch.cancel()
        took = trio.current_time() - started
    assert 11.0 < took < 12.0  # the line is full all the time, and carries nothing twice
    assert not any(broker.is_doubtful(server) for server in servers)
