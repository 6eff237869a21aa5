"""Reading ahead: from where a handle was read, what to fetch before it is asked for.

Theory. Who reads a file from one end to the other waits for the grid once per segment unless the
next segments are already on their way. How far ahead is worth it depends on the reader: a program
that looks at a header wants nothing more, one that copies wants the links full. So the *window*,
the bytes kept ahead of the reader, begins with the second read in a row, doubles as long as reading
goes on in order, and closes at the first jump. The kernel reads ahead too, and its requests
overtake each other by a few hundred kilobytes; that is still reading in order.

:func:`follow` decides, PURE. A :class:`Reader` carries it out for one handle, out of a
:class:`Budget` that all handles of a mount share: where memory is short no window grows, and
readers that come too late have none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lafsfs.cache.segments import Prefetch
    from lafsfs.nodes.filenode import FileNode

FIRST_WINDOW: Final = 1 << 20  # bytes: a segment, so that the next one is there in time
MAX_WINDOW: Final = 16 << 20  # bytes: 100 ms of a link of 1.3 Gbit/s, or a second of 130 Mbit/s
SLACK: Final = 1 << 20  # bytes by which the kernel's own read-ahead gets out of order


@dataclass(frozen=True, slots=True)
class Stream:
    """What the reads of a handle looked like so far. Offsets and sizes in bytes.

    Attributes:
        position: the end of the furthest read in order; -1 before the first.
        window: how much to keep ahead of it; 0 until there were two reads in order.
        ahead: the end of what was asked for in advance.
    """

    position: int = -1
    window: int = 0
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class Advice:
    """What follows from one more read.

    Attributes:
        jumped: what was asked for in advance is not wanted any more.
        start, end: the range to ask for in advance now; empty for nothing.
    """

    stream: Stream
    jumped: bool = False
    start: int = 0
    end: int = 0


def follow(stream: Stream, offset: int, size: int, file_size: int, most: int) -> Advice:
    """What to do when ``size`` bytes at ``offset`` are read next.

    ``most``: the largest window that there is room for. The stream that comes back has a window no
    larger than that.
    """
    end = min(offset + size, file_size)
    first = stream.position < 0
    if first or not _is_in_order(stream, offset):
        return Advice(Stream(end, 0, end), jumped=not first)
    if end <= stream.position:  # overtaken by a later one
        return Advice(replace(stream, window=min(stream.window, most)))
    stream = replace(stream, position=end, ahead=max(stream.ahead, end))
    if stream.ahead - end > stream.window // 2:  # enough for now
        return Advice(replace(stream, window=min(stream.window, most)))
    window = min(max(2 * stream.window, FIRST_WINDOW), most, MAX_WINDOW)
    target = min(max(stream.ahead, end + window), file_size)
    advised = replace(stream, window=window, ahead=target)
    return Advice(advised, start=stream.ahead, end=target)


def _is_in_order(stream: Stream, offset: int) -> bool:
    return stream.position - SLACK <= offset <= stream.position + SLACK


class Budget:
    """Bytes that all windows of a mount may have together."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0

    @property
    def room(self) -> int:
        """Bytes not taken by any window."""
        return max(0, self.total - self.taken)


class Reader:
    """The read-ahead of one open handle."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._stream = Stream()
        self._under_way: list[tuple[int, Prefetch]] = []  # with where each range ends

    def reading(self, node: FileNode, offset: int, size: int, file_size: int) -> None:
        """Take note of a read that is about to be made, and ask for what comes next. No waiting."""
        before = self._stream
        most = before.window + self._budget.room
        advice = follow(before, offset, size, file_size, most)
        self._stream = advice.stream
        self._budget.taken += advice.stream.window - before.window
        if advice.jumped:
            self._give_up()
        self._give_up(before=offset - SLACK)
        if advice.start < advice.end:
            prefetch = node.prefetch(advice.start, advice.end - advice.start)
            if prefetch is not None:
                self._under_way.append((advice.end, prefetch))

    def stop(self) -> None:
        """Nothing more will be read: what is not on its way for others too may be given up."""
        self._give_up()
        self._budget.taken -= self._stream.window
        self._stream = Stream()

    def _give_up(self, before: int | None = None) -> None:
        """Want no more what ends before an offset, or any of it."""
        kept: list[tuple[int, Prefetch]] = []
        for end, prefetch in self._under_way:
            if before is not None and end > before:
                kept.append((end, prefetch))
            else:
                prefetch.cancel()
        self._under_way = kept
