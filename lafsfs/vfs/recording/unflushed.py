"""Files that are written and stay open: what is in them is accepted, too, without being asked for.

Making a file records nothing by itself, and neither does writing to it, or changing its attributes
while it is open for writing: closing it does, in one commit. Any other commit takes along what has
changed until then, but for contents in a log that nobody has sealed, and the recorder sees to the
rest a moment later. For contents there is this: ``ACCEPTED_AFTER`` seconds after a write they are
accepted and brought to the disk, if no ``close`` or ``fsync`` did that before.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.errors import JournalError, LafsError

if TYPE_CHECKING:
    from lafsfs.vfs.recording.recorder import Recorder
    from lafsfs.vfs.tree.inodes import FileInode

log = logging.getLogger(__name__)

ACCEPTED_AFTER: Final = 4.0  # seconds; a loss of power is to cost 5 at most, and syncing takes time


class Unflushed:
    """What was written since it was last accepted. Start :meth:`run` in a nursery."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._written: dict[FileInode, None] = {}
        self._wake = trio.Event()

    def note(self, inode: FileInode) -> None:
        """Contents of ``inode`` have changed."""
        if inode not in self._written:
            self._written[inode] = None
            self._wake.set()

    async def seal(self, inode: FileInode) -> None:
        """Have what is written to ``inode`` now in the next commit.

        Raises:
            LafsError: it cannot be; it stays in memory, and is tried again.
        """
        staged = inode.staged
        self._written.pop(inode, None)  # what is written from here on is noted again
        if staged is None:
            return
        try:
            await staged.seal()
        except BaseException:
            self.note(inode)
            raise
        self._recorder.changed(inode)

    async def accept(self) -> None:
        """Have accepted what nobody has, and bring it to the disk."""
        try:
            for inode in tuple(self._written):
                await self._seal_by_itself(inode)
            await self._recorder.sync()
        except JournalError as error:  # the recorder and the journal try again
            log.warning("what was written to open files is not on the disk: %s", error)

    async def run(self) -> None:
        """Do that for ever."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await trio.sleep(ACCEPTED_AFTER)
            await self.accept()

    async def _seal_by_itself(self, inode: FileInode) -> None:
        if not inode.edges:  # it lasts as long as it is open
            self._written.pop(inode, None)
            return
        try:
            await self.seal(inode)
        except LafsError as error:  # who closes it will be told
            log.info("what was written to an open file stays in memory: %s", error)
