"""One version of a mutable file as the segment cache sees it.

A version's contents never change, so its segments are cached like those of an immutable file, in
memory and on the disk: ciphertext with its salt in front. What is fetched together is a run,
checked against hash trees that are fetched once for each share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lafsfs.cache.segments import Segment
from lafsfs.grid.cpu import work_on
from lafsfs.mutable.verify import VerifiedTrees, salted_ciphertext

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from lafsfs.formats.geometry import Geometry
    from lafsfs.mutable.servermap import Version

RUN_SIZE: Final = 4 << 20  # bytes of a file fetched together: 32 of MDMF's segments


class VersionSource:
    """Segments of one version.

    ``fetch_blocks(version, first, count, trees)`` gets verified blocks of k shares by number.
    """

    def __init__(
        self,
        storage_index: bytes,
        version: Version,
        fetch_blocks: Callable[
            [Version, int, int, VerifiedTrees], Awaitable[Mapping[int, Sequence[bytes]]]
        ],
    ) -> None:
        self.version = version
        self._identity = b"slot:" + storage_index + version.pack()
        self._fetch_blocks = fetch_blocks
        self._trees = VerifiedTrees(version)

    @property
    def identity(self) -> bytes:
        """What no other version of any slot has."""
        return self._identity

    @property
    def geometry(self) -> Geometry:
        """How the version is cut; its signature covers that."""
        return self.version.geometry

    @property
    def longest_run(self) -> int:
        """Segments to fetch together."""
        return max(1, RUN_SIZE // max(1, self.geometry.segment_size))

    async def fetch(
        self, geometry: Geometry, numbers: range, deliver: Callable[[Segment], None]
    ) -> None:
        """See :class:`~lafsfs.cache.segments.SegmentSource`."""
        version = self.version
        shares = await self._fetch_blocks(version, numbers.start, len(numbers), self._trees)
        for i, number in enumerate(numbers):
            blocks = {shnum: stored[i] for shnum, stored in shares.items()}
            size = geometry.segment_length(number)
            data = await work_on(size, salted_ciphertext, version, number, blocks)
            deliver(Segment(number, geometry, data))
