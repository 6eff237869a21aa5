"""Connections from anybody: accepted, encrypted, bounded in number and patience, and contained.

Theory. hypercorn's Trio worker (``hypercorn.trio.tcp_server.TCPServer``) speaks HTTP on one
connection. It is used connection by connection here, and not through ``hypercorn.trio.serve``,
because that one lets an error on one connection end the server, sets no bound to their number, and
waits for ever, and beyond any cancellation, for a client that does not take its answer.

Rules:

- Under hypercorn and TLS lies a :class:`GuardedStream`. What is sent must be taken at some pace,
  else the connection is broken off there. Closing it frees whoever waits for it.
- With too many connections, the one that was silent for longest is closed for a new one.
- An error on a connection ends that connection, and is logged.
"""

from __future__ import annotations

import logging
import ssl
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import h11
import trio
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr, wrap_app

from lafsfs.errors import ConfigError
from lafsfs.gbs.service.limits import MAX_HEADERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lafsfs.gbs.service.limits import Limits

log = logging.getLogger(__name__)

SEND_PIECE = 64 << 10  # bytes that must be taken before the clock of a slow client starts again
BUSY_WAIT = 0.1  # seconds until another look for a connection to close


def server_context(pem: Path) -> ssl.SSLContext:
    """How every connection is encrypted. Raises ConfigError where the file has no such key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(pem)
    except (ssl.SSLError, OSError):
        raise ConfigError(f"{pem} does not hold a certificate and its private key") from None
    return context


class GuardedStream(trio.abc.HalfCloseableStream):
    """A connection that gives up on a peer which takes nothing."""

    def __init__(self, stream: trio.SocketStream, connections: Connections) -> None:
        self.socket = stream.socket  # hypercorn asks it for addresses
        self._stream = stream
        self._connections = connections

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all. Raises BrokenResourceError where that goes too slowly."""
        limits = self._connections.limits
        with memoryview(data) as view:
            for start in range(0, len(view), SEND_PIECE):
                piece = view[start : start + SEND_PIECE]
                with trio.move_on_after(limits.grace + len(piece) / limits.slowest) as scope:
                    await self._stream.send_all(piece)
                if scope.cancelled_caught:
                    self.close_now()
                    raise trio.BrokenResourceError("the peer takes nothing")
                self._connections.touch(self)

    async def wait_send_all_might_not_block(self) -> None:
        """As the stream below."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As the stream below."""
        data = await self._stream.receive_some(max_bytes)
        self._connections.touch(self)
        return data

    async def send_eof(self) -> None:
        """As the stream below."""
        await self._stream.send_eof()

    def close_now(self) -> None:
        """Close; whoever waits for this connection gets a ClosedResourceError."""
        self._connections.remove(self)
        self._stream.socket.close()

    async def aclose(self) -> None:
        """Close."""
        self._connections.remove(self)
        await self._stream.aclose()


class Connections:
    """All open connections, the one that was silent for longest first."""

    def __init__(self, limits: Limits, changed: Callable[[int], object]) -> None:
        """``changed``: told how many there are."""
        self.limits = limits
        self._open: OrderedDict[GuardedStream, float] = OrderedDict()
        self._changed = changed
        self._left = trio.Event()

    async def add(self, stream: trio.SocketStream) -> GuardedStream:
        """Take a new connection in, once there is room."""
        try:
            while len(self._open) >= self.limits.connections and not self._close_silent():
                with trio.move_on_after(BUSY_WAIT):
                    await self._one_left()
        except trio.Cancelled:
            await trio.aclose_forcefully(stream)
            raise
        guarded = GuardedStream(stream, self)
        self._open[guarded] = trio.current_time()
        self._changed(len(self._open))
        return guarded

    def touch(self, stream: GuardedStream) -> None:
        """Note that a connection was not silent."""
        if stream in self._open:
            self._open[stream] = trio.current_time()
            self._open.move_to_end(stream)

    def remove(self, stream: GuardedStream) -> None:
        """Forget a connection."""
        if self._open.pop(stream, None) is not None:
            self._changed(len(self._open))
            self._left.set()

    def _close_silent(self) -> bool:
        """Close the connection that was silent for longest, if that was long."""
        stream, touched = next(iter(self._open.items()))
        if trio.current_time() - touched < self.limits.silent:
            return False
        stream.close_now()
        return True

    async def all_closed(self) -> None:
        """Wait until there is no connection."""
        while self._open:
            await self._one_left()

    async def _one_left(self) -> None:
        if self._left.is_set():
            self._left = trio.Event()
        await self._left.wait()

    def close_all(self) -> None:
        """Close what is open."""
        for stream in list(self._open):
            stream.close_now()


class GuardedListener(trio.abc.Listener[GuardedStream]):
    """A listener whose connections are bounded in number."""

    def __init__(self, listener: trio.SocketListener, connections: Connections) -> None:
        self._listener = listener
        self._connections = connections

    async def accept(self) -> GuardedStream:
        """The next connection."""
        return await self._connections.add(await self._listener.accept())

    async def aclose(self) -> None:
        """Accept no more."""
        await self._listener.aclose()


class HTTPWorker:
    """hypercorn's Trio worker, for one ASGI application."""

    def __init__(self, app: Callable[..., Any], limits: Limits) -> None:
        self._app = wrap_app(app, 0, "asgi")
        self._config = _config(limits)
        self._context = WorkerContext(None)

    async def handle(self, stream: GuardedStream | trio.SSLStream[GuardedStream]) -> None:
        """Serve one connection to its end."""
        try:
            await _Connection(
                self._app,
                self._config,
                self._context,
                ConnectionState({}),
                stream,  # type: ignore[arg-type]  # anything with a socket
            )
        except Exception:
            log.exception("a connection ended with an error")

    async def stop(self) -> None:
        """Close connections that wait for a request, and the others after their answers."""
        await self._context.terminated.set()


class _Connection(TCPServer):
    """hypercorn's connection: with HTTP/1.1 and nothing else, and over when its client is gone.

    hypercorn's own would keep waiting for the idle timeout of a connection that has ended, and let
    clients change to other protocols, of which one cannot be got rid of.
    """

    async def run(self) -> None:
        """Serve it."""
        try:
            with trio.CancelScope() as scope:
                await self._begin()
                async with TaskGroup() as self._task_group:
                    self.protocol = self._http()  # type: ignore[assignment]  # not its wrapper
                    await self.idle_task.restart(self._task_group, self._idle_timeout)
                    await self._read_data()
                    scope.cancel()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it is gone, which is its right
        finally:
            await self._close()

    async def _begin(self) -> None:
        if isinstance(self.stream, trio.SSLStream):
            with trio.move_on_after(self.config.ssl_handshake_timeout):
                await self.stream.do_handshake()
                return
            raise trio.BrokenResourceError("no TLS handshake in time")

    def _http(self) -> _HTTP1:
        is_tls = isinstance(self.stream, trio.SSLStream)
        lower: Any = self.stream.transport_stream if is_tls else self.stream
        client, server = (
            parse_socket_addr(lower.socket.family, name())
            for name in (lower.socket.getpeername, lower.socket.getsockname)
        )
        return _HTTP1(
            self.app,
            self.config,
            self.context,
            self._task_group,
            ConnectionState(self.state),
            is_tls,
            client,
            server,
            self.protocol_send,
        )


class _HTTP1(H11Protocol):
    """hypercorn's HTTP/1.1, deaf to upgrades (which RFC 9110, 7.8 allows)."""

    async def _check_protocol(self, event: h11.Request) -> None:
        """Change to no other protocol."""

    async def _create_stream(self, request: h11.Request) -> None:
        headers = [(name, value) for name, value in request.headers if name != b"upgrade"]
        await super()._create_stream(
            h11.Request(
                method=request.method,
                target=request.target,
                headers=headers,
                http_version=request.http_version,
            )
        )


def _config(limits: Limits) -> Config:
    config = Config()
    config.alpn_protocols = ["http/1.1"]
    config.errorlog = logging.getLogger(f"{__name__}.http")
    config.h11_max_incomplete_size = MAX_HEADERS
    config.include_server_header = False
    config.keep_alive_max_requests = 1 << 62
    config.keep_alive_timeout = limits.idle
    config.ssl_handshake_timeout = limits.handshake
    return config
