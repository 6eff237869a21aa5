"""Inodes, the edges that lead to them, and the table of those that are in use.

An :class:`Inode` is what an inode number stands for. An :class:`Edge` is one name of it in one
directory, together with what the grid is known to hold under that name. The state is declarative:

- ``inode.version`` counts changes that its edges have to tell the grid: new attributes, a new
  capability. ``edge.published`` is the version that the grid's edge shows. An edge is *pending*
  while the two differ; publishing is nothing but making them equal.
- ``edge.base`` is the capability that the grid held under the name when we last looked or wrote,
  or ``Base.ABSENT``. It goes into every edit, so that nobody's change is overwritten unseen.
- ``edge.in_flight`` is the publish that is carrying the edge right now, if one is. Whoever wants to
  move or remove an edge waits for that first.
- ``edge.claims`` counts requests, queued or under way, that are about to move or remove the edge.
  Until they are over nobody else publishes, moves or removes it, even if whoever made the request
  has given up waiting.
- An edge *holds* while it must not follow what another client did: it is pending, in flight or
  claimed, or its file has contents that are not on the grid.

Rules:

- All of this changes between two awaits; nothing here awaits.
- A file has one inode however many names it has. A directory has one for each path (see
  ``docs/decisions``, "Two names for one directory"), so a directory's inode has at most one edge.
- An inode leaves the table when the kernel has forgotten it, nobody has it open and nothing of it
  is pending. Nothing that failed to reach the grid is ever forgotten.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import trio

from lafsfs.caps import CHKCap, LiteralCap, MutableReadCap, MutableWriteCap
from lafsfs.nodes.edits import Base
from lafsfs.vfs.api import ROOT_INODE, StaleInodeError
from lafsfs.vfs.attributes import Kind

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from lafsfs.caps import Cap, UnknownCap
    from lafsfs.errors import LafsError
    from lafsfs.formats.dirtable import Entry
    from lafsfs.nodes.filenode import FileNode
    from lafsfs.vfs.attributes import Posix
    from lafsfs.vfs.directories import Directory
    from lafsfs.vfs.staging import StagedContents

BaseCap: TypeAlias = "Base | Cap | UnknownCap"


@dataclass(eq=False, slots=True)
class Waiter:
    """Somebody who waits for the next attempt to publish an edge."""

    done: trio.Event = field(default_factory=trio.Event)
    error: LafsError | None = None

    def finish(self, error: LafsError | None) -> None:
        self.error = error
        self.done.set()


@dataclass(eq=False, slots=True)
class Edge:
    """One name of an inode in ``directory``, reached through the inode ``parent``."""

    directory: Directory
    parent: DirectoryInode
    name: str  # as stored
    raw_name: bytes | None
    inode: Inode
    base: BaseCap
    published: int
    entry: Entry | None = field(default=None, repr=False)  # what ``base`` was read from
    in_flight: object = None
    claims: int = 0
    attached: bool = True
    waiters: list[Waiter] = field(default_factory=list)
    freed: trio.Event | None = None  # for those who wait until it is not busy

    def __repr__(self) -> str:
        return f"<Edge to inode {self.inode.number}>"

    @property
    def is_pending(self) -> bool:
        """Whether the grid has yet to hear of something."""
        return (
            self.attached and self.published != self.inode.version and self.directory.node.can_write
        )

    @property
    def is_new(self) -> bool:
        """Whether the grid has never heard of it."""
        return self.published == 0

    @property
    def holds(self) -> bool:
        """Whether it must not follow what others did (see the module)."""
        return self.is_pending or self.is_busy or self.inode.is_dirty

    @property
    def is_busy(self) -> bool:
        """Whether a publish is about to change it, or to tell of it."""
        return self.in_flight is not None or self.claims > 0

    @property
    def is_ready(self) -> bool:
        """Whether it can go into the next publish of its directory."""
        return self.is_pending and not self.is_busy and self.inode.cap is not None

    @property
    def key(self) -> tuple[str, int]:
        """Its place among the directory's edges: directories have one for each path."""
        return self.name, self.parent.number if self.inode.is_per_path else 0

    def attach(self) -> None:
        """Become one of the directory's and the inode's edges, under a key that is free."""
        assert self.key not in self.directory.edges
        self.attached = True
        self.directory.edges[self.key] = self
        self.inode.edges.append(self)
        self.parent.children += 1

    def detach(self) -> None:
        """Stop being an edge. Those who wait for its publishing are told that it is over."""
        if not self.attached:
            return
        self.attached = False
        self.directory.edges.pop(self.key, None)
        self.directory.dirty.pop(self, None)
        self.inode.edges.remove(self)
        self.parent.children -= 1
        self._tell()

    def tell_free(self) -> None:
        """Let go of those who wait for what is over now: its being busy, its being pending."""
        if self.freed is not None and not self.is_busy:
            self.freed.set()
            self.freed = None
        if not self.is_pending:
            self._tell()

    def _tell(self) -> None:
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter.finish(None)

    def move(self, directory: Directory, parent: DirectoryInode, name: str) -> None:
        """Be another name of the same inode, keeping what waits for it."""
        waiters, self.waiters = self.waiters, []
        self.detach()
        self.directory, self.parent, self.name = directory, parent, name
        self.waiters = waiters
        self.attach()
        if self.is_pending:
            directory.dirty[self] = None


class Inode:
    """What all kinds have in common. Kept small: a big directory read to its end makes many."""

    __slots__ = ("edges", "lookups", "number", "opens", "posix", "version")

    is_per_path = False  # whether another path to the same directory leads to another inode

    def __init__(self, number: int, posix: Posix) -> None:
        self.number = number
        self.posix = posix
        self.version = 1
        self.edges: list[Edge] = []
        self.lookups = 0  # how often the kernel was told of it
        self.opens = 0  # handles, and whoever needs it to stay

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.number}>"

    @property
    def cap(self) -> Cap | UnknownCap | None:
        """What its edges lead to; None while that is not on the grid."""
        return (
            self.edges[0].base if self.edges and not isinstance(self.edges[0].base, Base) else None
        )

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Keep it in the table meanwhile."""
        self.opens += 1
        try:
            yield
        finally:
            self.opens -= 1

    @property
    def is_dirty(self) -> bool:
        """Whether it has contents that are not on the grid."""
        return False

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost by forgetting it."""
        if self.lookups or self.opens:
            return False
        return not any(edge.is_pending or edge.is_busy for edge in self.edges)

    @property
    def is_writable(self) -> bool:
        """Whether any directory that names it can be changed (or none names it any more)."""
        return not self.edges or any(edge.directory.node.can_write for edge in self.edges)


class FileInode(Inode):
    """A file, or anything else that is stored as one: link, fifo, socket, device."""

    __slots__ = (
        "_cap",
        "_storing",
        "epoch",
        "is_retrying",
        "known_size",
        "known_version",
        "node",
        "opened_epoch",
        "outlived",
        "staged",
        "superseded",
        "writers",
    )

    def __init__(self, number: int, posix: Posix, cap: Cap | UnknownCap | None) -> None:
        super().__init__(number, posix)
        self._cap = cap
        self.staged: StagedContents | None = None
        self.node: FileNode | None = None  # of ``cap``, while it is open; once opened, if mutable
        self.superseded: frozenset[str] = frozenset()  # digests of what our capability replaced
        self.writers = 0  # handles open for writing
        self.epoch = 0  # counts changes of the contents that the kernel did not make
        self.opened_epoch = -1  # that of the newest open: what the kernel's pages are of
        self.known_size: int | None = None  # of a mutable file, when it was last asked for
        self.known_version: Hashable | None = None  # what had that size
        self.is_retrying = False
        self.outlived = False  # names that were not seen remain after the last that was
        self._storing: trio.Lock | None = None

    @property
    def cap(self) -> Cap | UnknownCap | None:
        return self._cap

    @property
    def is_dirty(self) -> bool:
        return self.staged is not None

    @property
    def is_idle(self) -> bool:
        return super().is_idle and self.staged is None and not self._ties_names

    @property
    def _ties_names(self) -> bool:
        """Whether names would go separate ways if it were forgotten that they are one file."""
        if not self.edges:
            return self.outlived
        return len(self.edges) > 1 or (self.posix.nlink > 1 and bool(self.superseded))

    @property
    def storing(self) -> trio.Lock:
        """Held while the contents go to the grid."""
        if self._storing is None:
            self._storing = trio.Lock()
        return self._storing

    @property
    def is_mutable(self) -> bool:
        """Whether the contents change in place, without a new capability."""
        return isinstance(self._cap, MutableWriteCap | MutableReadCap)

    @property
    def is_special(self) -> bool:
        """Whether it is anything but a regular file."""
        return self.posix.kind is not Kind.FILE

    @property
    def size(self) -> int:
        """Bytes, as far as is known without asking."""
        if self.staged is not None:
            return self.staged.size
        if isinstance(self._cap, CHKCap):
            return self._cap.size
        if isinstance(self._cap, LiteralCap):
            return len(self._cap.data)
        return self.known_size if self.known_size is not None else self.posix.size or 0

    def discard_staged(self) -> None:
        """Nobody needs the staged contents any more."""
        if self.staged is not None:
            self.staged.discard()
            self.staged = None

    def replace_cap(self, cap: Cap | UnknownCap) -> None:
        """Lead to other contents from now on."""
        if self._cap != cap:
            self.node = None
        if self._cap is not None and self._cap != cap:
            self.superseded |= {self._cap.read_cap().digest}
        self._cap = cap


class DirectoryInode(Inode):
    """A directory, on one path."""

    __slots__ = ("children", "directory")

    is_per_path = True

    def __init__(self, number: int, posix: Posix, directory: Directory) -> None:
        super().__init__(number, posix)
        self.directory = directory
        self.children = 0  # edges in use that were reached through this inode

    @property
    def cap(self) -> Cap:
        return self.directory.node.cap

    @property
    def is_idle(self) -> bool:
        return super().is_idle and not self.children and self.number != ROOT_INODE

    @property
    def parent(self) -> DirectoryInode | None:
        """The directory above on this path; None for the root and for what was removed."""
        return self.edges[0].parent if self.edges else None

    def path(self) -> Iterator[DirectoryInode]:
        """Itself and all directories above, nearest first."""
        inode: DirectoryInode | None = self
        while inode is not None:
            yield inode
            inode = inode.parent


class LoopInode(Inode):
    """A directory inside itself, shown as a symbolic link to where it already is."""

    __slots__ = ("target",)

    is_per_path = True

    def __init__(self, number: int, posix: Posix, target: bytes) -> None:
        super().__init__(number, posix)
        self.target = target


class InodeTable:
    """The inodes in use, by number."""

    def __init__(self) -> None:
        self._inodes: dict[int, Inode] = {}

    def __len__(self) -> int:
        return len(self._inodes)

    def __iter__(self) -> Iterator[Inode]:
        return iter(tuple(self._inodes.values()))

    def get(self, number: int) -> Inode | None:
        """The inode of that number, if it is in use."""
        return self._inodes.get(number)

    def __getitem__(self, number: int) -> Inode:
        """Raises StaleInodeError for a number that is not in use."""
        try:
            return self._inodes[number]
        except KeyError:
            raise StaleInodeError("this inode number is not in use") from None

    def add(self, inode: Inode) -> None:
        """Raises ValueError if the number is taken."""
        if self._inodes.setdefault(inode.number, inode) is not inode:
            raise ValueError("the inode number is taken")

    def drop_if_idle(self, inode: Inode) -> None:
        """Forget an inode that nobody needs, and its edges; they come back when looked up.

        Directories above it that were only needed by it go too. A file without a name loses its
        staged contents as soon as nobody has it open, whatever the kernel remembers.
        """
        if isinstance(inode, FileInode) and not inode.edges and not inode.opens:
            inode.discard_staged()
        if not inode.is_idle or self._inodes.get(inode.number) is not inode:
            return
        del self._inodes[inode.number]
        parents = [edge.parent for edge in inode.edges]
        for edge in tuple(inode.edges):
            edge.detach()
        if isinstance(inode, DirectoryInode):
            inode.directory.inodes.pop(inode.number, None)
        for parent in parents:
            self.drop_if_idle(parent)
