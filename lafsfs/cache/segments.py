"""The cache of verified ciphertext segments, and the flights that fetch them in runs.

One cache serves all files of a mount. A miss starts a *flight* for the segment; flights of
consecutive segments that were asked for together make a *run*, which is fetched as one. A run
belongs to the cache and not to who asked first: readers of the same segment share a flight, a
reader that goes away leaves it to the others, and a run whose flights nobody wants any more is
cancelled. What is not in memory is looked for on the disk before anybody's grid is asked.

Rules:

- A key is the identity of one ciphertext, how it is cut, and a number. Nothing in here is
  plaintext.
- Only what a fetch delivered is kept, and a fetch delivers only what is verified.
- The bounds are in bytes. A segment larger than all of the cache is passed on and not kept. At most
  :data:`MAX_FLYING` bytes are on their way at once: :meth:`SegmentCache.prefetch` starts nothing
  beyond that, and a reader waits for room, but not for ever, since others may hang.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol, TypeAlias

import trio
from cachetools import LRUCache

from lafsfs.errors import LafsError, LocalError
from lafsfs.grid.asking import plain_errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence

    from lafsfs.cache.disk import DiskCache
    from lafsfs.formats.geometry import Geometry

Key: TypeAlias = "tuple[bytes, int, int]"  # identity, segment size, number

DEFAULT_MAX_BYTES = 64 << 20
MAX_FLYING = 32 << 20  # bytes of segments being fetched; each needs two to three times its size
ROOM_PATIENCE = 5.0  # seconds a reader waits for room while others fetch

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Segment:
    """One verified segment, and how the file that it belongs to is cut into segments.

    ``ciphertext`` is what :class:`SegmentSource` says it is; for MDMF there is a salt in front.
    """

    number: int
    geometry: Geometry
    ciphertext: bytes = field(repr=False)

    @property
    def offset(self) -> int:
        """The offset in the file of its first byte."""
        return self.geometry.segment_offset(self.number)

    @property
    def end(self) -> int:
        """The offset in the file of the first byte after it."""
        return self.offset + self.geometry.segment_length(self.number)


class SegmentSource(Protocol):
    """One ciphertext, as the cache sees it."""

    @property
    def identity(self) -> bytes:
        """What no other ciphertext has; as secret as the ciphertext, and never stored as it is."""

    @property
    def geometry(self) -> Geometry:
        """How the file is cut into segments: known, or a guess."""

    @property
    def longest_run(self) -> int:
        """How many segments to fetch together; 1 while the geometry is a guess."""

    async def fetch(
        self, geometry: Geometry, numbers: range, deliver: Callable[[Segment], None]
    ) -> None:
        """Fetch consecutive segments, and hand each over as soon as it is verified.

        ``geometry`` is what the numbers mean. When it was a guess, there is only one number, and
        the segment that lies there is delivered as it really is.

        Raises:
            LafsError: why those that were not delivered cannot be had.
        """


class _Flight:
    """One segment on its way. ``wanted``: by how many readers and prefetches."""

    def __init__(self, run: _Run) -> None:
        self.run = run
        self.landed = trio.Event()
        self.wanted = 0
        self.segment: Segment | None = None
        self.error: Exception | None = None


class _Run:
    """Flights that are fetched together."""

    def __init__(self, source: SegmentSource, geometry: Geometry, numbers: range) -> None:
        self.source = source
        self.geometry = geometry
        self.numbers = numbers
        self.scope = trio.CancelScope()
        self.is_admitted = False
        self.flights = {number: _Flight(self) for number in numbers}
        self.size = sum(geometry.segment_length(number) for number in numbers)

    def key(self, number: int) -> Key:
        return self.source.identity, self.geometry.segment_size, number

    @property
    def is_wanted(self) -> bool:
        """Whether anybody waits for what has not landed yet."""
        return any(f.wanted for f in self.flights.values() if not f.landed.is_set())


class Prefetch:
    """Somebody's interest in segments that are on their way. Ends with :meth:`cancel`."""

    def __init__(self, cache: SegmentCache, flights: Sequence[_Flight]) -> None:
        self._cache = cache
        self._flights = flights
        for flight in flights:
            flight.wanted += 1

    @property
    def is_done(self) -> bool:
        """Whether all of it arrived or failed."""
        return all(flight.landed.is_set() for flight in self._flights)

    def cancel(self) -> None:
        """Want it no more. What somebody else waits for goes on."""
        flights, self._flights = self._flights, ()
        for flight in flights:
            self._cache._leave(flight)

    def then(self, newer: Prefetch) -> Prefetch:
        """Want that instead; what both want goes on without a break."""
        self.cancel()
        return newer


class SegmentCache:
    """Made by :meth:`open`. ``nursery`` is where runs and errands go on."""

    def __init__(
        self, max_bytes: int, nursery: trio.Nursery, disk: DiskCache | None = None
    ) -> None:
        self._segments: LRUCache[Key, Segment] = LRUCache(
            max_bytes, getsizeof=lambda segment: len(segment.ciphertext)
        )
        self._flights: dict[Key, _Flight] = {}
        self._flying = 0
        self._room = trio.Event()
        self._nursery = nursery
        self._disk = disk

    @classmethod
    @asynccontextmanager
    async def open(
        cls, max_bytes: int = DEFAULT_MAX_BYTES, disk: DiskCache | None = None
    ) -> AsyncIterator[SegmentCache]:
        """A cache of at most ``max_bytes`` of ciphertext in memory, and what ``disk`` holds.

        Leaving it cancels what is under way.
        """
        with plain_errors():
            async with trio.open_nursery() as nursery:
                yield cls(max_bytes, nursery, disk)
                nursery.cancel_scope.cancel()

    @property
    def size(self) -> int:
        """Bytes of ciphertext held in memory."""
        return int(self._segments.currsize)

    @property
    def max_bytes(self) -> int:
        """Bytes of ciphertext that may be held in memory."""
        return int(self._segments.maxsize)

    @property
    def flying(self) -> int:
        """Bytes of segments on their way."""
        return self._flying

    def peek(self, source: SegmentSource, number: int) -> Segment | None:
        """The segment of that number if it is in memory."""
        found: Segment | None = self._segments.get(
            (source.identity, source.geometry.segment_size, number)
        )
        return found

    async def get(self, source: SegmentSource, number: int) -> Segment:
        """The segment of that number; fetched on a miss.

        As long as a file's segment size is a guess, so is the number: what is fetched may turn out
        to be another segment, and is kept under the number it has.

        Raises:
            Exception: what ``source.fetch`` raised, in every reader that waited for it.
        """
        geometry = source.geometry
        key = (source.identity, geometry.segment_size, number)
        found = self._segments.get(key)
        if found is not None:
            await trio.lowlevel.checkpoint()
            return found
        flight = self._flights.get(key)
        if flight is None:
            flight = self._start(_Run(source, geometry, range(number, number + 1)))[0]
        return await self._board(flight)

    def prefetch(self, source: SegmentSource, numbers: range) -> Prefetch:
        """Start to fetch those of these segments that are not here, as far as there is room.

        Returns at once. The fetch goes on until it is done, or nobody is interested any more.
        """
        geometry = source.geometry
        flights: list[_Flight] = []
        missing: list[int] = []
        for number in numbers:
            key = (source.identity, geometry.segment_size, number)
            if key in self._segments:
                continue
            flight = self._flights.get(key)
            if flight is None:
                missing.append(number)
            else:
                flights.append(flight)
        for run in _runs(missing, source.longest_run):
            if self._flying >= MAX_FLYING:
                break
            flights += self._start(_Run(source, geometry, run))
        return Prefetch(self, flights)

    # --- flights ----------------------------------------------------------------------------------

    def _start(self, run: _Run) -> list[_Flight]:
        for number, flight in run.flights.items():
            self._flights[run.key(number)] = flight
        if self._flying < MAX_FLYING:
            self._admit(run)
        self._nursery.start_soon(self._fly, run)
        return list(run.flights.values())

    async def _board(self, flight: _Flight) -> Segment:
        flight.wanted += 1
        try:
            await flight.landed.wait()
        finally:
            self._leave(flight)
        if flight.error is not None:
            raise flight.error
        if flight.segment is None:
            raise LocalError("the segment cache was closed while a segment was on its way")
        return flight.segment

    def _leave(self, flight: _Flight) -> None:
        flight.wanted -= 1
        run = flight.run
        if not run.is_wanted:
            run.scope.cancel()
            self._forget(run)  # who asks from now on needs another flight

    async def _fly(self, run: _Run) -> None:
        try:
            with run.scope:
                await self._wait_for_room(run)
                await self._fetch(run)
        except Exception as error:  # the readers' to deal with: no error may end the cache
            for flight in run.flights.values():
                if flight.segment is None:
                    flight.error = error
        finally:
            self._forget(run)
            if run.is_admitted:
                self._flying -= run.size
                self._room.set()
            for flight in run.flights.values():
                flight.landed.set()
            run.flights = {}  # or segments would live on in a cycle, until garbage is collected

    def _admit(self, run: _Run) -> None:
        run.is_admitted = True
        self._flying += run.size

    async def _wait_for_room(self, run: _Run) -> None:
        with trio.move_on_after(ROOM_PATIENCE):
            while not run.is_admitted and self._flying >= MAX_FLYING:
                if self._room.is_set():
                    self._room = trio.Event()
                await self._room.wait()
        if not run.is_admitted:
            self._admit(run)

    async def _fetch(self, run: _Run) -> None:
        missing = run.numbers if self._disk is None else await self._from_disk(self._disk, run)
        for numbers in _runs(missing, len(run.numbers)):
            await run.source.fetch(run.geometry, numbers, lambda s: self._deliver(run, s))

    async def _from_disk(self, disk: DiskCache, run: _Run) -> list[int]:
        """Deliver what is on the disk; the numbers of the others."""
        shelf = disk.shelf(_shelf(run.source, run.geometry))
        missing = []
        for number in run.numbers:
            data = await shelf.load(number)
            if data is None:
                missing.append(number)
            else:
                self._land(run, Segment(number, run.geometry, data))
        return missing

    def _deliver(self, run: _Run, segment: Segment) -> None:
        """A segment from the grid."""
        if self._disk is not None:
            shelf = self._disk.shelf(_shelf(run.source, segment.geometry))
            shelf.keep(segment.number, segment.ciphertext)
        self._land(run, segment)

    def _land(self, run: _Run, segment: Segment) -> None:
        if len(segment.ciphertext) <= self._segments.maxsize:
            key = (run.source.identity, segment.geometry.segment_size, segment.number)
            self._segments[key] = segment
        number = segment.number if len(run.numbers) > 1 else run.numbers[0]
        flight = run.flights[number]
        flight.segment = segment
        if self._flights.get(run.key(number)) is flight:
            del self._flights[run.key(number)]
        flight.landed.set()

    def _forget(self, run: _Run) -> None:
        for number, flight in run.flights.items():
            if self._flights.get(run.key(number)) is flight:
                del self._flights[run.key(number)]

    # --- errands ----------------------------------------------------------------------------------

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


def _shelf(source: SegmentSource, geometry: Geometry) -> bytes:
    """What a shelf of the disk cache belongs to: one ciphertext, cut in one way."""
    return b"%d:" % geometry.segment_size + source.identity


def _runs(numbers: Iterable[int], longest: int) -> Iterator[range]:
    """Ascending numbers as consecutive runs, none longer than ``longest``."""
    numbers = list(numbers)
    cuts = [i + 1 for i, (a, b) in enumerate(pairwise(numbers)) if b != a + 1]
    for start, stop in pairwise([0, *cuts, len(numbers)]):
        part = numbers[start:stop]
        for i in range(0, len(part), longest):
            piece = part[i : i + longest]
            yield range(piece[0], piece[-1] + 1)
