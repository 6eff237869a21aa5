"""RSA key pairs made ahead of need, off the event loop.

Every mutable file and directory needs a fresh 2048-bit key pair, which takes tens of milliseconds
of one processor: as much as everything else that is done for a hundred small files. So as many are
kept in stock as whoever makes directories one after the other seems to need. Who takes a key gets
it, and that is all; when a second one is taken within ``SOON``, one is made besides, and each
further one doubles the stock that is aimed at. After ``IDLE`` seconds in which nobody has asked,
the stock is filled, since then it is in nobody's way. A mount that only reads makes none.

Rules:

- A key is handed out once.
- Keys live in memory only. Leaving the pool's context drops those not taken; it waits for a key
  under way, since a thread cannot be stopped.
"""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from lafsfs.crypto.rsa import SigningKey, generate_keypair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

DEFAULT_SIZE = 8  # keys in stock: what a program that makes directories one by one can take at once
WORKERS = 2  # threads: key generation holds a processor, and the rest of the mount needs one too
SOON = 1.0  # seconds between two keys that are taken, for more to be expected
IDLE = 10.0  # seconds without a key being taken


class KeyPool:
    """A stock of unused signing keys. Made by :meth:`open`."""

    def __init__(self, size: int, generate: Callable[[], SigningKey]) -> None:
        self.size = size
        self._generate = generate
        self._stock: deque[SigningKey] = deque()
        self._handed_over = trio.Condition()
        self._waiting = 0  # tasks that wait for a key
        self._making = 0  # keys
        self._ahead = 0  # keys that are to be in stock
        self._taken = float("-inf")  # when the last one was

    @classmethod
    @asynccontextmanager
    async def open(
        cls, size: int = DEFAULT_SIZE, *, generate: Callable[[], SigningKey] = generate_keypair
    ) -> AsyncIterator[KeyPool]:
        """Keep up to ``size`` keys ready for as long as the context lasts."""
        pool = cls(size, generate)
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(WORKERS):
                    nursery.start_soon(pool._work)
                nursery.start_soon(pool._fill_when_idle)
                yield pool
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1:  # what the body raised, as if there were no nursery
                raise group.exceptions[0] from None
            raise

    @property
    def ready(self) -> int:
        """How many keys can be taken without waiting."""
        return len(self._stock)

    async def take(self) -> SigningKey:
        """A key pair that nobody else has; waits for one to be made when none is ready."""
        now = trio.current_time()
        is_soon = now - self._taken < SOON
        self._ahead = min(self.size, max(1, 2 * self._ahead) if is_soon else 0)
        self._taken = now
        async with self._handed_over:
            self._waiting += 1
            self._handed_over.notify_all()
            try:
                while not self._stock:
                    await self._handed_over.wait()
                return self._stock.popleft()
            finally:
                self._waiting -= 1

    def _is_short(self) -> bool:
        return len(self._stock) + self._making < self._waiting + self._ahead

    async def _work(self) -> None:
        while True:
            async with self._handed_over:
                while not self._is_short():
                    await self._handed_over.wait()
                self._making += 1
            key = await trio.to_thread.run_sync(self._generate)
            async with self._handed_over:
                self._making -= 1
                self._stock.append(key)
                self._handed_over.notify_all()

    async def _fill_when_idle(self) -> None:
        """Aim at a full stock when nobody has asked for a while, but somebody ever did."""
        while True:
            async with self._handed_over:
                while not self._taken > float("-inf") or self._ahead >= self.size:
                    await self._handed_over.wait()
            await trio.sleep_until(self._taken + IDLE)
            if trio.current_time() >= self._taken + IDLE:
                async with self._handed_over:
                    self._ahead = self.size
                    self._handed_over.notify_all()
