"""What of a tree is *pending*: which inodes and names the grid does not have as they are.

An inode is pending while the grid lacks something of it: contents, a name, or what a name should
tell. It is only found here; :mod:`lafsfs.vfs.publishing.settling` is what changes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lafsfs.vfs.publishing.removals import Look
    from lafsfs.vfs.tree.bindings import Binding
    from lafsfs.vfs.tree.inodes import Inode
    from lafsfs.vfs.tree.tree import Tree


def pending_inodes(tree: Tree) -> Iterator[Inode]:
    """The inodes with contents or names that are not on the grid."""
    for inode in tree.table:
        if inode.edges and (inode.is_dirty or has_pending_names(inode)):
            yield inode


def has_pending_names(inode: Inode) -> bool:
    """Whether the grid lacks a name of ``inode``, or what that should tell."""
    return any(edge.is_pending for edge in inode.edges)


def pending_looks(tree: Tree) -> Iterator[Look]:
    """What is yet to be looked at because of directories that went, or were filled."""
    for directory in tuple(tree.outgoing.pending):
        yield from directory.publisher.removals.looks


def pending_removals(tree: Tree) -> Iterator[Binding]:
    """The names that were taken away and that the grid still has."""
    for directory in tuple(tree.outgoing.pending):
        for binding in tuple(directory.dirty):
            if binding.is_removal:
                yield binding
