"""Where things are from the mountpoint, in words for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lafsfs.vfs.posix.names import local_name

if TYPE_CHECKING:
    from lafsfs.vfs.tree.bindings import Binding
    from lafsfs.vfs.tree.inodes import Inode


def shown_path(inode: Inode) -> str:
    """The path of an inode, by its first name."""
    if not inode.edges:
        return "a file without a name"
    edge = inode.edges[0]
    above = [one.edges[0] for one in edge.parent.path() if one.edges]
    return "/".join(_printed(one.binding) for one in (*reversed(above), edge))


def removed_path(binding: Binding) -> str:
    """The path of a name that was taken away."""
    name = _printed(binding)
    parent = next(iter(binding.directory.inodes.values()), None)
    above = "" if parent is None or not parent.edges else f"{shown_path(parent)}/"
    return f"{above}{name}"


def depth_of(inode: Inode) -> int:
    """How many directories are above ``inode``, on its longest path."""
    return max((sum(1 for _ in edge.parent.path()) for edge in inode.edges), default=0)


def _printed(binding: Binding) -> str:
    """The local name. Characters that do not print are escaped."""
    text = local_name(binding.name, binding.raw_name).decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
