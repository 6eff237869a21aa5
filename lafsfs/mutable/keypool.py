"""RSA key pairs made ahead of need, off the event loop.

Every mutable file and directory needs a fresh 2048-bit key pair, which takes tens of milliseconds
of one processor. The pool makes the first when it is first asked, and from then on keeps a few in
stock, so that ``mkdir`` after ``mkdir`` finds one waiting. A mount that only reads makes none.

Rules:

- A key is handed out once.
- Keys live in memory only. Leaving the pool's context drops those not taken; it waits for a key
  under way, since a thread cannot be stopped.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from lafsfs.crypto.rsa import SigningKey, generate_keypair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

DEFAULT_SIZE = 4  # keys in stock: what a program that makes directories one by one can take at once
WORKERS = 2  # threads: key generation holds a processor, and the rest of the mount needs one too


class KeyPool:
    """A stock of unused signing keys. Made by :meth:`open`."""

    def __init__(
        self, receive: trio.MemoryReceiveChannel[SigningKey], wanted: trio.Event, size: int
    ) -> None:
        self._receive = receive
        self._wanted = wanted
        self.size = size

    @classmethod
    @asynccontextmanager
    async def open(
        cls, size: int = DEFAULT_SIZE, *, generate: Callable[[], SigningKey] = generate_keypair
    ) -> AsyncIterator[KeyPool]:
        """Keep up to ``size`` keys ready for as long as the context lasts."""
        send, receive = trio.open_memory_channel[SigningKey](max(0, size - WORKERS))
        wanted = trio.Event()

        async def work() -> None:
            await wanted.wait()
            while True:
                await send.send(await trio.to_thread.run_sync(generate))

        try:
            async with send, receive, trio.open_nursery() as nursery:
                for _ in range(WORKERS):
                    nursery.start_soon(work)
                yield cls(receive, wanted, size)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1:  # what the body raised, as if there were no nursery
                raise group.exceptions[0] from None
            raise

    async def take(self) -> SigningKey:
        """A key pair that nobody else has; waits for one to be made when none is ready."""
        self._wanted.set()
        return await self._receive.receive()
