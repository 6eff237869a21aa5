"""What goes out under one name, and what it means when it has landed.

A :class:`Flight` is the edit of one binding in one batch. While it is under way, anything may
happen to the binding: its edges move away, others come, it becomes a removal. So what is known
afterwards is noted with the binding, and what was told with the edges that are still there.

- Where another client was first, theirs keeps the name. Ours goes on under the name that the edit
  gave it, or is taken away there if it has been moved or removed meanwhile.
- What is new under a name is linked there, though the grid may have the same contents: what others
  remove meanwhile is what was there before, not ours.
- A binding is based on what it was based on until an edit of it has gone well: what is wanted under
  a name that others have changed will be a conflict, too.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lafsfs.caps import UnknownCap
from lafsfs.nodes.edits import Base, Conflict, Gone, Kept, SetChild, SetMetadata, Unlink, is_base
from lafsfs.nodes.listing import decoded_metadata
from lafsfs.vfs.posix.attributes import KEY, encode
from lafsfs.vfs.tree.inodes import FileInode, LoopInode

if TYPE_CHECKING:
    from lafsfs.nodes.edits import BaseCap, Edit, Outcome
    from lafsfs.nodes.listing import Child, Listing
    from lafsfs.vfs.tree.bindings import Binding, Edge
    from lafsfs.vfs.tree.inodes import Inode

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Flight:
    """One binding on its way: its edit, and the version that it tells of each of its edges."""

    binding: Binding
    edit: Edit
    told: tuple[tuple[Edge, int], ...]

    @property
    def puts(self) -> BaseCap:
        """What is under the name afterwards, if it lands."""
        if isinstance(self.edit, SetChild):
            return self.edit.cap
        return self.binding.base if isinstance(self.edit, SetMetadata) else Base.ABSENT


def edit_for(binding: Binding) -> Edit:
    """What brings the grid's edge up to date."""
    if binding.is_removal:
        return Unlink(binding.name, binding.expected)
    edge = next(edge for edge in binding.edges if edge.is_pending)
    cap = edge.inode.cap
    assert cap is not None
    if binding.expected == (cap,) and not edge.is_new:
        return SetMetadata(binding.name, metadata_for(edge.inode, binding.raw_name))
    metadata = {} if edge.origin is None else decoded_metadata(edge.origin.metadata_json)
    if not isinstance(edge.inode, LoopInode) and not isinstance(cap, UnknownCap):
        metadata.update(metadata_for(edge.inode, binding.raw_name))
    made = None if binding.made is None else binding.made / 1e9
    base = binding.expected
    moved = edge.is_new and edge.origin is not None
    return SetChild(binding.name, cap, metadata, base=base, replace=moved, made=made)


def metadata_for(inode: Inode, raw_name: bytes | None) -> dict[str, object]:
    """Our part of the metadata of an edge that leads to ``inode``, which is on the grid."""
    cap = inode.cap
    assert cap is not None
    posix = inode.posix
    if isinstance(inode, FileInode):
        mutable = inode.is_mutable
        number = None if mutable else inode.number
        posix = replace(posix, number=number, size=inode.known_size if mutable else None)
    return {KEY: encode(posix, cap.read_cap().digest, raw_name)}


def settle(flight: Flight, outcome: Outcome, listing: Listing) -> None:
    """Take note of what the grid has under a name now, and what that means for what is wanted."""
    binding = flight.binding
    child = listing.get(binding.name)
    told_of_another = isinstance(flight.edit, SetMetadata) and not is_base(child, binding.base)
    if isinstance(outcome, Conflict):
        _move_aside(flight, outcome.name, listing)
    elif isinstance(outcome, Kept) and binding.is_removal:
        log.warning("a child that was removed stays: another client has changed it")
        binding.directory.drop(binding)
    elif isinstance(outcome, Gone) or told_of_another:
        _lose(flight)
    elif not isinstance(outcome, Kept):  # else what is wanted now will be a conflict
        _landed(flight, child)
    if binding.directory.names.get(binding.name) is binding:
        binding.directory.note(binding)


def _landed(flight: Flight, child: Child | None) -> None:
    binding = flight.binding
    binding.base = Base.ABSENT if child is None else child.cap
    binding.entry = None if child is None else child.entry
    binding.maybe = ()
    binding.leaves(edge.inode for edge, _ in flight.told if edge not in binding.edges)
    for edge, version in flight.told:
        if edge in binding.edges:
            edge.published, edge.origin = version, None


def _lose(flight: Flight) -> None:
    """What we told something of is not under the name any more.

    Contents that are not on the grid yet will be a conflicting copy.
    """
    for edge, version in flight.told:
        if edge in flight.binding.edges:
            edge.published = version
            if not edge.inode.is_dirty and not flight.binding.keep():
                edge.forget()


def _move_aside(flight: Flight, name: str, listing: Listing) -> None:
    """Another client took the name first: what we put there is under ``name`` instead."""
    log.warning("another client took a name first: ours is kept as a conflicting copy")
    binding = flight.binding
    directory = binding.directory
    _make_way(directory.names.get(name))
    aside = directory.bind(name)
    if aside.is_removal:
        child = listing[name]
        aside.base, aside.entry, aside.maybe = child.cap, child.entry, ()
        aside.leaves(edge.inode for edge, _ in flight.told)
        for edge, version in flight.told:
            if edge in binding.edges:
                edge.leave()
                edge.enter(edge.parent, name)
                edge.published, edge.origin = version, None
                aside.leaves(())
        directory.note(aside)
    if binding.is_removal:
        directory.drop(binding)


def _make_way(binding: Binding | None) -> None:
    """Forget what was seen under the name of our own conflicting copy, left by an earlier try."""
    if binding is not None and not binding.holds:
        for edge in tuple(binding.edges):
            edge.forget()
