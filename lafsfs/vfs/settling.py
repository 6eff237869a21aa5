"""Bringing everything to the grid that is pending at this moment.

All uploads are due at once. A directory is published when the files that it names are on the grid,
or have failed, so that it is published once and does not wait for other directories' files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lafsfs.errors import LafsError
from lafsfs.vfs.inodes import FileInode
from lafsfs.vfs.pending import directories_of, pending_inodes

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from lafsfs.vfs.directories import Directory
    from lafsfs.vfs.inodes import Inode
    from lafsfs.vfs.tree import Tree
    from lafsfs.vfs.uploader import Uploader


async def bring_everything(tree: Tree, uploader: Uploader) -> tuple[LafsError, ...]:
    """One attempt; an error for each inode of which something is still pending."""
    return await _Settling(tree, uploader).run()


class _Settling:
    """One attempt at everything."""

    def __init__(self, tree: Tree, uploader: Uploader) -> None:
        self._tree = tree
        self._uploader = uploader
        self._errors: dict[Inode, LafsError] = {}

    async def run(self) -> tuple[LafsError, ...]:
        by_directory: dict[Directory, list[Inode]] = {}
        for inode in pending_inodes(self._tree):
            for directory in directories_of(inode):
                by_directory.setdefault(directory, []).append(inode)
        self._uploader.hurry()
        async with trio.open_nursery() as nursery:
            for inodes in by_directory.values():
                nursery.start_soon(self._bring, inodes)
        others = await self._tree.settle_all()  # what has no inode: names that were taken away
        return tuple(dict.fromkeys((*self._errors.values(), *others.values())))

    async def _bring(self, inodes: list[Inode]) -> None:
        """What one directory names: the contents, then the names."""
        for inode in inodes:  # all are on their way at once
            if isinstance(inode, FileInode):
                await self._attempt(inode, self._uploader.bring(inode))
        async with trio.open_nursery() as nursery:
            for inode in inodes:
                if inode not in self._errors:
                    nursery.start_soon(self._attempt, inode, self._tree.settle(inode))

    async def _attempt(self, inode: Inode, work: Awaitable[None]) -> None:
        try:
            await work
        except LafsError as error:
            self._errors[inode] = error
