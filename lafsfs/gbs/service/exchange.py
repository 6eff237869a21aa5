"""One request and its answer, as ASGI messages (asgi.readthedocs.io, HTTP).

Rules:

- A body is read only after its sender was authorized, into a bound that the endpoint gives, and not
  slower than :class:`~lafsfs.gbs.service.limits.Limits` allows.
- Until an answer is sent, what is left of the body is received and thrown away: hypercorn passes
  bodies through a short queue, and sends nothing while it waits for room in it.
- A client that has gone is nobody's error: :class:`ClientGoneError` ends the request in silence.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from lafsfs.errors import CallerError, ServerError
from lafsfs.gbs.service.limits import DRAINED, PIECE
from lafsfs.gbs.service.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lafsfs.gbs.service.limits import Limits

    Message = dict[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]


log = logging.getLogger(__name__)


class ClientGoneError(CallerError):
    """The client has closed the connection; there is nobody to answer."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a long answer is read from: ``size`` bytes from ``start``, by ``read(offset, size)``."""

    read: Callable[[int, int], Awaitable[bytes]]
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: ``body``, or what comes from ``source``."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)
    source: Source | None = None

    @property
    def size(self) -> int:
        """Bytes that the client will get."""
        return len(self.body) if self.source is None else self.source.size


class Exchange:
    """A request, and the way back to who sent it."""

    def __init__(self, scope: dict[str, Any], receive: Receive, send: Send, limits: Limits) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["raw_path"].decode("ascii")
        self.received = 0  # bytes of the body
        self.sent = 0  # bytes of the answer's
        self._headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        self._receive = receive
        self._send = send
        self._limits = limits
        self._started = trio.current_time()
        self._ahead = b""  # of the body, received and not read
        self._is_whole = False  # whether the body has been received to its end
        self._is_answered = False  # whether all but the end of the answer is sent

    def headers(self, name: bytes) -> list[bytes]:
        """All headers of that name, which is in lower case."""
        return [value for key, value in self._headers if key.lower() == name]

    def header(self, name: bytes) -> bytes:
        """The only header of that name, or nothing. Raises Refusal where there are several."""
        values = self.headers(name)
        if len(values) > 1:
            raise Refusal(400, f"more than one header {name.decode()}")
        return values[0] if values else b""

    # --- the body ---------------------------------------------------------------------------------

    async def read(self, size: int) -> bytes:
        """The next ``size`` bytes of the body; fewer, or none, at its end.

        Raises:
            Refusal: 408, for a sender too slow.
            ClientGoneError: it has gone.
        """
        parts, length = [self._ahead], len(self._ahead)
        while length < size and not self._is_whole:
            parts.append(await self._piece())
            length += len(parts[-1])
        data = b"".join(parts)
        self._ahead = data[size:]
        return data[:size]

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises Refusal, 413, where it has more than ``limit`` bytes."""
        body = await self.read(limit + 1)
        if len(body) > limit:
            raise Refusal(413, f"at most {limit} bytes are taken here")
        return body

    async def _piece(self) -> bytes:
        patience = self._limits.grace + self.received / self._limits.slowest
        with trio.move_on_at(self._started + patience):
            return await self._next()
        raise Refusal(408, "the body came too slowly")

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] != "http.request":
            self._is_whole = True
            raise ClientGoneError("the client has closed the connection")
        self._is_whole = not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        self.received += len(piece)
        return piece

    async def drain(self) -> None:
        """Read what is left of a moderate body, so that its sender comes to hear the answer."""
        end = self.received + DRAINED
        with trio.move_on_after(self._limits.drain):
            while not self._is_whole and self.received < end:
                await self._next()

    # --- the answer -------------------------------------------------------------------------------

    async def answer(self, reply: Reply) -> None:
        """Send a reply; stop when the client goes.

        Raises:
            ClientGoneError: it has gone already.
        """
        await self.drain()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            await self._send_reply(reply)
            nursery.cancel_scope.cancel()

    async def _watch(self, sending: trio.CancelScope) -> None:
        """Throw away what still comes, and stop sending when the client has gone."""
        while (await self._receive())["type"] == "http.request":
            pass
        if not self._is_answered:  # else it is only hypercorn's way to say that all is done
            sending.cancel()

    async def _send_reply(self, reply: Reply) -> None:
        """Send it all; or leave it unended, so that hypercorn cuts the connection."""
        headers = [(name.encode(), value.encode()) for name, value in reply.headers]
        if reply.status != 204:
            headers.append((b"content-length", str(reply.size).encode()))
        await self._send(
            {"type": "http.response.start", "status": reply.status, "headers": headers}
        )
        if reply.source is not None and not await self._send_source(reply.source):
            return
        self._is_answered = True
        self.sent += len(reply.body)
        await self._send({"type": "http.response.body", "body": reply.body})

    async def _send_source(self, source: Source) -> bool:
        """Send all that it has; False if that was less than it promised."""
        at, end = source.start, source.start + source.size
        while at < end:
            try:
                piece = await source.read(at, min(PIECE, end - at))
            except ServerError as error:
                log.warning("an answer was cut off: %s", error)
                return False
            if not piece:
                log.warning("an answer was cut off: a share became shorter while it was read")
                return False
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            at += len(piece)
            self.sent += len(piece)
        return True
