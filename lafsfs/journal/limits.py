"""How much may be staged: writers are slowed down, and then refused, before anything runs out.

Theory. Every byte written to a file is *promised* a place on the disk before it is taken, so that
closing, renaming and the like, which need little, never find the disk full. Promised bytes become
*used* ones when they are written down, and free ones when they are on the grid.

- From ``HIGH_WATER`` of the limit on, or when a writer finds no room, room is *scarce*: whoever
  uploads is told, and writers pause now and then, so that uploads catch up.
- At the limit writers wait as long as room became scarce, or uploads got on, within the last
  ``patience`` seconds. After that they get :class:`~lafsfs.errors.JournalFullError`, the system
  call ENOSPC.
- ``margin`` bytes of the disk are left free for what is not counted here: rows, SQLite's log, and
  other programs. The disk is asked every ``LOOK_AGAIN`` bytes,
  and each time while it is nearly full.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.errors import JournalFullError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HIGH_WATER: Final = 0.75  # of the limit
LOW_WATER: Final = 0.5  # of the limit: below it, that room becomes scarce is told again
PAUSE: Final = 0.05  # seconds above it, for every PACE bytes: 20 MB/s, as an upload might have
PACE: Final = 1 << 20
LOOK_AGAIN: Final = 16 << 20  # bytes promised between two looks at the disk


@dataclass(frozen=True, slots=True)
class Limits:
    """What a journal may take.

    ``staged``: bytes of contents not on the grid yet; None for half of what the disk has free when
    the journal is opened. ``margin``: bytes of the disk left free. ``patience``: seconds without
    progress after which a writer is refused.
    """

    staged: int | None = None
    margin: int = 256 << 20
    patience: float = 10.0


class Room:
    """The count of what is promised and used."""

    def __init__(self, directory: Path, limits: Limits) -> None:
        """Asks the disk: make it in a thread."""
        self._directory = directory
        self._limits = limits
        free = self._free() - limits.margin
        self.limit = max(0, free) // 2 if limits.staged is None else limits.staged
        self.promised = 0
        self.used = 0
        self._seen_free = free
        self._unpaced = 0  # bytes promised above the high-water mark since the last pause
        self._until_look = LOOK_AGAIN
        self._progressed = -float("inf")
        self._freed: trio.Event | None = None  # while somebody waits
        self._refused = 0  # writers that wait because there is no room
        self._is_told = False  # that room is scarce
        self._tell: Callable[[], None] = lambda: None

    @property
    def is_scarce(self) -> bool:
        """Whether whatever waits to be uploaded should be, without waiting for quiet."""
        return self._is_above(HIGH_WATER) or self._seen_free <= 0 or self._refused > 0

    def when_scarce(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called, never waiting, each time that room becomes scarce."""
        self._tell = tell

    async def promise(self, size: int) -> None:
        """Promise a place to ``size`` bytes; waits while there is none but some is being made.

        Raises:
            JournalFullError: nothing is getting free.
        """
        if self.is_scarce:
            self._unpaced += size
            if self._unpaced >= PACE:
                self._unpaced = 0
                await self._wait(PAUSE)
        while not self._fits(size):
            self._refused += 1
            try:
                self._look()
                patience = self._limits.patience - (trio.current_time() - self._progressed)
                if patience <= 0:
                    raise self._full(size)
                await self._wait(patience)
            finally:
                self._refused -= 1
        self.promised += size
        self._look()

    def require(self) -> None:
        """See that there is room for what takes next to none, as a name does.

        Raises:
            JournalFullError: there is not. What makes room is done nevertheless: do not ask.
        """
        if not self._fits(0):
            raise self._full(0)

    def release(self, size: int) -> None:
        """Promised bytes are not needed any more."""
        self.promised -= size
        self._wake()

    def use(self, size: int) -> None:
        """So many bytes are on the disk now; fewer than before, if negative."""
        self.used += size
        if size < 0:
            self._wake()

    def progress(self) -> None:
        """An upload got on: what it frees will be worth waiting for."""
        self._progressed = trio.current_time()

    def _look(self) -> None:
        """Tell if room has become scarce."""
        if self.is_scarce:
            if not self._is_told:
                self._is_told = True
                self._progressed = trio.current_time()  # as good as: what can go out does now
                self._tell()
        elif not self._is_above(LOW_WATER):
            self._is_told = False

    def _is_above(self, share: float) -> bool:
        return self.promised + self.used > share * self.limit

    def _wake(self) -> None:
        if self._freed is not None:
            self._freed.set()
            self._freed = None

    async def _wait(self, seconds: float) -> None:
        if self._freed is None:
            self._freed = trio.Event()
        with trio.move_on_after(seconds):
            await self._freed.wait()

    def _fits(self, size: int) -> bool:
        self._until_look -= size
        if self._until_look < 0 or self._seen_free < size:
            self._until_look = LOOK_AGAIN
            self._seen_free = self._free() - self._limits.margin - self.promised
        if self._seen_free < size:
            return False
        if self.promised + self.used + size > self.limit:
            return False
        self._seen_free -= size
        return True

    def _free(self) -> int:
        volume = os.statvfs(self._directory)
        return volume.f_bavail * volume.f_frsize

    def _full(self, size: int) -> JournalFullError:
        if self.promised + self.used + size > self.limit:
            return JournalFullError(
                f"{size:,} bytes do not fit: the journal may hold {self.limit:,}, and has"
                f" {self.promised + self.used:,} that wait to be on the grid; wait, or raise"
                " [journal] limit"
            )
        return JournalFullError(
            f"the disk that holds the journal ({self._directory}) is full but for the"
            f" {self._limits.margin:,} bytes that are left to others"
        )
