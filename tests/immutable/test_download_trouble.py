"""Downloads on a fake grid with servers that are down, late, or hang."""

import pytest
import trio

from lafsfs.errors import NotEnoughSharesError
from lafsfs.grid.broker import Broker
from lafsfs.grid.encoding import Encoding
from lafsfs.immutable import CHKFile, SegmentCache
from tests.immutable.downloading import CONTENTS, holders_in_order, stored


async def test_servers_that_are_down_do_no_harm():
    servers, broker, cap = await stored()
    servers[0].down = servers[2].down = True
    async with SegmentCache.open() as cache:
        assert await CHKFile(cap, broker, cache).read(0, 100_000) == CONTENTS


async def test_too_few_shares_is_an_error_that_says_why():
    servers, broker, cap = await stored()
    servers[0].down = servers[1].down = True
    servers[2].lose(cap.storage_index)
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        with pytest.raises(NotEnoughSharesError) as caught:
            await file.read(0, 10)
        text = str(caught.value)
        assert text.startswith("1 good shares of 1 found, and 2 are needed: ")
        assert "fake0 is down" in text
        assert "fake1 is down" in text
        assert "fake2 has none" in text
        servers[0].down = False  # plugged in again
        assert await file.read(0, 100_000) == CONTENTS


async def test_no_servers_is_too_few_shares():
    _, _, cap = await stored()
    async with SegmentCache.open() as cache:
        with pytest.raises(NotEnoughSharesError, match="no storage server"):
            await CHKFile(cap, Broker([]), cache).read(0, 10)


async def test_shares_that_moved_since_are_found_again():
    servers, broker, cap = await stored()
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        assert await file.read(0, 10) == CONTENTS[:10]
        shares = {n: s for server in servers for n, s in server.held(cap.storage_index).items()}
        for server in servers:
            server.lose(cap.storage_index)
        for shnum in (0, 2):
            servers[shnum].shares[cap.storage_index, 3 - shnum] = shares[3 - shnum]
        assert await file.read(0, 100_000) == CONTENTS


async def test_an_overdue_share_gets_a_spare_and_may_still_win(autojump_clock):
    servers, broker, cap = await stored()
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        await file.read(0, 10)
        slow, _, spare, last = holders_in_order(servers, broker, cap)
        start = trio.current_time()
        slow.delay = 7.0
        spare.delay = last.delay = 20.0
        assert await file.read(20_000, 10) == CONTENTS[20_000:20_010]
        assert trio.current_time() == start + 7.0
        asked = {call.time - start for call in spare.calls + last.calls if call.time > start}
        assert asked == {0.5, 1.5}  # the second is a spare for the first


async def test_a_spare_wins_against_a_server_that_hangs(autojump_clock):
    servers, broker, cap = await stored()
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        await file.read(0, 10)
        start = trio.current_time()
        holders_in_order(servers, broker, cap)[0].hang()
        holders_in_order(servers, broker, cap)[1].hang()
        assert await file.read(20_000, 10) == CONTENTS[20_000:20_010]
        assert trio.current_time() == start + 0.5


async def test_a_server_that_hangs_is_waited_for_once_and_not_for_every_segment(autojump_clock):
    servers, broker, cap = await stored()
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        await file.read(0, 10)
        start = trio.current_time()
        hanging = holders_in_order(servers, broker, cap)[0]
        hanging.hang()
        assert await file.read(10_000, 90_000) == CONTENTS[10_000:]
        assert trio.current_time() == start + 0.5  # one overdue interval


async def test_a_server_that_was_late_is_tried_again_a_while_later(autojump_clock):
    servers, broker, cap = await stored()
    late = holders_in_order(servers, broker, cap)[0]
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        await file.read(0, 10)
        late.delay = 6.0
        await file.read(20_000, 10)
        late.delay = 0.0
        before = late.count("read_share")
        await file.read(40_000, 10)
        assert late.count("read_share") == before
        await trio.sleep(60.0)
        await file.read(60_000, 10)
        assert late.count("read_share") > before
        await file.read(80_000, 10)
        assert late.count("read_share") > before + 1


async def test_a_server_that_hangs_while_shares_are_sought_is_not_waited_for(autojump_clock):
    _, broker, cap = await stored()
    broker.servers_for(cap.storage_index)[0].hang()
    async with SegmentCache.open() as cache:
        assert await CHKFile(cap, broker, cache).read(0, 100_000) == CONTENTS
    assert trio.current_time() == 0.0


async def test_two_shares_of_one_server_are_taken_when_the_other_is_overdue(autojump_clock):
    servers, broker, cap = await stored(2, CONTENTS, Encoding(2, 2, 4, max_segment_size=10_000))
    servers[0].hang()
    async with SegmentCache.open() as cache:
        assert await CHKFile(cap, broker, cache).read(0, 10) == CONTENTS[:10]
    assert trio.current_time() == 0.5  # what the other took, or what a busy machine may take


async def test_when_nobody_answers_there_is_an_end(autojump_clock):
    servers, broker, cap = await stored()
    for server in servers:
        server.hang()
    async with SegmentCache.open() as cache:
        with pytest.raises(NotEnoughSharesError, match="did not answer within 30 s"):
            await CHKFile(cap, broker, cache).read(0, 10)
    assert trio.current_time() == 30.0


async def test_a_server_that_dies_between_segments(autojump_clock):
    servers, broker, cap = await stored()
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        await file.read(0, 10)
        servers[1].down = servers[3].down = True
        assert await file.read(0, 100_000) == CONTENTS
