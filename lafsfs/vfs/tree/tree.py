"""The tree: from names to inodes, and what an inode shows.

This is where grid state and local state meet. What a directory shows under a name is decided by
:meth:`Tree.resolve`, and nowhere else:

1. a binding that *holds* (something of it is pending) is shown as it is: what it leads to, or
   nothing if it is a removal, unless another client has put something else there meanwhile;
2. a binding that the listing agrees with is shown; where only attributes or contents changed behind
   our back it follows, and the kernel is told;
3. otherwise the binding is gone, and the listing's child, if there is one, arrives as an inode
   (:mod:`lafsfs.vfs.tree.arrivals`).

Everything here but looking at the grid happens without an await. A verb looks first. Then, without
another await, it checks what it found, changes inodes and bindings, and says so; they show at once.
:meth:`Tree.accept` comes last.
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
from lafsfs.vfs.api import ROOT_INODE, Changed
from lafsfs.vfs.posix.attributes import Defaults, Posix, clamped, raw_name_of
from lafsfs.vfs.posix.names import local_name, stored_name
from lafsfs.vfs.publishing.activity import Activity
from lafsfs.vfs.publishing.publisher import Outgoing
from lafsfs.vfs.publishing.settling import settle_name
from lafsfs.vfs.tree.arrivals import Arrivals, cap_of, posix_of
from lafsfs.vfs.tree.bindings import Binding, Edge
from lafsfs.vfs.tree.directories import Directory
from lafsfs.vfs.tree.inodes import (
    DirectoryInode,
    FileInode,
    Inode,
    InodeTable,
)
from lafsfs.vfs.tree.prefetch import TablePrefetch
from lafsfs.vfs.tree.presenting import attributes_of

if TYPE_CHECKING:
    import trio

    from lafsfs.caps import Cap
    from lafsfs.nodes.listing import Child, Listing
    from lafsfs.nodes.maker import NodeMaker
    from lafsfs.vfs.api import Attributes, VfsSettings
    from lafsfs.vfs.recording.recorder import Recorder
    from lafsfs.vfs.staging.area import StagingArea

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
        self.activity = Activity(settings.quiet)
        self.outgoing = Outgoing(
            nursery,
            recorder,
            settings.quiet,
            settings.retry_first,
            settings.retry_most,
            self.activity,
        )
        self.table = InodeTable()
        self.arrivals = Arrivals(self)
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

    def directory(self, cap: Cap | UnknownCap) -> Directory:
        """The directory of a capability, shared by all paths to it."""
        node = self.maker.directory(cap)
        directory = self._directories.get(node.cap)
        if directory is None:
            directory = self._directories[node.cap] = Directory(node, self.outgoing)
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
        self.require_room()

    def require_room(self) -> None:
        """Raises an error with ENOSPC if nothing more can be accepted now."""
        self.recorder.require_room()

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
        directory = parent.directory
        binding, child = directory.names.get(name), listing.get(name)
        if binding is not None and not binding.holds:
            if (child is None or not self._follow(binding, child)) and not binding.keep():
                for edge in tuple(binding.edges):
                    self.lose(edge)
                binding = None
        elif binding is not None and binding.is_removal:
            if binding.hides(child):
                return None
            directory.drop(binding)  # it was of something else than is there now
            binding = None
        if binding is not None:
            return binding.edge_for(parent) or self.arrivals.arrive_beside(parent, binding)
        return None if child is None else self.arrivals.arrive(parent, child)

    def lose(self, edge: Edge) -> None:
        """The name leads to nothing here any more, as far as this path is concerned."""
        self.tell(Changed(edge.parent.number, name=shown_name(edge)))
        edge.forget()
        if edge.inode.below is not None:
            self.recorder.changed(edge.inode)
        self.table.drop_if_idle(edge.inode)

    # changes of ours

    def touch(self, inode: Inode, posix: Posix) -> None:
        """Give an inode new attributes (or contents); its names are pending from here on.

        A directory on another path through the same name is the same.
        """
        self._change(inode, posix)
        for edge in inode.edges:
            for other in edge.binding.edges:
                if other is not edge:
                    self._change(other.inode, posix)
            edge.binding.directory.note(edge.binding)

    def _change(self, inode: Inode, posix: Posix) -> None:
        inode.posix = posix
        inode.version += 1
        self.recorder.changed(inode)

    def link(
        self, parent: DirectoryInode, name: str, raw_name: bytes | None, inode: Inode
    ) -> Binding:
        """Give an inode a name that leads to nothing now."""
        if self.table.get(inode.number) is None:
            self.table.add(inode)
        binding = parent.directory.bind(name)
        binding.raw_name = raw_name
        Edge(binding, parent, inode).attach()
        self.recorder.changed(inode)
        parent.directory.note(binding)
        return binding

    async def accept(self, *bindings: Binding) -> None:
        """What a verb ends with: have all that it changed recorded.

        ``bindings`` are what it changed, of which ``-o sync`` wants to hear that they are on the
        grid.

        Raises:
            LafsError: it is not recorded, or with ``-o sync`` not on the grid (yet).
        """
        self.activity.note()
        await self.recorder.accept()
        if self.settings.sync:
            for binding in bindings:
                await settle_name(binding)

    async def sync(self) -> None:
        """Have all that was accepted on the local disk. Raises LocalError."""
        await self.recorder.sync()

    async def settle(self, inode: Inode) -> None:
        """Wait until all names of an inode show on the grid what it is now.

        Raises:
            LafsError: one of them does not; it stays pending.
        """
        for edge in tuple(inode.edges):
            await settle_name(edge.binding)

    async def refresh(self, inode: Inode) -> None:
        """Let an inode follow what others did, as fresh as the settings want it."""
        edge = next((edge for edge in inode.edges if not edge.binding.holds), None)
        if edge is not None:
            listing = await self.listing(edge.parent)
            if edge.is_attached:
                self.resolve(edge.parent, edge.binding.name, listing)

    # children of the grid

    def _follow(self, binding: Binding, child: Child) -> bool:
        """Let a binding be what the grid has now; False if it leads to something else there."""
        if binding.entry == child.entry:
            return True
        cap = cap_of(child)
        posix = posix_of(child, cap, self.defaults)
        if not all(self._is_same(edge.inode, cap, posix) for edge in binding.edges):
            return False
        binding.raw_name = raw_name_of(child.metadata)
        binding.base, binding.entry = cap, child.entry
        for edge in binding.edges:
            inode = edge.inode
            if isinstance(inode, FileInode):
                self._follow_contents(inode, cap)
            was = inode.posix
            inode.posix = replace(posix, kind=was.kind, number=was.number)
            edge.published = inode.version
            self.tell(Changed(inode.number))
        return True

    def _is_same(self, inode: Inode, cap: Cap | UnknownCap, posix: Posix) -> bool:
        if isinstance(inode, FileInode):
            return self._is_same_file(inode, cap, posix)
        return inode.cap == cap

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

    def present(self, inode: Inode) -> Attributes:
        """What ``stat`` shows, from memory."""
        return attributes_of(inode, self.settings)


def shown_name(edge: Edge) -> bytes:
    """The local name of an edge in use."""
    return local_name(edge.binding.name, edge.binding.raw_name)
