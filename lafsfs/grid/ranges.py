"""Which bytes of an upload have arrived (``http-storage-node-protocol.rst``, immutable writes).

A share is complete when every byte of its allocated size was written, in whatever order and
however often. Knows offsets only; the bytes are somebody else's.
"""

from __future__ import annotations


class WrittenRanges:
    """A set of half-open byte ranges, kept sorted, disjoint and merged."""

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []

    def add(self, start: int, stop: int) -> None:
        """Note that ``[start, stop)`` has been written."""
        if start >= stop:
            return
        before = [r for r in self._ranges if r[1] < start]
        after = [r for r in self._ranges if r[0] > stop]
        touching = self._ranges[len(before) : len(self._ranges) - len(after)]
        if touching:
            start, stop = min(start, touching[0][0]), max(stop, touching[-1][1])
        self._ranges = [*before, (start, stop), *after]

    def overlap(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The parts of ``[start, stop)`` that have been written already."""
        return [
            (max(start, low), min(stop, high))
            for low, high in self._ranges
            if max(start, low) < min(stop, high)
        ]

    def missing(self, size: int) -> list[tuple[int, int]]:
        """The parts of ``[0, size)`` that have not been written yet."""
        edges = [0, *(edge for written in self._ranges for edge in written), size]
        gaps = zip(edges[::2], edges[1::2], strict=True)
        return [(low, high) for low, high in gaps if low < high]

    @property
    def total(self) -> int:
        """How many bytes have been written."""
        return sum(stop - start for start, stop in self._ranges)

    def covers(self, size: int) -> bool:
        """Whether every byte of ``[0, size)`` has been written."""
        return size == 0 or self._ranges == [(0, size)]

    def __repr__(self) -> str:
        return f"WrittenRanges({self._ranges!r})"
