"""Bringing everything to the grid that is pending at this moment.

All uploads are due at once. A directory is published when the files that it names are on the grid,
or have failed, and the directories that it names are published: so each is published once, a new
one with all that is in it, and does not wait for other directories' files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from lafsfs.errors import LafsError
from lafsfs.vfs.publishing.pending import depth_of, directories_of, pending_inodes
from lafsfs.vfs.tree.inodes import DirectoryInode, FileInode

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from lafsfs.vfs.publishing.uploader import Uploader
    from lafsfs.vfs.tree.directories import Directory
    from lafsfs.vfs.tree.inodes import Inode
    from lafsfs.vfs.tree.tree import Tree


async def bring_everything(tree: Tree, uploader: Uploader) -> tuple[LafsError, ...]:
    """One attempt; an error for each inode of which something is still pending."""
    return await _Settling(tree, uploader).run()


@dataclass(eq=False, slots=True)
class _Group:
    """What is pending of the inodes that one directory names. ``depth``: directories above."""

    inodes: list[Inode] = field(default_factory=list)
    depth: int = 0
    done: trio.Event = field(default_factory=trio.Event)

    def add(self, inode: Inode) -> None:
        self.inodes.append(inode)
        self.depth = max(self.depth, depth_of(inode))


class _Settling:
    """One attempt at everything."""

    def __init__(self, tree: Tree, uploader: Uploader) -> None:
        self._tree = tree
        self._uploader = uploader
        self._errors: dict[Inode, LafsError] = {}

    async def run(self) -> tuple[LafsError, ...]:
        groups: dict[Directory, _Group] = {}
        for inode in pending_inodes(self._tree):
            for directory in directories_of(inode):
                groups.setdefault(directory, _Group()).add(inode)
        self._uploader.hurry()
        async with trio.open_nursery() as nursery:
            for group in groups.values():
                nursery.start_soon(self._bring, group, groups)
        others = await self._tree.settle_all()  # what has no inode: names that were taken away
        return tuple(dict.fromkeys((*self._errors.values(), *others.values())))

    async def _bring(self, group: _Group, groups: dict[Directory, _Group]) -> None:
        """What one directory names: the contents, then the names."""
        try:
            for inode in group.inodes:  # all are on their way at once
                if isinstance(inode, FileInode):
                    await self._attempt(inode, self._uploader.bring(inode))
                elif isinstance(inode, DirectoryInode):
                    below = groups.get(inode.directory)
                    if below is not None and below.depth > group.depth:  # so nobody waits in a ring
                        await below.done.wait()
            async with trio.open_nursery() as nursery:
                for inode in group.inodes:
                    if inode not in self._errors:
                        nursery.start_soon(self._attempt, inode, self._tree.settle(inode))
        finally:
            group.done.set()

    async def _attempt(self, inode: Inode, work: Awaitable[None]) -> None:
        try:
            await work
        except LafsError as error:
            self._errors[inode] = error
