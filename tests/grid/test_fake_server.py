"""The fake passes the contract, and each of its knobs does what it says."""

from __future__ import annotations

import pytest
import trio

from lafsfs.errors import (
    NoSuchUploadError,
    ProtocolError,
    ServerFullError,
    ServerReadOnlyError,
    ServerUnavailableError,
)
from tests.fakes import FakeServer, fake_grid
from tests.grid import contract
from tests.grid.contract import IMMUTABLE, LEASE, SECRET, SI, SLOT, writing


class TestContract(contract.StorageServerContract):
    @pytest.fixture
    def server(self):
        return FakeServer("fake")


@pytest.fixture
async def server():
    return FakeServer("fake")


async def test_a_delay_comes_before_the_effect_and_an_answer_delay_after(server, autojump_clock):
    server.delay = 2.0
    server.answer_delay = 5.0
    with trio.move_on_after(1):
        await contract.store(server, b"data")
    assert not server.uploads
    with trio.move_on_after(3):
        await server.allocate(SI, frozenset({0}), 4, SECRET, LEASE)
    assert server.uploads
    start = trio.current_time()
    await server.version()
    assert trio.current_time() - start == 7.0


async def test_a_hanging_server_goes_on_when_it_wakes(server, autojump_clock):
    server.hang()
    with trio.move_on_after(1000) as scope:
        await server.version()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.version)
        await trio.sleep(10)
        server.wake()


async def test_a_server_that_is_down_or_refuses(server):
    server.refuse = {"version"}
    with pytest.raises(ProtocolError):
        await server.version()
    server.down = True
    with pytest.raises(ServerUnavailableError):
        await server.list_shares(IMMUTABLE, SI)


async def test_a_server_that_dies_after_some_calls(server):
    server.fail_after = 2
    await server.version()
    await server.version()
    with pytest.raises(ServerUnavailableError):
        await server.version()


async def test_a_full_server_takes_nothing(server):
    await server.allocate(SI, frozenset({0}), 4, SECRET, LEASE)
    server.full = True
    answer = await server.allocate(SI, frozenset({1}), 4, SECRET, LEASE)
    assert answer.allocated == frozenset()
    with pytest.raises(ServerFullError):
        await server.write_share(SI, 0, SECRET, 0, b"data")
    with pytest.raises(ServerFullError):
        await server.read_test_write(contract.OTHER_SI, SLOT, {0: writing(b"data")}, ())
    assert not server.shares


async def test_capacity_counts_what_is_promised():
    server = FakeServer("small", capacity=10)
    answer = await server.allocate(SI, frozenset({0, 1, 2}), 4, SECRET, LEASE)
    assert answer.allocated == {0, 1}
    assert (await server.version()).available_space == 2


async def test_a_read_only_server_reads(server):
    await contract.store(server, b"data")
    server.read_only = True
    assert await server.read_share(IMMUTABLE, SI, 0, 0, 4) == b"data"
    with pytest.raises(ServerReadOnlyError):
        await server.allocate(SI, frozenset({1}), 4, SECRET, LEASE)


async def test_corrupt_truncate_lose_and_lie(server):
    await contract.store(server, b"data")
    server.corrupt(SI, 0, 0, flip=0x20)
    assert await server.read_share(IMMUTABLE, SI, 0, 0, 4) == b"Data"
    server.truncate(SI, 0, 2)
    assert await server.read_share(IMMUTABLE, SI, 0, 0, 4) == b"Da"
    server.lie = lambda kind, si, shnum, offset, data: b"lies"
    assert await server.read_share(IMMUTABLE, SI, 0, 0, 4) == b"lies"
    server.lose(SI)
    assert await server.list_shares(IMMUTABLE, SI) == frozenset()


async def test_calls_are_counted_and_races_can_be_staged(server):
    async def lose_the_upload(call):
        if call.verb == "write_share":
            server.uploads.clear()

    server.before_call = lose_the_upload
    with pytest.raises(NoSuchUploadError):
        await contract.store(server, b"data")
    assert server.counts() == {"allocate": 1, "write_share": 1}
    assert server.count() == 2


async def test_a_fake_grid_has_distinct_servers():
    grid = fake_grid(5)
    assert len({server.server_id for server in grid.servers}) == 5
    assert set(grid.servers_for(SI)) == set(grid.servers)
