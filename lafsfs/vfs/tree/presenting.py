"""What ``stat`` shows of an inode: what is known in memory, with the mount's overrides over it.

- Attributes that are not known for sure (the size of a mutable file that was not asked for, the
  mtime of a directory that was not read) may not be cached: the kernel asks again when it matters,
  so that listing a directory never fetches anything for its children.
- A directory's mtime is what was set explicitly, until a name appears in it later than that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lafsfs.vfs.api import ROOT_INODE, Attributes
from lafsfs.vfs.posix.attributes import Kind
from lafsfs.vfs.tree.inodes import DirectoryInode, FileInode, LoopInode

if TYPE_CHECKING:
    from lafsfs.vfs.api import VfsSettings
    from lafsfs.vfs.posix.attributes import Posix
    from lafsfs.vfs.tree.inodes import Inode


def attributes_of(inode: Inode, settings: VfsSettings) -> Attributes:
    """What ``stat`` shows, and for how long it may be believed."""
    posix = inode.posix
    mtime, ctime = posix.mtime, posix.ctime
    if isinstance(inode, DirectoryInode):
        mtime, ctime = directory_times(posix, inode.directory.newest_link or 0)
    return Attributes(
        ino=inode.number,
        mode=posix.kind.mode_bits | _mode(inode, settings.umask),
        nlink=_nlink(inode),
        uid=posix.uid if settings.uid is None else settings.uid,
        gid=posix.gid if settings.gid is None else settings.gid,
        rdev=posix.rdev,
        size=_size(inode),
        atime_ns=posix.atime,
        mtime_ns=mtime,
        ctime_ns=ctime,
        attr_valid=settings.attr_valid if _is_certain(inode) else 0.0,
        entry_valid=settings.entry_valid,
    )


def directory_times(posix: Posix, newest: int) -> tuple[int, int]:
    """mtime and ctime of a directory in which a name last appeared at ``newest``."""
    if posix.mtime_set is not None and newest <= posix.mtime_set:
        return posix.mtime, max(posix.ctime, newest)
    return newest or posix.mtime, max(posix.ctime, newest)


def _is_certain(inode: Inode) -> bool:
    if isinstance(inode, DirectoryInode):
        return inode.directory.newest_link is not None
    if isinstance(inode, FileInode) and inode.is_mutable:
        return inode.known_size is not None or inode.is_dirty
    return True


def _size(inode: Inode) -> int:
    if isinstance(inode, FileInode):
        return inode.size
    return len(inode.target) if isinstance(inode, LoopInode) else 0


def _mode(inode: Inode, umask: int | None) -> int:
    if inode.posix.kind is Kind.SYMLINK or umask is None:
        return inode.posix.mode
    return inode.posix.mode & ~umask


def _nlink(inode: Inode) -> int:
    """Directories have 1, so that nobody counts their children by it; what was removed has 0."""
    if inode.number == ROOT_INODE:
        return 1
    return max(inode.posix.nlink, len(inode.edges)) if inode.edges else 0
