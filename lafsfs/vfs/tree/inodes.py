"""Inodes, and the table of those that are in use.

An :class:`Inode` is what an inode number stands for. The names that lead to it are its ``edges``
(:mod:`lafsfs.vfs.tree.bindings`, where it is told how they reach the grid).

Rules:

- All of this changes between two awaits; nothing here awaits.
- A file has one inode however many names it has. A directory has one for each path (see
  ``docs/decisions``, "Two names for one directory"), so a directory's inode has at most one edge.
- An inode leaves the table when the kernel has forgotten it, nobody has it open and nothing of it
  is pending, not even that a directory goes from where it was. Nothing that failed to reach the
  grid is ever forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lafsfs.caps import CHKCap, LiteralCap, MutableReadCap, MutableWriteCap
from lafsfs.vfs.api import ROOT_INODE, StaleInodeError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from lafsfs.caps import Cap, UnknownCap
    from lafsfs.nodes.filenode import FileNode
    from lafsfs.vfs.posix.attributes import Posix
    from lafsfs.vfs.staging.staged import StagedContents
    from lafsfs.vfs.tree.bindings import Edge
    from lafsfs.vfs.tree.directories import Directory


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
        return None

    @property
    def below(self) -> Directory | None:
        """The directory that it is, if it is one."""
        return None

    @property
    def is_linkable(self) -> bool:
        """Whether what it is on the grid can be named there now."""
        return True

    def named(self, edge: Edge) -> None:
        """It has one more name."""
        self.edges.append(edge)

    def pinned(self) -> Pinned:
        """Keep it in the table meanwhile."""
        return Pinned(self)

    @property
    def is_dirty(self) -> bool:
        """Whether it has contents that are not on the grid."""
        return False

    @property
    def has_pending_names(self) -> bool:
        """Whether the grid lacks a name of it, or what that should tell."""
        return any(edge.is_pending for edge in self.edges)

    @property
    def is_pending(self) -> bool:
        """Whether the grid lacks something of it: contents, a name, or what a name should tell."""
        return bool(self.edges) and (self.is_dirty or self.has_pending_names)

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost by forgetting it."""
        if self.lookups or self.opens:
            return False
        return not any(edge.binding.holds for edge in self.edges)

    @property
    def is_writable(self) -> bool:
        """Whether any directory that names it can be changed (or none names it any more)."""
        if not self.edges:
            return True
        return any(edge.binding.directory.node.can_write for edge in self.edges)


class Pinned:
    """A block in which an inode stays in the table; half of the requests are one."""

    __slots__ = ("_inode",)

    def __init__(self, inode: Inode) -> None:
        self._inode = inode

    def __enter__(self) -> None:
        self._inode.opens += 1

    def __exit__(self, *exc: object) -> None:
        self._inode.opens -= 1


class FileInode(Inode):
    """A file, or anything else that is stored as one: link, fifo, socket, device."""

    __slots__ = (
        "_cap",
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

    @property
    def cap(self) -> Cap | UnknownCap | None:
        return self._cap

    @property
    def is_dirty(self) -> bool:
        return self.staged is not None

    @property
    def is_linkable(self) -> bool:
        return self._cap is not None and not self.is_going_up

    @property
    def is_going_up(self) -> bool:
        """Whether its contents will soon be others, so that telling of these is for nothing."""
        return self.is_dirty and not self.writers and not self.is_retrying

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
    def is_mutable(self) -> bool:
        """Whether the contents change in place, without a new capability."""
        cap = self._cap  # None is told quickly: a new file is asked this at each request
        return cap is not None and isinstance(cap, MutableWriteCap | MutableReadCap)

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
    def below(self) -> Directory:
        return self.directory

    @property
    def is_linkable(self) -> bool:
        return not self.directory.node.is_new

    def named(self, edge: Edge) -> None:
        super().named(edge)
        if self.directory.is_removed or self.directory.node.is_new:
            self.directory.mark_removed(False)

    @property
    def is_idle(self) -> bool:
        if self.children or self.number == ROOT_INODE or self.directory.has_work:
            return False
        if self.directory.is_left:
            return False
        return super().is_idle

    @property
    def parent(self) -> DirectoryInode | None:
        """The directory above on this path; None for the root and for what was removed."""
        return self.edges[0].parent if self.edges else None

    def path(self) -> Iterator[DirectoryInode]:
        """Itself and all directories above, nearest first; each once, as of :meth:`Edge.path`."""
        seen: set[DirectoryInode] = set()
        inode: DirectoryInode | None = self
        while inode is not None and inode not in seen:
            seen.add(inode)
            yield inode
            inode = inode.parent


class LoopInode(Inode):
    """A directory inside itself, shown as a symbolic link to where it already is."""

    __slots__ = ("_cap", "target")

    is_per_path = True

    def __init__(self, number: int, posix: Posix, cap: Cap, target: bytes) -> None:
        super().__init__(number, posix)
        self._cap = cap
        self.target = target

    @property
    def cap(self) -> Cap:
        return self._cap


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
        if isinstance(inode, DirectoryInode):
            inode.directory.inodes[inode.number] = inode

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
            edge.forget()
        if isinstance(inode, DirectoryInode):
            inode.directory.inodes.pop(inode.number, None)
        for parent in parents:
            self.drop_if_idle(parent)
