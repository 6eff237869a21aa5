"""Making, finding and removing names.

Every verb that changes names holds the directory's lock from its checks to its publish, and hands
the publisher a :class:`~lafsfs.vfs.publisher.Request`. Nothing shows before it has landed, so a
verb that fails leaves nothing to undo. ``create`` is the exception: the new name is a pending edge
that shows at once and reaches the grid with the contents.

An edge that a publish is carrying right now is left alone until that is over
(:meth:`Namespace.steady`): it is on the grid or it is not, and the verb must know which.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from lafsfs.caps import MutableFormat, UnknownCap
from lafsfs.errors import (
    ChildExistsError,
    DirectoryNotEmptyError,
    IsADirectoryNodeError,
    NameTooLongError,
    NoSuchChildError,
    NotADirectoryNodeError,
    NotPermittedError,
    UncoordinatedWriteError,
)
from lafsfs.immutable import BytesSource
from lafsfs.nodes.edits import Base, Conflict, Kept, SetChild, Unlink
from lafsfs.vfs import numbers
from lafsfs.vfs.api import InvalidRequestError
from lafsfs.vfs.attributes import Kind, clamped
from lafsfs.vfs.birth import born
from lafsfs.vfs.directories import locked
from lafsfs.vfs.files import handle_of
from lafsfs.vfs.inodes import DirectoryInode, Edge, FileInode, Inode, LoopInode
from lafsfs.vfs.names import raw_name, stored_name
from lafsfs.vfs.publisher import Request, metadata_for, remember_grid, until_free

if TYPE_CHECKING:
    from lafsfs.nodes.edits import Edit, Outcome
    from lafsfs.nodes.listing import Listing
    from lafsfs.vfs.api import Attributes, Caller, Opened
    from lafsfs.vfs.files import Files
    from lafsfs.vfs.tree import Tree

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
        async with directory.directory.lock:
            existing = await self._find(directory, name)
            if existing is not None and existing.claims:  # is somebody still removing it?
                existing = await self.steady_or_none(directory, name)
            if existing is None:
                return self._create(directory, name, mode, flags, caller)
        if flags & os.O_EXCL:
            raise ChildExistsError("there is a child of that name already")
        opened = await self._files.open(existing.inode.number, flags)
        return opened, self._counted(existing.inode)

    def _create(
        self, parent: DirectoryInode, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[Opened, Attributes]:
        tree = self._tree
        tree.require_room_for_names(parent)
        stored = stored_name(name)
        posix = born(parent.posix, Kind.FILE, mode, caller, tree.now())
        inode = FileInode(numbers.fresh_number(), posix, None)
        inode.staged = tree.area.stage(None, 0)
        tree.table.add(inode)
        raw = raw_name(name, stored)
        Edge(parent.directory, parent, stored, raw, inode, Base.ABSENT, published=0).attach()
        tree.mark_pending(inode.edges[0])
        self.changed(parent)
        opened = self._files.enter(handle_of(inode, flags))
        return opened, self._counted(inode)

    async def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Attributes:
        """Make a directory, on the grid when this returns."""
        tree = self._tree
        directory = tree.directory_inode(parent)
        async with directory.directory.lock:
            stored = await self._free_name(directory, name)
            posix = born(directory.posix, Kind.DIRECTORY, mode, caller, tree.now())
            node = await tree.maker.create_directory(
                MutableFormat[tree.settings.directory_format.upper()]
            )
            made = tree.directory(node.cap)
            assert node.cap.storage_index is not None
            number = numbers.object_number(node.cap.storage_index)
            inode = DirectoryInode(number, posix, made)
            with inode.pinned():
                await self._link_new(directory, stored, raw_name(name, stored), inode)
                return self._counted(inode)

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Attributes:
        """Make a symbolic link, on the grid when this returns."""
        if len(target) > MAX_TARGET:
            raise NameTooLongError("a link's target has at most 4095 bytes")
        return await self._make_file(parent, name, Kind.SYMLINK, 0o777, 0, target, caller)

    async def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller
    ) -> Attributes:
        """Make an empty file, a fifo, a socket or a device, on the grid when this returns."""
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
        async with directory.directory.lock:
            stored = await self._free_name(directory, name)
            posix = born(directory.posix, kind, mode, caller, tree.now(), rdev=rdev)
            cap = await tree.maker.upload(BytesSource(contents))
            inode = FileInode(numbers.fresh_number(), posix, cap)
            with inode.pinned():
                await self._link_new(directory, stored, raw_name(name, stored), inode)
                return self._counted(inode)

    async def link(self, ino: int, parent: int, name: bytes) -> Attributes:
        """Give a file another name."""
        tree = self._tree
        inode = tree.table[ino]
        if not isinstance(inode, FileInode) or isinstance(inode.cap, UnknownCap):
            raise NotPermittedError("only files can have several names")
        directory = tree.directory_inode(parent)
        with inode.pinned():
            async with directory.directory.lock:
                stored = await self._free_name(directory, name)
                if not inode.edges:
                    raise NoSuchChildError("the file has been removed")
                await self._link_again(directory, stored, raw_name(name, stored), inode)
            return self._counted(inode)

    async def _link_again(
        self, parent: DirectoryInode, name: str, raw: bytes | None, inode: FileInode
    ) -> None:
        tree = self._tree
        if inode.cap is not None:
            await self._link_new(parent, name, raw, inode)
        else:  # it reaches the grid when the file does
            Edge(parent.directory, parent, name, raw, inode, Base.ABSENT, published=0).attach()
            self.changed(parent)
        names = max(len(inode.edges), inode.posix.nlink + 1)
        tree.touch(inode, replace(inode.posix, nlink=names, ctime=tree.now()))

    async def _link_new(
        self, parent: DirectoryInode, name: str, raw: bytes | None, inode: Inode
    ) -> None:
        """Publish a name for an inode that has its contents on the grid already.

        Raises:
            ChildExistsError: another client took the name meanwhile.
        """
        edge = Edge(parent.directory, parent, name, raw, inode, Base.ABSENT, published=0)
        conflicts: list[str] = []
        version = inode.version

        def build() -> list[Edit]:
            nonlocal version
            version = inode.version
            cap = inode.cap
            assert cap is not None
            return [SetChild(name, cap, metadata_for(inode, raw), base=Base.ABSENT)]

        def landed(listing: Listing, outcomes: tuple[Outcome, ...]) -> None:
            self.changed(parent)
            if isinstance(outcomes[0], Conflict):
                conflicts.append(outcomes[0].name)
                return
            self._enter(edge, version, listing)

        await parent.directory.publisher.submit(Request(build, landed))
        if conflicts:
            await self._remove_conflict(parent, conflicts[0], inode)
            raise ChildExistsError("another client made a child of that name first")

    def _enter(self, edge: Edge, version: int, listing: Listing) -> None:
        """A new name has landed: it is an edge in use from here on."""
        inode, directory = edge.inode, edge.directory
        for other in directory.all_edges_at(edge.name):
            self._tree.lose(other)  # left over from a child that went unseen
        if self._tree.table.get(inode.number) is None:
            self._tree.table.add(inode)
        if isinstance(inode, DirectoryInode):
            inode.directory.inodes[inode.number] = inode
        edge.published = version
        remember_grid(edge, listing)
        edge.attach()
        self._tree.mark_pending(edge)

    async def _remove_conflict(self, parent: DirectoryInode, name: str, inode: Inode) -> None:
        """Take away the copy that was made under a name nobody asked for."""
        cap = inode.cap
        assert cap is not None
        await parent.directory.publisher.submit(
            Request(lambda: [Unlink(name, base=cap)], lambda listing, outcomes: None)
        )

    # removing

    async def unlink(self, parent: int, name: bytes) -> None:
        """Remove a name of anything but a directory."""
        tree = self._tree
        directory = tree.directory_inode(parent)
        tree.require_room_for_names(directory)
        async with directory.directory.lock:
            edge = await self.steady(directory, name)
            if isinstance(edge.inode, DirectoryInode):
                raise IsADirectoryNodeError("this is a directory")
            await self.remove(edge)

    async def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty directory."""
        tree = self._tree
        directory = tree.directory_inode(parent)
        tree.require_room_for_names(directory)
        while True:
            edge = await self.steady(directory, name)
            if not isinstance(edge.inode, DirectoryInode):
                raise NotADirectoryNodeError("this is not a directory")
            async with locked(directory.directory, edge.inode.directory):
                if await self.steady(directory, name) is edge:
                    await self.require_empty(edge.inode)
                    await self.remove(edge)
                    return

    async def require_empty(self, inode: DirectoryInode) -> None:
        """Raises DirectoryNotEmptyError unless nothing is in it, not even what cannot be shown."""
        listing = await inode.directory.node.table(0)  # nothing older will do
        if listing or listing.table.unreadable or inode.directory.unpublished():
            raise DirectoryNotEmptyError("the directory is not empty")

    async def remove(self, edge: Edge) -> None:
        """Take a steady edge off the grid and out of use; the directory is locked.

        Raises:
            UncoordinatedWriteError: another client changed the child; it stays.
        """
        if edge.base is Base.ABSENT:
            self.gone(edge)
            return
        directory, name = edge.directory, edge.name
        outcome: list[Outcome] = []

        def landed(listing: Listing, outcomes: tuple[Outcome, ...]) -> None:
            outcome.extend(outcomes)
            if not isinstance(outcomes[0], Kept):
                for one in directory.all_edges_at(name):
                    self.gone(one)

        await directory.publisher.submit(
            Request(
                lambda: [Unlink(name, edge.base)],
                landed,
                claims=tuple(directory.all_edges_at(name)),
            )
        )
        if isinstance(outcome[0], Kept):
            raise UncoordinatedWriteError("another client has changed this child; look again")

    def gone(self, edge: Edge) -> None:
        """A name of an inode has been removed."""
        tree, inode = self._tree, edge.inode
        edge.detach()
        self.changed(edge.parent)
        posix = replace(inode.posix, ctime=tree.now())
        if inode.edges:
            tree.touch(inode, replace(posix, nlink=max(len(inode.edges), posix.nlink - 1)))
        else:
            inode.posix = replace(posix, nlink=max(1, posix.nlink - 1))
            if isinstance(inode, FileInode):
                inode.outlived = posix.nlink > 1
        tree.table.drop_if_idle(inode)

    # odds and ends

    def changed(self, parent: DirectoryInode) -> None:
        """A name in ``parent`` changed now; later than any time before, whatever the clock says."""
        directory = parent.directory
        directory.changed = clamped(max(self._tree.now(), directory.newest_seen + 1))

    async def steady(self, parent: DirectoryInode, name: bytes) -> Edge:
        """The edge under a local name once no publish is carrying it.

        Raises:
            NoSuchChildError: none.
        """
        while True:
            edge = await self._tree.find(parent, name)
            if not edge.is_busy:
                return edge
            await until_free(edge)

    async def steady_or_none(self, parent: DirectoryInode, name: bytes) -> Edge | None:
        """As :meth:`steady`; None if there is none."""
        try:
            return await self.steady(parent, name)
        except NoSuchChildError:
            return None

    async def _find(self, parent: DirectoryInode, name: bytes) -> Edge | None:
        try:
            return await self._tree.find(parent, name)
        except NoSuchChildError:
            return None

    async def _free_name(self, parent: DirectoryInode, name: bytes) -> str:
        self._tree.require_room_for_names(parent)
        stored = stored_name(name)
        if await self._find(parent, name) is not None:
            raise ChildExistsError("there is a child of that name already")
        return stored

    def _counted(self, inode: Inode) -> Attributes:
        inode.lookups += 1
        return self._tree.present(inode)
