"""One file's staged contents to the grid, once.

- A snapshot is taken without an await before the first byte is read: writing goes on meanwhile.
- Whether the file changed since is seen by ``staged.changes``: only if it did not are the staged
  contents dropped, in the same step in which the new capability is noted. From that step on the
  file's names are pending, and the publishers of their directories see to them.
- Where files have random keys, the one of these contents is in the journal before the first share
  goes out, mostly since they were accepted: made again after a crash, the upload finds its shares.
- Readers take ``inode.staged`` and begin to read without an await; discarding waits for them.

Who is stored when is decided in :mod:`lafsfs.vfs.publishing.uploader`, which also sees to it that
no file is on its way twice.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

from lafsfs.errors import LocalError, NotSupportedError
from lafsfs.journal.faultpoints import reached
from lafsfs.nodes.dirnode import DirectoryNode
from lafsfs.nodes.filenode import MutableFileNode, UnknownNode
from lafsfs.vfs.recording.recorder import write_ahead
from lafsfs.vfs.staging.extents import merged

if TYPE_CHECKING:
    from collections.abc import Callable

    from lafsfs.caps import Cap
    from lafsfs.nodes.filenode import FileNode
    from lafsfs.vfs.staging.reading import Snapshot
    from lafsfs.vfs.staging.staged import StagedContents
    from lafsfs.vfs.tree.inodes import FileInode
    from lafsfs.vfs.tree.tree import Tree

log = logging.getLogger(__name__)


async def store(tree: Tree, inode: FileInode, placed: Callable[[int], None]) -> None:
    """Bring staged contents, as they are now, to the grid; its names are pending afterwards.

    ``placed`` is told how many bytes from the beginning are placed on servers.

    Raises:
        LafsError: they are not on the grid, and stay staged.
    """
    staged = inode.staged
    if staged is None or not inode.edges:
        return
    if tree.area.draws_keys and staged.kept_key is None and not inode.is_mutable:
        await _keep_key(tree, inode, staged)
    changes, key = staged.changes, staged.kept_key
    with staged.snapshot() as snapshot:
        reached("uploader.before")
        cap = await _put(tree, inode, snapshot, key, placed)
        reached("uploader.placed")
    _stored(tree, inode, staged, changes, cap)


async def _keep_key(tree: Tree, inode: FileInode, staged: StagedContents) -> None:
    """Have what is written accepted now, and with it the key that it is uploaded under.

    Where the local disk does not take that, the grid is the better place all the same.
    """
    try:
        await staged.seal()
        tree.recorder.changed(inode)
        await tree.recorder.accept()
    except LocalError as error:
        log.info("uploaded under a key that is not in the journal: %s", error)


async def _put(
    tree: Tree,
    inode: FileInode,
    snapshot: Snapshot,
    key: bytes | None,
    placed: Callable[[int], None],
) -> Cap:
    """Contents to the grid; the capability that leads to them. ``key``: None to draw one."""
    node = None if inode.cap is None else node_of(tree, inode)
    if not isinstance(node, MutableFileNode):
        return await tree.maker.upload(snapshot, key, placed)
    written = await snapshot.written()
    modifier = functools.partial(merged, extents=snapshot.extents, written=written)
    before = functools.partial(write_ahead, tree.recorder, node.cap)
    inode.known_size = len(await node.modify(modifier, before))
    inode.known_version = None
    tree.recorder.begun(node.cap, None)
    return node.cap


def _stored(tree: Tree, inode: FileInode, staged: StagedContents, changes: int, cap: Cap) -> None:
    inode.replace_cap(cap)
    inode.node = None
    if inode.staged is staged and staged.changes == changes and not staged.arriving:
        inode.discard_staged()
    tree.touch(inode, inode.posix)


def node_of(tree: Tree, inode: FileInode) -> FileNode:
    """The node of what is on the grid; kept while the file is open, for its caches.

    Raises:
        NotSupportedError: nothing that can be read.
    """
    if inode.node is None:
        assert inode.cap is not None
        node = tree.maker.node(inode.cap)
        if isinstance(node, DirectoryNode | UnknownNode):
            raise NotSupportedError("this version cannot read this kind of child")
        inode.node = node
    return inode.node
