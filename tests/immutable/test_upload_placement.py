"""Which servers get which shares of an upload, on a fake grid."""

import errno

import pytest
import trio

from lafsfs.errors import GridFullError, GridReadOnlyError, NotHappyError
from lafsfs.grid.broker import Broker
from lafsfs.grid.encoding import Encoding
from tests.immutable.grids import SECRETS, empty_grid, spread_of
from tests.immutable.uploading import LARGE, SMALL, nothing_unfinished, put, reads_back


async def test_shares_are_spread_over_the_servers():
    servers, broker = empty_grid(4)
    cap = await put(broker, LARGE)
    assert sorted(map(len, spread_of(servers, cap.storage_index).values())) == [1, 1, 1, 1]
    assert await reads_back(broker, cap, LARGE)


async def test_few_servers_take_several_shares_each():
    servers, broker = empty_grid(2)
    cap = await put(broker, LARGE, Encoding(2, 2, 4))
    assert sorted(map(len, spread_of(servers, cap.storage_index).values())) == [2, 2]


async def test_only_the_first_servers_in_permuted_order_are_asked():
    servers, broker = empty_grid(20)
    cap = await put(broker, LARGE)
    order = broker.servers_for(cap.storage_index)
    assert [server.count() > 0 for server in order] == [True] * 8 + [False] * 12
    assert set(spread_of(servers, cap.storage_index)) == {server.name for server in order[:4]}


async def test_missing_shares_are_added_to_those_that_are_there():
    servers, broker = empty_grid(4)
    cap = await put(broker, LARGE)
    gone = next(server for server in servers if 2 in server.held(cap.storage_index))
    gone.lose(cap.storage_index)
    assert await put(broker, LARGE) == cap
    assert spread_of(servers, cap.storage_index)[gone.name] == {2}
    assert [server.count("write_share") for server in servers if server is not gone] == [1, 1, 1]


async def test_reserving_renews_the_lease_on_what_is_there():
    servers, broker = empty_grid(2)
    encoding = Encoding(2, 2, 4)
    cap = await put(broker, LARGE, encoding)
    servers[0].lose(cap.storage_index, min(servers[0].held(cap.storage_index)))
    for server in servers:
        server.calls.clear()
    assert await put(broker, LARGE, encoding) == cap
    assert [server.count("allocate") for server in servers] == [1, 1]
    assert [server.count("add_lease") for server in servers] == [0, 0]


async def test_every_server_gets_our_lease():
    servers, broker = empty_grid(4)
    cap = await put(broker, LARGE)
    for server in servers:
        for share in server.held(cap.storage_index).values():
            share.leases.clear()
    await put(broker, LARGE)
    for server in servers:
        lease = SECRETS.lease(cap.storage_index, server)
        assert all(lease.renew in s.leases for s in server.held(cap.storage_index).values())


def moved(server, other, index):
    """Let another server hold what this one held."""
    for shnum in server.held(index):
        other.shares[index, shnum] = server.shares.pop((index, shnum))


async def test_shares_held_by_others_than_now_would_get_them_are_left_there():
    servers, broker = empty_grid(4)
    cap = await put(broker, LARGE)
    index = cap.storage_index
    order = broker.servers_for(index)
    first = next(iter(order[0].held(index)))
    moved(order[0], order[2], index)  # which holds two now
    moved(order[1], order[0], index)
    before = spread_of(servers, index)
    for server in servers:
        server.calls.clear()
    assert await put(broker, LARGE) == cap
    assert nothing_unfinished(servers)
    after = spread_of(servers, index)
    # one server had none: a second copy of one share makes it count as well
    assert len(after.pop(order[1].name)) == 1
    assert after == {name: shnums for name, shnums in before.items() if name in after}
    assert sum(server.count("write_share") for server in servers) == 1
    assert first in order[2].held(index)


async def test_shares_further_on_are_found_and_used(autojump_clock):
    servers, broker = empty_grid(8)
    for server in servers:
        server.delay = 1.0
    cap = await put(broker, LARGE)
    index = cap.storage_index
    order = broker.servers_for(index)
    for server, other in zip(order[:4], order[4:], strict=True):
        moved(server, other, index)
    start = trio.current_time()
    for server in servers:
        server.calls.clear()
    assert await put(broker, LARGE) == cap
    # ask around; give back, as all shares lie well; compare, and renew leases beside it
    assert trio.current_time() == start + 3.0
    assert nothing_unfinished(servers)
    assert [server.count("write_share") for server in servers] == [0] * 8
    assert [order[4].counts(), order[0].counts()] == [
        {"list_shares": 1, "read_share": 1, "add_lease": 1},
        {"allocate": 1, "abort_share": 1},
    ]


async def test_servers_that_take_no_more_count_with_what_they_hold():
    for fault in ("full", "read_only", "refuse"):
        servers, broker = empty_grid(4)
        cap = await put(broker, LARGE)
        for server in servers[:2]:
            setattr(server, fault, {"allocate"} if fault == "refuse" else True)
        servers[2].lose(cap.storage_index)
        assert await put(broker, LARGE) == cap
        assert [len(server.held(cap.storage_index)) for server in servers] == [1] * 4
        assert nothing_unfinished(servers)


async def test_a_server_that_refuses_is_replaced(autojump_clock):
    servers, broker = empty_grid(5)
    for server in servers:
        server.delay = 1.0
    servers[1].full = True
    servers[2].read_only = True
    servers[3].refuse = {"allocate"}
    cap = await put(broker, SMALL, Encoding(2, 2, 4))
    spread = spread_of(servers, cap.storage_index)
    assert {name: len(shnums) for name, shnums in spread.items()} == {"fake0": 2, "fake4": 2}
    assert set().union(*spread.values()) == {0, 1, 2, 3}
    assert await reads_back(broker, cap, SMALL)


async def test_servers_that_may_not_be_given_shares_are_named():
    servers, broker = empty_grid(4)
    broker.set_servers(servers, accepts=lambda server: server is servers[2])
    why = r"on 1 server, and 3 are needed.*fake0 has no Grid Manager's certificate; fake1"
    with pytest.raises(NotHappyError, match=why):
        await put(broker, LARGE)
    assert [len(server.calls) > 0 for server in servers] == [False, False, True, False]


async def test_too_few_servers_is_an_error_that_names_the_others():
    servers, broker = empty_grid(4)
    servers[0].down = servers[1].down = True
    with pytest.raises(NotHappyError, match=r"on 2 servers, and 3 are needed.*fake0 is down") as e:
        await put(broker, LARGE)
    assert not isinstance(e.value, GridFullError)
    assert nothing_unfinished(servers)


async def test_full_servers_mean_no_space():
    servers, broker = empty_grid(4)
    for server in servers[:2]:
        server.full = True
    with pytest.raises(GridFullError, match="has no room"):
        await put(broker, LARGE)
    assert nothing_unfinished(servers)
    assert not any(server.shares for server in servers)


async def test_servers_that_accept_no_writes_make_a_read_only_grid():
    servers, broker = empty_grid(4)
    for server in servers:
        server.read_only = True
    with pytest.raises(GridReadOnlyError, match="read-only") as caught:
        await put(broker, LARGE)
    assert caught.value.errno == errno.EROFS
    assert not any(server.shares for server in servers)


async def test_no_servers_at_all():
    with pytest.raises(NotHappyError, match="no storage server"):
        await put(Broker([]), LARGE)


async def test_a_server_that_hangs_while_places_are_sought_is_left_out(autojump_clock):
    servers, broker = empty_grid(4)
    servers[0].hang()
    cap = await put(broker, LARGE)
    assert trio.current_time() == 15.0
    assert "fake0" not in spread_of(servers, cap.storage_index)
    start = trio.current_time()
    assert broker.is_backing_off(servers[0])
    await put(broker, SMALL)  # and the next upload does not wait for it again
    assert trio.current_time() == start


async def test_servers_that_have_been_failing_are_better_than_none():
    servers, broker = empty_grid(4)
    for server in servers[:2]:
        broker.note_failure(server)
    cap = await put(broker, LARGE)
    assert set(spread_of(servers, cap.storage_index)) == {server.name for server in servers}
