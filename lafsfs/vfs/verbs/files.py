"""Open files: reading and writing.

A file that is written to has *staged* contents from its first change until they are on the grid.
``flush`` and ``fsync`` return when what was written is accepted, and the name and the attributes
of the file with it; while it stays open and neither is called, that happens by itself
(:mod:`lafsfs.vfs.recording.unflushed`). It goes to the grid in the background
(:mod:`lafsfs.vfs.publishing.uploader`), and then the directories that name it are published. With
``settings.sync`` they wait for that, and report why it failed.

Whatever fails on the way, what was written stays staged, and readable. A file that no directory
names any more is not brought anywhere; its contents last until it is closed.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.caps import UnknownCap
from lafsfs.errors import (
    FileTooBigError,
    FormatError,
    GridError,
    IsADirectoryNodeError,
    NotEnoughSharesError,
    NotSupportedError,
    ReadOnlyCapabilityError,
    ServerError,
)
from lafsfs.nodes.filenode import MutableFileNode
from lafsfs.vfs.api import (
    BadHandleError,
    Changed,
    InvalidRequestError,
    Opened,
    StillUnreadableError,
    UnreadableError,
)
from lafsfs.vfs.posix.attributes import Kind
from lafsfs.vfs.publishing.storing import node_of
from lafsfs.vfs.tree.inodes import DirectoryInode, FileInode
from lafsfs.vfs.verbs.readahead import Budget, Reader

if TYPE_CHECKING:
    import itertools

    from lafsfs.nodes.filenode import FileNode
    from lafsfs.vfs.publishing.uploader import Uploader
    from lafsfs.vfs.recording.unflushed import Unflushed
    from lafsfs.vfs.staging.staged import StagedContents
    from lafsfs.vfs.tree.inodes import Inode
    from lafsfs.vfs.tree.tree import Tree

log = logging.getLogger(__name__)

MAX_FILE_SIZE: Final = (1 << 63) - 1  # bytes: what a system call can address
MAX_LISTED: Final = 20  # missing shares named in an error
# Where what it read ahead has failed, the kernel asks once more for the one page that is wanted:
# nobody is to wait for the deadline twice, nor the log to be told twice.
AGAIN: Final = 1.0  # seconds from a failure in which the same handle is asking again
PATIENCE_AGAIN: Final = 0.5  # seconds for it: what is cached comes, and nobody else is waited for
MAX_MUTABLE_SIZE: Final = 256 << 20  # bytes; a mutable file is held in memory whole to be written


@dataclass(eq=False, slots=True)
class FileHandle:
    """One open file."""

    inode: FileInode
    readable: bool
    writable: bool
    appends: bool
    changed: bool = False  # the file, by opening it: made or emptied it
    reader: Reader | None = None  # of a handle that reads, once it has a number
    failed_at: float = -inf  # when a failure was reported last, on Trio's clock


class Files:
    """The open files of one mount."""

    def __init__(
        self, tree: Tree, uploader: Uploader, unflushed: Unflushed, numbers: itertools.count[int]
    ) -> None:
        self._tree = tree
        self._uploader = uploader
        self._unflushed = unflushed
        self._numbers = numbers
        self._handles: dict[int, FileHandle] = {}
        self._budget = Budget(tree.settings.read_ahead)

    # opening and closing

    async def open(self, ino: int, flags: int) -> Opened:
        """Open an existing file (open(2))."""
        inode = self._regular(ino)
        handle = handle_of(inode, flags)
        with inode.pinned():
            await self._tree.refresh(inode)
            if isinstance(inode.cap, UnknownCap):
                raise NotSupportedError("this version cannot read this kind of child")
            if handle.writable or flags & os.O_TRUNC:
                self._require_writable(inode)
            if inode.is_mutable and not inode.is_dirty:
                await self._look_at(inode)
            if flags & os.O_TRUNC:
                await self.truncate(inode, 0)
                handle.changed = True
            return self.enter(handle)

    def enter(self, handle: FileHandle) -> Opened:
        """Give a handle its number."""
        inode = handle.inode
        inode.opens += 1
        inode.writers += handle.writable
        if inode.is_dirty:
            self._uploader.notice(inode)
        keep = inode.opened_epoch == inode.epoch and not inode.is_mutable
        inode.opened_epoch = inode.epoch
        number = next(self._numbers)
        self._handles[number] = handle
        if handle.readable:
            handle.reader = Reader(self._budget)
        return Opened(number, keep_cache=keep)

    async def release(self, number: int) -> None:
        """Forget a handle; what it left is seen to in the background."""
        handle = self._handles.pop(number, None)
        if handle is None:
            raise BadHandleError("this handle is closed")
        inode = handle.inode
        if handle.reader is not None:
            handle.reader.stop()
        inode.opens -= 1
        inode.writers -= handle.writable
        if not inode.opens and not inode.is_mutable:  # whose node knows what was newest
            inode.node = None
        if handle.writable and not inode.writers:
            self._uploader.closed(inode)
        self._tree.table.drop_if_idle(inode)

    # reading and writing

    async def read(self, number: int, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes, fewer only at the end.

        Raises:
            UnreadableError: the grid cannot bring them, or did not before the deadline.
        """
        handle = self._handle(number)
        inode = handle.inode
        if handle.reader is None:
            raise BadHandleError("this handle is not open for reading")
        if inode.staged is None:
            handle.reader.reading(node_of(self._tree, inode), offset, size, inode.size)
        deadline = self._tree.settings.deadline
        seconds = min(deadline, PATIENCE_AGAIN) if _asks_again(handle) else deadline
        try:
            with trio.move_on_after(seconds):
                return await self.contents(inode, offset, size)
        except NotEnoughSharesError as error:
            raise _unreadable(handle, str(error)) from error
        waits_for = "" if inode.node is None else inode.node.explanation()
        why = f"no data within {seconds:g} s: {waits_for or 'no server answers'}"
        raise _unreadable(handle, why)

    async def contents(self, inode: FileInode, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes of a file as it is now, staged or on the grid."""
        if inode.staged is not None:
            return await inode.staged.read(offset, size)
        return await node_of(self._tree, inode).read(offset, size)

    async def write(self, number: int, offset: int, data: bytes) -> int:
        """Stage ``data``; all of it."""
        handle = self._handle(number)
        if not handle.writable:
            raise BadHandleError("this handle is not open for writing")
        inode = handle.inode
        self._tree.require_room()
        staged = self._stage(inode)
        at = staged.size if handle.appends else offset
        self._check_size(inode, at + len(data))
        self._modified(inode)
        self._uploader.changed(inode)
        self._unflushed.note(inode)
        await staged.write(None if handle.appends else offset, data)
        return len(data)

    async def truncate(self, inode: FileInode, size: int) -> None:
        """Cut or grow a file; it is staged afterwards, or only touched if it had that size."""
        self._check_size(inode, size)
        self._tree.require_room()
        if inode.is_mutable and not inode.is_dirty:
            await self.learn_size(inode, max_age=0)
        self._modified(inode)
        if inode.is_dirty or size != inode.size:
            self._stage(inode).truncate(size)
            self._uploader.changed(inode)
            self._unflushed.note(inode)
        else:
            self._tree.touch(inode, inode.posix)

    async def flush(self, number: int) -> None:
        """What close(2) waits for: what was written, or changed by opening it, is accepted."""
        handle = self._handle(number)
        if handle.writable or handle.changed:
            await self.accept(handle.inode)

    async def fsync(self, number: int) -> None:
        """Contents and attributes accepted, whoever wrote them, and safe from a loss of power."""
        await self.accept(self._handle(number).inode)
        await self._tree.sync()

    async def accept(self, inode: FileInode) -> None:
        """Have what was written to ``inode`` accepted; on the grid, where that is wanted.

        Raises:
            LafsError: it is not. It is kept, and the grid is tried again.
        """
        await self._unflushed.seal(inode)
        await self._tree.accept()
        self._uploader.accepted(inode)
        if self._tree.settings.sync:
            await self.bring(inode)

    async def written(self, inode: FileInode) -> None:
        """What was staged by nobody who has it open is accepted: it is to go to the grid."""
        self._uploader.notice(inode)
        self._uploader.accepted(inode)
        if self._tree.settings.sync:
            await self.bring(inode)

    async def learn_size(self, inode: FileInode, max_age: float) -> None:
        """Ask for the size of a mutable file, if that was not done ``max_age`` seconds ago."""
        node = node_of(self._tree, inode) if inode.is_mutable else None
        if not isinstance(node, MutableFileNode):
            return
        version = await node.version(max_age)
        if inode.known_version not in (None, version):
            inode.epoch += 1
            self._tree.tell(Changed(inode.number, contents=True))
        inode.known_version, inode.known_size = version, version.data_length

    async def _look_at(self, inode: FileInode) -> None:
        """Learn what is newest; what was seen before must do while the grid is away."""
        try:
            await self.learn_size(inode, max_age=0)
        except (GridError, ServerError) as error:
            if inode.known_version is None:
                raise
            log.info("a mutable file is opened as last seen: %s", error)

    async def try_learn_size(self, inode: FileInode) -> None:
        """As :meth:`learn_size`, for those who can do without."""
        try:
            await self.learn_size(inode, self._tree.settings.max_age)
        except (GridError, ServerError, FormatError) as error:
            log.info("the size of a mutable file is not known: %s", error)

    # to the grid

    async def bring(self, inode: FileInode) -> None:
        """Have the contents and every name of a file on the grid.

        Raises:
            LafsError: they are not; everything is kept and tried again.
        """
        await self._uploader.bring(inode)
        await self._tree.settle(inode)

    # odds and ends

    def _handle(self, number: int) -> FileHandle:
        try:
            return self._handles[number]
        except KeyError:
            raise BadHandleError("this handle is closed") from None

    def _regular(self, ino: int) -> FileInode:
        inode = self._tree.table[ino]
        if isinstance(inode, DirectoryInode):
            raise IsADirectoryNodeError("this is a directory")
        if not isinstance(inode, FileInode) or inode.posix.kind is not Kind.FILE:
            raise InvalidRequestError("this is not a regular file")
        return inode

    def _require_writable(self, inode: FileInode) -> None:
        self._tree.require_writable(inode)
        if inode.is_mutable and inode.cap is not None and not inode.cap.can_write:
            raise ReadOnlyCapabilityError("the capability of this file reads only")

    def _stage(self, inode: FileInode) -> StagedContents:
        if inode.staged is None:
            base = None if inode.cap is None else node_of(self._tree, inode)
            inode.staged = self._tree.area.stage(base, inode.size)
        return inode.staged

    def _modified(self, inode: FileInode) -> None:
        now = self._tree.now()
        inode.posix = replace(inode.posix, mtime=now, ctime=now)

    @staticmethod
    def _check_size(inode: Inode, size: int) -> None:
        mutable = isinstance(inode, FileInode) and inode.is_mutable
        if size > (MAX_MUTABLE_SIZE if mutable else MAX_FILE_SIZE):
            raise FileTooBigError("the file would be too big")


def _asks_again(handle: FileHandle) -> bool:
    return trio.current_time() < handle.failed_at + AGAIN


def _unreadable(handle: FileHandle, why: str) -> UnreadableError:
    """The error of a read; of the kernel's requests for the same one, the first is reported."""
    text = told(why, handle.inode.node)
    if _asks_again(handle):
        return StillUnreadableError(text)
    handle.failed_at = trio.current_time()
    return UnreadableError(text)


def told(why: str, node: FileNode | None) -> str:
    """Why a read failed, with what is missing and what would help."""
    seen = None if node is None else node.health()
    unseen = [] if seen is None else sorted(seen.missing)[:MAX_LISTED]
    missing = ", ".join(map(str, unseen))
    return (
        why
        + (f"; not seen: share{'s' * (len(unseen) > 1)} {missing}" if missing else "")
        + "; it can be read again as soon as more of the servers that hold its shares are back"
    )


def handle_of(inode: FileInode, flags: int) -> FileHandle:
    """A handle with the rights that open(2)'s ``flags`` ask for."""
    access = flags & os.O_ACCMODE
    return FileHandle(
        inode,
        readable=access != os.O_WRONLY,
        writable=access != os.O_RDONLY,
        appends=bool(flags & os.O_APPEND),
    )
