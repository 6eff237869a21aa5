"""The body of a reply, read off its connection.

Theory. A body is told its end by a length, or comes in chunks (RFC 9112, 7.1), as all that stock
servers send does. Either way its bytes are kept as TLS gave them and put together once; h11, which
could do this as well, looks at every record several times, and costs more than decrypting them.

Rules:

- No more is ever kept than the limit, nor more pieces than :data:`MAX_PIECES`: what comes byte by
  byte takes no more memory than what comes at once.
- Chunks are taken as the RFC writes them and in no other way. What is wrong is not quoted: it may
  be anything, our secrets included.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.errors import ProtocolError, ServerUnavailableError

if TYPE_CHECKING:
    from lafsfs.gbs.stream import TLSStream

RECORD_SIZE: Final = 16 << 10  # bytes of data that a TLS record has at most
MAX_PIECES: Final = 256  # kept before they are put together
MAX_LINE: Final = 1 << 10  # bytes of a chunk's size with its extensions, or of a trailer
MAX_TRAILERS: Final = 16

_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?", re.DOTALL)


class ConnectionLostError(ServerUnavailableError):
    """The connection ended before a whole reply had come: what was asked may have been done."""


class Body:
    """One body. Read it once, in one of the two ways."""

    def __init__(self, stream: TLSStream, start: bytes, limit: int, due: int = 0) -> None:
        """What comes on a stream.

        Args:
            start: what has been read of it.
            limit: bytes that it may have.
            due: bytes that it is said to have; 0 if that is not known.
        """
        self._stream = stream
        self._unread = start
        self._at = 0  # where in it
        self._limit = limit
        self._size = 0
        self._due = due  # bytes not taken yet
        self._whole = bytearray()
        self._pieces: list[bytes] = []

    @property
    def has_more(self) -> bool:
        """Whether something has come behind its end."""
        return self._at < len(self._unread)

    async def read_by_length(self, length: int) -> bytes:
        """All ``length`` bytes. Raises ConnectionLostError, and ProtocolError beyond the limit."""
        await self._take(length)
        return self._put_together()

    async def read_chunks(self) -> bytes:
        """All up to the last chunk. Raises ConnectionLostError, ProtocolError."""
        while size := _chunk_size(await self._line()):
            await self._take(size)
            if await self._line():
                raise ProtocolError("its answer is not HTTP: a chunk has another size than it says")
        for _ in range(MAX_TRAILERS):
            if not await self._line():
                return self._put_together()
        raise ProtocolError("its answer is not HTTP: too many trailers")

    async def _take(self, size: int) -> None:
        """Keep the next ``size`` bytes."""
        self._size += size
        if self._size > self._limit:
            raise ProtocolError(f"its answer has more than {self._limit} bytes")
        piece = self._unread[self._at : self._at + size]
        self._at += len(piece)
        while True:
            self._pieces.append(piece)
            self._due -= len(piece)
            if len(self._pieces) >= MAX_PIECES:
                self._whole += b"".join(self._pieces)
                self._pieces.clear()
            size -= len(piece)
            if not size:
                return
            wanted = min(size, RECORD_SIZE)
            piece = self._stream.receive_nowait(wanted)
            piece = piece or await next_of(self._stream, wanted, self._due)

    def _put_together(self) -> bytes:
        return b"".join((self._whole, *self._pieces))

    async def _line(self) -> bytes:
        """The next line, without its end."""
        while (end := self._unread.find(b"\r\n", self._at, self._at + MAX_LINE)) < 0:
            if len(self._unread) - self._at >= MAX_LINE:
                raise ProtocolError("its answer is not HTTP: a line without end")
            more = self._stream.receive_nowait(RECORD_SIZE)
            more = more or await next_of(self._stream, RECORD_SIZE, self._due)
            self._unread = self._unread[self._at :] + more
            self._at = 0
        line = self._unread[self._at : end]
        self._at = end + 2
        return line


async def next_of(stream: TLSStream, size: int, due: int = 1) -> bytes:
    """What comes next, up to ``size`` bytes. Raises ConnectionLostError, also at the end.

    ``due``: as for :meth:`~lafsfs.gbs.stream.TLSStream.receive_some`.
    """
    try:
        data = await stream.receive_some(size, due)
    except trio.BrokenResourceError:
        raise ConnectionLostError("the connection was lost while it answered") from None
    if not data:
        raise ConnectionLostError("it closed the connection before its answer was complete")
    return data


def _chunk_size(line: bytes) -> int:
    match = _CHUNK_SIZE.fullmatch(line)
    if match is None:
        raise ProtocolError("its answer is not HTTP: no size of a chunk")
    return int(match[1], 16)
