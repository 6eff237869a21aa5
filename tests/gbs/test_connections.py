"""Connections: kept, bounded, raced, given up and come back to."""

from __future__ import annotations

import gc
import socket
import warnings
from typing import TYPE_CHECKING

import cbor2
import pytest
import trio

from lafsfs.errors import ProtocolError, ServerUnavailableError
from lafsfs.gbs.dialer import Dialer, learn_server_id
from lafsfs.gbs.nurl import Nurl
from lafsfs.gbs.pool import MAX_CONNECTIONS
from lafsfs.grid.api import ShareKind
from tests.gbs.hostile import CBOR, SWISSNUM, Peer, identity, serving

if TYPE_CHECKING:
    from lafsfs.gbs.server import GBSServer

SI = bytes(16)
SHARES = cbor2.dumps({1, 2})


async def willing(peer: Peer) -> None:
    """Answers every question for shares."""
    while True:
        await peer.request()
        await peer.reply(200, SHARES, CBOR)


async def ask(server: GBSServer) -> frozenset[int]:
    return await server.list_shares(ShareKind.IMMUTABLE, SI)


def nurl_of_nobody() -> Nurl:
    """An address on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Nurl(bytes(32), "127.0.0.1", probe.getsockname()[1], SWISSNUM)


# --- kept -----------------------------------------------------------------------------------------


async def test_one_connection_serves_one_request_after_the_other(reach):
    async with serving(willing) as hostile:
        server = reach(hostile.nurl)
        for _ in range(10):
            assert await ask(server) == {1, 2}
        assert (hostile.connections, len(hostile.asked)) == (1, 10)


async def test_a_server_may_close_after_every_answer(reach):
    async def closing(peer: Peer) -> None:
        await peer.request()
        await peer.reply(200, SHARES, CBOR)

    async with serving(closing) as hostile:
        server = reach(hostile.nurl)
        for _ in range(5):
            assert await ask(server) == {1, 2}
        assert hostile.connections == 5


async def test_a_server_may_say_that_it_closes(reach):
    async def closing(peer: Peer) -> None:
        await peer.request()
        await peer.reply(200, SHARES, (*CBOR, ("Connection", "close")))
        await trio.sleep_forever()

    async with serving(closing) as hostile:
        server = reach(hostile.nurl)
        for _ in range(3):
            assert await ask(server) == {1, 2}
        assert hostile.connections == 3


async def test_a_connection_that_goes_with_the_question_is_replaced(reach):
    async def forgetful(peer: Peer) -> None:
        await peer.request()
        await peer.reply(200, SHARES, CBOR)
        await peer.request()

    async with serving(forgetful) as hostile:
        server = reach(hostile.nurl)
        for _ in range(4):
            assert await ask(server) == {1, 2}
        assert (hostile.connections, len(hostile.asked)) == (4, 7)


async def test_an_old_connection_is_not_trusted(patient_clock, reach):
    async with serving(willing) as hostile:
        server = reach(hostile.nurl)
        await ask(server)
        patient_clock.jump(40)
        await ask(server)
        assert hostile.connections == 1
        patient_clock.jump(55)
        await ask(server)
        assert hostile.connections == 2


async def test_connections_that_are_not_needed_are_closed(patient_clock, reach):
    ended = 0

    async def held(peer: Peer) -> None:
        nonlocal ended
        while True:
            try:
                await peer.request()
            except trio.BrokenResourceError:
                ended += 1
                raise
            await trio.sleep(1)
            await peer.reply(200, SHARES, CBOR)

    async with serving(held) as hostile:
        server = reach(hostile.nurl)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask, server)
        assert (hostile.connections, ended) == (5, 0)
        patient_clock.jump(45)
        await ask(server)
        patient_clock.jump(10)
        await ask(server)
        await trio.sleep(1)
        assert (hostile.connections, ended) == (5, 4)


async def test_a_cancelled_request_takes_its_connection_with_it(reach):
    arrived = trio.Event()

    async def slow_once(peer: Peer) -> None:
        await peer.request()
        if peer.number == 0:
            arrived.set()
            await trio.sleep_forever()
        await peer.reply(200, SHARES, CBOR)
        await willing(peer)

    async with serving(slow_once) as hostile:
        server = reach(hostile.nurl)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, server)
            await arrived.wait()
            nursery.cancel_scope.cancel()
        assert await ask(server) == {1, 2}
        assert hostile.connections == 2


# --- bounded --------------------------------------------------------------------------------------


async def test_no_more_connections_than_the_limit(reach):
    open_now = most = 0

    async def counting(peer: Peer) -> None:
        nonlocal open_now, most
        while True:
            await peer.request()
            open_now += 1
            most = max(most, open_now)
            await trio.sleep(0.001)
            open_now -= 1
            await peer.reply(200, SHARES, CBOR)

    async with serving(counting) as hostile:
        server = reach(hostile.nurl)
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask, server)
        assert len(hostile.asked) == 50
        assert 1 < most <= MAX_CONNECTIONS
        assert hostile.connections == MAX_CONNECTIONS


async def test_waiting_in_line_is_not_the_servers_fault(patient_clock, reach):
    async def slow(peer: Peer) -> None:
        while True:
            await peer.request()
            await trio.sleep(20)
            await peer.reply(200, SHARES, CBOR)

    async with serving(slow) as hostile:
        server = reach(hostile.nurl)
        async with trio.open_nursery() as nursery:
            for _ in range(4 * MAX_CONNECTIONS):
                nursery.start_soon(ask, server)
        assert len(hostile.asked) == 4 * MAX_CONNECTIONS


# --- raced ----------------------------------------------------------------------------------------


async def test_the_first_address_that_works_is_used_and_remembered(reach):
    async with serving(willing) as hostile:
        server = reach(nurl_of_nobody(), hostile.nurl)
        assert await ask(server) == {1, 2}
        await server.aclose()
        assert await ask(server) == {1, 2}
        assert hostile.connections == 2


async def test_an_address_that_hangs_is_overtaken(patient_clock, reach):
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")  # accepts, and says nothing
    silent = Nurl(bytes(32), "127.0.0.1", listeners[0].socket.getsockname()[1], SWISSNUM)
    async with serving(willing) as hostile:
        server = reach(silent, hostile.nurl)
        started = trio.current_time()
        assert await ask(server) == {1, 2}
        assert 0.25 <= trio.current_time() - started < 1
        await server.aclose()
        assert await ask(server) == {1, 2}  # now it is the first
        assert trio.current_time() - started < 1
    await listeners[0].aclose()


async def test_an_address_where_another_server_has_moved_in_does_not_matter(reach):
    moved_in = serving(willing, pem=identity(1), pins=identity())
    async with moved_in as other, serving(willing) as hostile:
        server = reach(other.nurl, hostile.nurl)
        assert await ask(server) == {1, 2}
        assert other.asked == []


async def test_each_address_is_told_its_own_swissnum(reach):
    async with serving(willing) as hostile:
        right = hostile.nurl
        other = nurl_of_nobody()
        wrong = Nurl(other.pin, other.host, other.port, b"another")
        server = reach(wrong, right)
        await ask(server)
        assert hostile.asked[0].headers["authorization"] == ["Tahoe-LAFS c3dpc3NudW0="]


async def test_when_no_address_works_all_are_named(reach):
    silent, other = nurl_of_nobody(), nurl_of_nobody()
    async with serving(willing, pins=identity(1)) as hostile:
        server = reach(silent, hostile.nurl, other)
        with pytest.raises(ServerUnavailableError) as caught:
            await ask(server)
    text = str(caught.value)
    assert text.startswith("Alice cannot be reached: ")
    assert f"{silent.authority}: Connection refused" in text
    assert f"{hostile.nurl.authority}: shows another key" in text
    assert f"{other.authority}: Connection refused" in text


async def test_ipv6(patient_clock, reach):
    try:
        probe = await trio.open_tcp_listeners(0, host="::1")
    except OSError:
        pytest.skip("no IPv6 on this machine")
    for listener in probe:
        await listener.aclose()
    async with serving(willing, host="::1") as hostile:
        server = reach(hostile.nurl)
        assert await ask(server) == {1, 2}
        assert hostile.asked[0].headers["host"] == [f"[::1]:{hostile.nurl.port}"]


async def test_a_server_that_has_moved_is_found_at_its_new_address(reach):
    async with serving(willing) as old, serving(willing, pem=identity(1)) as new:
        server = reach(old.nurl)
        await ask(server)
        await server.move([new.nurl])
        await ask(server)
        assert (len(old.asked), len(new.asked)) == (1, 1)


async def test_a_connection_to_the_old_address_is_not_kept(reach):
    arrived, moved = trio.Event(), trio.Event()

    async def slow(peer: Peer) -> None:
        await peer.request()
        arrived.set()
        await moved.wait()
        await peer.reply(200, SHARES, CBOR)
        await trio.sleep_forever()

    async with serving(slow) as old, serving(willing) as new:
        server = reach(old.nurl)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, server)
            await arrived.wait()
            await server.move([new.nurl])
            moved.set()
        await ask(server)
        assert (len(old.asked), len(new.asked)) == (1, 1)


# --- given up, and come back to -------------------------------------------------------------------


async def test_while_a_server_is_down_failure_is_prompt(patient_clock, reach):
    nurl = nurl_of_nobody()
    server = reach(nurl)
    with pytest.raises(ServerUnavailableError, match="Alice cannot be reached"):
        await ask(server)
    started = trio.current_time()
    for _ in range(20):
        with pytest.raises(ServerUnavailableError, match=r"left alone.*refused"):
            await ask(server)
    assert trio.current_time() == started
    assert server.last_failure is not None


async def test_back_off_grows_and_has_an_end(patient_clock):
    dialer = Dialer("Alice", [nurl_of_nobody()])
    waits = []
    for _ in range(8):
        with pytest.raises(ServerUnavailableError, match="cannot be reached"):
            await dialer.dial()
        failed_at = trio.current_time()
        while True:
            try:
                dialer.check()
            except ServerUnavailableError:
                patient_clock.jump(0.25)
            else:
                break
        waits.append(trio.current_time() - failed_at)
    assert waits == [0.25, 0.5, 1, 2, 4, 8, 8, 8]


async def test_a_server_that_comes_back_is_used_again(patient_clock, reach):
    nobody = nurl_of_nobody()
    async with serving(willing) as hostile:
        server = reach(nobody)
        for _ in range(3):
            with pytest.raises(ServerUnavailableError):
                await ask(server)
            patient_clock.jump(8)
        # The address "comes back" as another one, which a dialer cannot tell from the same one.
        await server.move([nobody, hostile.nurl])
        assert await ask(server) == {1, 2}
        assert server.last_failure is None


async def test_only_one_caller_tries_whether_a_server_is_back(patient_clock, reach):
    tries = 0

    async def refusing(stream: trio.SocketStream) -> None:
        nonlocal tries
        tries += 1
        await trio.sleep(1)
        await stream.aclose()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nurl = Nurl(bytes(32), "127.0.0.1", listeners[0].socket.getsockname()[1], SWISSNUM)
    server = reach(nurl)

    async def fail() -> None:
        with pytest.raises(ServerUnavailableError):
            await ask(server)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, refusing, listeners)
        await fail()
        await trio.sleep(1)
        async with trio.open_nursery() as askers:
            for _ in range(20):
                askers.start_soon(fail)
        assert tries == 2
        nursery.cancel_scope.cancel()


async def test_a_hung_server_costs_one_deadline(patient_clock, reach):
    async def hung(peer: Peer) -> None:
        await peer.request()
        await trio.sleep_forever()

    async with serving(hung) as hostile:
        server = reach(hostile.nurl)
        started = trio.current_time()

        async def fail() -> None:
            with pytest.raises(ServerUnavailableError, match="Alice"):
                await ask(server)

        async with trio.open_nursery() as nursery:
            for _ in range(3 * MAX_CONNECTIONS):
                nursery.start_soon(fail)
        assert trio.current_time() - started == pytest.approx(30, abs=0.5)
        assert len(hostile.asked) == MAX_CONNECTIONS


async def test_a_handshake_that_hangs_has_a_deadline(patient_clock, reach):
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nurl = Nurl(bytes(32), "127.0.0.1", listeners[0].socket.getsockname()[1], SWISSNUM)
    with pytest.raises(ServerUnavailableError, match="no connection within 10 s"):
        await ask(reach(nurl))
    with pytest.raises(ServerUnavailableError, match="no connection within 10 s"):
        await learn_server_id(nurl)
    await listeners[0].aclose()


async def test_a_protocol_error_is_no_reason_to_stay_away(reach):
    async def odd(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.reply(418)

    async with serving(odd) as hostile:
        server = reach(hostile.nurl)
        for _ in range(3):
            with pytest.raises(ProtocolError):
                await ask(server)
        assert len(hostile.asked) == 3


def test_a_server_needs_an_address():
    with pytest.raises(ValueError, match="address"):
        Dialer("nobody", [])


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope just before the scheduler's ``step``-th turn."""

    def __init__(self, step: int, scope: trio.CancelScope) -> None:
        self.step = step
        self.scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.step -= 1
        if self.step == 0:
            self.scope.cancel()


async def test_whoever_is_cancelled_at_whatever_moment_leaves_no_connection_open(reach):
    async with serving(willing) as hostile:
        step, finished = 0, False
        while not finished:
            step += 1
            server = reach(hostile.nurl)
            with trio.CancelScope() as scope:
                instrument = CancelAtStep(step, scope)
                trio.lowlevel.add_instrument(instrument)
                try:
                    assert await ask(server) == {1, 2}
                    finished = instrument.step > 0
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            await server.aclose()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                gc.collect()
            assert [str(warning.message) for warning in caught] == []
        assert step > 10
