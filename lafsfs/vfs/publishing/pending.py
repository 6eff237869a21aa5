"""What uploading and status need to know of names, in one place.

An inode is *pending* while the grid lacks something of it: contents, a name, or what a name should
tell. It is only reported here; :meth:`Tree.settle` is what changes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lafsfs.vfs.posix.names import local_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lafsfs.errors import LafsError
    from lafsfs.vfs.tree.bindings import Binding
    from lafsfs.vfs.tree.directories import Directory
    from lafsfs.vfs.tree.inodes import Inode
    from lafsfs.vfs.tree.tree import Tree


@dataclass(frozen=True, slots=True)
class PendingName:
    """What is known of a name that the grid does not have as it is. ``since``: Unix time."""

    is_publishing: bool
    since: float
    error: LafsError | None = None


def pending_inodes(tree: Tree) -> Iterator[Inode]:
    """The inodes with contents or names that are not on the grid."""
    for inode in tree.table:
        if inode.edges and (inode.is_dirty or has_pending_names(inode)):
            yield inode


def has_pending_names(inode: Inode) -> bool:
    """Whether the grid lacks a name of ``inode``, or what that should tell."""
    return any(edge.is_pending for edge in inode.edges)


def directories_of(inode: Inode) -> set[Directory]:
    """The directories that name ``inode``."""
    return {edge.binding.directory for edge in inode.edges}


def pending_removals(tree: Tree) -> Iterator[Binding]:
    """The names that were taken away and that the grid still has."""
    for directory in tuple(tree.outgoing.pending):
        for binding in tuple(directory.dirty):
            if binding.is_removal:
                yield binding


def name_of(inode: Inode) -> PendingName:
    """What is known of the names of ``inode``, which has one that is pending."""
    bindings = [edge.binding for edge in inode.edges]
    errors = [one.error for one in bindings]
    if inode.below is not None and inode.below.node.is_new:  # it can only be named when it is made
        errors.append(inode.below.publisher.error)
    return PendingName(
        is_publishing=any(binding.in_flight is not None for binding in bindings),
        since=inode.posix.ctime / 1e9,
        error=next((error for error in errors if error is not None), None),
    )


def removed_path(binding: Binding) -> str:
    """The path of a name that was taken away, in words for people."""
    name = _printed(binding)
    parent = next(iter(binding.directory.inodes.values()), None)
    above = "" if parent is None or not parent.edges else f"{shown_path(parent)}/"
    return f"{above}{name}"


def depth_of(inode: Inode) -> int:
    """How many directories are above ``inode``, on its longest path."""
    return max((sum(1 for _ in edge.parent.path()) for edge in inode.edges), default=0)


def shown_path(inode: Inode) -> str:
    """The path of an inode from the mountpoint, by its first name, in words for people."""
    if not inode.edges:
        return "a file without a name"
    edge = inode.edges[0]
    above = [one.edges[0] for one in edge.parent.path() if one.edges]
    return "/".join(_printed(one.binding) for one in (*reversed(above), edge))


def _printed(binding: Binding) -> str:
    """The local name. Characters that do not print are escaped."""
    text = local_name(binding.name, binding.raw_name).decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
