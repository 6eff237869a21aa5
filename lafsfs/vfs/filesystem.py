"""The file system of one mount: every verb of :class:`~lafsfs.vfs.api.FileSystemAPI`, put together.

    open_filesystem            builds the parts around one nursery, and the root
      Tree                     inodes, directories, what a name shows; one Publisher each
      Namespace, Renaming      verbs on names
      Files                    open files and their way to the grid
      Metadata, RootFile       attributes and space
      Readdir                  open directories

Tasks in the nursery: one publisher for each directory with pending work, one retry for each file
whose contents could not be brought to the grid, tables being fetched ahead, which all end by
themselves; and the watch over open mutable files. Leaving the context cancels
them, so :meth:`FileSystem.drain` first.
"""

from __future__ import annotations

import itertools
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.errors import LafsError
from lafsfs.vfs.api import ROOT_INODE
from lafsfs.vfs.attributes import Defaults
from lafsfs.vfs.files import Files
from lafsfs.vfs.inodes import DirectoryInode, FileInode
from lafsfs.vfs.metadata import Metadata
from lafsfs.vfs.namespace import Namespace
from lafsfs.vfs.readdir import Readdir
from lafsfs.vfs.recorder import MemoryRecorder
from lafsfs.vfs.renaming import Renaming
from lafsfs.vfs.rootfile import RootFile
from lafsfs.vfs.staging import StagingArea
from lafsfs.vfs.tree import Tree
from lafsfs.vfs.watch import watch_open_files

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable

    from lafsfs.grid.broker import Broker
    from lafsfs.nodes.dirnode import DirectoryNode
    from lafsfs.nodes.maker import NodeMaker
    from lafsfs.vfs.api import (
        Attributes,
        Caller,
        DirectoryEntry,
        Opened,
        SetAttributes,
        StatFS,
        VfsSettings,
    )
    from lafsfs.vfs.recorder import Recorder

log = logging.getLogger(__name__)

DRAIN_ATTEMPTS: Final = 6  # over half a minute: servers that failed are left alone for a while
UPLOADS: Final = 8  # files on their way to the grid at a time while draining


@asynccontextmanager
async def open_filesystem(
    root: DirectoryNode,
    maker: NodeMaker,
    broker: Broker,
    settings: VfsSettings,
    recorder: Recorder | None = None,
) -> AsyncIterator[FileSystem]:
    """The file system whose root is ``root``, which is read first. ``broker`` tells of space.

    ``recorder``: where what is accepted is written down, nowhere if that is not given.

    Raises:
        LafsError: the root cannot be read, or the local directories cannot be used.
    """
    await root.table(settings.max_age)
    root_file = RootFile(
        settings.state_directory, root.cap, Defaults(settings.owner_uid, settings.owner_gid)
    )
    posix = await root_file.load()
    async with (
        StagingArea.open(settings.staging_directory) as area,
        trio.open_nursery() as nursery,
    ):
        tree = Tree(maker, settings, nursery, area, recorder or MemoryRecorder())
        tree.table.add(DirectoryInode(ROOT_INODE, posix, tree.directory(root.cap)))
        fs = FileSystem(tree, root_file, broker)
        if settings.max_age > 0:
            nursery.start_soon(fs.watch)
        yield fs
        nursery.cancel_scope.cancel()


class FileSystem:
    """See :class:`~lafsfs.vfs.api.FileSystemAPI`. Made by :func:`open_filesystem`."""

    def __init__(self, tree: Tree, root_file: RootFile, broker: Broker) -> None:
        handles = itertools.count(1)
        self._tree = tree
        self._files = Files(tree, handles)
        self._names = Namespace(tree, self._files)
        self._renaming = Renaming(tree, self._names)
        self._metadata = Metadata(tree, self._files, root_file, broker)
        self._directories = Readdir(tree, handles)

    # names

    async def lookup(self, parent: int, name: bytes) -> Attributes:
        """Find a child."""
        return await self._names.lookup(parent, name)

    def remember(self, ino: int) -> None:
        """Count a lookup of an entry that was handed on."""
        self._tree.table[ino].lookups += 1

    def forget(self, counts: Iterable[tuple[int, int]]) -> None:
        """Take lookups back."""
        for number, count in counts:
            inode = self._tree.table.get(number)
            if inode is not None:
                inode.lookups = max(0, inode.lookups - count)
                self._tree.table.drop_if_idle(inode)

    async def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Attributes:
        """Make a directory."""
        return await self._names.mkdir(parent, name, mode, caller)

    async def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller
    ) -> Attributes:
        """Make an empty file, a fifo, a socket or a device."""
        return await self._names.mknod(parent, name, mode, rdev, caller)

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Attributes:
        """Make a symbolic link."""
        return await self._names.symlink(parent, name, target, caller)

    async def link(self, ino: int, parent: int, name: bytes) -> Attributes:
        """Give a file another name."""
        return await self._names.link(ino, parent, name)

    async def unlink(self, parent: int, name: bytes) -> None:
        """Remove a name."""
        await self._names.unlink(parent, name)

    async def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty directory."""
        await self._names.rmdir(parent, name)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0
    ) -> None:
        """Move a name, replacing, exchanging, or neither."""
        await self._renaming.rename(parent, name, new_parent, new_name, flags)

    async def readlink(self, ino: int) -> bytes:
        """The target of a symbolic link."""
        return await self._names.readlink(ino)

    # attributes

    async def getattr(self, ino: int) -> Attributes:
        """What stat(2) shows."""
        return await self._metadata.getattr(ino)

    async def setattr(
        self, ino: int, changes: SetAttributes, caller: Caller, handle: int | None = None
    ) -> Attributes:
        """Change attributes or a file's size."""
        return await self._metadata.setattr(ino, changes, caller, handle)

    async def getxattr(self, ino: int, name: bytes, caller: Caller) -> bytes:
        """The value of an extended attribute."""
        return await self._metadata.getxattr(ino, name, caller)

    async def setxattr(self, ino: int, name: bytes, value: bytes, caller: Caller) -> None:
        """Set an extended attribute."""
        await self._metadata.setxattr(ino, name, value, caller)

    async def listxattr(self, ino: int) -> tuple[bytes, ...]:
        """The names of the extended attributes."""
        return await self._metadata.listxattr(ino)

    async def removexattr(self, ino: int, name: bytes, caller: Caller) -> None:
        """Remove an extended attribute."""
        await self._metadata.removexattr(ino, name, caller)

    async def statfs(self) -> StatFS:
        """Space on the grid."""
        return await self._metadata.statfs()

    # directories

    async def opendir(self, ino: int) -> int:
        """A handle on a directory."""
        return await self._directories.opendir(ino)

    def readdir(self, handle: int, start: int) -> AsyncGenerator[DirectoryEntry, None]:
        """The entries from ``start`` on."""
        return self._directories.readdir(handle, start)

    async def fsyncdir(self, handle: int) -> None:
        """Wait for what is pending in a directory."""
        await self._directories.fsyncdir(handle)

    async def releasedir(self, handle: int) -> None:
        """Close a directory."""
        await self._directories.releasedir(handle)

    # files

    async def open(self, ino: int, flags: int) -> Opened:
        """Open a file."""
        return await self._files.open(ino, flags)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[Opened, Attributes]:
        """Make and open a file."""
        return await self._names.create(parent, name, mode, flags, caller)

    async def read(self, handle: int, offset: int, size: int) -> bytes:
        """Read from a file."""
        return await self._files.read(handle, offset, size)

    async def write(self, handle: int, offset: int, data: bytes) -> int:
        """Write to a file."""
        return await self._files.write(handle, offset, data)

    async def flush(self, handle: int) -> None:
        """What close(2) waits for."""
        await self._files.flush(handle)

    async def fsync(self, handle: int) -> None:
        """Wait for contents and attributes to be on the grid."""
        await self._files.fsync(handle)

    async def release(self, handle: int) -> None:
        """Close a file."""
        await self._files.release(handle)

    # the whole

    async def watch(self) -> None:
        """Notice what others write to files that are open; for ever."""
        await watch_open_files(self._tree, self._files, self._tree.settings.max_age)

    async def drain(self) -> tuple[LafsError, ...]:
        """Bring everything pending to the grid; an error for each thing that could not be."""
        wait = self._tree.settings.retry_first
        for attempt in range(DRAIN_ATTEMPTS):
            if attempt:
                await trio.sleep(wait)
                wait = min(2 * wait, self._tree.settings.retry_most)
            errors = await self._drain_once()
            if not errors:
                break
        return errors

    async def _drain_once(self) -> tuple[LafsError, ...]:
        """First all contents, so that every directory can then be published at one go."""
        errors: list[LafsError] = []
        limiter = trio.CapacityLimiter(UPLOADS)

        async def store(inode: FileInode) -> None:
            async with limiter:
                try:
                    await self._files.store(inode)
                except LafsError as error:
                    log.warning("not on the grid: inode %d: %s", inode.number, error)
                    errors.append(error)

        async with trio.open_nursery() as nursery:
            for inode in self._tree.table:
                if isinstance(inode, FileInode) and inode.is_dirty:
                    nursery.start_soon(store, inode)
        return (*errors, *(await self._tree.settle_all()).values())
