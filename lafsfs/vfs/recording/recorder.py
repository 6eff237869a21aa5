"""Where accepted changes are written down: what the verbs need of a journal.

Whoever changes an inode or a binding says so at once (``changed``, ``changed_name``), without an
await. A verb ends with ``accept``, which records everything that changed since the last one as one
step: what it answered survives the process from then on, and with ``sync`` the machine.

That something was put in flight needs no record: an edit that is made again recognises its own
work. But that a version of a slot was begun does: it may land on servers that are away when its
edits are made again, and turn up behind that. What was accepted is brought to the disk before it
goes out (:func:`write_ahead`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

import trio

from lafsfs.errors import LocalError

if TYPE_CHECKING:
    from lafsfs.caps import Cap
    from lafsfs.vfs.publishing.removals import Look
    from lafsfs.vfs.tree.bindings import Binding
    from lafsfs.vfs.tree.inodes import Inode

log = logging.getLogger(__name__)


class Recorder(Protocol):
    """What keeps pending changes."""

    def require_room(self) -> None:
        """Raises an error with ENOSPC if nothing more can be accepted now."""

    def changed(self, inode: Inode) -> None:
        """Attributes, contents or existence of ``inode`` are not what was recorded."""

    def changed_name(self, binding: Binding) -> None:
        """What is wanted under a name, or what the grid has there, is not what was recorded."""

    def changed_look(self, look: Look) -> None:
        """There is something to be looked at, or that is over."""

    def begun(self, cap: Cap, seqnum: int | None) -> None:
        """Of the slot of ``cap`` versions up to ``seqnum`` may turn up that nobody knows of; None
        when that is over."""

    async def accept(self) -> None:
        """Record all that has changed, in one step.

        Raises:
            LocalError: the local disk does not take it.
        """

    async def sync(self) -> None:
        """Bring all that was accepted to the disk.

        Raises:
            LocalError: the local disk does not take it.
        """


async def write_ahead(recorder: Recorder, cap: Cap, seqnum: int) -> None:
    """Have all that goes out with a version of a slot on the local disk first, and its number.

    So the grid is never ahead of that disk. Where it is full or broken, the grid is the better
    place all the same.
    """
    recorder.begun(cap, seqnum)
    try:
        await recorder.sync()
    except LocalError as error:
        log.warning("published without being in the journal: %s", error)


class MemoryRecorder:
    """Keeps nothing: what is accepted lasts as long as the process.

    Attributes:
        accepts: how often something was accepted.
    """

    def __init__(self) -> None:
        self.inodes: dict[Inode, None] = {}
        self.names: dict[Binding, None] = {}
        self.accepts = 0

    def require_room(self) -> None:
        return

    def changed(self, inode: Inode) -> None:
        self.inodes[inode] = None

    def changed_name(self, binding: Binding) -> None:
        self.names[binding] = None

    def changed_look(self, look: Look) -> None:
        return

    def begun(self, cap: Cap, seqnum: int | None) -> None:
        return

    async def accept(self) -> None:
        self.accepts += 1
        self.inodes.clear()
        self.names.clear()
        await trio.lowlevel.checkpoint()

    async def sync(self) -> None:
        await self.accept()
