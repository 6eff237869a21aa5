"""The cache of verified ciphertext segments, and the one flight that fetches each.

One cache serves all immutable files of a mount. A fetch belongs to the cache and not to the reader
that asked first: readers of the same segment share it, a reader that is cancelled leaves it to the
others, and when the last one is gone it is cancelled too.

Rules:

- Keys begin with the file's verify capability, so that what is cached is bound to exactly one
  ciphertext. Nothing in here is plaintext.
- Only what a fetch returned is kept, and a fetch returns only what is verified.
- The bound is in bytes; a segment larger than all of it is passed on and not kept.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import trio
from cachetools import LRUCache

from lafsfs.errors import LafsError, LocalError
from lafsfs.grid.asking import plain_errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from lafsfs.caps import CHKVerifyCap
    from lafsfs.formats.geometry import CHKGeometry

Key: TypeAlias = "tuple[CHKVerifyCap, int]"

DEFAULT_MAX_BYTES = 64 << 20

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Segment:
    """One verified segment, and how the file that it belongs to is cut into segments."""

    number: int
    geometry: CHKGeometry
    ciphertext: bytes = field(repr=False)

    @property
    def offset(self) -> int:
        """The offset in the file of its first byte."""
        return self.geometry.segment_offset(self.number)

    @property
    def end(self) -> int:
        """The offset in the file of the first byte after it."""
        return self.offset + len(self.ciphertext)


class _Flight:
    """A fetch under way."""

    def __init__(self) -> None:
        self.landed = trio.Event()
        self.scope = trio.CancelScope()
        self.waiting = 0
        self.segment: Segment | None = None
        self.error: Exception | None = None


class SegmentCache:
    """Made by :meth:`open`. ``nursery`` is where fetches run."""

    def __init__(self, max_bytes: int, nursery: trio.Nursery) -> None:
        self._segments: LRUCache[Key, Segment] = LRUCache(
            max_bytes, getsizeof=lambda segment: len(segment.ciphertext)
        )
        self._flights: dict[Key, _Flight] = {}
        self._nursery = nursery

    @classmethod
    @asynccontextmanager
    async def open(cls, max_bytes: int = DEFAULT_MAX_BYTES) -> AsyncIterator[SegmentCache]:
        """A cache of at most ``max_bytes`` of ciphertext. Leaving it cancels what is under way."""
        with plain_errors():
            async with trio.open_nursery() as nursery:
                yield cls(max_bytes, nursery)
                nursery.cancel_scope.cancel()

    @property
    def size(self) -> int:
        """Bytes of ciphertext held."""
        return int(self._segments.currsize)

    async def get(
        self, file: CHKVerifyCap, number: int, fetch: Callable[[], Awaitable[Segment]]
    ) -> Segment:
        """The segment of that number; ``fetch()`` it on a miss.

        As long as a file's segment size is a guess, so is the number: what is fetched may turn out
        to be another segment, and is kept under the number it has.

        Raises:
            Exception: what ``fetch`` raised, in every reader that waited for it.
        """
        key = (file, number)
        found = self._segments.get(key)
        if found is not None:
            await trio.lowlevel.checkpoint()
            return found
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight()
            self._nursery.start_soon(self._fly, key, flight, fetch)
        return await self._board(key, flight)

    async def _board(self, key: Key, flight: _Flight) -> Segment:
        flight.waiting += 1
        try:
            await flight.landed.wait()
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.landed.is_set():
                flight.scope.cancel()
                self._forget(key, flight)  # who asks from now on needs another flight
        if flight.error is not None:
            raise flight.error
        if flight.segment is None:
            raise LocalError("the segment cache was closed while a segment was on its way")
        return flight.segment

    async def _fly(
        self, key: Key, flight: _Flight, fetch: Callable[[], Awaitable[Segment]]
    ) -> None:
        try:
            with flight.scope:
                segment = flight.segment = await fetch()
                self._keep(key[0], segment)
        except Exception as error:  # the readers' to deal with: no error may end the cache
            flight.error = error
        finally:
            self._forget(key, flight)
            flight.landed.set()

    def _forget(self, key: Key, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _keep(self, file: CHKVerifyCap, segment: Segment) -> None:
        if len(segment.ciphertext) <= self._segments.maxsize:
            self._segments[file, segment.number] = segment

    def run_errand(self, errand: Callable[[], Awaitable[None]]) -> None:
        """Do something that nobody waits for, such as a report. If it fails, it is logged."""
        self._nursery.start_soon(self._run_errand, errand)

    async def _run_errand(self, errand: Callable[[], Awaitable[None]]) -> None:
        try:
            await errand()
        except LafsError as error:
            log.info("errand: %s", error)
        except Exception:  # nobody is there to see it, and no error may end the cache
            log.exception("errand")
