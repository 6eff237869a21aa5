"""Where accepted changes are written down: what the verbs need of a journal.

Whoever changes an inode says so at once (``changed``), without an await. A verb ends with
``accept``, which records everything that changed since the last one as one step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from lafsfs.vfs.inodes import Inode


class Recorder(Protocol):
    """What keeps pending changes."""

    def require_room(self) -> None:
        """Raises an error with ENOSPC if nothing more can be accepted now."""

    def changed(self, inode: Inode) -> None:
        """Attributes or contents of ``inode`` are not what was recorded."""

    async def accept(self) -> None:
        """Record all that has changed, in one step. Raises LocalError."""

    async def sync(self) -> None:
        """Bring all that was accepted to the disk. Raises LocalError."""


class MemoryRecorder:
    """Keeps nothing: what is accepted lasts as long as the process.

    Attributes:
        accepts: how often something was accepted.
    """

    def __init__(self) -> None:
        self.inodes: dict[Inode, None] = {}
        self.accepts = 0

    def require_room(self) -> None:
        return

    def changed(self, inode: Inode) -> None:
        self.inodes[inode] = None

    async def accept(self) -> None:
        self.accepts += 1
        self.inodes.clear()
        await trio.lowlevel.checkpoint()

    async def sync(self) -> None:
        await self.accept()
