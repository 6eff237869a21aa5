"""The tree: from names to inodes, and what an inode shows.

This is where grid state and local state meet. What a directory shows under a name is decided by
:meth:`Tree.resolve`, and nowhere else:

1. a binding that *holds* (something of it is pending) is shown as it is: what it leads to, or
   nothing if it is a removal, unless another client has put something else there meanwhile;
2. a binding that the listing agrees with is shown; where only attributes or contents changed behind
   our back it follows, and the kernel is told;
3. otherwise the binding is gone, and the listing's child, if there is one, arrives as an inode.

Arriving, a child gets its number by rule (:mod:`lafsfs.vfs.numbers`). If an inode of that number is
in use and is the same thing, the child becomes another name of it: a hard link, or a directory that
was moved. If it is something else, the child gets an alias number. A directory that is its own
ancestor arrives as a symbolic link.

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

import trio

from lafsfs.caps import CHKCap, DirectoryCap, LiteralCap, UnknownCap
from lafsfs.errors import (
    LafsError,
    NoSuchChildError,
    NotADirectoryNodeError,
    ReadOnlyCapabilityError,
)
from lafsfs.nodes.listing import decoded_metadata
from lafsfs.vfs import numbers
from lafsfs.vfs.activity import Activity
from lafsfs.vfs.api import ROOT_INODE, Changed
from lafsfs.vfs.attributes import Defaults, Facts, Kind, Posix, clamped, decode, raw_name_of
from lafsfs.vfs.bindings import Binding, Edge
from lafsfs.vfs.directories import Directory
from lafsfs.vfs.inodes import (
    DirectoryInode,
    FileInode,
    Inode,
    InodeTable,
    LoopInode,
)
from lafsfs.vfs.names import local_name, stored_name
from lafsfs.vfs.prefetch import TablePrefetch
from lafsfs.vfs.presenting import attributes_of
from lafsfs.vfs.publisher import Outgoing

if TYPE_CHECKING:
    from lafsfs.caps import Cap
    from lafsfs.nodes.listing import Child, Listing
    from lafsfs.nodes.maker import NodeMaker
    from lafsfs.vfs.api import Attributes, VfsSettings
    from lafsfs.vfs.publisher import Publisher
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
            if child is None or not self._follow(binding, child):
                for edge in tuple(binding.edges):
                    self.lose(edge)
                binding = None
        elif binding is not None and binding.is_removal:
            if binding.hides(child):
                return None
            directory.drop(binding)  # it was of something else than is there now
            binding = None
        if binding is not None:
            return binding.edge_for(parent) or self._arrive_beside(parent, binding)
        return None if child is None else self._arrive(parent, child)

    def lose(self, edge: Edge) -> None:
        """The name leads to nothing here any more, as far as this path is concerned."""
        self.tell(Changed(edge.parent.number, name=shown_name(edge)))
        edge.forget()
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

    def unloop(self, edge: Edge, parent: DirectoryInode, name: str) -> None:
        """Let a directory that is shown as a link to itself be what it is under another name."""
        if isinstance(edge.inode, LoopInode):
            cap, posix = self.described(edge)
            loop, (inode, _) = edge.inode, self.inode_of(parent, name, cap, posix)
            for stale in tuple(inode.edges):
                stale.forget()
            edge.lead_to(inode)
            self.table.drop_if_idle(loop)

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
                await self.settle_name(binding)

    async def sync(self) -> None:
        """Have all that was accepted on the local disk. Raises LocalError."""
        await self.recorder.sync()

    async def settle(self, inode: Inode) -> None:
        """Wait until all names of an inode show on the grid what it is now.

        What waits for contents that are not on the grid is not waited for.

        Raises:
            LafsError: one of them does not; it stays pending.
        """
        for edge in tuple(inode.edges):
            await self.settle_name(edge.binding)

    async def settle_name(self, binding: Binding) -> None:
        """Wait until the grid has what is wanted under a name now, as :meth:`settle` does."""
        told = [(edge, edge.inode.version) for edge in binding.edges]
        while binding in binding.directory.dirty and not _has_told(binding, told):
            publisher = _next_publisher(binding, set())
            if publisher is None or not await publisher.attempt():
                return
        for edge, _ in told:
            if edge.is_attached and edge.parent.edges:
                await self.settle_name(edge.parent.edges[0].binding)

    async def settle_all(self) -> dict[Directory, LafsError]:
        """Bring to the grid what can be brought there; what stood in the way, by directory."""
        errors: dict[Directory, LafsError] = {}
        going = True

        async def attempt(directory: Directory) -> None:
            nonlocal going
            try:
                taken = await directory.publisher.attempt()
                going = going or taken
            except LafsError as error:
                errors[directory] = error

        while going:
            going = False
            async with trio.open_nursery() as nursery:
                for directory in tuple(self.outgoing.pending):
                    if directory not in errors:
                        nursery.start_soon(attempt, directory)
        return errors

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
        posix = self.posix_of(child, cap)
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

    def posix_of(self, child: Child, cap: Cap | UnknownCap) -> Posix:
        """The attributes of a listing's child."""
        special = isinstance(cap, CHKCap | LiteralCap)
        facts = Facts(child.read_cap.digest, isinstance(cap, DirectoryCap), special)
        posix = decode(child.metadata, facts, self.defaults)
        return replace(posix, mode=0) if isinstance(cap, UnknownCap) else posix

    def _arrive(self, parent: DirectoryInode, child: Child) -> Edge:
        cap = cap_of(child)
        posix = self.posix_of(child, cap)
        inode, is_known = self.inode_of(parent, child.name, cap, posix)
        binding = parent.directory.bind(child.name)
        binding.raw_name = raw_name_of(child.metadata)
        binding.base, binding.entry = cap, child.entry
        edge = Edge(binding, parent, inode, inode.version)
        if is_known:
            self._join(inode, edge, cap, posix)
        edge.attach()
        if edge.is_pending:
            parent.directory.note(binding)
        return edge

    def _arrive_beside(self, parent: DirectoryInode, binding: Binding) -> Edge:
        """On another path, what a binding leads to on one already: a directory."""
        other = binding.edges[0]
        cap, posix = self.described(other)
        inode, _ = self.inode_of(parent, binding.name, cap, posix)
        edge = Edge(binding, parent, inode, inode.version, other.origin)
        if other.is_pending:
            edge.published = min(other.published, 0)
        edge.attach()
        return edge

    def described(self, edge: Edge) -> tuple[Cap | UnknownCap, Posix]:
        """What an edge leads to, whatever it is shown as on its path."""
        inode = edge.inode
        cap = inode.cap
        assert cap is not None
        if not isinstance(inode, LoopInode):
            return cap, inode.posix
        entry = edge.latest_entry
        metadata = {} if entry is None else decoded_metadata(entry.metadata_json)
        facts = Facts(cap.read_cap().digest, is_directory=True, may_be_special=False)
        return cap, decode(metadata, facts, self.defaults)

    def inode_of(
        self, parent: DirectoryInode, name: str, cap: Cap | UnknownCap, posix: Posix
    ) -> tuple[Inode, bool]:
        """What ``cap`` is under a name of ``parent``, and whether that was in use already."""
        number = self._rule(parent, name, cap, posix)
        while (other := self.table.get(number)) is not None:
            if self._can_be(other, cap, posix):
                return other, True
            number = numbers.alias_number(number, parent.number, name)
        return self._make(number, parent, cap, posix), False

    def _rule(self, parent: DirectoryInode, name: str, cap: Cap | UnknownCap, posix: Posix) -> int:
        """The number that belongs to a child (see :mod:`lafsfs.vfs.numbers`)."""
        index = cap.storage_index
        if index is not None and (isinstance(cap, DirectoryCap) or cap.is_mutable):
            number = numbers.object_number(index)
            if ancestor_of(parent, cap) is None:
                return number
            return numbers.alias_number(number, parent.number, name)
        if posix.number is not None and not isinstance(cap, DirectoryCap):
            return posix.number
        return numbers.edge_number(parent.number, name)

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
        binding = edge.binding
        if binding.holds:
            return True
        latest = binding.directory.node.latest
        child = None if latest is None else latest.get(binding.name)
        return child is not None and (child.entry == binding.entry or cap_of(child) == binding.base)

    def _make(
        self, number: int, parent: DirectoryInode, cap: Cap | UnknownCap, posix: Posix
    ) -> Inode:
        inode: Inode
        ancestor = ancestor_of(parent, cap)
        if ancestor is not None and isinstance(cap, DirectoryCap):
            steps = next(i for i, one in enumerate(parent.path()) if one is ancestor)
            target = b"/".join([b".."] * steps) or b"."
            inode = LoopInode(number, replace(posix, kind=Kind.SYMLINK, mode=0o777), cap, target)
        elif isinstance(cap, DirectoryCap):
            inode = DirectoryInode(number, posix, self.directory(cap))
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
                stale.forget()
            inode.posix = posix
        elif (inode.cap == cap and posix == inode.posix) or self.settings.read_only:
            return
        elif posix.ctime > inode.posix.ctime and not any(e.binding.holds for e in inode.edges):
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
    return local_name(edge.binding.name, edge.binding.raw_name)


def _has_told(binding: Binding, told: list[tuple[Edge, int]]) -> bool:
    """Whether the grid has heard of all that was wanted under a name."""
    return bool(told) and all(
        edge.published >= version for edge, version in told if edge in binding.edges
    )


def _next_publisher(binding: Binding, seen: set[Binding]) -> Publisher | None:
    """Whose turn it is before a pending binding is on the grid; None for nobody's."""
    seen.add(binding)
    if binding.in_flight is not None:
        return binding.directory.publisher
    for edge in binding.edges:
        below = edge.inode.below
        if below is not None and below.node.is_new:
            return below.first_to_make.publisher
        if not edge.inode.is_linkable:
            return None
    for edge in binding.awaited():
        if edge.binding not in seen:
            first = _next_publisher(edge.binding, seen)
            if first is None or first is not binding.directory.publisher:
                return first
    return binding.directory.publisher
