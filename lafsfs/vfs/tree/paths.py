"""Where things are from the mountpoint, in words for people.

Of a directory that something was taken out of before a crash it may not be known where it is, until
somebody looks it up: what is above it is ``...`` then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lafsfs.vfs.api import ROOT_INODE
from lafsfs.vfs.posix.names import local_name

if TYPE_CHECKING:
    from lafsfs.vfs.tree.bindings import Binding
    from lafsfs.vfs.tree.directories import Directory
    from lafsfs.vfs.tree.inodes import Inode

UNKNOWN: Final = "..."


def shown_path(inode: Inode) -> str:
    """The path of an inode, by its first name."""
    if not inode.edges:
        return "a file without a name"
    edges = list(inode.edges[0].path())
    names = [_printed(edge.binding) for edge in reversed(edges)]
    return "/".join(names if edges[-1].parent.number == ROOT_INODE else [UNKNOWN, *names])


def removed_path(binding: Binding) -> str:
    """The path of a name that was taken away."""
    return path_in(binding.directory, binding.name, binding.raw_name)


def path_in(directory: Directory, name: str, raw_name: bytes | None = None) -> str:
    """The path of a stored name in a directory; of the directory, if the name is empty."""
    parent = next((one for one in directory.inodes.values() if one.edges), None)
    if parent is not None:
        above = [shown_path(parent)]
    else:
        above = [] if ROOT_INODE in directory.inodes else [UNKNOWN]
    return "/".join([*above, *([_printable(name, raw_name)] if name else [])])


def depth_of(inode: Inode) -> int:
    """How many directories are above ``inode``, on its longest path."""
    return max((sum(1 for _ in edge.parent.path()) for edge in inode.edges), default=0)


def _printed(binding: Binding) -> str:
    return _printable(binding.name, binding.raw_name)


def _printable(name: str, raw_name: bytes | None) -> str:
    """The local name. Characters that do not print are escaped."""
    text = local_name(name, raw_name).decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
