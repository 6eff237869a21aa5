"""Names: what one leads to here, and what the grid has under it.

A :class:`Binding` is one name in one directory. It has two sides:

- *Wanted*: the edges that leave from it. A file's name has one :class:`Edge`. A directory's has one
  for each path in use to the directory that names it (see ``docs/decisions``, "Two names for one
  directory"). A binding without an edge is a *removal*: the name shall lead to nothing.
- *The grid's*: ``base`` is the capability that the grid held under the name when we last looked or
  wrote, ``Base.ABSENT`` for none, and ``entry`` what that was read from. ``maybe`` is what failed
  publishes may have left there. ``in_flight`` is what the publish under way puts there. ``left``
  are the inodes that the grid may still have here, and that are wanted elsewhere or nowhere.

A binding is *pending* while the two sides differ; publishing is nothing but making them equal.
Because the grid's side stays with the name whatever is wanted there next, nobody who changes names
ever waits for a publish: it settles with the binding that it was made for, and what has changed in
the meantime is simply still pending.

- ``inode.version`` counts changes that its edges have to tell the grid: new attributes, a new
  capability. ``edge.published`` is the version that the grid shows under the name: 0 if it never
  led to this inode there (the edge is *new*), -1 if it shows something older.
- ``edge.origin`` is the entry that a new edge had where it came from. What other clients put into
  its metadata moves with it.
- A binding *holds* while it must not follow what another client did: it is pending, in flight, or
  its file has contents that are not on the grid.

Rules:

- All of this changes between two awaits; nothing here awaits.
- A capability that the grid had, or may have got, under a name goes into every edit of that name as
  what it is based on, so that nobody's change is overwritten unseen and our own is recognised.
- What is moved is linked at its new name before its old one is taken away or given to something
  else: :meth:`Binding.awaited`. Two names that wait for each other (an exchange) do not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from lafsfs.nodes.edits import Base, is_base

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lafsfs.errors import LafsError
    from lafsfs.formats.dirtable import Entry
    from lafsfs.nodes.edits import BaseCap
    from lafsfs.nodes.listing import Child
    from lafsfs.vfs.tree.directories import Directory
    from lafsfs.vfs.tree.inodes import DirectoryInode, Inode


class InFlight(Protocol):
    """What a publish under way puts under a name."""

    @property
    def puts(self) -> BaseCap:
        """The capability, or ``Base.ABSENT``."""


@dataclass(eq=False, slots=True)
class Binding:
    """One name in ``directory`` that is in use here (see the module)."""

    directory: Directory
    name: str  # as stored
    raw_name: bytes | None = None
    base: BaseCap = Base.ABSENT
    entry: Entry | None = field(default=None, repr=False)
    maybe: tuple[BaseCap, ...] = ()
    in_flight: InFlight | None = None
    left: tuple[Inode, ...] = ()
    made: int | None = None  # ns: when the name was given, if we did
    edges: list[Edge] = field(default_factory=list)
    error: LafsError | None = None  # why the last try to publish it failed

    def __repr__(self) -> str:
        return f"<Binding to {self.edges}>"

    @property
    def is_pending(self) -> bool:
        """Whether the grid has yet to hear of something."""
        if not self.directory.node.can_write:
            return False
        if self.edges:
            return any(edge.is_pending for edge in self.edges)
        return self.base is not Base.ABSENT or bool(self.maybe) or self.in_flight is not None

    @property
    def holds(self) -> bool:
        """Whether it must not follow what others did (see the module)."""
        if self.is_pending or self.in_flight is not None:
            return True
        return any(edge.inode.is_dirty for edge in self.edges)

    @property
    def is_removal(self) -> bool:
        """Whether the name shall lead to nothing."""
        return not self.edges

    @property
    def is_ready(self) -> bool:
        """Whether it can go into the next publish of its directory, as far as it knows itself."""
        if self.in_flight is not None or not self.is_pending:
            return False
        return not self.edges or self.edges[0].inode.is_linkable

    @property
    def expected(self) -> tuple[BaseCap, ...]:
        """What the grid may have under the name."""
        return (self.base, *self.maybe)

    def hides(self, child: Child | None) -> bool:
        """Whether a removal is of ``child``, and not of something that another client put there."""
        return child is None or self.in_flight is not None or is_base(child, self.expected)

    def edge_for(self, parent: DirectoryInode) -> Edge | None:
        """The edge that the path through ``parent`` shows."""
        for edge in self.edges:
            if edge.parent is parent or not edge.inode.is_per_path:
                return edge
        return None

    def awaited(self) -> Iterator[Edge]:
        """New edges to what the grid may still have here, which must be on the grid first.

        A new edge is not enough if the grid does not have the directories above it either.
        """
        for inode in self.left:
            for edge in inode.edges:
                if edge.binding is not self:
                    yield from (one for one in edge.path() if one.is_new)

    def waits_for(self, other: Binding) -> bool:
        """Whether it must wait for ``other``, directly or not."""
        seen: set[Binding] = set()
        ahead = [self]
        while ahead:
            for edge in ahead.pop().awaited():
                if edge.binding is other:
                    return True
                if edge.binding not in seen:
                    seen.add(edge.binding)
                    ahead.append(edge.binding)
        return False

    def leaves(self, inodes: Iterable[Inode]) -> None:
        """Take note of what the grid may still have under the name, in place of what it had."""
        self.left = tuple(inodes)
        for inode in self.left:
            if inode.below is not None:
                inode.below.left_at[self] = None

    def has_left(self, directory: Directory) -> bool:
        """Whether the grid may still have ``directory`` under the name, where it is not wanted."""
        in_use = self.directory.names.get(self.name) is self
        return in_use and any(inode.below is directory for inode in self.left)

    def keep(self) -> bool:
        """Whether it stays, since somebody removed a directory that we put things into.

        Had they been there, it would not have been removed: so it is linked again. Where it is not
        known whether others have something in it, that is seen when ours is there.
        """
        filled = [edge.inode for edge in self.edges if edge.inode.below is not None]
        if any(inode.below and inode.below.is_being_filled for inode in filled):
            self.restore()
            return True
        return any(self.directory.has_work_below(inode) for inode in filled)

    def restore(self) -> None:
        """Another client has removed it or put something else there; link it again all the same."""
        for edge in self.edges:
            edge.origin, edge.published = edge.latest_entry, 0
        self.base, self.entry, self.maybe = Base.ABSENT, None, ()
        self.directory.note(self)

    def failed(self, error: LafsError) -> None:
        """A try to publish it failed."""
        self.error = error


@dataclass(eq=False, slots=True)
class Edge:
    """What leads from a binding to an inode, for the path through ``parent``."""

    binding: Binding
    parent: DirectoryInode
    inode: Inode
    published: int = 0
    origin: Entry | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return f"<Edge to inode {self.inode.number}>"

    @property
    def is_pending(self) -> bool:
        return self.published != self.inode.version

    @property
    def is_new(self) -> bool:
        """Whether the grid never had this inode under the name, as far as is known."""
        return self.published == 0

    @property
    def is_attached(self) -> bool:
        """Whether it is still in use."""
        return self in self.binding.edges

    @property
    def latest_entry(self) -> Entry | None:
        """What the grid said of the inode last: here, or where it came from."""
        return self.origin if self.is_new else self.binding.entry

    def path(self) -> Iterator[Edge]:
        """Itself and the edges above it, nearest first; each once, even if they lead in a ring.

        Several clients may move directories into each other.
        """
        seen: set[Edge] = set()
        edge: Edge | None = self
        while edge is not None and edge not in seen:
            seen.add(edge)
            yield edge
            edge = edge.parent.edges[0] if edge.parent.edges else None

    def attach(self) -> None:
        """Become one of the binding's and the inode's edges, for good or as the grid has it."""
        assert self.binding.edge_for(self.parent) is None
        self.binding.edges.append(self)
        self.inode.named(self)
        self.parent.children += 1

    def forget(self) -> None:
        """Stop being in use, though the name stays what it is: it comes back when looked up."""
        self._detach()
        if not self.binding.edges:
            self.binding.directory.drop(self.binding)

    def leave(self) -> None:
        """The inode is not wanted under this name any more."""
        binding = self.binding
        self._detach()
        if not self.is_new or binding.in_flight is not None or binding.maybe:
            binding.leaves((*binding.left, self.inode))
        binding.directory.note(binding)

    def enter(self, parent: DirectoryInode, name: str) -> None:
        """Having left its name, be another of the same inode, which leads to nothing now."""
        self.origin, self.published = self.latest_entry, 0
        self.binding, self.parent = parent.directory.bind(name), parent
        self.attach()
        parent.directory.note(self.binding)

    def lead_to(self, inode: Inode) -> None:
        """Be a name of something else that is the same on the grid."""
        self.inode.edges.remove(self)
        self.inode = inode
        inode.named(self)

    def _detach(self) -> None:
        self.binding.edges.remove(self)
        self.inode.edges.remove(self)
        self.parent.children -= 1
