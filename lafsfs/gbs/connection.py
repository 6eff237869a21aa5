"""One persistent HTTP/1.1 connection: one request, one whole reply, at a time.

Theory. h11 knows HTTP and does no I/O; this module carries its bytes over TLS. A reply is read as a
whole, into a buffer whose bound the caller gives, since everything a storage server sends is either
small or was asked for by size. h11 makes and reads heads; bodies pass it by.

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

from lafsfs.errors import ProtocolError, ServerError
from lafsfs.gbs.body import RECORD_SIZE, Body, ConnectionLostError, next_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lafsfs.gbs.nurl import Nurl
    from lafsfs.gbs.stream import TLSStream
    from lafsfs.grid.api import Pieces

MAX_HEAD = 16 << 10  # bytes of status line and headers; lafsfs/gbs/body.py bounds what follows
MAX_INFORMATIONAL = 8  # 1xx replies before the real one
SEND_AT_ONCE = 16 << 10  # bytes of body that a socket takes, whether anybody reads or not

_RANGE = re.compile(rb"bytes ([0-9]{1,20})-([0-9]{1,20})/")

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked. ``headers`` hold secrets, as does ``body``, which is in pieces."""

    method: str
    target: str
    headers: Headers = field(default=(), repr=False)
    body: Pieces = field(default=(), repr=False)

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return sum(map(len, self.body))


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
        self.is_open = True  # whether another request may be sent
        self.idle_since = trio.current_time()
        self._stream = stream
        self._is_sent = False  # all of the body, of which the server may need no more
        self._is_read = False  # all that the server said

    def is_stale(self) -> bool:
        """Whether something arrived while nothing was asked: the server's goodbye, or worse."""
        return self._stream.is_readable()

    async def aclose(self) -> None:
        """End it at once; there is nothing to say goodbye for."""
        self.is_open = False
        await trio.aclose_forcefully(self._stream)

    async def exchange(self, request: Request, limit: int) -> Reply:
        """Send a request and read its reply, of at most ``limit`` bytes of body.

        Raises:
            ConnectionLostError: the connection ended.
            ProtocolError: the reply is not HTTP/1.1, or longer than ``limit``.
        """
        self.is_open = False
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        try:
            if self._stream.has_data():
                raise ProtocolError("it answered before it was asked")
            head = self._begin(http, request)
            if request.size <= SEND_AT_ONCE:
                await self._write(head, *request.body)
                reply = await self._receive(http, limit)
            else:
                reply = await self._send_and_receive(http, (head, *request.body), limit)
        except BaseException:
            await self.aclose()
            raise
        self._finish(http)
        return reply

    def _begin(self, http: h11.Connection, request: Request) -> bytes:
        """Tell h11 of the whole request; returns what goes before the body."""
        length = [("Content-Length", str(request.size))] if request.method != "GET" else []
        headers = [("Host", self.nurl.authority), *request.headers, *length]
        head = http.send(h11.Request(method=request.method, target=request.target, headers=headers))
        for piece in request.body:
            http.send_with_data_passthrough(h11.Data(data=piece))
        http.send(h11.EndOfMessage())
        self._is_sent = False
        return head or b""

    async def _write(self, *parts: bytes) -> None:
        try:
            await self._stream.send_all(*parts)
        except trio.BrokenResourceError:
            text = "the connection was lost while it was asked"
            raise ConnectionLostError(text) from None
        self._is_sent = True

    async def _send_and_receive(self, http: h11.Connection, parts: Pieces, limit: int) -> Reply:
        """Listen while sending: a refusal may come before the server has read everything."""
        outcome: Reply | ServerError | None = None

        async def send() -> None:
            with contextlib.suppress(ConnectionLostError):  # the receiver finds out as well
                await self._write(*parts)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            try:
                outcome = await self._receive(http, limit)
            except ServerError as error:
                outcome = error
            nursery.cancel_scope.cancel()
        if isinstance(outcome, Reply):
            return outcome
        assert outcome is not None
        raise outcome

    async def _receive(self, http: h11.Connection, limit: int) -> Reply:
        """Read up to the end of the reply."""
        for _ in range(MAX_INFORMATIONAL + 1):
            head = await self._next_head(http)
            if isinstance(head, h11.Response):
                length = _check_head(head, limit)
                body = Body(self._stream, http.trailing_data[0], limit, length or _range_of(head))
                data = await (body.read_chunks() if length is None else body.read_by_length(length))
                self._is_read = not body.has_more
                return Reply(head.status_code, head.headers, data)
        raise ProtocolError("it answers with nothing but 1xx")

    async def _next_head(self, http: h11.Connection) -> h11.Event:
        """The next head, of the reply or of an informational one before it."""
        while True:
            try:
                event = http.next_event()
            except h11.RemoteProtocolError as error:
                raise ProtocolError(f"its answer is not HTTP: {_unquoted(error)}") from None
            if isinstance(event, h11.Event):
                return event
            if event is h11.PAUSED:
                raise ProtocolError("its answer is not HTTP: it goes on in another protocol")
            http.receive_data(await next_of(self._stream, RECORD_SIZE))

    def _finish(self, http: h11.Connection) -> None:
        """Make ready for the next request, if the connection is good for one."""
        if not (self._is_sent and self._is_read) or self._stream.has_data():
            return
        if http.our_state is h11.DONE and self._stream.is_drained:  # not DONE if it says it closes
            self.is_open = True
            self.idle_since = trio.current_time()


def _unquoted(error: h11.RemoteProtocolError) -> str:
    """What h11 says, without what the server said: that may be anything, our secrets included."""
    return re.split(r"\s*(?::|\(|\bb?['\"]|bytearray)", str(error), maxsplit=1)[0]


def _check_head(head: h11.Response, limit: int) -> int | None:
    """The length of the body, or None if it comes in chunks.

    Refuses replies whose end could not be told, or which are too long from the start.
    """
    if head.http_version != b"1.1":
        raise ProtocolError(f"it speaks HTTP/{head.http_version.decode('ascii')}, not HTTP/1.1")
    if head.status_code in (204, 304):
        return 0
    names = {name: value for name, value in head.headers}
    if b"transfer-encoding" in names:  # h11 knows none but chunks
        return None
    length = names.get(b"content-length")
    if length is None:
        raise ProtocolError("its answer does not say where it ends")
    if int(length) > limit:
        raise ProtocolError(f"its answer has more than {limit} bytes")
    return int(length)


def _range_of(head: h11.Response) -> int:
    """How many bytes it says to bring, if it says which; nobody has checked that."""
    for name, value in head.headers:
        if name == b"content-range" and (match := _RANGE.match(value)):
            return int(match[2]) - int(match[1]) + 1
    return 0
