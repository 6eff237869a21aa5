"""RSA key pairs made ahead of need, off the event loop.

Every mutable file and directory needs a fresh 2048-bit key pair, which takes tens of milliseconds
of one processor: as much as everything else that is done for a hundred small files. Who takes a
key gets it, and that is all; when a second one is taken within ``SOON``, one is made besides, and
from the third on ``DEFAULT_SIZE``. That keeps the workers busy while directories are made one after
the other; more would be made for nobody, just when what was written is to go to the grid.

A larger stock is made while nobody is in the way: ``IDLE`` seconds after the last key was taken, a
quarter of one processor makes them one by one, as long as the process has next to nothing else to
do, and for ``REST_SPENT`` seconds of processor time at most until a key is taken again. A mount
that only reads makes none.

Rules:

- A key is handed out once.
- Keys live in memory only (docs/decisions/0006). Leaving the pool's context drops those not taken;
  it waits for a key under way, since a thread cannot be stopped.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.crypto.rsa import SigningKey, generate_keypair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

DEFAULT_SIZE: Final = 2  # keys in stock, or being made, while they are taken: one for each worker
RESTED_SIZE: Final = 256  # keys in stock after a rest: an archive of as many directories
WORKERS: Final = (
    2  # threads: making keys holds a processor, and the rest of the mount needs one too
)
SOON: Final = 1.0  # seconds between two keys that are taken, for more to be expected
IDLE: Final = 10.0  # seconds without a key being taken
BUSY: Final = 0.1  # of a processor: what the process uses otherwise while it is not at rest
REST_PAUSE: Final = 3.0  # times as long as a key took, until the next one is begun at rest
REST_SPENT: Final = 20.0  # seconds of processor time; slow machines have fewer keys in stock


class KeyPool:
    """A stock of unused signing keys. Made by :meth:`open`."""

    def __init__(
        self,
        size: int,
        rested_size: int,
        generate: Callable[[], SigningKey],
        used: Callable[[], float],
        thread_used: Callable[[], float],
    ) -> None:
        self.size = size
        self._rested_size = rested_size
        self._generate = generate
        self._used = used
        self._thread_used = thread_used
        self._stock: deque[SigningKey] = deque()
        self._handed_over = trio.Condition()
        self._waiting = 0  # tasks that wait for a key
        self._making = 0  # keys
        self._ahead = 0  # keys that are to be in stock
        self._taken = float("-inf")  # when the last one was
        self._spent = 0.0  # seconds of processor time, on keys made at rest
        self._may_spend = 0.0  # until the next key is taken

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        size: int = DEFAULT_SIZE,
        *,
        rested_size: int | None = None,
        generate: Callable[[], SigningKey] = generate_keypair,
        used: Callable[[], float] = time.process_time,
        thread_used: Callable[[], float] = time.thread_time,
    ) -> AsyncIterator[KeyPool]:
        """Keep keys ready for as long as the context lasts.

        Args:
            size: how many at most while keys are being taken.
            rested_size: how many after a rest; as many if it is not given.
            used: how many seconds of processor time the process has taken so far.
            thread_used: the same of the thread that asks.
        """
        rested_size = size if rested_size is None else rested_size
        pool = cls(size, rested_size, generate, used, thread_used)
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(WORKERS):
                    nursery.start_soon(pool._work)
                nursery.start_soon(pool._fill_at_rest)
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

    async def expect(self) -> None:
        """Somebody may want keys: have them in stock after a rest, before the first is taken."""
        async with self._handed_over:
            self._may_spend = self._spent + REST_SPENT
            self._handed_over.notify_all()

    async def take(self) -> SigningKey:
        """A key pair that nobody else has; waits for one to be made when none is ready."""
        now = trio.current_time()
        is_soon = now - self._taken < SOON
        self._ahead = min(self.size, max(1, 2 * self._ahead) if is_soon else 0)
        self._taken = now
        self._may_spend = self._spent + REST_SPENT
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

    async def _fill_at_rest(self) -> None:
        while True:
            async with self._handed_over:
                while not self._may_rest():
                    await self._handed_over.wait()
            since, used = trio.current_time(), self._used_otherwise()
            await trio.sleep(IDLE)
            while self._may_rest() and self._taken <= since and self._is_at_rest(since, used):
                since, used = trio.current_time(), self._used_otherwise()
                await self._make_at_rest()

    def _may_rest(self) -> bool:
        return len(self._stock) < self._rested_size and self._spent < self._may_spend

    def _used_otherwise(self) -> float:
        return self._used() - self._spent

    def _is_at_rest(self, since: float, used: float) -> bool:
        """Whether the process has had next to nothing to do since then."""
        return self._used_otherwise() - used <= BUSY * (trio.current_time() - since)

    async def _make_at_rest(self) -> None:
        key, seconds = await trio.to_thread.run_sync(self._timed)
        self._spent += seconds
        async with self._handed_over:
            self._stock.append(key)
            self._handed_over.notify_all()
        await trio.sleep(REST_PAUSE * seconds)

    def _timed(self) -> tuple[SigningKey, float]:
        """A key, and the seconds of processor time that it took. In a thread."""
        before = self._thread_used()
        return self._generate(), self._thread_used() - before
