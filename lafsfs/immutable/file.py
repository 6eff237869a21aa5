"""A CHK file made readable: ranges of plaintext, from segments that are verified and cached.

One object per file and grid keeps what is known about it: verified hashes, and where shares are.
That knowledge is a help and never a verdict: when shares that were found earlier are not enough any
more, everybody is asked again before a read fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from lafsfs.cache.places import Places
from lafsfs.crypto import aes
from lafsfs.errors import CorruptShareError, NotEnoughSharesError
from lafsfs.formats.geometry import div_ceil
from lafsfs.grid.api import ShareKind
from lafsfs.grid.asking import ask
from lafsfs.grid.cpu import INLINE_LIMIT, work_on
from lafsfs.immutable.claims import TreeClaims
from lafsfs.immutable.download import Download
from lafsfs.immutable.fetcher import SegmentFetcher
from lafsfs.immutable.finder import ShareFinder
from lafsfs.immutable.share import Run
from lafsfs.immutable.treerows import ROW_LEAVES
from lafsfs.immutable.verified import VerifiedFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from lafsfs.cache.places import PlaceMemory
    from lafsfs.cache.segments import Prefetch, Segment, SegmentCache
    from lafsfs.caps import CHKCap, CHKVerifyCap
    from lafsfs.formats.geometry import CHKGeometry, Geometry
    from lafsfs.grid.broker import Broker
    from lafsfs.immutable.share import ShareReader

# Bytes of one range of consecutive blocks, and of a run of segments, which is what k ranges are. A
# request costs a stock server half a millisecond and us nearly as much, a connection 2 and 1.3:
# with half as many ranges, two at once of each server instead of four, reading 100 MB takes a
# twelfth less. But the first segment of a run waits for its last, and ranges of 3 MiB and more are
# hard to find a place for in memory: with k = 1 they made it 195 MB where it was 150.
RANGE_SIZE = 11 << 18  # eight blocks where k is 3
RUN_SIZE = 8 << 20
WINDOW = 4 << 20  # bytes that one read of a large range keeps on their way


@dataclass(frozen=True, slots=True)
class ShareHealth:
    """The shares of a file as far as they have been seen; servers by name.

    ``good``: share numbers by server; nothing was wrong with these so far. ``bad``: those that were
    wrong in themselves or about a segment. ``silent``: servers that have been asked and did not
    answer yet. ``k`` of ``n`` shares are needed.
    """

    k: int
    n: int
    good: dict[str, frozenset[int]]
    bad: dict[str, frozenset[int]]
    silent: tuple[str, ...]

    @property
    def good_shares(self) -> int:
        """How many different ones."""
        return len(frozenset[int]().union(*self.good.values()))


class CiphertextFile:
    """What the verify capability of a CHK file can do: fetch verified ciphertext.

    A :class:`~lafsfs.cache.segments.SegmentSource`.
    """

    def __init__(
        self,
        cap: CHKVerifyCap,
        broker: Broker,
        cache: SegmentCache,
        places: PlaceMemory | None = None,
    ) -> None:
        self.cap = cap
        self.identity = b"CHK:%d:%d:%d:" % (cap.k, cap.n, cap.size) + (
            cap.storage_index + cap.ueb_hash
        )
        self._broker = broker
        self._cache = cache
        self._places = places
        self._verified: VerifiedFile | None = None
        self._finder: ShareFinder | None = None
        self._gave_up: ShareFinder | None = None  # what the last read that failed had found
        self._trees = TreeClaims()
        self._reported: set[tuple[str, int]] = set()
        self._fetchers: dict[SegmentFetcher, None] = {}  # oldest first
        self._seen: ShareFinder | None = None  # the last there was
        self._hints: dict[int, int] = {}  # what is meant by a number while it is a guess

    @property
    def verified(self) -> VerifiedFile:
        """What is known of the file. The first use computes and may find the capability wrong."""
        if self._verified is None:
            self._verified = VerifiedFile(self.cap)
            places = self._places and self._places.recall(self.cap.storage_index)
            if places:
                self._verified.remember(places.segment_size)
        return self._verified

    @property
    def geometry(self) -> CHKGeometry:
        """How the file is cut into segments: known, or a guess."""
        return self.verified.likely_geometry

    @property
    def longest_run(self) -> int:
        """How many segments to fetch together."""
        geometry = self.verified.geometry
        if geometry is None:
            return 1
        whole = div_ceil(RUN_SIZE, geometry.segment_size)  # what is read ahead is no less
        return max(1, min(RANGE_SIZE // geometry.block_size, whole, ROW_LEAVES))

    async def segment_at(self, offset: int) -> Segment:
        """The segment that ``offset``, below the file's size, lies in.

        Raises:
            NotEnoughSharesError: fewer than k good shares can be reached.
            ContradictionError: the file was stored wrongly, or its capability is wrong.
        """
        while True:
            number = offset // self.geometry.segment_size
            if self.verified.geometry is None:
                self._hints[number] = offset
            segment = await self._cache.get(self, number)
            if segment.offset <= offset < segment.end:
                return segment
            self.verified.remember(segment.geometry.segment_size)  # verified: now it is right

    def peek(self, offset: int) -> Segment | None:
        """The segment that ``offset`` lies in, if it is in memory."""
        return self._cache.peek(self, offset // self.geometry.segment_size)

    def prefetch(self, offset: int, size: int) -> Prefetch:
        """Start to fetch a range; see :meth:`CHKFile.prefetch`."""
        size = min(size, self.cap.size - offset)
        if size <= 0:
            return self._cache.prefetch(self, range(0))
        segment_size = self.geometry.segment_size
        first, last = offset // segment_size, (offset + size - 1) // segment_size
        return self._cache.prefetch(self, range(first, last + 1))

    # --- for the cache ----------------------------------------------------------------------------

    async def fetch(
        self, geometry: Geometry, numbers: range, deliver: Callable[[Segment], None]
    ) -> None:
        """See :class:`~lafsfs.cache.segments.SegmentSource`."""
        missing = numbers

        def delivered(segment: Segment) -> None:
            arrived.add(segment.number)
            deliver(segment)

        while True:
            arrived: set[int] = set()
            is_new = self._finder is None
            finder = self._finder = self._finder or self._new_finder()
            start = missing.start * geometry.segment_size
            if geometry != self.verified.geometry:  # it was a guess, and may still be one
                start = self._hints.get(missing.start, start)
            run = Run(start, len(missing))
            try:
                await self._run_fetcher(finder, run, delivered)
            except NotEnoughSharesError:
                if self._finder is finder:  # what is remembered did not help: ask anew
                    self._finder, self._gave_up = None, finder
                if is_new:
                    raise
            else:
                self._hints.clear()
                self._note_places(finder)
                return
            left = [number for number in missing if number not in arrived]
            missing = range(left[0], left[-1] + 1)

    async def _run_fetcher(
        self, finder: ShareFinder, run: Run, deliver: Callable[[Segment], None]
    ) -> None:
        download = Download(
            self.verified, finder, self._broker, self._trees, self._report, self._cache.run_errand
        )
        fetcher = SegmentFetcher(download, run, deliver)
        self._fetchers[fetcher] = None
        try:
            await fetcher.run()
        finally:
            del self._fetchers[fetcher]

    def _new_finder(self) -> ShareFinder:
        places = self._places and self._places.recall(self.cap.storage_index)
        start = self._cache.run_errand
        self._seen = ShareFinder(self._broker, self.verified, start, places or None)
        return self._seen

    def _note_places(self, finder: ShareFinder) -> None:
        if self._places is not None:
            size = self.geometry.segment_size
            self._places.note(self.cap.storage_index, Places(finder.places(), size))

    def _report(self, reader: ShareReader, error: CorruptShareError) -> None:
        """Tell the share's server, once, without anybody waiting for it."""
        share = (reader.server.name, reader.shnum)
        if share not in self._reported:
            self._reported.add(share)
            self._cache.run_errand(partial(self._advise, reader, error.reason))

    async def _advise(self, reader: ShareReader, reason: str) -> None:
        server, index = reader.server, self.cap.storage_index
        await ask(
            self._broker,
            server,
            lambda: server.advise_corrupt_share(ShareKind.IMMUTABLE, index, reader.shnum, reason),
        )

    # --- what is known ----------------------------------------------------------------------------

    def health(self) -> ShareHealth:
        """See :meth:`CHKFile.health`."""
        good: dict[str, set[int]] = {}
        bad: dict[str, set[int]] = {}
        finder = self._finder or self._gave_up
        for reader in finder.readers if finder else ():
            kind = bad if reader.is_suspect else good
            kind.setdefault(reader.server.name, set()).add(reader.shnum)
        return ShareHealth(
            self.cap.k,
            self.cap.n,
            {name: frozenset(shnums) for name, shnums in good.items()},
            {name: frozenset(shnums) for name, shnums in bad.items()},
            tuple(server.name for server in finder.silent) if finder else (),
        )

    def explain(self) -> str:
        """See :meth:`CHKFile.explain`."""
        return next((fetcher.explain() for fetcher in self._fetchers), "")


class CHKFile:
    """An immutable file. Cheap to make; nothing is asked of the grid before the first read."""

    def __init__(
        self, cap: CHKCap, broker: Broker, cache: SegmentCache, places: PlaceMemory | None = None
    ) -> None:
        """``places``: where shares were seen in an earlier life, and where to note it."""
        self.cap = cap
        self._ciphertext = CiphertextFile(cap.verify_cap(), broker, cache, places)

    @property
    def size(self) -> int:
        """Bytes of plaintext."""
        return self.cap.size

    @property
    def segment_size(self) -> int:
        """Bytes of a segment; as long as nothing was read, what is usual for such a file."""
        return self._ciphertext.geometry.segment_size

    def prefetch(self, offset: int, size: int) -> Prefetch:
        """Start to fetch the segments of a range into the cache, and return at once.

        What is returned stands for the interest in them, and is to be cancelled when that ends. The
        cache may start only the first of them, or nothing, if it has no room: ask again later.
        """
        return self._ciphertext.prefetch(offset, size)

    def health(self) -> ShareHealth:
        """The shares seen so far; nobody is asked."""
        return self._ciphertext.health()

    def explain(self) -> str:
        """What a read that is under way lacks, and who is to blame; nothing if there is none."""
        return self._ciphertext.explain()

    async def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes at ``offset``: fewer at the end, none past it.

        Every byte has been checked against the capability.

        Raises:
            NotEnoughSharesError: fewer than k good shares can be reached.
            ContradictionError: the file was stored wrongly, or its capability is wrong.
        """
        if offset < 0 or size < 0:
            raise ValueError(f"a range of {size} bytes at {offset}")
        end = min(offset + size, self.cap.size)
        if offset >= end:
            return b""
        parts: list[bytes] = []
        ahead: Prefetch | None = None
        try:
            while offset < end:  # without a checkpoint, if it is all there and short
                segment = self._ciphertext.peek(offset)
                if segment is None:
                    wanted = self.prefetch(offset, min(WINDOW, end - offset))
                    ahead = wanted if ahead is None else ahead.then(wanted)
                    segment = await self._ciphertext.segment_at(offset)
                parts.append(await self._plaintext(segment, offset, min(end, segment.end)))
                offset = segment.end
        finally:
            if ahead is not None:
                ahead.cancel()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _plaintext(self, segment: Segment, offset: int, end: int) -> bytes:
        """A range of the file that lies in that segment."""
        piece = memoryview(segment.ciphertext)[offset - segment.offset : end - segment.offset]
        size = len(piece) // 4  # decrypting is quick, and hashing is what the limit is made for
        if size <= INLINE_LIMIT:
            return aes.ctr(self.cap.key, piece, offset)
        return await work_on(size, aes.ctr, self.cap.key, piece, offset)
