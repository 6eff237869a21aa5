"""Blocking disk primitives of the embedded grid: whole writes, durable renames, locks, errors.

Everything here runs in worker threads. Rules:

- An ``OSError`` never leaves the embedded grid: :func:`translated` makes it the one
  :class:`~lafsfs.errors.ServerError` that tells what to do about it.
- A file that others will see is written aside, fsynced, renamed, and its directory is fsynced.
- A lock is taken at once or not at all (:class:`LockBusyError`); waiting is for the async side,
  where it can be cancelled and occupies no thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from typing import TYPE_CHECKING

from lafsfs.errors import (
    LocalError,
    ServerError,
    ServerFullError,
    ServerReadOnlyError,
    ServerUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700
COPY_CHUNK = 1 << 20  # bytes per system call where the kernel cannot copy by itself

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
# What a file system that has no locks answers. Then only one process may use the directory.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class LockBusyError(LocalError):
    """Another process or thread holds the lock just now; try again soon."""


@contextlib.contextmanager
def translated(name: str, *, writing: bool) -> Iterator[None]:
    """Turn an ``OSError`` within into the error of a server of that name."""
    try:
        yield
    except OSError as error:
        raise _translate(name, error, writing) from error


def _translate(name: str, error: OSError, writing: bool) -> ServerError:
    reason = error.strerror or type(error).__name__
    if error.errno in _FULL:
        return ServerFullError(f"{name} is full ({reason})")
    if writing and error.errno in _READ_ONLY:
        return ServerReadOnlyError(f"{name} cannot be written to ({reason})")
    return ServerUnavailableError(f"{name} cannot be used ({reason})")


# --- bytes ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """A file descriptor for the time of a block. Files that it makes are private."""
    fd = os.open(path, flags | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        yield fd
    finally:
        os.close(fd)


def read_at(fd: int, offset: int, size: int) -> bytes:
    """``size`` bytes at ``offset``; fewer only where the file ends."""
    first = os.pread(fd, size, offset)
    if len(first) == size or not first:
        return first
    parts, length = [first], len(first)
    while length < size and (part := os.pread(fd, size - length, offset + length)):
        parts.append(part)
        length += len(part)
    return b"".join(parts)


def write_at(fd: int, offset: int, data: bytes) -> None:
    """Write all of the data at ``offset``."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def copy_range(source: int, target: int, offset: int, size: int) -> None:
    """Copy bytes to the same offset in another file, by reference where the file system can."""
    while size > 0:
        try:
            copied = os.copy_file_range(source, target, size, offset, offset)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            copied = 0
        if copied == 0:
            data = read_at(source, offset, min(size, COPY_CHUNK))
            if not data:
                return
            write_at(target, offset, data)
            copied = len(data)
        offset, size = offset + copied, size - copied


# --- directories ----------------------------------------------------------------------------------


def fsync_directory(path: Path) -> None:
    """Make renames, links and unlinks in a directory durable."""
    with opened(path, os.O_RDONLY | os.O_DIRECTORY) as fd:
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # file systems that cannot, and need not
                raise


def make_directory(path: Path) -> None:
    """Make a directory, durably, unless it is there. Its parent must be."""
    if begin_directory(path):
        fsync_directory(path.parent)


def begin_directory(path: Path) -> bool:
    """Make a directory unless it is there; if True, its parent is still to be fsynced."""
    try:
        path.mkdir(PRIVATE_DIRECTORY)
    except FileExistsError:
        return False
    return True


def write_file(path: Path, data: bytes) -> None:
    """Replace a small private file: afterwards it holds the old bytes or the new, durably."""
    aside = path.with_name(f".{path.name}.new")
    with opened(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
        write_at(fd, 0, data)
        os.fsync(fd)
    aside.replace(path)
    fsync_directory(path.parent)


# --- locks ----------------------------------------------------------------------------------------


def stripe_of(storage_index: bytes) -> str:
    """The name of the lock that a storage index shares with one in 256 others."""
    return f"{storage_index[0]:02x}"


class FileLocks:
    """Locks between processes (and threads), as files that are never removed.

    A lock lives on an open file, so a process that dies lets go of all of its own.
    """

    def __init__(self, directory: Path) -> None:
        """``directory`` is made when the first lock is taken."""
        self._directory = directory
        self._warned = False

    @contextlib.contextmanager
    def held(self, name: str, *, shared: bool = False) -> Iterator[None]:
        """Hold the lock of that name (:func:`stripe_of`) for the time of a block.

        A shared lock where no lock file can be made is no lock: on a medium that cannot be written
        there is nobody to lock against.

        Raises:
            LockBusyError: somebody else holds it.
        """
        fd = self._open(name, shared=shared)
        try:
            if fd is not None:
                self.take(fd, shared=shared)
            yield
        finally:
            if fd is not None:
                os.close(fd)

    def take(self, fd: int, *, shared: bool = False) -> None:
        """Lock an open file until it is closed. Raises LockBusyError."""
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockBusyError("another process is using this share just now") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            if not self._warned:
                self._warned = True
                log.warning(
                    "%s has no file locks: mount it from one process only", self._directory.parent
                )

    def _open(self, name: str, *, shared: bool) -> int | None:
        path = self._directory / name
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            try:
                return os.open(path, flags, PRIVATE_FILE)
            except FileNotFoundError:
                make_directory(self._directory)
                return os.open(path, flags, PRIVATE_FILE)
        except OSError as error:
            if shared and error.errno in _READ_ONLY:
                return None
            raise
