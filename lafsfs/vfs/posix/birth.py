"""What a new inode inherits from its directory and takes from its maker: inode(7), acl(5). Pure."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from lafsfs.vfs.posix import acl
from lafsfs.vfs.posix.attributes import Kind, Posix

if TYPE_CHECKING:
    from lafsfs.vfs.api import Caller

SYMLINK_MODE = 0o777


def born(parent: Posix, kind: Kind, mode: int, caller: Caller, now: int, *, rdev: int = 0) -> Posix:
    """The attributes of something made with ``mode`` in a directory with ``parent``'s.

    A set-group-ID directory gives its group (and, to directories, the bit). A default ACL replaces
    the umask.
    """
    mode &= 0o7777
    gid = caller.gid
    if parent.mode & stat.S_ISGID:
        gid = parent.gid
        mode |= stat.S_ISGID if kind is Kind.DIRECTORY else 0
    xattrs: dict[bytes, bytes] = {}
    default = parent.xattrs.get(acl.DEFAULT)
    if kind is Kind.SYMLINK:
        mode = SYMLINK_MODE
    elif default is None:
        mode &= ~caller.umask
    else:
        access = acl.inherited(acl.Acl.parse(default), mode)
        mode = mode & ~0o777 | access.mode
        if not access.is_minimal:
            xattrs[acl.ACCESS] = access.pack()
        if kind is Kind.DIRECTORY:
            xattrs[acl.DEFAULT] = default
    return Posix(kind, mode, caller.uid, gid, now, now, now, now, rdev=rdev, xattrs=xattrs)
