"""The file system of one mount: every verb of :class:`~lafsfs.vfs.api.FileSystemAPI`, put together.

    open_filesystem            builds the parts around one nursery, and the root
      Tree                     inodes, directories, what a name shows; one Publisher each
      Namespace, Renaming      verbs on names
      Files                    open files
      Uploader                 their way to the grid
      Metadata, RootFile       attributes and space
      Readdir                  open directories

Tasks in the nursery: one publisher for each directory with pending work and tables being fetched
ahead, which end by themselves; the uploader, and the watch over open mutable files. Leaving the
context cancels them, so :meth:`FileSystem.flush_all` first.
"""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.grid.asking import plain_errors
from lafsfs.vfs.api import ROOT_INODE
from lafsfs.vfs.posix.attributes import Defaults
from lafsfs.vfs.publishing.backoff import back_off
from lafsfs.vfs.publishing.reporting import state_of, status_of
from lafsfs.vfs.publishing.settling import settle_everything
from lafsfs.vfs.publishing.uploader import Uploader
from lafsfs.vfs.recording.ground import open_ground
from lafsfs.vfs.recording.rootfile import RootFile
from lafsfs.vfs.recording.unflushed import Unflushed
from lafsfs.vfs.tree.inodes import DirectoryInode, FileInode
from lafsfs.vfs.tree.tree import Tree
from lafsfs.vfs.verbs.files import Files
from lafsfs.vfs.verbs.metadata import Metadata
from lafsfs.vfs.verbs.namespace import Namespace
from lafsfs.vfs.verbs.readdir import Readdir
from lafsfs.vfs.verbs.renaming import Renaming
from lafsfs.vfs.verbs.watch import watch_open_files

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable

    from lafsfs.errors import LafsError
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
    from lafsfs.vfs.recording.recorder import Recorder
    from lafsfs.vfs.recording.replay import Found
    from lafsfs.vfs.status import Status


STATE: Final = b"user.lafs.state"
CAPABILITIES: Final = tuple(
    b"user.lafs." + name for name in (b"cap", b"readcap", b"verifycap", b"kind")
)
AT_ONCE: Final = 64  # inodes that were pending when they were forgotten, to look at again
ATTEMPTS: Final = 6  # over half a minute: servers that failed are left alone for a while


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
    async with open_ground(root.cap, maker, settings) as ground, _plain_nursery() as nursery:
        tree = Tree(maker, settings, nursery, ground.area, recorder or ground.recorder)
        tree.table.add(DirectoryInode(ROOT_INODE, posix, tree.directory(root.cap)))
        found = await ground.restore(tree)
        fs = FileSystem(tree, root_file, broker, found)
        nursery.start_soon(fs.upload)
        nursery.start_soon(fs.unflushed.run)
        if settings.max_age > 0:
            nursery.start_soon(fs.watch)
        try:
            yield fs
        finally:
            with trio.CancelScope(shield=True):
                await fs.unflushed.accept()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _plain_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery from which an error of ours comes out as itself."""
    with plain_errors():
        async with trio.open_nursery() as nursery:
            yield nursery


class FileSystem:
    """See :class:`~lafsfs.vfs.api.FileSystemAPI`. Made by :func:`open_filesystem`."""

    def __init__(self, tree: Tree, root_file: RootFile, broker: Broker, found: Found) -> None:
        """``found``: what was pending from the beginning."""
        self.found = found
        handles = itertools.count(1)
        self._tree = tree
        self._broker = broker
        self._lingering: dict[int, None] = {}  # forgotten by the kernel when something was pending
        self._uploader = Uploader(tree)
        self.unflushed = Unflushed(tree.recorder)
        self._files = Files(tree, self._uploader, self.unflushed, handles)
        self._names = Namespace(tree, self._files)
        self._renaming = Renaming(tree, self._names)
        self._metadata = Metadata(tree, self._files, root_file, broker)
        self._directories = Readdir(tree, handles)
        self._uploader.resume()

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
                self._drop(number)
        for number in tuple(itertools.islice(self._lingering, AT_ONCE)):
            del self._lingering[number]
            self._drop(number)

    def _drop(self, number: int) -> None:
        """Drop what nobody needs; what is pending, when something is forgotten after it settled."""
        inode = self._tree.table.get(number)
        if inode is None or inode.lookups or number == ROOT_INODE:
            return
        self._tree.table.drop_if_idle(inode)
        if self._tree.table.get(number) is inode:
            self._lingering[number] = None

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
        self._uploader.names_changed()

    async def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty directory."""
        await self._names.rmdir(parent, name)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0
    ) -> None:
        """Move a name, replacing, exchanging, or neither."""
        await self._renaming.rename(parent, name, new_parent, new_name, flags)
        self._uploader.names_changed()

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
        """The value of an extended attribute.

        A capability that is asked for is of the file as it is now, which is brought to the grid.
        """
        inode = self._tree.table[ino]
        if name == STATE:
            await trio.lowlevel.checkpoint()
            return state_of(inode, self._uploader).encode()
        is_owner = caller.uid == self._tree.settings.owner_uid
        if name in CAPABILITIES and is_owner and isinstance(inode, FileInode):
            await self._uploader.bring(inode)
        return await self._metadata.getxattr(ino, name, caller)

    def stored_xattr(self, ino: int, name: bytes) -> bytes | None:
        """The value of an extended attribute that is not computed."""
        return self._metadata.stored_xattr(ino, name)

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
        """Have contents and attributes accepted, and safe from a loss of power."""
        await self._files.fsync(handle)

    async def release(self, handle: int) -> None:
        """Close a file."""
        await self._files.release(handle)

    # the whole

    async def upload(self) -> None:
        """Bring what is written to the grid when it is due; for ever."""
        await self._uploader.run()

    async def watch(self) -> None:
        """Notice what others write to files that are open; for ever."""
        await watch_open_files(self._tree, self._files, self._tree.settings.max_age)

    async def flush_all(self) -> tuple[LafsError, ...]:
        """Bring everything pending to the grid; an error for each inode that could not be.

        What changes meanwhile is not waited for.
        """
        settings = self._tree.settings
        for attempt in range(ATTEMPTS):
            if attempt:
                await trio.sleep(back_off(attempt, settings.retry_first, settings.retry_most))
            errors = await settle_everything(self._tree, self._uploader)
            if not errors:
                break
        return errors

    async def status(self) -> Status:
        """What is pending, and how that is going."""
        return await status_of(self._tree, self._uploader, self._broker)
