"""TLS over a TCP connection, made for bodies of a megabyte.

Theory. OpenSSL encrypts and decrypts between two buffers in memory; this module carries what is in
them. ``trio.SSLStream`` does that for every use there is; what is left out here for speed is
renegotiation, which the context refuses, and saying goodbye: HTTP says where a reply ends. Who
knows how much is to come is not woken for each packet (``SO_RCVLOWAT``): a tenth of what it costs.

Rules:

- A large body goes out in pieces that stay in the processor's cache, each encrypted and sent before
  the next; so OpenSSL's buffer never holds, nor grows to, more than a piece.
- One task may send while another receives, not more. What receiving has to say itself, such as
  that a new key is in use, goes out with what is sent next.
- Every failure is a :class:`trio.BrokenResourceError` whose cause says which. The end, announced or
  not, is no bytes.
"""

from __future__ import annotations

import select
import socket
import ssl
from typing import Final

import trio

PIECE: Final = 256 << 10  # bytes encrypted at once: as good as 64 KiB; 1 MiB costs 20 % more
RECEIVE_SIZE: Final = 256 << 10  # bytes taken from the socket at once, if there are as many
HIDDEN: Final = 20 << 10  # bytes that OpenSSL may hold back: a record, as large as TLS 1.2 has them
UNSENT: Final = 256 << 10  # bytes in the socket below which it takes more; Trio's 16 KiB wake often


class TLSStream(trio.abc.AsyncResource):
    """The client's end of a connection. Call :meth:`do_handshake` first, and once."""

    def __init__(self, stream: trio.SocketStream, context: ssl.SSLContext) -> None:
        self._stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._wakes_at = 1
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)

    async def do_handshake(self) -> None:
        """Agree on keys. Raises trio.BrokenResourceError."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError as error:
                raise trio.BrokenResourceError("no handshake") from error
            else:
                return await self._flush()

    @property
    def peer_certificate(self) -> bytes | None:
        """What the server showed, as DER."""
        return self._tls.getpeercert(binary_form=True)

    def is_readable(self) -> bool:
        """Whether something waits in the socket, be it the end."""
        self._wake_at(1)
        poll = select.poll()
        poll.register(self._stream.socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def has_data(self) -> bool:
        """Whether data was received that nobody has read. Loses some of it.

        Of what the socket holds nothing is known.
        """
        if self.is_drained:
            return False
        try:
            return bool(self._tls.read(1))
        except ssl.SSLWantReadError:  # part of a record, or what is no data, such as a ticket
            return False
        except ssl.SSLError:
            return True

    @property
    def is_drained(self) -> bool:
        """Whether all that was received has been understood, down to the last byte."""
        return not (self._incoming.pending or self._tls.pending())

    async def send_all(self, *parts: bytes) -> None:
        """Send byte strings one after the other, small ones together."""
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[self._encrypt(view[:PIECE]) :]
                if self._outgoing.pending >= PIECE:
                    await self._flush()
        await self._flush()

    def _encrypt(self, piece: memoryview) -> int:
        try:
            return self._tls.write(piece)
        except ssl.SSLError as error:
            raise trio.BrokenResourceError("nothing can be sent any more") from error

    async def _flush(self) -> None:
        """Send what OpenSSL has written, if anything."""
        if self._outgoing.pending:
            await self._stream.send_all(self._outgoing.read())

    async def receive_some(self, max_bytes: int = 16 << 10, due: int = 1) -> bytes:
        """What has come, or comes next; nothing at the end. A record has at most 16 KiB.

        ``due``: how many bytes are still to come, if nobody lies. Much of them is waited for.
        """
        while True:
            try:
                return self._tls.read(max_bytes)
            except ssl.SSLWantReadError:
                await self._fill(due)
            except ssl.SSLError as error:
                return self._ended(error)

    def receive_nowait(self, max_bytes: int) -> bytes:
        """What has come; nothing if :meth:`receive_some` is to say why."""
        try:
            return self._tls.read(max_bytes)
        except ssl.SSLError:
            return b""

    @staticmethod
    def _ended(error: ssl.SSLError) -> bytes:
        """No bytes if that means the end."""
        if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return b""
        raise trio.BrokenResourceError("what was received is no TLS") from error

    async def _fill(self, due: int = 1) -> None:
        """Wait for something to come, and give it to OpenSSL."""
        self._wake_at(max(1, min(due - HIDDEN, RECEIVE_SIZE)))
        data = await self._stream.receive_some(RECEIVE_SIZE)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _wake_at(self, size: int) -> None:
        """Have the socket be readable from so many bytes on, or at its end."""
        if size != self._wakes_at:
            self._wakes_at = size
            self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    async def aclose(self) -> None:
        """End it without a word. Always a checkpoint; done even if that is cancelled."""
        await self._stream.aclose()
