"""Fetching one segment: a race of share readers for k verified blocks.

Theory. Any k different shares do. The fetcher starts as many readers as it still needs, each at
another server if it can, low share numbers first (with the first k shares there is nothing to
decode). When one fails, another takes its place; when one is overdue another is started beside it,
and whichever comes first counts. When k blocks are there, everybody else is cancelled.

Rules:

- The nursery, the blocks and the decisions are those of one fetch; what is remembered from one
  segment to the next is in the finder and in the readers.
- As long as better spread shares may still be found, no server gives two of them.
- Any k good shares anywhere make the fetch succeed: it fails only when every server has been asked,
  every share that could help has been tried, and nothing is under way any more.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import trio

from lafsfs.cache.segments import Segment
from lafsfs.crypto import erasure
from lafsfs.crypto.hashes import ciphertext_segment_hash
from lafsfs.errors import CorruptShareError, NotEnoughSharesError, ServerError
from lafsfs.grid.asking import plain_errors
from lafsfs.grid.cpu import work_on

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lafsfs.formats.geometry import CHKGeometry
    from lafsfs.grid.api import StorageServer
    from lafsfs.grid.broker import Broker
    from lafsfs.immutable.finder import ShareFinder
    from lafsfs.immutable.share import ShareReader
    from lafsfs.immutable.verified import VerifiedFile

OVERDUE = 5.0  # seconds for a block until a spare is started beside it
MAX_NOTES = 12  # how many troubles an error message speaks of


class SegmentFetcher:
    """One fetch of the segment that an offset of the file lies in."""

    def __init__(
        self,
        verified: VerifiedFile,
        finder: ShareFinder,
        broker: Broker,
        offset: int,
        report: Callable[[ShareReader, CorruptShareError], None],
    ) -> None:
        """``report`` is told of each share that turns out to be corrupt; it must not wait."""
        self._verified = verified
        self._finder = finder
        self._broker = broker
        self._offset = offset
        self._report = report
        self._blocks: dict[int, bytes] = {}
        self._segment = 0
        self._active: set[ShareReader] = set()
        self._overdue: set[ShareReader] = set()
        self._tried: set[ShareReader] = set()
        self._notes: list[str] = []
        self._changed = trio.Event()

    async def run(self) -> Segment:
        """Fetch, verify, decode.

        Raises:
            NotEnoughSharesError: fewer than k good shares; says who answered what.
            ContradictionError: the file was stored wrongly.
        """
        self._finder.listeners.add(self._poke)
        try:
            with plain_errors():
                async with trio.open_nursery() as nursery:
                    await self._race(nursery)
                    nursery.cancel_scope.cancel()
        finally:
            self._finder.listeners.discard(self._poke)
        return await self._decoded()

    def _poke(self) -> None:
        self._changed.set()

    async def _race(self, nursery: trio.Nursery) -> None:
        """Keep enough readers going until there are enough blocks."""
        while len(self._blocks) < self._verified.cap.k:
            self._changed = trio.Event()
            self._start_readers(nursery)
            if not self._active and self._finder.is_exhausted:
                raise self._failure()
            await self._changed.wait()

    def _start_readers(self, nursery: trio.Nursery) -> None:
        while self._wanted > 0:
            reader = self._best_candidate()
            if reader is None:
                self._finder.ask_more(nursery)
                return
            self._tried.add(reader)
            self._active.add(reader)
            nursery.start_soon(self._read, reader)
            nursery.start_soon(self._watch, reader)

    @property
    def _wanted(self) -> int:
        """How many more readers are needed for k blocks, if those that are not overdue succeed."""
        coming = {reader.shnum for reader in self._active - self._overdue}
        return self._verified.cap.k - len(self._blocks.keys() | coming)

    def _best_candidate(self) -> ShareReader | None:
        """The share to try next. While servers may still answer, only one of each is taken."""
        busy = {reader.shnum for reader in self._active - self._overdue}
        load = Counter(reader.server for reader in self._tried)
        candidates = [
            reader
            for reader in self._finder.readers
            if reader not in self._tried
            and reader.shnum not in self._blocks
            and reader.shnum not in busy
            and reader.is_good_for(self._offset)
        ]
        if self._finder.expected:
            candidates = [reader for reader in candidates if not load[reader.server]]
        return min(candidates, key=lambda reader: self._rank(reader, load), default=None)

    def _rank(
        self, reader: ShareReader, load: Mapping[StorageServer, int]
    ) -> tuple[bool, int, int, int]:
        backing_off = self._broker.is_backing_off(reader.server)
        return backing_off, reader.failures, load[reader.server], reader.shnum

    async def _read(self, reader: ShareReader) -> None:
        try:
            segment, block = await reader.block(self._offset)
        except CorruptShareError as error:
            self._notes.append(str(error))
            self._report(reader, error)
        except ServerError as error:
            reader.failures += 1
            self._notes.append(str(error))
        else:
            reader.failures = 0
            self._segment = segment
            self._blocks.setdefault(reader.shnum, block)
        self._active.discard(reader)
        self._overdue.discard(reader)
        self._poke()

    async def _watch(self, reader: ShareReader) -> None:
        """Let a spare start when a reader is late; the reader itself goes on."""
        await trio.sleep(OVERDUE)
        if reader in self._active:
            self._overdue.add(reader)
            self._poke()

    def _failure(self) -> NotEnoughSharesError:
        cap = self._verified.cap
        notes = [*self._notes, *self._finder.notes.values()]
        more = len(notes) - MAX_NOTES
        text = "; ".join(notes[:MAX_NOTES]) + (f"; and {more} more" if more > 0 else "")
        shnums = {reader.shnum for reader in self._finder.readers}
        return NotEnoughSharesError(
            f"{len(self._blocks)} good shares of {len(shnums)} found, and {cap.k} are needed"
            + (f": {text}" if text else ": there is no storage server")
        )

    async def _decoded(self) -> Segment:
        geometry = self._verified.geometry
        assert geometry is not None
        size = geometry.segment_length(self._segment)
        ciphertext, digest = await work_on(
            geometry.padded_length(self._segment), decode, self._blocks, geometry, size
        )
        self._verified.check_segment(self._segment, digest)
        return Segment(self._segment, geometry, ciphertext)


def decode(blocks: Mapping[int, bytes], geometry: CHKGeometry, size: int) -> tuple[bytes, bytes]:
    """The segment of ``size`` bytes that k blocks make, and its hash."""
    chosen = {shnum: blocks[shnum] for shnum in sorted(blocks)[: geometry.k]}
    ciphertext = b"".join(erasure.decode(chosen, geometry.k, geometry.n))[:size]
    return ciphertext, ciphertext_segment_hash(ciphertext)
