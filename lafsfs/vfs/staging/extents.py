"""Which bytes of a file being written come from where. Pure.

A staged file is its *base* (the contents on the grid when writing began) with *extents* laid over
it. An extent says: these bytes of the file are those bytes of that record in the staging file.

- Extents never overlap and are kept in order. A later write cuts earlier ones.
- ``base_limit`` is how far the base still shows: truncating lowers it for good, so that a file cut
  and grown again reads as zeros and not as what was cut.
- What neither an extent nor the base covers, up to ``size``, is a hole: zeros.
- Touching extents that continue each other in one record are merged, so that a file written from
  front to back has one extent for each record.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Extent:
    """``length`` bytes of the file at ``start``: those of record ``record`` from ``skip`` on."""

    start: int
    length: int
    record: int
    skip: int

    @property
    def end(self) -> int:
        return self.start + self.length

    def between(self, start: int, end: int) -> Extent:
        """The part of it in [start, end), which must not be empty."""
        first, last = max(start, self.start), min(end, self.end)
        return Extent(first, last - first, self.record, self.skip + first - self.start)


@dataclass(frozen=True, slots=True)
class BasePiece:
    """``length`` bytes of the file at ``start``: those of the base at the same place."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Hole:
    """``length`` zeros at ``start``."""

    start: int
    length: int


Piece: TypeAlias = Extent | BasePiece | Hole


class ExtentMap:
    """The extents of one staged file. All offsets and sizes are bytes of the file."""

    __slots__ = ("_extents", "_starts", "base_limit", "base_size", "size")

    def __init__(self, base_size: int) -> None:
        self.size = base_size
        self.base_size = base_size
        self.base_limit = base_size
        self._starts: list[int] = []
        self._extents: list[Extent] = []

    def __len__(self) -> int:
        return len(self._extents)

    def __iter__(self) -> Iterator[Extent]:
        return iter(self._extents)

    @property
    def live(self) -> int:
        """Bytes that extents show."""
        return sum(extent.length for extent in self._extents)

    def copy(self) -> Self:
        """The same map, to go on reading while the original is written to."""
        other = type(self)(self.base_size)
        other.size, other.base_limit = self.size, self.base_limit
        other._starts, other._extents = self._starts.copy(), self._extents.copy()
        return other

    def write(self, extent: Extent) -> None:
        """Lay ``extent`` over whatever is there; the file grows if it must."""
        if extent.length == 0:
            return
        at = self._cut(extent.start, extent.end)
        self.size = max(self.size, extent.end)
        before = self._extents[at - 1] if at else None
        if before is not None and _continues(before, extent):
            self._extents[at - 1] = replace(before, length=before.length + extent.length)
            return
        self._starts.insert(at, extent.start)
        self._extents.insert(at, extent)

    def truncate(self, size: int) -> None:
        """Make the file ``size`` bytes long: cut, or grown by a hole."""
        if size < self.size:
            self._cut(size, self.size)
            self.base_limit = min(self.base_limit, size)
        self.size = size

    def replace(self, extents: Iterable[Extent]) -> None:
        """Other places for what shows: as many bytes at the same offsets, or fewer."""
        self._extents = sorted(extents, key=lambda extent: extent.start)
        self._starts = [extent.start for extent in self._extents]

    def pieces(self, offset: int, size: int) -> Iterator[Piece]:
        """Where the bytes [offset, offset + size) come from, in order, as far as the file goes."""
        end = min(offset + size, self.size)
        if offset >= end:
            return
        position = offset
        for extent in self._touching(offset, end):
            yield from self._beneath(position, extent.start)
            part = extent.between(offset, end)
            yield part
            position = part.end
        yield from self._beneath(position, end)

    def _beneath(self, start: int, end: int) -> Iterator[Piece]:
        """What shows where no extent lies."""
        visible = min(end, self.base_limit)
        if start < visible:
            yield BasePiece(start, visible - start)
        hole = max(start, visible)
        if hole < end:
            yield Hole(hole, end - hole)

    def _touching(self, start: int, end: int) -> Iterator[Extent]:
        for at in range(self._first_touching(start), len(self._extents)):
            extent = self._extents[at]
            if extent.start >= end:
                return
            yield extent

    def _first_touching(self, start: int) -> int:
        """The index of the first extent that ends behind ``start``."""
        at = bisect_right(self._starts, start)
        return at - 1 if at and self._extents[at - 1].end > start else at

    def _cut(self, start: int, end: int) -> int:
        """Take [start, end) out of all extents; the index where an extent for it belongs."""
        first = last = self._first_touching(start)
        kept: list[Extent] = []
        while last < len(self._extents) and self._extents[last].start < end:
            extent = self._extents[last]
            if extent.start < start:
                kept.append(extent.between(extent.start, start))
            if extent.end > end:
                kept.append(extent.between(end, extent.end))
            last += 1
        self._extents[first:last] = kept
        self._starts[first:last] = [extent.start for extent in kept]
        return first + sum(extent.start < start for extent in kept)


def merged(old: bytes, extents: ExtentMap, written: Sequence[tuple[int, bytes]]) -> bytes:
    """Lay what was written over contents that another writer may have changed meanwhile.

    ``written``: (offset, bytes) of every extent. What lies behind the base that we knew is kept,
    unless the file was cut.
    """
    was_cut = extents.base_limit < extents.base_size
    kept = old[: extents.base_limit] if was_cut else old
    size = extents.size if was_cut else max(extents.size, len(old))
    result = bytearray(kept[:size].ljust(size, b"\0"))
    for offset, data in written:
        result[offset : offset + len(data)] = data
    return bytes(result)


def _continues(before: Extent, extent: Extent) -> bool:
    return (
        before.record == extent.record
        and before.end == extent.start
        and before.skip + before.length == extent.skip
    )
