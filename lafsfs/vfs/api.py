"""What the vfs offers to whoever serves it to programs: records, errors and the verbs.

:class:`FileSystemAPI` is implemented by :class:`lafsfs.vfs.filesystem.FileSystem`. It speaks of
inode numbers, handle numbers and local names as bytes, never of FUSE and never of shares.

Rules for callers:

- Every verb raises only :class:`~lafsfs.errors.LafsError` (each with its ``errno``) and
  ``trio.Cancelled``. A cancelled verb may or may not have happened; nothing is left half-done in
  memory.
- ``lookup``, ``create``, ``mkdir``, ``mknod``, ``symlink`` and ``link`` count one lookup of the
  inode they return; ``remember`` counts one for an entry of ``readdir`` that was handed on.
  ``forget`` takes them back. Entries of ``readdir`` that were not handed on count nothing.
- A file system is had with ``async with open_filesystem(root, maker, broker, settings) as fs``
  (``lafsfs.vfs.filesystem``); ``flush_all`` before leaving. What is pending then stays in the
  journal, or is lost where there is none.
- All times are nanoseconds since the epoch, all sizes bytes.
"""

from __future__ import annotations

import errno as _errno
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from lafsfs.errors import CallerError, Fault, GridError, LafsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

    from lafsfs.vfs.status import Status


ROOT_INODE = 1
NAME_MAX = 255  # bytes of a local name
BLOCK_SIZE = 128 << 10  # bytes: what stat advises programs to read and write at a time

COMPUTED = b"user.lafs."  # extended attributes that are made when they are asked for

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2


class StaleInodeError(CallerError):
    """The inode number is not known (any more)."""

    errno = _errno.ESTALE


class BadHandleError(CallerError):
    """The handle is closed, or not open for this."""

    errno = _errno.EBADF


class InvalidRequestError(CallerError):
    """The request makes no sense for this object: a link's target asked of a file, say."""

    errno = _errno.EINVAL


class AttributeTooBigError(CallerError):
    """An extended attribute is longer than edge metadata should carry."""

    errno = _errno.E2BIG


class AttributeSpaceError(CallerError):
    """All extended attributes of one file together take more room than there is for them."""

    errno = _errno.ENOSPC


class UnreadableError(GridError):
    """The grid did not bring what was read, or not in time; says what is missing and what helps."""

    errno = _errno.EIO


class StillUnreadableError(UnreadableError):
    """What failed moments ago was asked for again: there is nothing new to report."""

    fault = Fault.CALLER


class UnexpectedError(LafsError):
    """A bug of ours, contained: the request fails and the mount goes on."""


class OwnerOnlyError(CallerError):
    """Only the file's owner or root may do this."""

    errno = _errno.EPERM


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. ``umask`` counts only for verbs that create."""

    uid: int = field(default_factory=os.getuid)
    gid: int = field(default_factory=os.getgid)
    umask: int = 0o022
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Attributes:
    """What ``stat`` shows. ``attr_valid`` and ``entry_valid``: seconds they may be cached."""

    ino: int
    mode: int  # type and permissions, as st_mode
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    attr_valid: float
    entry_valid: float
    generation: int = 0
    block_size: int = BLOCK_SIZE

    @property
    def blocks(self) -> int:
        """In units of 512 bytes, as st_blocks."""
        return -(-self.size // 512)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True, slots=True)
class SetAttributes:
    """What ``setattr`` is to change; ``None`` leaves a thing alone. ``mode``: permission bits."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """One entry of ``readdir``; ``next_id`` is where to go on after it."""

    name: bytes
    attributes: Attributes
    next_id: int


@dataclass(frozen=True, slots=True)
class Opened:
    """A handle, and what the kernel may do with pages of the file.

    ``keep_cache``: pages from before are still right. ``direct_io``: sizes are not to be trusted,
    ask for every read.
    """

    handle: int
    keep_cache: bool = False
    direct_io: bool = False


@dataclass(frozen=True, slots=True)
class StatFS:
    """Space, already divided by the expansion of the encoding. Counts are in ``block_size``."""

    block_size: int
    blocks: int
    free: int
    files: int
    name_max: int = NAME_MAX


@dataclass(frozen=True, slots=True)
class Changed:
    """Something changed behind the kernel's back.

    ``ino``: an inode whose attributes (and, with ``contents``, pages) are no longer right.
    ``name``: when given, the entry of that name in the directory ``ino`` is no longer right.
    """

    ino: int
    contents: bool = False
    name: bytes | None = None


@dataclass(frozen=True, slots=True)
class VfsSettings:
    """How one mount behaves.

    ``state_directory``: where the root's attributes are kept, ``None`` for nowhere.
    ``staging_directory``: made 0700 if absent; where staged contents live, sealed, while there is
    no journal. ``journal_directory``: where the journals of all roots are; ``None`` for keeping
    nothing, as a mount does that only reads. ``journal_limit``: bytes of staged contents, ``None``
    for what suits the disk.
    ``max_age``: seconds for which a directory listing is believed without asking the grid, and
    between two looks at the version of a mutable file that is open; 0 always asks, and does not
    look by itself.
    ``deadline``: seconds until a read that the grid does not answer fails.
    ``read_ahead``: bytes that all open files together may be read ahead.
    ``quiet``: seconds after the last change until a file is uploaded, and that changes of names
    and attributes wait for company before they are published. ``sync``: whether verbs, ``flush``
    and ``fsync`` wait for the grid and report its errors.
    ``uid``, ``gid``, ``umask``: shown instead of what is stored. ``owner_uid``: whom
    ``user.lafs.cap`` and its like are shown to. ``changed``: called, never blocking, when caches
    should be dropped. ``now``: the wall clock in nanoseconds.
    """

    staging_directory: Path
    state_directory: Path | None = None
    journal_directory: Path | None = None
    journal_limit: int | None = None
    read_only: bool = False
    uid: int | None = None
    gid: int | None = None
    umask: int | None = None
    owner_uid: int = field(default_factory=os.getuid)
    owner_gid: int = field(default_factory=os.getgid)
    max_age: float = 2.0
    attr_valid: float = 1.0
    entry_valid: float = 1.0
    quiet: float = 1.0
    sync: bool = False
    deadline: float = 60.0
    read_ahead: int = 32 << 20
    retry_first: float = 1.0
    retry_most: float = 60.0
    directory_format: str = "sdmf"  # of directories made by mkdir: sdmf or mdmf
    changed: Callable[[Changed], None] | None = None
    now: Callable[[], int] | None = None


class FileSystemAPI(Protocol):
    """The verbs. ``name`` is a local name (bytes, no slash); ``parent``, ``ino``: inode numbers."""

    # names

    async def lookup(self, parent: int, name: bytes) -> Attributes:
        """Find a child. ``..`` and ``.`` work too. Raises NoSuchChildError."""

    def remember(self, ino: int) -> None:
        """Count a lookup of an entry of ``readdir`` that the caller handed on."""

    def forget(self, counts: Iterable[tuple[int, int]]) -> None:
        """Take back lookups: (inode number, how many)."""

    async def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Attributes: ...

    async def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller
    ) -> Attributes: ...

    async def symlink(
        self, parent: int, name: bytes, target: bytes, caller: Caller
    ) -> Attributes: ...

    async def link(self, ino: int, parent: int, name: bytes) -> Attributes: ...

    async def unlink(self, parent: int, name: bytes) -> None: ...

    async def rmdir(self, parent: int, name: bytes) -> None: ...

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0
    ) -> None:
        """``flags``: 0, RENAME_NOREPLACE or RENAME_EXCHANGE; others are InvalidRequestError."""

    async def readlink(self, ino: int) -> bytes: ...

    # attributes

    async def getattr(self, ino: int) -> Attributes: ...

    async def setattr(
        self, ino: int, changes: SetAttributes, caller: Caller, handle: int | None = None
    ) -> Attributes: ...

    async def getxattr(self, ino: int, name: bytes, caller: Caller) -> bytes:
        """Raises NoSuchAttributeError. Waits for the grid only for ``COMPUTED`` attributes."""

    def stored_xattr(self, ino: int, name: bytes) -> bytes | None:
        """Of an extended attribute that is not computed: its value, None if there is none."""

    async def setxattr(self, ino: int, name: bytes, value: bytes, caller: Caller) -> None: ...

    async def listxattr(self, ino: int) -> tuple[bytes, ...]: ...

    async def removexattr(self, ino: int, name: bytes, caller: Caller) -> None: ...

    async def statfs(self) -> StatFS: ...

    # directories

    async def opendir(self, ino: int) -> int:
        """A handle on a snapshot of the names."""

    def readdir(self, handle: int, start: int) -> AsyncIterator[DirectoryEntry]:
        """The entries from ``start`` (0, or an entry's ``next_id``) on; 0 takes a new snapshot.

        Names removed since the snapshot are left out; ``.`` and ``..`` are not in it.
        Stop iterating whenever the reply is full.
        """

    async def fsyncdir(self, handle: int) -> None: ...

    async def releasedir(self, handle: int) -> None: ...

    # files

    async def open(self, ino: int, flags: int) -> Opened:
        """``flags`` as of open(2): access mode, O_TRUNC and O_APPEND count."""

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[Opened, Attributes]: ...

    async def read(self, handle: int, offset: int, size: int) -> bytes: ...

    async def write(self, handle: int, offset: int, data: bytes) -> int: ...

    async def flush(self, handle: int) -> None:
        """What ``close`` waits for: contents accepted; on the grid too with ``settings.sync``."""

    async def fsync(self, handle: int) -> None: ...

    async def release(self, handle: int) -> None: ...

    # the whole

    async def status(self) -> Status:
        """What is pending, and how that is going."""

    async def flush_all(self) -> tuple[LafsError, ...]:
        """Bring everything to the grid that is pending now; an error for what could not be."""
