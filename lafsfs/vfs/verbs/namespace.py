"""Making, finding and removing names.

Every verb that changes names looks at the grid as far as it must know what is there. Then, without
another await, it checks, changes what is wanted under the names, and has that accepted. It shows at
once, and the publishers bring it to the grid (:mod:`lafsfs.vfs.tree.bindings`). Whatever a publish
is carrying meanwhile is no matter to a verb.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from lafsfs.caps import LiteralCap, MutableFormat, UnknownCap
from lafsfs.errors import (
    ChildExistsError,
    DirectoryNotEmptyError,
    IsADirectoryNodeError,
    NameTooLongError,
    NoSuchChildError,
    NotADirectoryNodeError,
    NotPermittedError,
)
from lafsfs.immutable import LITERAL_LIMIT
from lafsfs.vfs.api import InvalidRequestError
from lafsfs.vfs.posix import numbers
from lafsfs.vfs.posix.attributes import Kind, clamped
from lafsfs.vfs.posix.birth import born
from lafsfs.vfs.posix.names import raw_name, stored_name
from lafsfs.vfs.tree.inodes import DirectoryInode, FileInode, Inode, LoopInode
from lafsfs.vfs.verbs.files import handle_of

if TYPE_CHECKING:
    from lafsfs.vfs.api import Attributes, Caller, Opened
    from lafsfs.vfs.tree.bindings import Binding, Edge
    from lafsfs.vfs.tree.tree import Tree
    from lafsfs.vfs.verbs.files import Files

MAX_TARGET: Final = 4095  # bytes of a symbolic link's target: PATH_MAX without its NUL


class Namespace:
    """The verbs on names, but for ``rename``."""

    def __init__(self, tree: Tree, files: Files) -> None:
        self._tree = tree
        self._files = files

    # finding

    async def lookup(self, parent: int, name: bytes) -> Attributes:
        """Find a child and count a lookup of it."""
        tree = self._tree
        directory = tree.directory_inode(parent)
        if name == b".":
            return self._counted(directory)
        if name == b"..":
            return self._counted(directory.parent or directory)
        return self._counted((await tree.find(directory, name)).inode)

    async def readlink(self, ino: int) -> bytes:
        """The target of a symbolic link."""
        inode = self._tree.table[ino]
        if isinstance(inode, LoopInode):
            return inode.target
        if not isinstance(inode, FileInode) or inode.posix.kind is not Kind.SYMLINK:
            raise InvalidRequestError("this is not a symbolic link")
        if inode.size > MAX_TARGET:
            raise NameTooLongError("the link's target is longer than any path")
        target = await self._files.contents(inode, 0, MAX_TARGET)
        if b"\0" in target or not target:
            raise InvalidRequestError("the link's target is not a path")
        return target

    # making

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[Opened, Attributes]:
        """Make and open a file; an existing one is opened unless ``flags`` has O_EXCL."""
        tree = self._tree
        directory = tree.directory_inode(parent)
        tree.require_room_for_names(directory)
        existing = await self.find_or_none(directory, name)
        if existing is None:
            tree.require_room_for_names(directory)  # somebody may have removed it meanwhile
            return self._create(directory, name, mode, flags, caller)
        if flags & os.O_EXCL:
            raise ChildExistsError("there is a child of that name already")
        opened = await self._files.open(existing.inode.number, flags)
        return opened, self._counted(existing.inode)

    def _create(
        self, parent: DirectoryInode, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[Opened, Attributes]:
        """It is accepted when it is closed, if not before."""
        tree = self._tree
        posix = born(parent.posix, Kind.FILE, mode, caller, tree.now())
        inode = FileInode(numbers.fresh_number(), posix, None)
        inode.staged = tree.area.stage(None, 0)
        self._link(parent, name, inode)
        handle = handle_of(inode, flags)
        handle.changed = True
        return self._files.enter(handle), self._counted(inode)

    async def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Attributes:
        """Make a directory. Its capability is known at once, and so is that it is empty."""
        tree = self._tree
        directory = tree.directory_inode(parent)
        await self._require_free(directory, name)
        format_ = MutableFormat[tree.settings.directory_format.upper()]
        node = await tree.maker.new_directory(format_)
        await self._require_free(directory, name)
        posix = born(directory.posix, Kind.DIRECTORY, mode, caller, tree.now())
        assert node.cap.storage_index is not None
        number = numbers.object_number(node.cap.storage_index)
        inode = DirectoryInode(number, posix, tree.directory(node.cap))
        return await self._accepted(inode, self._link(directory, name, inode))

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Attributes:
        """Make a symbolic link."""
        if len(target) > MAX_TARGET:
            raise NameTooLongError("a link's target has at most 4095 bytes")
        return await self._make_file(parent, name, Kind.SYMLINK, 0o777, 0, target, caller)

    async def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller
    ) -> Attributes:
        """Make an empty file, a fifo, a socket or a device."""
        kind = Kind.of_mode(mode)
        if kind is None or kind in (Kind.DIRECTORY, Kind.SYMLINK):
            raise InvalidRequestError("mknod makes files, fifos, sockets and devices")
        if kind not in (Kind.CHARACTER, Kind.BLOCK):
            rdev = 0
        return await self._make_file(parent, name, kind, mode, rdev, b"", caller)

    async def _make_file(
        self,
        parent: int,
        name: bytes,
        kind: Kind,
        mode: int,
        rdev: int,
        contents: bytes,
        caller: Caller,
    ) -> Attributes:
        tree = self._tree
        directory = tree.directory_inode(parent)
        await self._require_free(directory, name)
        posix = born(directory.posix, kind, mode, caller, tree.now(), rdev=rdev)
        cap = LiteralCap(contents) if len(contents) <= LITERAL_LIMIT else None
        inode = FileInode(numbers.fresh_number(), posix, cap)
        if cap is not None:
            return await self._accepted(inode, self._link(directory, name, inode))
        inode.staged = tree.area.stage(None, 0)
        try:
            await inode.staged.write(0, contents)
            await self._require_free(directory, name)
        except BaseException:
            inode.discard_staged()
            raise
        binding = self._link(directory, name, inode)
        with inode.pinned():
            found = await self._accepted(inode, binding)
            await self._files.written(inode)
            return found

    async def link(self, ino: int, parent: int, name: bytes) -> Attributes:
        """Give a file another name."""
        tree = self._tree
        inode = tree.table[ino]
        if not isinstance(inode, FileInode) or isinstance(inode.cap, UnknownCap):
            raise NotPermittedError("only files can have several names")
        directory = tree.directory_inode(parent)
        with inode.pinned():
            await self._require_free(directory, name)
            if not inode.edges:
                raise NoSuchChildError("the file has been removed")
            binding = self._link(directory, name, inode)
            names = max(len(inode.edges), inode.posix.nlink + 1)
            tree.touch(inode, replace(inode.posix, nlink=names, ctime=tree.now()))
            return await self._accepted(inode, binding)

    def _link(self, parent: DirectoryInode, name: bytes, inode: Inode) -> Binding:
        """Give a new name, which must be free, to an inode."""
        stored = stored_name(name)
        binding = self._tree.link(parent, stored, raw_name(name, stored), inode)
        binding.made = self.changed(parent)
        return binding

    async def _accepted(self, inode: Inode, binding: Binding) -> Attributes:
        with inode.pinned():
            await self._tree.accept(binding)
            return self._counted(inode)

    # removing

    async def unlink(self, parent: int, name: bytes) -> None:
        """Remove a name of anything but a directory."""
        tree = self._tree
        directory = tree.directory_inode(parent)
        tree.require_room_for_names(directory)
        edge = await tree.find(directory, name)
        if isinstance(edge.inode, DirectoryInode):
            raise IsADirectoryNodeError("this is a directory")
        self.remove(edge.binding)
        await tree.accept(edge.binding)

    async def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty directory."""
        tree = self._tree
        directory = tree.directory_inode(parent)
        tree.require_room_for_names(directory)
        edge = await tree.find(directory, name)
        while True:
            if not isinstance(edge.inode, DirectoryInode):
                raise NotADirectoryNodeError("this is not a directory")
            await self.require_empty(edge.inode)
            if edge.is_attached:
                break
            edge = await tree.find(directory, name)
        self.remove(edge.binding)
        await tree.accept(edge.binding)

    async def require_empty(self, inode: DirectoryInode) -> None:
        """Raises DirectoryNotEmptyError unless nothing is in it, not even what cannot be shown."""
        listing = await inode.directory.node.table(0)  # nothing older will do
        if not inode.directory.is_empty(listing):
            raise DirectoryNotEmptyError("the directory is not empty")

    def remove(self, binding: Binding) -> None:
        """What a name leads to is not wanted there any more, on whatever path."""
        for edge in tuple(binding.edges):
            self.gone(edge)

    def gone(self, edge: Edge) -> None:
        """A name of an inode has been removed."""
        tree, inode = self._tree, edge.inode
        edge.leave()
        self.changed(edge.parent)
        posix = replace(inode.posix, ctime=tree.now())
        if isinstance(inode, DirectoryInode):
            directory = inode.directory
            directory.mark_removed(not any(one.edges for one in directory.inodes.values()))
        if inode.edges:
            tree.touch(inode, replace(posix, nlink=max(len(inode.edges), posix.nlink - 1)))
        else:
            inode.posix = replace(posix, nlink=max(1, posix.nlink - 1))
            if isinstance(inode, FileInode):
                inode.outlived = posix.nlink > 1
            tree.recorder.changed(inode)
        tree.table.drop_if_idle(inode)

    # odds and ends

    def changed(self, parent: DirectoryInode) -> int:
        """A name in ``parent`` changed now; later than any time before, whatever the clock says."""
        directory = parent.directory
        directory.changed = clamped(max(self._tree.now(), directory.newest_seen + 1))
        return directory.changed

    async def find_or_none(self, parent: DirectoryInode, name: bytes) -> Edge | None:
        """The edge that is shown under a local name, if there is one."""
        try:
            return await self._tree.find(parent, name)
        except NoSuchChildError:
            return None

    async def _require_free(self, parent: DirectoryInode, name: bytes) -> None:
        """Raises an error unless a name can be made in ``parent``, now."""
        self._tree.require_room_for_names(parent)
        if await self.find_or_none(parent, name) is not None:
            raise ChildExistsError("there is a child of that name already")
        self._tree.require_room_for_names(parent)

    def _counted(self, inode: Inode) -> Attributes:
        inode.lookups += 1
        return self._tree.present(inode)
