"""The order of servers, what is remembered of them, and their space; and what they are shown."""

from __future__ import annotations

import dataclasses

import pytest
import trio

from lafsfs.caps import MutableFormat
from lafsfs.crypto import hashes
from lafsfs.errors import NotHappyError
from lafsfs.grid import broker
from lafsfs.grid.api import ShareKind
from lafsfs.grid.broker import Broker, Space
from lafsfs.grid.encoding import Encoding
from lafsfs.grid.secrets import ClientSecrets
from lafsfs.immutable import BytesSource, upload
from lafsfs.mutable.file import create
from tests import golden_data
from tests.fakes import FakeServer, fake_grid, fake_servers, golden_grid
from tests.golden_data import OBJECTS
from tests.grid.contract import SI


def golden_servers():
    return [
        FakeServer(s.name, server_id=s.server_id, permutation_seed=s.permutation_seed)
        for s in golden_data.SERVERS.values()
    ]


async def test_the_order_is_that_of_the_permuted_positions():
    grid = Broker(golden_servers())
    for storage_index in (bytes([i]) * 16 for i in range(20)):
        order = grid.servers_for(storage_index)
        positions = [hashes.permuted_position(storage_index, s.permutation_seed) for s in order]
        assert positions == sorted(positions)
        assert set(order) == set(grid.servers)


async def test_stock_spread_its_shares_over_the_servers_in_our_order():
    """With ten shares on five servers the i-th server in order holds the i-th share of a slot."""
    grid = Broker(golden_servers())
    for golden in (o for o in OBJECTS.values() if o.kind in ("SDMF", "MDMF")):
        order = [server.name for server in grid.servers_for(golden.storage_index)]
        shares = golden_data.shares_of(golden.storage_index)
        for position, name in enumerate(order):
            assert (name, position) in shares


async def test_behaviour_is_remembered_and_forgiven(autojump_clock):
    grid = fake_grid(2)
    server, other = grid.servers
    assert not grid.is_backing_off(server)
    waits = []
    for _ in range(8):
        grid.note_failure(server)
        waits.append(grid.health(server).retry_at - trio.current_time())
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert grid.is_backing_off(server)
    assert not grid.is_backing_off(other)
    await trio.sleep(60)
    assert not grid.is_backing_off(server)
    grid.note_success(server, 2.0)
    grid.note_success(server, 4.0)
    assert grid.health(server).failures == 0
    assert grid.health(server).latency == pytest.approx(2.5)
    assert grid.servers_for(SI) == Broker(grid.servers).servers_for(SI)


async def test_an_answer_is_overdue_by_what_is_usual_for_its_server():
    grid = fake_grid(3)
    quick, slow, unknown = grid.servers
    assert grid.overdue_after(quick, 0) == broker.UNKNOWN_OVERDUE
    assert grid.expected(quick, 0) is None
    grid.note_success(quick, 0.001)
    assert grid.overdue_after(quick, 0) == broker.SOONEST_OVERDUE
    assert grid.overdue_after(unknown, 0) == broker.SOONEST_OVERDUE
    grid.note_success(slow, 2.0)
    assert grid.overdue_after(slow, 0) == 6.0  # the first answer says nothing of how they vary
    assert grid.overdue_after(unknown, 0) == 6.0  # it may be as slow as the slowest
    for _ in range(50):
        grid.note_success(slow, 2.0)
    assert grid.overdue_after(slow, 0) == pytest.approx(4.0)  # but never sooner than twice
    for latency in (1.0, 3.0) * 20:
        grid.note_success(slow, latency)
    assert 5.0 < grid.overdue_after(slow, 0) < 7.0
    assert grid.expected(slow, 0) == pytest.approx(2.0, abs=0.2)


async def test_large_answers_are_judged_by_their_pace():
    grid = fake_grid(1)
    (server,) = grid.servers
    megabyte = 1 << 20
    assert grid.overdue_after(server, megabyte) == (
        broker.UNKNOWN_OVERDUE + megabyte / broker.UNKNOWN_RATE
    )
    grid.note_success(server, 1.0)
    assert grid.overdue_after(server, megabyte) == 3.0 + megabyte / broker.UNKNOWN_RATE
    for _ in range(50):
        grid.note_success(server, 10.0, megabyte)
    assert grid.overdue_after(server, megabyte) == pytest.approx(20.0)
    assert grid.overdue_after(server, 2 * megabyte) == pytest.approx(40.0)
    assert grid.expected(server, megabyte // 2) == pytest.approx(5.0)
    assert grid.overdue_after(server, 0) == 3.0
    assert grid.overdue_after(server, megabyte // 32 + 1) == 3.0  # no sooner than a small one
    assert grid.expected(server, megabyte // 32 + 1) == grid.health(server).latency == 1.0


async def test_what_is_asked_for_at_once_shares_the_line():
    grid = fake_grid(1)
    (server,) = grid.servers
    megabyte = 1 << 20
    with grid.carrying(megabyte), grid.carrying(9 * megabyte):
        assert grid.carried == 10 * megabyte
        for _ in range(50):
            grid.note_success(server, 10.0, megabyte, grid.carried)
    assert grid.carried == 0
    assert grid.overdue_after(server, megabyte) == pytest.approx(2.0)  # alone it takes a second
    assert grid.overdue_after(server, 10 * megabyte) == pytest.approx(20.0)


async def test_who_is_late_is_in_doubt_until_it_carries_something_again(autojump_clock):
    grid = fake_grid(1)
    (server,) = grid.servers
    assert not grid.take_probe(server)
    grid.note_late(server)
    grid.note_late(server)  # with another answer, in the same pause
    assert grid.health(server).lates == 1
    assert grid.is_doubtful(server)
    assert not grid.is_backing_off(server)  # it did not fail
    waits = []
    for _ in range(8):
        waits.append(grid.health(server).retry_at - trio.current_time())
        assert not grid.take_probe(server)
        await trio.sleep(waits[-1])
        assert grid.take_probe(server)
    assert waits == [1, 1, 2, 4, 8, 16, 32, 60]
    grid.note_success(server, 0.1)  # it answers a small question, but does it read?
    assert grid.is_doubtful(server)
    grid.note_success(server, 0.1, 100)
    assert not grid.is_doubtful(server)


async def test_who_fails_is_in_doubt_until_it_answers_again(autojump_clock):
    grid = fake_grid(1)
    (server,) = grid.servers
    grid.note_failure(server)
    await trio.sleep(3600)
    assert grid.is_doubtful(server)
    assert grid.take_probe(server)
    grid.note_success(server, 0.1)
    assert not grid.is_doubtful(server)


async def test_space_is_the_sum_of_those_that_answer():
    servers = fake_servers(3)
    for server, capacity in zip(servers, (100, 1000, 10_000), strict=True):
        server.capacity = capacity
    servers[0].put(ShareKind.IMMUTABLE, SI, 0, b"x" * 40)
    servers[1].down = True
    grid = Broker(servers)
    assert await grid.space() == Space(total=10_100, available=10_060)
    assert grid.is_backing_off(servers[1])


async def test_who_hangs_has_the_space_it_had_and_nobody_waits_for_it_long(autojump_clock):
    servers = fake_servers(3)
    for server, capacity in zip(servers, (100, 1000, 10_000), strict=True):
        server.capacity = capacity
    grid = Broker(servers)
    assert await grid.space() == Space(total=11_100, available=11_100)
    servers[1].hang()
    servers[2].capacity = 5000
    started = trio.current_time()
    assert await grid.space() == Space(total=6100, available=6100)
    assert trio.current_time() - started <= 2
    for server in servers:
        server.wake()
        server.down = True
    assert await grid.space() == Space(total=6100, available=6100)
    servers[0].down = False
    assert await grid.space() == Space(total=100, available=100)


class OneVolume(FakeServer):
    """A server that shares its volume with others."""

    async def version(self):
        return dataclasses.replace(await super().version(), volume="disk 1")


async def test_a_volume_that_servers_share_counts_once():
    servers = [OneVolume("a", capacity=100), OneVolume("b", capacity=100), FakeServer("c")]
    servers[2].capacity = 7
    assert await Broker(servers).space() == Space(total=107, available=107)


async def test_the_golden_grid_can_be_read_and_broken(tmp_path):
    grid = golden_grid(tmp_path)
    golden = OBJECTS["imm-56"]
    found = set()
    for server in grid.servers:
        for shnum in await server.list_shares(ShareKind.IMMUTABLE, golden.storage_index):
            data = await server.read_share(
                ShareKind.IMMUTABLE, golden.storage_index, shnum, 0, 10**6
            )
            name = server.name.rpartition("/")[2]
            raw = golden_data.shares_of(golden.storage_index)[name, shnum].read_bytes()
            assert data == raw[12:-72]
            found.add(shnum)
    assert found == set(range(golden_data.N))


async def test_the_broker_space_of_two_directories_on_one_disk_is_that_disks(tmp_path):
    grid = golden_grid(tmp_path)
    one = await grid.servers[0].version()
    space = await grid.space()
    assert space.total == one.total_space
    assert 0 < space.available <= space.total


# --- secrets --------------------------------------------------------------------------------------


def test_each_server_is_shown_secrets_of_its_own():
    secrets = ClientSecrets(b"lease secret of the client", b"convergence secret")
    one, two = fake_servers(2)
    assert secrets.lease(SI, one) == secrets.lease(SI, one)
    assert secrets.lease(SI, one) != secrets.lease(SI, two)
    assert secrets.lease(SI, one) != secrets.lease(bytes(16), one)
    assert secrets.upload_secret(SI, one) != secrets.upload_secret(SI, two)
    slot = secrets.slot(b"k" * 16, SI, one)
    assert slot.lease == secrets.lease(SI, one)
    assert slot.write_enabler == hashes.ssk_write_enabler(b"k" * 16, one.server_id)
    assert (slot.lease.renew, slot.lease.cancel) == hashes.lease_secrets(
        b"lease secret of the client", SI, one.server_id
    )


def test_secrets_are_not_shown():
    secrets = ClientSecrets(b"lease secret of the client", b"convergence secret")
    (server,) = fake_servers(1)
    shown = repr((secrets, secrets.lease(SI, server), secrets.slot(b"k" * 16, SI, server)))
    assert "secret of" not in shown
    assert "b'" not in shown


# --- changing servers, and who may be given shares ------------------------------------------------


async def test_servers_change_and_what_is_known_of_those_that_stay_is_kept(autojump_clock):
    one, two, three = fake_servers(3)
    grid = Broker([one, two])
    grid.note_failure(one)
    grid.note_failure(two)
    grid.set_servers([two, three])
    assert grid.servers == (two, three)
    assert set(grid.servers_for(SI)) == {two, three}
    assert grid.is_backing_off(two)
    grid.set_servers([one])
    assert not grid.is_backing_off(one)


async def test_preferred_servers_come_first_in_permuted_order():
    servers = fake_servers(6)
    order = Broker(servers).servers_for(SI)
    grid = Broker(servers)
    grid.set_servers(servers, preferred={order[4], order[2]})
    assert grid.servers_for(SI) == (order[2], order[4], order[0], order[1], order[3], order[5])


async def test_the_policy_is_asked_each_time():
    servers = fake_servers(2)
    grid = Broker(servers)
    assert all(map(grid.accepts_new_shares, servers))
    permitted = {servers[0]}
    grid.set_servers(servers, accepts=lambda server: server in permitted)
    assert [grid.accepts_new_shares(s) for s in servers] == [True, False]
    permitted.add(servers[1])
    assert grid.accepts_new_shares(servers[1])


async def test_new_shares_go_only_where_they_may(autojump_clock):
    servers = fake_servers(5)
    grid = Broker(servers)
    secrets = ClientSecrets(b"l" * 32, b"c" * 32)
    file = await create(
        MutableFormat.SDMF, b"one", broker=grid, secrets=secrets, encoding=Encoding(1, 1, 5)
    )
    barred = servers[:2]
    grid.set_servers(servers, accepts=lambda server: server not in barred)
    source = BytesSource(b"x" * 1000)
    cap = await upload(
        source, broker=grid, secrets=secrets, encoding=Encoding(1, 3, 5), convergence=None
    )
    assert not any(server.held(cap.storage_index) for server in barred)
    await file.overwrite(b"two")
    for server in servers:  # what is there already is kept up to date everywhere
        assert len(server.held(file.storage_index)) == 1
    new = await create(
        MutableFormat.SDMF, b"new", broker=grid, secrets=secrets, encoding=Encoding(1, 1, 5)
    )
    assert not any(server.held(new.storage_index) for server in barred)
    assert sum(len(server.held(new.storage_index)) for server in servers) == 5
    grid.set_servers(servers, accepts=lambda server: False)
    with pytest.raises(NotHappyError, match="none of 5"):
        await upload(
            source, broker=grid, secrets=secrets, encoding=Encoding(1, 1, 5), convergence=None
        )
