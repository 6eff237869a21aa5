"""The tree: from names to inodes, and what an inode shows.

This is where grid state and local state meet. What a directory shows under a name is decided by
:meth:`Tree.resolve`, and nowhere else:

1. an edge in use that *holds* (something of it is pending) is shown as it is;
2. an edge in use that the listing agrees with is shown; where only attributes or contents changed
   behind our back it follows, and the kernel is told;
3. otherwise the edge is gone, and the listing's child, if there is one, arrives as an inode.

Arriving, a child gets its number by rule (:mod:`lafsfs.vfs.numbers`). If an inode of that number is
in use and is the same thing, the child becomes another name of it: a hard link, or a directory that
was moved. If it is something else, the child gets an alias number. A directory that is its own
ancestor arrives as a symbolic link.

Everything here but looking at the grid happens without an await.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from lafsfs.caps import CHKCap, DirectoryCap, LiteralCap, UnknownCap
from lafsfs.errors import (
    NoSuchChildError,
    NotADirectoryNodeError,
    ReadOnlyCapabilityError,
)
from lafsfs.vfs import numbers
from lafsfs.vfs.api import ROOT_INODE, Changed
from lafsfs.vfs.attributes import Defaults, Facts, Kind, Posix, clamped, decode, raw_name_of
from lafsfs.vfs.directories import Directory
from lafsfs.vfs.inodes import (
    DirectoryInode,
    Edge,
    FileInode,
    Inode,
    InodeTable,
    LoopInode,
)
from lafsfs.vfs.names import local_name, stored_name
from lafsfs.vfs.prefetch import TablePrefetch
from lafsfs.vfs.presenting import attributes_of
from lafsfs.vfs.publisher import Publisher

if TYPE_CHECKING:
    import trio

    from lafsfs.caps import Cap
    from lafsfs.nodes.listing import Child, Listing
    from lafsfs.nodes.maker import NodeMaker
    from lafsfs.vfs.api import Attributes, VfsSettings
    from lafsfs.vfs.recorder import Recorder
    from lafsfs.vfs.staging import StagingArea

log = logging.getLogger(__name__)


class Tree:
    """All inodes and directories of one mount."""

    def __init__(
        self,
        maker: NodeMaker,
        settings: VfsSettings,
        nursery: trio.Nursery,
        area: StagingArea,
        recorder: Recorder,
    ) -> None:
        self.maker = maker
        self.settings = settings
        self.nursery = nursery
        self.area = area
        self.recorder = recorder
        self.table = InodeTable()
        self.prefetch = TablePrefetch(nursery, settings.max_age)
        self.defaults = Defaults(settings.owner_uid, settings.owner_gid)
        self._directories: WeakValueDictionary[Cap, Directory] = WeakValueDictionary()

    # what everybody needs

    def now(self) -> int:
        """The wall clock, in nanoseconds."""
        return clamped((self.settings.now or time.time_ns)())

    def tell(self, changed: Changed) -> None:
        """Let the kernel know of something it did not do itself."""
        if self.settings.changed is not None:
            self.settings.changed(changed)

    async def accept(self) -> None:
        """Have everything that changed accepted."""
        await self.recorder.accept()

    async def sync(self) -> None:
        """Have everything accepted survive a loss of power."""
        await self.recorder.sync()

    def require_room(self) -> None:
        """Raises an error with ENOSPC if nothing more can be accepted now."""
        self.recorder.require_room()

    def directory(self, cap: Cap | UnknownCap) -> Directory:
        """The directory of a capability, shared by all paths to it."""
        node = self.maker.directory(cap)
        directory = self._directories.get(node.cap)
        if directory is None:
            settings = self.settings
            publisher = Publisher(
                self.nursery,
                quiet=settings.quiet,
                retry_first=settings.retry_first,
                retry_most=settings.retry_most,
            )
            directory = Directory(node, publisher)
            publisher.attach(directory)
            self._directories[node.cap] = directory
        return directory

    def directory_inode(self, number: int) -> DirectoryInode:
        """Raises StaleInodeError or NotADirectoryNodeError."""
        inode = self.table[number]
        if not isinstance(inode, DirectoryInode):
            raise NotADirectoryNodeError("this is not a directory")
        return inode

    def require_writable(self, inode: Inode) -> None:
        """Raises ReadOnlyCapabilityError if nothing of ``inode`` can be changed."""
        if self.settings.read_only:
            raise ReadOnlyCapabilityError("mounted read-only")
        directory = inode.directory if isinstance(inode, DirectoryInode) else None
        is_root = directory is not None and inode.number == ROOT_INODE
        if not inode.is_writable or (is_root and directory and not directory.node.can_write):
            raise ReadOnlyCapabilityError("the directory that names this reads only")

    def require_room_for_names(self, inode: DirectoryInode) -> None:
        """Raises ReadOnlyCapabilityError if names in ``inode`` cannot be changed."""
        if self.settings.read_only:
            raise ReadOnlyCapabilityError("mounted read-only")
        if not inode.edges and inode.number != ROOT_INODE:
            raise NoSuchChildError("this directory has been removed")
        inode.directory.require_writable()

    # names

    async def listing(self, parent: DirectoryInode) -> Listing:
        """What the grid has in a directory, as fresh as the settings want it."""
        return await parent.directory.listing(self.settings.max_age)

    async def find(self, parent: DirectoryInode, local: bytes) -> Edge:
        """The edge that a directory shows under a local name.

        Raises:
            NoSuchChildError: none.
            BadNameError, NameTooLongError: there cannot be one.
        """
        listing = await self.listing(parent)
        edge = self.resolve(parent, stored_name(local), listing)
        if edge is None:
            escaped = await parent.directory.stored_name_of(listing, local)
            edge = None if escaped is None else self.resolve(parent, escaped, listing)
        if edge is None:
            raise NoSuchChildError("no such child")
        return edge

    def resolve(self, parent: DirectoryInode, name: str, listing: Listing) -> Edge | None:
        """What ``parent`` shows under the stored name ``name`` (see the module)."""
        edge = parent.directory.edge_at(parent, name)
        child = listing.get(name)
        if edge is not None:
            if edge.holds or (child is not None and self._follow(edge, child)):
                return edge
            self.tell(Changed(parent.number, name=shown_name(edge)))
            self.lose(edge)
        return None if child is None else self._arrive(parent, child)

    def lose(self, edge: Edge) -> None:
        """The name is gone, by whoever's doing."""
        edge.detach()
        self.table.drop_if_idle(edge.inode)

    # changes of ours

    def touch(self, inode: Inode, posix: Posix) -> None:
        """Give an inode new attributes (or contents); its edges are pending from here on."""
        inode.posix = posix
        inode.version += 1
        for edge in inode.edges:
            self.mark_pending(edge)

    def mark_pending(self, edge: Edge) -> None:
        """Let the directory's publisher know that there is something to tell."""
        if edge.is_pending:
            edge.directory.dirty[edge] = None
            edge.directory.publisher.kick()

    async def settle(self, inode: Inode) -> None:
        """Wait until all names of an inode show on the grid what it is now.

        Raises:
            LafsError: one of them does not; it stays pending.
        """
        version = inode.version
        while True:
            pending = (e for e in inode.edges if e.is_pending and e.published < version)
            edge = next(pending, None)
            if edge is None or inode.cap is None:
                return
            await edge.directory.publisher.attempt(edge)

    async def refresh(self, inode: Inode) -> None:
        """Let an inode follow what others did, as fresh as the settings want it."""
        edge = next((edge for edge in inode.edges if not edge.holds), None)
        if edge is not None:
            listing = await self.listing(edge.parent)
            if edge.attached:
                self.resolve(edge.parent, edge.name, listing)

    # children of the grid

    def _follow(self, edge: Edge, child: Child) -> bool:
        """Let an edge be what the grid has now; False if that is not the same inode any more."""
        if edge.entry == child.entry:
            return True
        inode = edge.inode
        cap = cap_of(child)
        posix = self.posix_of(child, cap)
        if isinstance(inode, FileInode):
            if not self._is_same_file(inode, cap, posix):
                return False
            self._follow_contents(inode, cap)
        elif inode.cap != cap:
            return False
        number = inode.posix.number
        inode.posix = replace(posix, kind=inode.posix.kind, number=number)
        edge.raw_name = raw_name_of(child.metadata)
        edge.base, edge.entry, edge.published = cap, child.entry, inode.version
        self.tell(Changed(inode.number))
        return True

    def _is_same_file(self, inode: FileInode, cap: Cap | UnknownCap, posix: Posix) -> bool:
        if isinstance(cap, DirectoryCap) or posix.kind is not inode.posix.kind:
            return False
        if inode.cap == cap:
            return True
        if inode.is_mutable or not isinstance(cap, CHKCap | LiteralCap) or len(inode.edges) > 1:
            return False
        return posix.number in (inode.posix.number, inode.number)

    def _follow_contents(self, inode: FileInode, cap: Cap | UnknownCap) -> None:
        if inode.cap == cap:
            return
        inode.replace_cap(cap)
        inode.epoch += 1
        self.tell(Changed(inode.number, contents=True))

    def posix_of(self, child: Child, cap: Cap | UnknownCap) -> Posix:
        """The attributes of a listing's child."""
        special = isinstance(cap, CHKCap | LiteralCap)
        facts = Facts(child.read_cap.digest, isinstance(cap, DirectoryCap), special)
        posix = decode(child.metadata, facts, self.defaults)
        return replace(posix, mode=0) if isinstance(cap, UnknownCap) else posix

    def _arrive(self, parent: DirectoryInode, child: Child) -> Edge:
        cap = cap_of(child)
        posix = self.posix_of(child, cap)
        number = self._rule(parent, child, cap, posix)
        while (other := self.table.get(number)) is not None:
            if self._can_be(other, cap, posix):
                break
            number = numbers.alias_number(number, parent.number, child.name)
        inode = other or self._make(number, parent, cap, posix)
        edge = Edge(
            parent.directory,
            parent,
            child.name,
            raw_name_of(child.metadata),
            inode,
            cap,
            inode.version,
            child.entry,
        )
        if other is not None:
            self._join(inode, edge, cap, posix)
        edge.attach()
        self.mark_pending(edge)
        return edge

    def _rule(
        self, parent: DirectoryInode, child: Child, cap: Cap | UnknownCap, posix: Posix
    ) -> int:
        """The number that belongs to a child (see :mod:`lafsfs.vfs.numbers`)."""
        index = cap.storage_index
        if index is not None and (isinstance(cap, DirectoryCap) or cap.is_mutable):
            number = numbers.object_number(index)
            if ancestor_of(parent, cap) is None:
                return number
            return numbers.alias_number(number, parent.number, child.name)
        if posix.number is not None and not isinstance(cap, DirectoryCap):
            return posix.number
        return numbers.edge_number(parent.number, child.name)

    def _can_be(self, other: Inode, cap: Cap | UnknownCap, posix: Posix) -> bool:
        """Whether an inode in use is what a child leads to, so that it gets one more name."""
        if other.number == ROOT_INODE or other.posix.kind is not posix.kind:
            return False
        if isinstance(other, FileInode):
            if other.cap == cap:
                return other.is_mutable or posix.number is not None or not other.edges
            return posix.number is not None and cap.read_cap().digest in other.superseded
        if not isinstance(other, DirectoryInode) or other.cap != cap:
            return False
        return not any(self._is_current(edge) for edge in other.edges)

    def _is_current(self, edge: Edge) -> bool:
        """Whether an edge in use is still what its directory shows, as far as is known."""
        if edge.holds:
            return True
        latest = edge.directory.node.latest
        child = None if latest is None else latest.get(edge.name)
        return child is not None and (child.entry == edge.entry or cap_of(child) == edge.base)

    def _make(
        self, number: int, parent: DirectoryInode, cap: Cap | UnknownCap, posix: Posix
    ) -> Inode:
        inode: Inode
        ancestor = ancestor_of(parent, cap)
        if ancestor is not None:
            steps = next(i for i, one in enumerate(parent.path()) if one is ancestor)
            target = b"/".join([b".."] * steps) or b"."
            inode = LoopInode(number, replace(posix, kind=Kind.SYMLINK, mode=0o777), target)
        elif isinstance(cap, DirectoryCap):
            directory = self.directory(cap)
            inode = DirectoryInode(number, posix, directory)
            directory.inodes[number] = inode
        else:
            inode = FileInode(number, posix, cap)
        self.table.add(inode)
        return inode

    def _join(self, inode: Inode, edge: Edge, cap: Cap | UnknownCap, posix: Posix) -> None:
        """A child turned out to be an inode that is in use.

        All names of a file are to say the same: the newest attributes, the newest contents. Where
        one says something older, it is pending.
        """
        posix = replace(posix, number=inode.posix.number)
        if isinstance(inode, DirectoryInode):
            for stale in tuple(inode.edges):
                stale.detach()
            inode.posix = posix
        elif (inode.cap == cap and posix == inode.posix) or self.settings.read_only:
            return
        elif posix.ctime > inode.posix.ctime and not any(e.holds for e in inode.edges):
            self.touch(inode, posix)
            edge.published = inode.version if inode.cap == cap else -1
        else:
            edge.published = -1

    def present(self, inode: Inode) -> Attributes:
        """What ``stat`` shows, from memory."""
        return attributes_of(inode, self.settings)


def ancestor_of(parent: DirectoryInode, cap: Cap | UnknownCap) -> DirectoryInode | None:
    """The directory at or above ``parent`` that ``cap`` leads to, if it is one of those."""
    if not isinstance(cap, DirectoryCap) or cap.storage_index is None:
        return None
    index = cap.storage_index
    return next((one for one in parent.path() if one.cap.storage_index == index), None)


def cap_of(child: Child) -> Cap | UnknownCap:
    """A child's capability, without opening a sealed one where there can be none."""
    read_cap = child.read_cap
    return read_cap if isinstance(read_cap, CHKCap | LiteralCap) else child.cap


def shown_name(edge: Edge) -> bytes:
    """The local name of an edge in use."""
    return local_name(edge.name, edge.raw_name)
