"""One file on its way to the grid: what the uploader knows of it, and a status tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from lafsfs.errors import LafsError
    from lafsfs.vfs.tree.inodes import FileInode

FIRST: Final = float("-inf")  # due before everything that has a time


@dataclass(eq=False, slots=True)
class Queued:
    """One file on its way. Times are the event loop's."""

    inode: FileInode
    order: int
    since: float  # when the oldest change was made that is not on the grid
    changed: float  # when the newest was
    accepted: bool = False  # whether any of it was accepted
    hurried: bool = False
    slot: float | None = None  # when it is to be looked at: what is in the heap with another is old
    scope: trio.CancelScope | None = None  # of the upload under way
    may_restart: bool = False  # whether a change cuts that upload short
    size: int = 0  # bytes that are being uploaded
    placed: int = 0  # of these, on servers
    brought: int = -1  # of ``staged.changes``, how many are on the grid
    covers: int = -1  # how many the upload under way will bring
    failures: int = 0
    error: LafsError | None = None
    not_before: float = FIRST
    attempted: trio.Event = field(default_factory=trio.Event)  # the next attempt is over

    @property
    def is_uploading(self) -> bool:
        return self.scope is not None
