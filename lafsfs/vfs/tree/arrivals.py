"""What the grid has becomes something in use: children arrive as inodes.

Arriving, a child gets its number by rule (:mod:`lafsfs.vfs.posix.numbers`). If an inode of that
number is in use and is the same thing, the child becomes another name of it: a hard link, or a
directory that was moved. If it is something else, the child gets an alias number. A directory that
is its own ancestor arrives as a symbolic link.

Nothing here awaits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lafsfs.caps import CHKCap, DirectoryCap, LiteralCap, UnknownCap
from lafsfs.nodes.listing import decoded_metadata
from lafsfs.vfs.api import ROOT_INODE
from lafsfs.vfs.posix import numbers
from lafsfs.vfs.posix.attributes import Facts, Kind, Posix, decode, raw_name_of
from lafsfs.vfs.tree.bindings import Binding, Edge
from lafsfs.vfs.tree.inodes import DirectoryInode, FileInode, Inode, LoopInode

if TYPE_CHECKING:
    from lafsfs.caps import Cap
    from lafsfs.nodes.listing import Child
    from lafsfs.vfs.posix.attributes import Defaults
    from lafsfs.vfs.tree.tree import Tree


class Arrivals:
    """Makes edges, and inodes where they are not in use yet."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def arrive(self, parent: DirectoryInode, child: Child) -> Edge:
        """The edge to a child of the grid that nothing here leads to yet, on this path."""
        cap = cap_of(child)
        posix = posix_of(child, cap, self._tree.defaults)
        inode, is_known = self._inode_of(parent, child.name, cap, posix)
        binding = parent.directory.bind(child.name)
        binding.raw_name = raw_name_of(child.metadata)
        binding.base, binding.entry = cap, child.entry
        edge = Edge(binding, parent, inode, inode.version)
        if is_known:
            self._join(inode, edge, cap, posix)
        edge.attach()
        if is_known and inode.below is not None:
            self._tree.recorder.changed(inode)  # it is somewhere else
        if edge.is_pending:
            parent.directory.note(binding)
        return edge

    def arrive_beside(self, parent: DirectoryInode, binding: Binding) -> Edge:
        """On another path, what a binding leads to on one already: a directory."""
        other = binding.edges[0]
        cap, posix = self._described(other)
        inode, _ = self._inode_of(parent, binding.name, cap, posix)
        edge = Edge(binding, parent, inode, inode.version, other.origin)
        if other.is_pending:
            edge.published = min(other.published, 0)
        edge.attach()
        return edge

    def unloop(self, edge: Edge, parent: DirectoryInode, name: str) -> None:
        """Let a directory that is shown as a link to itself be what it is under another name."""
        if isinstance(edge.inode, LoopInode):
            cap, posix = self._described(edge)
            loop, (inode, _) = edge.inode, self._inode_of(parent, name, cap, posix)
            edge.lead_to(inode)
            self._tree.table.drop_if_idle(loop)

    def _described(self, edge: Edge) -> tuple[Cap | UnknownCap, Posix]:
        """What an edge leads to, whatever it is shown as on its path."""
        inode = edge.inode
        cap = inode.cap
        assert cap is not None
        if not isinstance(inode, LoopInode):
            return cap, inode.posix
        entry = edge.latest_entry
        metadata = {} if entry is None else decoded_metadata(entry.metadata_json)
        facts = Facts(cap.read_cap().digest, is_directory=True, may_be_special=False)
        return cap, decode(metadata, facts, self._tree.defaults)

    def _inode_of(
        self, parent: DirectoryInode, name: str, cap: Cap | UnknownCap, posix: Posix
    ) -> tuple[Inode, bool]:
        """What ``cap`` is under a name of ``parent``, and whether that was in use already."""
        number = self._rule(parent, name, cap, posix)
        while (other := self._tree.table.get(number)) is not None:
            if self._can_be(other, cap, posix):
                if isinstance(other, DirectoryInode):
                    for stale in tuple(other.edges):
                        stale.forget()
                return other, True
            number = numbers.alias_number(number, parent.number, name)
        return self._make(number, parent, cap, posix), False

    def _rule(self, parent: DirectoryInode, name: str, cap: Cap | UnknownCap, posix: Posix) -> int:
        """The number that belongs to a child (see :mod:`lafsfs.vfs.posix.numbers`)."""
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
            inode = DirectoryInode(number, posix, self._tree.directory(cap))
        else:
            inode = FileInode(number, posix, cap)
        self._tree.table.add(inode)
        return inode

    def _join(self, inode: Inode, edge: Edge, cap: Cap | UnknownCap, posix: Posix) -> None:
        """A child turned out to be an inode that is in use.

        All names of a file are to say the same: the newest attributes, the newest contents. Where
        one says something older, it is pending.
        """
        posix = replace(posix, number=inode.posix.number)
        if isinstance(inode, DirectoryInode):
            inode.posix = posix
        elif (inode.cap == cap and posix == inode.posix) or self._tree.settings.read_only:
            return
        elif posix.ctime > inode.posix.ctime and not any(e.binding.holds for e in inode.edges):
            self._tree.touch(inode, posix)
            edge.published = inode.version if inode.cap == cap else -1
        else:
            edge.published = -1


def posix_of(child: Child, cap: Cap | UnknownCap, defaults: Defaults) -> Posix:
    """The attributes of a listing's child."""
    special = isinstance(cap, CHKCap | LiteralCap)
    facts = Facts(child.read_cap.digest, isinstance(cap, DirectoryCap), special)
    posix = decode(child.metadata, facts, defaults)
    return replace(posix, mode=0) if isinstance(cap, UnknownCap) else posix


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
