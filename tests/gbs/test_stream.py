"""TLS as it comes off the wire: records in pieces, and how much of them is waited for."""

from __future__ import annotations

import fcntl
import os
import socket
import ssl
import sys
import termios
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from lafsfs.gbs import tls
from lafsfs.gbs.stream import RECEIVE_SIZE, TLSStream
from tests.gbs.hostile import identity, server_context

RECORD = 16 << 10  # bytes of data in one
BODY = os.urandom(40 * RECORD)


class FarEnd:
    """A server whose bytes go out when a test says so."""

    def __init__(self, transport: trio.SocketStream) -> None:
        self.transport = transport
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = server_context(identity())
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)

    async def do_handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.transport.send_all(self._out.read())
                self._in.write(await self.transport.receive_some())
            else:
                return await self.transport.send_all(self._out.read())

    def encrypted(self, data: bytes) -> bytes:
        """What to send for some data."""
        self._tls.write(data)
        return self._out.read()


class NearEnd:
    """What a client has received."""

    def __init__(self, stream: TLSStream) -> None:
        self.stream = stream
        self.data = b""

    async def read(self, size: int) -> None:
        while len(self.data) < size:
            self.data += await self.stream.receive_some(due=size - len(self.data))


@asynccontextmanager
async def connected():
    """Both ends of a connection over TCP."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = await trio.open_tcp_stream(*listener.socket.getsockname()[:2])
        far = FarEnd(await listener.accept())
        async with TLSStream(near, tls.client_context()) as stream, far.transport:
            async with trio.open_nursery() as handshakes:
                handshakes.start_soon(far.do_handshake)
                handshakes.start_soon(stream.do_handshake)
            yield NearEnd(stream), far, near


@pytest.mark.parametrize("kept_back", [1, 100, 5000, RECORD, RECORD + 1000, 3 * RECORD])
async def test_what_has_come_is_not_waited_for(kept_back):
    """Of a record that came in part, only the rest is still to come."""
    with trio.fail_after(60):
        async with connected() as (near, far, transport), trio.open_nursery() as nursery:
            nursery.start_soon(near.read, len(BODY))
            wire = far.encrypted(BODY)
            await far.transport.send_all(wire[:-kept_back])
            await _at_rest(far.transport, transport)
            assert _wakes_at(transport) <= _unread(transport) + kept_back
            await far.transport.send_all(wire[-kept_back:])
    assert near.data == BODY


async def test_much_is_waited_for_and_the_end_is_noticed():
    """Who expects more is woken neither by a packet nor later than by the end."""
    async with connected() as (near, far, transport), trio.open_nursery() as nursery:
        await far.transport.send_all(far.encrypted(BODY[:RECORD]))
        await near.read(RECORD)
        nursery.start_soon(near.read, len(BODY))
        await trio.testing.wait_all_tasks_blocked()
        assert _wakes_at(transport) == RECEIVE_SIZE
        assert not near.stream.is_readable()
        assert _wakes_at(transport) == 1
        nursery.cancel_scope.cancel()


def _wakes_at(transport: trio.SocketStream) -> int:
    level = transport.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)
    assert isinstance(level, int)
    return level


async def _at_rest(sender: trio.SocketStream, receiver: trio.SocketStream) -> None:
    """All that was sent has come, and whoever receives waits for more than that."""
    await trio.testing.wait_all_tasks_blocked()
    while _unsent(sender) or _unread(receiver) >= _wakes_at(receiver):
        await trio.sleep(0.001)
        await trio.testing.wait_all_tasks_blocked()


def _unread(transport: trio.SocketStream) -> int:
    """Bytes that came and were not taken from the socket."""
    return _count(transport, termios.FIONREAD)


def _unsent(transport: trio.SocketStream) -> int:
    """Bytes given to the socket that the far end has not got."""
    return _count(transport, termios.TIOCOUTQ)


def _count(transport: trio.SocketStream, request: int) -> int:
    answer = fcntl.ioctl(transport.socket.fileno(), request, bytes(4))
    return int.from_bytes(answer, sys.byteorder)
