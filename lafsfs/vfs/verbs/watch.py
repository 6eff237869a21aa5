"""Looking after open mutable files: what somebody else writes to them shows while they are open.

A directory is looked at again when it is used, and a file that is opened anew shows what is newest.
But a mutable file that stays open is read from the kernel's pages, and nobody would ever ask. So
while one is open its version is asked for every so often, and where it changed the kernel is told
to drop what it has.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.errors import LafsError
from lafsfs.vfs.tree.inodes import FileInode

if TYPE_CHECKING:
    from lafsfs.vfs.tree.tree import Tree
    from lafsfs.vfs.verbs.files import Files

log = logging.getLogger(__name__)

PARALLEL: Final = 8  # files asked about at once


async def watch_open_files(tree: Tree, files: Files, interval: float) -> None:
    """Ask about every open mutable file, ``interval`` seconds after the last time; for ever."""
    limit = trio.CapacityLimiter(PARALLEL)
    while True:
        await trio.sleep(interval)
        async with trio.open_nursery() as nursery:
            for inode in tree.table:
                if isinstance(inode, FileInode) and inode.is_mutable and inode.opens:
                    nursery.start_soon(_look, tree, files, inode, limit)


async def _look(tree: Tree, files: Files, inode: FileInode, limit: trio.CapacityLimiter) -> None:
    async with limit:
        if inode.is_dirty or not inode.opens:
            return
        try:
            with inode.pinned():
                await files.learn_size(inode, max_age=0)
        except LafsError as error:
            log.info("a file that is open cannot be looked at: %s", error)
        except Exception:  # nobody waits for it, and the mount must go on
            log.exception("looking at a file that is open")
        tree.table.drop_if_idle(inode)
