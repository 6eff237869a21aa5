"""Open directories: a snapshot of the names, entries made as they are asked for.

``next_id`` is a place in the handle's snapshot, so names that come and go meanwhile neither repeat
nor hide others: a name that is gone is left out, one that is new is not seen before the directory
is rewound. An entry's inode is made when it is handed out and forgotten again unless the caller
remembers it, so a listing of 50,000 names costs what is read of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.vfs.api import BadHandleError, DirectoryEntry
from lafsfs.vfs.tree.inodes import DirectoryInode
from lafsfs.vfs.tree.tree import shown_name

if TYPE_CHECKING:
    import itertools
    from collections.abc import AsyncGenerator, Sequence

    from lafsfs.vfs.tree.bindings import Edge
    from lafsfs.vfs.tree.tree import Tree

STEPS: Final = 32  # entries between two checkpoints: about 2 ms, even if all metadata is new


@dataclass(eq=False, slots=True)
class DirectoryHandle:
    """One open directory. ``names``: stored names."""

    inode: DirectoryInode
    names: Sequence[str] = field(default=(), repr=False)


class Readdir:
    """The open directories of one mount."""

    def __init__(self, tree: Tree, numbers: itertools.count[int]) -> None:
        self._tree = tree
        self._numbers = numbers
        self._handles: dict[int, DirectoryHandle] = {}

    async def opendir(self, ino: int) -> int:
        """A handle on the names as they are now."""
        inode = self._tree.directory_inode(ino)
        handle = DirectoryHandle(inode)
        self._tree.prefetch.used(inode.directory)
        with inode.pinned():
            await self._take_names(handle)
            inode.opens += 1
        number = next(self._numbers)
        self._handles[number] = handle
        return number

    async def readdir(self, number: int, start: int) -> AsyncGenerator[DirectoryEntry, None]:
        """The entries from ``start`` on."""
        handle = self._handle(number)
        directory, prefetch = handle.inode.directory, self._tree.prefetch
        if start == 0:
            await self._take_names(handle)
            prefetch.begin(directory)
        for position in range(start, len(handle.names)):
            if position % STEPS == 0:
                await trio.lowlevel.checkpoint()
            edge = self._edge(handle.inode, handle.names[position])
            if edge is None:
                continue
            try:
                with edge.inode.pinned():
                    attributes = self._tree.present(edge.inode)
                    yield DirectoryEntry(shown_name(edge), attributes, position + 1)
                if isinstance(edge.inode, DirectoryInode):
                    prefetch.handed_out(directory, edge.inode.directory)
            finally:
                self._tree.table.drop_if_idle(edge.inode)

    async def fsyncdir(self, number: int) -> None:
        """Have what was accepted on the local disk; with ``-o sync``, this directory on the grid.

        Raises:
            LafsError: it is not (yet).
        """
        tree, inode = self._tree, self._handle(number).inode
        await tree.accept(*inode.directory.dirty, *(edge.binding for edge in inode.edges))
        await tree.sync()

    async def releasedir(self, number: int) -> None:
        """Forget a handle."""
        inode = self._handle(number).inode
        del self._handles[number]
        inode.opens -= 1
        self._tree.table.drop_if_idle(inode)

    def _handle(self, number: int) -> DirectoryHandle:
        try:
            return self._handles[number]
        except KeyError:
            raise BadHandleError("this handle is closed") from None

    async def _take_names(self, handle: DirectoryHandle) -> None:
        listing = await self._tree.listing(handle.inode)
        names = handle.inode.directory.names
        handle.names = (*listing, *(name for name in names if name not in listing))

    def _edge(self, inode: DirectoryInode, name: str) -> Edge | None:
        """What is shown under a name of the snapshot now."""
        latest = inode.directory.node.latest
        return None if latest is None else self._tree.resolve(inode, name, latest)
