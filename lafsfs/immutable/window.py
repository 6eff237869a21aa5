"""Ranges of one share, held for the time of one answer: what is loaded is not asked for again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lafsfs.errors import FormatError
from lafsfs.formats.geometry import Span
from lafsfs.grid.asking import plain_errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

MERGE_GAP = 4 << 10  # bytes; fetching a smaller gap costs less than a request of its own


class Window:
    """Made with what reads a range; fewer bytes come back when the share ends before it does."""

    def __init__(self, read: Callable[[Span], Awaitable[bytes]]) -> None:
        self._read = read
        self._parts: list[tuple[Span, bytes]] = []

    async def load(self, spans: Iterable[Span]) -> None:
        """Fetch what is not held yet, near ranges in one request, all requests at once."""
        missing = merged(span for span in spans if not self.holds(span))
        if len(missing) == 1:
            await self._fetch(missing[0])
        elif missing:
            with plain_errors():
                async with trio.open_nursery() as nursery:
                    for span in missing:
                        nursery.start_soon(self._fetch, span)

    async def _fetch(self, span: Span) -> None:
        self._parts.append((span, await self._read(span)))

    def _holding(self, span: Span) -> tuple[Span, bytes] | None:
        for part in self._parts:
            if part[0].offset <= span.offset and span.end <= part[0].end:
                return part
        return None

    def holds(self, span: Span) -> bool:
        """Whether the range was loaded."""
        return self._holding(span) is not None

    def view(self, span: Span) -> memoryview:
        """A range that was loaded; shorter if the share ends before it does."""
        part = self._holding(span)
        if part is None:
            raise RuntimeError("a range was used that was not loaded")
        start = span.offset - part[0].offset
        return memoryview(part[1])[start : start + span.size]

    def get(self, span: Span) -> bytes:
        """The same as an object of its own, for what is small or kept."""
        return bytes(self.view(span))

    def exactly(self, span: Span) -> bytes:
        """A range that was loaded. Raises FormatError when the share ends before it does."""
        data = self.get(span)
        if len(data) != span.size:
            raise FormatError("the share is cut short")
        return data


def merged(spans: Iterable[Span]) -> list[Span]:
    """The fewest ranges that cover these, without fetching gaps of over :data:`MERGE_GAP` bytes."""
    result: list[Span] = []
    for span in sorted(spans):
        if result and span.offset <= result[-1].end + MERGE_GAP:
            last = result.pop()
            result.append(Span(last.offset, max(last.end, span.end) - last.offset))
        else:
            result.append(span)
    return result
