"""What the journal's rows say of what is pending: inodes, names and looks as they are now.

Nothing here awaits, so that records which are put together between two awaits fit each other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lafsfs.caps import DirectoryCap
from lafsfs.vfs.recording.records import (
    CURRENT,
    NEW,
    OLDER,
    EdgeRecord,
    InodeRecord,
    LookRecord,
    NameRecord,
    What,
)
from lafsfs.vfs.tree.inodes import DirectoryInode, FileInode, LoopInode

if TYPE_CHECKING:
    from lafsfs.vfs.publishing.removals import Look
    from lafsfs.vfs.staging.kept import Kept
    from lafsfs.vfs.tree.bindings import Binding, Edge
    from lafsfs.vfs.tree.directories import Directory
    from lafsfs.vfs.tree.inodes import Inode


def is_recorded(binding: Binding) -> bool:
    """Whether there is to be a row for a name."""
    return binding.directory.names.get(binding.name) is binding and binding.holds


def _edge_of(binding: Binding) -> Edge | None:
    """The edge that the row tells of: of several, which are paths to one directory, one that the
    grid has yet to hear of."""
    edges = binding.edges
    return next((edge for edge in edges if edge.is_pending), edges[0] if edges else None)


def needs_of(binding: Binding) -> tuple[Inode, ...]:
    """The inodes that must be known to make sense of a name's row."""
    edge = _edge_of(binding)
    left = (inode for inode in binding.left if isinstance(inode, DirectoryInode))
    return tuple(dict.fromkeys((*left, *(() if edge is None else (edge.inode,)))))


def inside_of(binding: Binding) -> tuple[Directory, ...]:
    """The directories whose places are needed to see to a name.

    It may be that others have removed the one that it is in, or have moved what was here before.
    """
    below = [inode.below for inode in binding.left]
    moved = (one for one in below if one is not None)
    return (*moved, binding.directory) if binding.edges else tuple(moved)


def concerned_by(look: Look) -> tuple[tuple[Inode, ...], tuple[Directory, ...]]:
    """The inodes whose rows a look needs, and the directories whose places it needs."""
    if look.inode is None:
        return (), (look.directory,)
    return (look.inode,), (look.inode.directory,)


def look_record(look: Look) -> LookRecord:
    """What the row of a look says."""
    cap = look.directory.node.cap
    assert isinstance(cap, DirectoryCap)
    number = None if look.inode is None else look.inode.number
    return LookRecord(cap, look.name, look.entry, number)


def name_record(binding: Binding) -> NameRecord:
    """What the row of a name says."""
    edge, in_flight = _edge_of(binding), binding.in_flight
    maybe = binding.maybe
    if in_flight is not None and in_flight.puts not in binding.expected:
        maybe = (*maybe, in_flight.puts)
    cap = binding.directory.node.cap
    assert isinstance(cap, DirectoryCap)
    return NameRecord(
        cap,
        binding.name,
        binding.raw_name,
        None if edge is None else EdgeRecord(edge.inode.number, _told(edge), edge.origin),
        binding.base,
        binding.entry,
        maybe,
        tuple(inode.number for inode in binding.left),
        binding.made,
        binding.directory.changed,
    )


def _told(edge: Edge) -> int:
    if edge.is_new:
        return NEW
    return OLDER if edge.is_pending else CURRENT


def inode_record(inode: Inode) -> tuple[InodeRecord, Kept | None]:
    """The record, and what is kept of staged contents."""
    if isinstance(inode, FileInode):
        return _file_record(inode)
    if isinstance(inode, DirectoryInode):
        node = inode.directory.node
        what = What.REMOVED if inode.directory.is_removed else What.DIRECTORY
        key = None if node.key is None else node.key.der
        return InodeRecord(inode.number, what, inode.posix, node.cap, key=key), None
    assert isinstance(inode, LoopInode)
    record = InodeRecord(inode.number, What.LOOP, inode.posix, inode.cap, target=inode.target)
    return record, None


def _file_record(inode: FileInode) -> tuple[InodeRecord, Kept | None]:
    staged, posix = inode.staged, inode.posix
    kept = beneath = None
    if staged is not None:
        kept = staged.describe()
        beneath = None if kept.base is None else kept.base.cap
    if inode.is_mutable:
        posix = replace(posix, size=inode.known_size)
    record = InodeRecord(
        inode.number,
        What.FILE,
        posix,
        inode.cap,
        beneath,
        tuple(sorted(inode.superseded)),
        None if kept is None else kept.key,
    )
    return record, kept
