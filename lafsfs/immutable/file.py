"""A CHK file made readable: ranges of plaintext, from segments that are verified and cached.

One object per file and grid keeps what is known about it: verified hashes, and where shares are.
That knowledge is a help and never a verdict: when shares that were found earlier are not enough any
more, everybody is asked again before a read fails.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lafsfs.crypto import aes
from lafsfs.errors import CorruptShareError, NotEnoughSharesError
from lafsfs.grid.api import ShareKind
from lafsfs.grid.asking import ask
from lafsfs.grid.cpu import work_on
from lafsfs.immutable.fetcher import SegmentFetcher
from lafsfs.immutable.finder import ShareFinder
from lafsfs.immutable.verified import VerifiedFile

if TYPE_CHECKING:
    from lafsfs.cache.segments import Segment, SegmentCache
    from lafsfs.caps import CHKCap, CHKVerifyCap
    from lafsfs.grid.broker import Broker
    from lafsfs.immutable.share import ShareReader


class CiphertextFile:
    """What the verify capability of a CHK file can do: fetch verified ciphertext."""

    def __init__(self, cap: CHKVerifyCap, broker: Broker, cache: SegmentCache) -> None:
        self.cap = cap
        self._broker = broker
        self._cache = cache
        self._verified: VerifiedFile | None = None
        self._finder: ShareFinder | None = None
        self._reported: set[tuple[str, int]] = set()

    async def segment_at(self, offset: int) -> Segment:
        """The segment that ``offset``, below the file's size, lies in.

        Raises:
            NotEnoughSharesError: fewer than k good shares can be reached.
            ContradictionError: the file was stored wrongly, or its capability is wrong.
        """
        if self._verified is None:
            self._verified = VerifiedFile(self.cap)
        verified = self._verified
        while True:
            number = offset // verified.likely_geometry.segment_size
            fetch = partial(self._fetch, verified, offset)
            segment = await self._cache.get(self.cap, number, fetch)
            if segment.offset <= offset < segment.end:
                return segment
            verified.guess = segment.geometry  # it was verified: from now on the number is right

    async def _fetch(self, verified: VerifiedFile, offset: int) -> Segment:
        while True:
            is_new = self._finder is None
            finder = self._finder = self._finder or ShareFinder(self._broker, verified)
            try:
                return await SegmentFetcher(
                    verified, finder, self._broker, offset, self._report
                ).run()
            except NotEnoughSharesError:
                if self._finder is finder:  # what is remembered did not help: ask anew
                    self._finder = None
                if is_new:
                    raise

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


class CHKFile:
    """An immutable file. Cheap to make; nothing is asked of the grid before the first read."""

    def __init__(self, cap: CHKCap, broker: Broker, cache: SegmentCache) -> None:
        self.cap = cap
        self._ciphertext = CiphertextFile(cap.verify_cap(), broker, cache)

    @property
    def size(self) -> int:
        """Bytes of plaintext."""
        return self.cap.size

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
        parts: list[bytes] = []
        while offset < end:
            segment = await self._ciphertext.segment_at(offset)
            start = offset - segment.offset
            piece = memoryview(segment.ciphertext)[start : end - segment.offset]
            parts.append(await work_on(len(piece) // 8, aes.ctr, self.cap.key, piece, offset))
            offset += len(piece)
        return b"".join(parts)
