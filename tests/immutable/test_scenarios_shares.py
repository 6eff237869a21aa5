"""Scenarios of reading shares that lie, and shares in odd places (:mod:`tests.immutable.stage`)."""

import random

import pytest
import trio

from lafsfs.errors import NotEnoughSharesError
from lafsfs.grid.api import ShareKind
from tests.immutable.stage import RTT, SEGMENT, SIZE, K

# --- lying ----------------------------------------------------------------------------------------


def _corrupt_block(stage, number):
    stage.servers[0].corrupt(stage.cap.storage_index, 0, 0x24 + number * SEGMENT // K + 7)


def _corrupt_hashes(stage, number):
    share = stage.servers[0].shares[stage.cap.storage_index, 0]
    header_end = 0x24 + SIZE // K
    for offset in range(header_end, len(share.data) - 400, 16):
        stage.servers[0].corrupt(stage.cap.storage_index, 0, offset)


def _corrupt_ueb(stage, number):
    stage.servers[0].corrupt(stage.cap.storage_index, 0, -20)


def _truncated(stage, number):
    stage.servers[0].truncate(stage.cap.storage_index, 0, 0x24 + number * SEGMENT // K + 5)


def _of_another_file(stage, number):
    share = stage.servers[0].shares[stage.cap.storage_index, 0]
    share.data[:] = bytes(random.Random(1).randbytes(len(share.data)))


DAMAGE = [_corrupt_block, _corrupt_hashes, _corrupt_ueb, _truncated, _of_another_file]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
async def test_a_share_that_lies_is_reported_and_never_asked_again(cold, damage, autojump_clock):
    damage(cold, 4)
    liar = cold.servers[0]
    liar.delay = 0.25 * RTT  # the first to answer, and so the one to be asked
    assert await cold.segment(4) == 2 * RTT
    assert liar.count("read_share") > 0
    await trio.sleep(RTT)
    assert len(liar.advisories) == 1
    liar.calls.clear()
    assert await cold.everything() == RTT
    assert liar.calls == []


@pytest.mark.parametrize("damage", DAMAGE[:1] + DAMAGE[3:4], ids=lambda damage: damage.__name__)
async def test_a_share_that_turns_bad_costs_one_round_trip(warm, damage, autojump_clock):
    damage(warm, 4)
    assert await warm.segment(4) == 2 * RTT
    assert await warm.segment(5) == RTT
    await trio.sleep(2 * RTT)
    assert len(warm.servers[0].advisories) == 1
    assert warm.asked()[0] == 1
    health = warm.file.health()
    assert health.bad == {warm.servers[0].name: frozenset({0})}
    assert health.good_shares == 4


async def test_all_that_lie_about_a_segment_are_found_out_at_once(warm, autojump_clock):
    for number in (0, 2):
        warm.servers[number].corrupt(warm.cap.storage_index, number, 0x24 + 4 * SEGMENT // K + 7)
    assert await warm.segment(4) == 2 * RTT
    assert await warm.segment(5) == RTT
    await trio.sleep(2 * RTT)
    assert [len(server.advisories) for server in warm.servers] == [1, 0, 1, 0, 0]
    assert set(warm.file.health().bad) == {warm.servers[0].name, warm.servers[2].name}


async def test_a_late_answer_takes_the_place_of_a_lie(warm, autojump_clock):
    _corrupt_block(warm, 4)
    overdue = warm.overdue(2)
    warm.servers[2].delay = overdue + 1.5 * RTT  # half a round trip after its spare
    assert await warm.segment(4) == overdue + 1.5 * RTT


async def test_of_two_reads_at_once_one_may_fail(warm, autojump_clock):
    for server in warm.servers[:3]:
        shnum = warm.servers.index(server)
        server.corrupt(warm.cap.storage_index, shnum, 0x24 + 4 * SEGMENT // K + 7)
    outcomes = {}

    async def read(number):
        try:
            outcomes[number] = await warm.segment(number)
        except NotEnoughSharesError as error:
            outcomes[number] = str(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, 4)
        nursery.start_soon(read, 7)
    assert outcomes[7] == RTT
    assert outcomes[4].startswith("2 good shares of 5 found")


async def test_one_bad_segment_in_a_run_leaves_the_others(warm, autojump_clock):
    for shnum, server in enumerate(warm.servers[:3]):
        server.corrupt(warm.cap.storage_index, shnum, 0x24 + 4 * SEGMENT // K + 7)
    with pytest.raises(NotEnoughSharesError):
        await warm.everything()
    warm.forget_calls()
    for number in (1, 2, 3, 5, 6, 7, 8, 9):
        assert await warm.segment(number) <= RTT


# --- where shares are -----------------------------------------------------------------------------


async def test_the_same_share_everywhere_is_not_enough(cold, autojump_clock):
    data = bytes(cold.servers[0].shares[cold.cap.storage_index, 0].data)
    for server in cold.servers:
        server.lose(cold.cap.storage_index)
        server.put(ShareKind.IMMUTABLE, cold.cap.storage_index, 0, data)
    with pytest.raises(NotEnoughSharesError, match="1 good shares of 1 found"):
        await cold.segment(0)
    assert sum(count > 0 for count in cold.asked()) == 1  # one was enough to see


async def test_duplicates_are_spares(cold, autojump_clock):
    index = cold.cap.storage_index
    data = bytes(cold.servers[0].shares[index, 0].data)
    for server in cold.servers[3:]:
        server.lose(index)
        server.put(ShareKind.IMMUTABLE, index, 0, data)
    await cold.segment(1)
    used = next(s for n, s in enumerate(cold.servers) if n not in (1, 2) and s.count("read_share"))
    used.down = True
    assert await cold.segment(6) == 2 * RTT


async def test_all_shares_on_one_server(cold, autojump_clock):
    index = cold.cap.storage_index
    first = cold.servers[0]
    for shnum, server in enumerate(cold.servers[1:], 1):
        first.shares[index, shnum] = server.shares.pop((index, shnum))
    assert await cold.segment(2) == 2 * RTT
    assert sum(cold.asked()) == first.count("read_share")
    cold.forget_calls()
    assert await cold.segment(3) == RTT
    assert cold.asked() == [3, 0, 0, 0, 0]


async def test_servers_that_join_late_are_found(cold, autojump_clock):
    early, late = cold.servers[:2], cold.servers[2:]
    cold.broker.set_servers(early)
    with pytest.raises(NotEnoughSharesError, match="2 good shares of 2"):
        await cold.segment(0)
    cold.broker.set_servers([*early, *late])
    assert await cold.segment(0) == 2 * RTT


async def test_servers_that_leave_are_not_missed(warm, autojump_clock):
    for server in warm.servers[:2]:
        server.down = True
    warm.broker.set_servers(warm.servers[2:])
    assert await warm.segment(4) <= 2 * RTT
    assert await warm.segment(5) == RTT


async def test_health_is_known_even_after_a_failure(warm, autojump_clock):
    for server in warm.servers[:3]:
        server.lose(warm.cap.storage_index)
    with pytest.raises(NotEnoughSharesError):
        await warm.segment(1)
    assert warm.file.health().good_shares == 2


async def test_the_quicker_servers_are_chosen(warm, autojump_clock):
    warm.servers[0].delay = 6 * RTT
    for number in range(1, 5):
        await warm.segment(number)
    await trio.sleep(20)
    warm.forget_calls()
    assert await warm.segment(6) == RTT
    assert warm.asked()[0] == 0
