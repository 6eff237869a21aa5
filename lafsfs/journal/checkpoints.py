"""SQLite's log, which everything committed goes to first, and emptying it.

It is read whole when a journal is opened, so it is emptied (a *checkpoint*) when it has
``CHECKPOINT_AT`` bytes. The most of that is done beside commits; for the rest, and where the disk
lets the log grow to ``MOST_LOG`` times as much, committing waits: :meth:`CommitLog.ready`.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.journal.database import checkpoint
from lafsfs.journal.faultpoints import reached
from lafsfs.journal.refusal import refused

if TYPE_CHECKING:
    from lafsfs.journal.place import Place

CHECKPOINT_AT: Final = 16 << 20  # bytes
CHECKPOINT_LEAST: Final = 1 << 20  # the same, where the disk keeps little free
MOST_LOG: Final = 4  # times as much, and committing waits for the disk
PAGE: Final = 4120  # bytes of the log for a changed page


class CommitLog:
    """How long the log is, about, and whether something may be committed to it."""

    def __init__(self, place: Place, margin: int, syncing: trio.Lock) -> None:
        """Asks the disk.

        Args:
            margin: bytes that the disk keeps free.
            syncing: held by whoever brings the log to the disk.
        """
        self._place = place
        self._syncing = syncing
        self._size = place.log_size()
        self._checkpoint_at = max(CHECKPOINT_LEAST, min(CHECKPOINT_AT, margin // 8))
        self._gate: trio.Event | None = None  # set when committing is possible again

    @property
    def is_long(self) -> bool:
        """Whether it should be emptied."""
        return self._size > self._checkpoint_at

    def grow(self, rows: int, size: int) -> None:
        """So many rows were changed in a commit, with so many bytes of blobs."""
        self._size += (2 + rows) * PAGE + size

    async def ready(self) -> None:
        """Wait while committing is held up.

        Raises:
            JournalFullError, JournalError: the disk refuses, and the log has become too long.
        """
        while self._size > MOST_LOG * self._checkpoint_at:
            await self.empty()
        while self._gate is not None:
            await self._gate.wait()

    async def empty(self) -> None:
        """First what can be done beside commits, then the rest without them.

        Raises:
            JournalFullError, JournalError: the disk refuses. Nothing is lost.
        """
        async with self._syncing:
            await self._checkpoint("PASSIVE")
            gate = self._gate = trio.Event()
            try:
                await self._checkpoint("TRUNCATE")
                self._size = 0
            finally:
                self._gate = None
                gate.set()

    async def _checkpoint(self, mode: str) -> None:
        try:
            await trio.to_thread.run_sync(checkpoint, self._place.database, mode)
        except sqlite3.Error as error:
            raise refused(error) from None
        reached(f"journal.checkpoint.{mode.lower()}")
