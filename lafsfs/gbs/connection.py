"""One persistent HTTP/1.1 connection: one request, one whole reply, at a time.

Theory. h11 knows HTTP and does no I/O; this module carries its bytes over TLS. A reply is read as a
whole, into a buffer whose bound the caller gives, since everything a storage server sends is either
small or was asked for by size.

Rules:

- A connection is good for another request only if the last reply ended exactly where it said, and
  nothing has come since. Anything else closes it: what a server says unasked answers nothing.
- Replies without a length, and HTTP/1.0, are refused: an end cannot be told from a cut.
- No deadlines here: whoever sends a request has one.
- A request that was cancelled or failed leaves its connection closed.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import h11
import trio

from lafsfs.errors import ProtocolError, ServerError, ServerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lafsfs.gbs.nurl import Nurl
    from lafsfs.gbs.tls import TLSStream

RECEIVE_SIZE = 1 << 16  # bytes; a TLS record has at most a quarter of that
MAX_HEAD = 16 << 10  # bytes of status line and headers, or of one chunk's header
MAX_INFORMATIONAL = 8  # 1xx replies before the real one
SEND_TOGETHER = 16 << 10  # bytes of body that are worth copying to travel with the head

Headers = tuple[tuple[str, str], ...]


class ConnectionLostError(ServerUnavailableError):
    """The connection ended before a whole reply had come: what was asked may have been done."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked. ``headers`` hold secrets, as does ``body``."""

    method: str
    target: str
    headers: Headers = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered. Header names are in lower case."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes = field(repr=False)

    def header(self, name: bytes) -> str:
        """The first header of that name, or an empty string."""
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return ""


class Connection:
    """A connection whose server has shown the right key."""

    def __init__(self, stream: TLSStream, nurl: Nurl) -> None:
        self.nurl = nurl
        self.used = False  # whether a reply has come over it
        self.idle_since = trio.current_time()
        self._stream = stream
        self._arrivals = 0  # of the transport, when the request was sent
        self._unsent = 0  # bytes of the body, of which the server may have said it needs no more
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)

    @property
    def is_open(self) -> bool:
        """Whether another request may be sent."""
        return self._http.our_state is h11.IDLE and self._http.their_state is h11.IDLE

    def is_stale(self) -> bool:
        """Whether something arrived while nothing was asked: the server's goodbye, or worse."""
        return self._stream.transport_stream.is_readable()

    async def aclose(self) -> None:
        """End it at once; there is nothing to say goodbye for."""
        await trio.aclose_forcefully(self._stream)

    async def exchange(self, request: Request, limit: int) -> Reply:
        """Send a request and read its reply, of at most ``limit`` bytes of body.

        Raises:
            ConnectionLostError: the connection ended.
            ProtocolError: the reply is not HTTP/1.1, or longer than ``limit``.
        """
        try:
            head = self._begin(request)
            if len(request.body) <= SEND_TOGETHER:
                await self._write(head + request.body)
                reply = await self._receive(limit)
            else:
                await self._write(head)
                reply = await self._send_and_receive(request.body, limit)
        except BaseException:
            await self.aclose()
            raise
        self._finish()
        return reply

    def _begin(self, request: Request) -> bytes:
        """Tell h11 of the whole request; returns what goes before the body."""
        http, body = self._http, request.body
        self._arrivals = self._stream.transport_stream.arrivals
        length = [("Content-Length", str(len(body)))] if request.method != "GET" else []
        headers = [("Host", self.nurl.authority), *request.headers, *length]
        head = http.send(h11.Request(method=request.method, target=request.target, headers=headers))
        http.send(h11.Data(data=body))
        http.send(h11.EndOfMessage())
        self._unsent = len(body) if len(body) > SEND_TOGETHER else 0
        return head or b""

    async def _write(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            text = "the connection was lost while it was asked"
            raise ConnectionLostError(text) from None

    async def _send_and_receive(self, body: bytes, limit: int) -> Reply:
        """Listen while sending: a refusal may come before the server has read everything."""
        outcome: Reply | ServerError | None = None

        async def send() -> None:
            with contextlib.suppress(ConnectionLostError):  # the receiver finds out as well
                await self._write(body)
                self._unsent = 0

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            try:
                outcome = await self._receive(limit)
            except ServerError as error:
                outcome = error
            nursery.cancel_scope.cancel()
        if isinstance(outcome, Reply):
            return outcome
        assert outcome is not None
        raise outcome

    async def _receive(self, limit: int) -> Reply:
        """Read up to the end of the reply."""
        head: h11.Response | None = None
        body = bytearray()
        informational = 0
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Data):
                body += event.data
                if len(body) > limit:
                    raise ProtocolError(f"its answer has more than {limit} bytes")
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return Reply(head.status_code, head.headers, bytes(body))
            elif isinstance(event, h11.Response):
                _check_head(event, limit)
                head = event
            else:
                informational += 1
                if informational > MAX_INFORMATIONAL:
                    raise ProtocolError("it answers with nothing but 1xx")

    async def _next_event(self) -> h11.Event:
        """The next part of the reply."""
        ended = False
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                if ended:
                    text = "it closed the connection in the middle of its answer"
                    raise ConnectionLostError(text) from None
                raise ProtocolError(f"its answer is not HTTP: {_unquoted(error)}") from None
            if isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                text = "it closed the connection without an answer"
                raise ConnectionLostError(text)
            if isinstance(event, h11.Event):
                return event
            try:
                data = await self._stream.receive_some(RECEIVE_SIZE)
            except trio.BrokenResourceError:
                text = "the connection was lost while it answered"
                raise ConnectionLostError(text) from None
            if data and self._stream.transport_stream.arrivals == self._arrivals:
                raise ProtocolError("it answered before it was asked")
            ended = not data
            self._http.receive_data(bytes(data))

    def _finish(self) -> None:
        """Make ready for the next request, if the connection is good for one."""
        if self._unsent or self._http.trailing_data[0]:
            return
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self.used = True
            self.idle_since = trio.current_time()


def _unquoted(error: h11.RemoteProtocolError) -> str:
    """What h11 says, without what the server said: that may be anything, our secrets included."""
    return re.split(r"\s*(?::|\(|\bb?['\"]|bytearray)", str(error), maxsplit=1)[0]


def _check_head(head: h11.Response, limit: int) -> None:
    """Refuse replies whose end could not be told, or which are too long from the start."""
    if head.http_version != b"1.1":
        raise ProtocolError(f"it speaks HTTP/{head.http_version.decode('ascii')}, not HTTP/1.1")
    names = {name: value for name, value in head.headers}
    length = names.get(b"content-length")
    if length is not None and int(length) > limit:
        raise ProtocolError(f"its answer has more than {limit} bytes")
    if length is None and b"transfer-encoding" not in names and head.status_code != 204:
        raise ProtocolError("its answer does not say where it ends")
