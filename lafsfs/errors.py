"""One tree of exceptions for the whole of lafsfs.

Every error this project raises on purpose descends from :class:`LafsError`. A class answers two
questions that the edges of the program need and nobody else should have to guess:

- ``errno``: what a system call that met this error returns to its caller;
- ``fault``: whose fault it is. Only :attr:`Fault.BUG` is worth a traceback in the log; everything
  else is one line for the user, a note against a server, or an answer to a program.

Rules:

- A message is one line, says what happened and, where there is something, what to do next.
- A message never contains a capability, a key or a secret, whole or in part. Objects are named by
  the digest that ``caps`` gives, by storage index (base32, public to servers anyway) or by path.
- Translation to ``FUSEError`` or an exit code happens once, at the edge (``fuse/`` and ``cli/``).
"""

from __future__ import annotations

import enum
import errno as _errno
from typing import ClassVar


class Fault(enum.Enum):
    """Whose fault an error is; decides how loudly it is reported."""

    CALLER = "caller"  # the program or person asking: wrong name, wrong capability, no permission
    LOCAL = "local"  # this machine: disk full, no FUSE device, unreadable configuration
    SERVER = "server"  # one storage server: lied, refused, went away
    GRID = "grid"  # the servers together: too few shares, too few places to put them
    BUG = "bug"  # us


class LafsError(Exception):
    """The root of the tree. Never raised itself."""

    errno: ClassVar[int] = _errno.EIO
    fault: ClassVar[Fault] = Fault.BUG


# --- the caller's fault ---------------------------------------------------------------------------


class CallerError(LafsError):
    """What was asked for cannot be: the caller must ask for something else."""

    errno = _errno.EINVAL
    fault = Fault.CALLER


class BadCapabilityError(CallerError):
    """A string is not a well-formed capability, or not one of the kind that is needed here."""


class UsageError(CallerError):
    """A command line, mount option or environment variable makes no sense."""


class NoSuchChildError(CallerError):
    """A directory has no child of that name."""

    errno = _errno.ENOENT


class ChildExistsError(CallerError):
    """A directory already has a child of that name and overwriting was not asked for."""

    errno = _errno.EEXIST


class NotADirectoryNodeError(CallerError):
    """A directory was needed and something else was found."""

    errno = _errno.ENOTDIR


class IsADirectoryNodeError(CallerError):
    """A file was needed and a directory was found."""

    errno = _errno.EISDIR


class DirectoryNotEmptyError(CallerError):
    """A directory that still has children cannot be removed or replaced."""

    errno = _errno.ENOTEMPTY


class ReadOnlyCapabilityError(CallerError):
    """The capability in hand reads only, and writing was asked for."""

    errno = _errno.EROFS


class NotPermittedError(CallerError):
    """The object does not allow this operation, whoever asks (``no-write``, a shown-only child)."""

    errno = _errno.EPERM


class DeepImmutableError(CallerError):
    """A child that can change was put into a directory that promises never to."""

    errno = _errno.EPERM


class BadNameError(CallerError):
    """A child's name cannot be stored: not UTF-8, empty, too long, or holding a slash or NUL."""

    errno = _errno.EILSEQ


class NameTooLongError(CallerError):
    """A name or a symbolic link's target is longer than the system allows."""

    errno = _errno.ENAMETOOLONG


class FileTooBigError(CallerError):
    """An offset or size lies beyond what the format or the configuration can hold."""

    errno = _errno.EFBIG


class NotSupportedError(CallerError):
    """Nothing here can do that, and nothing will."""

    errno = _errno.EOPNOTSUPP


class NoSuchAttributeError(CallerError):
    """No extended attribute of that name."""

    errno = _errno.ENODATA


# --- this machine's fault -------------------------------------------------------------------------


class LocalError(LafsError):
    """Something on this machine is in the way."""

    fault = Fault.LOCAL


class ConfigError(LocalError):
    """A configuration, alias or identity file is missing, unreadable or malformed.

    The message names the file and, where there is one, the line or key.
    """

    errno = _errno.EINVAL


class MountError(LocalError):
    """The mount cannot be made: mountpoint, FUSE device or permissions."""


class JournalError(LocalError):
    """The journal, which holds what is not on the grid yet, cannot be used."""


class JournalBusyError(JournalError):
    """Another process has this journal open: the same capability is mounted already."""

    errno = _errno.EBUSY


class JournalFormatError(JournalError):
    """The journal is damaged, of a newer format, or another capability's; it was left as it is.

    The message says which, and what to do.
    """


class JournalFullError(JournalError):
    """The journal has reached its limit, or the disk it lies on has no room left."""

    errno = _errno.ENOSPC


class StagingCorruptError(LocalError):
    """Staged data on the local disk did not authenticate when it was read back."""


# --- bytes from elsewhere -------------------------------------------------------------------------


class FormatError(LafsError):
    """Bytes that came from a server or a directory are not what the format says they must be.

    Raised by the pure parsers, which know neither server nor share; the layer that read the bytes
    adds both and raises :class:`CorruptShareError`, routes around, or reports.
    """

    fault = Fault.SERVER


class HashMismatchError(FormatError):
    """A hash or a signature does not match the bytes it is there to protect."""


class CorruptShareError(FormatError):
    """One share on one server is bad; other shares may do."""

    def __init__(self, server: str, shnum: int, reason: str) -> None:
        super().__init__(f"share {shnum} on {server} is corrupt: {reason}")
        self.server = server
        self.shnum = shnum
        self.reason = reason


# --- one server's fault ---------------------------------------------------------------------------


class ServerError(LafsError):
    """One storage server did not do what it was asked to."""

    fault = Fault.SERVER


class ServerUnavailableError(ServerError):
    """The server cannot be reached: gone, unplugged, refused, timed out."""


class ServerFullError(ServerError):
    """The server has no room for the share, or is still holding an upload of it."""

    errno = _errno.ENOSPC


class ServerReadOnlyError(ServerError):
    """The server's storage does not accept writes."""

    errno = _errno.EROFS


class BadWriteEnablerError(ServerError):
    """The slot was made with another write enabler: wrong key, or the server changed identity."""

    errno = _errno.EACCES


class NoSuchShareError(ServerError):
    """The server does not hold the share (any more)."""


class NoSuchUploadError(ServerError):
    """The server knows no unfinished upload of this share under this upload secret."""


class ProtocolError(ServerError):
    """The server's answer breaks the storage protocol, or ours broke it."""


# --- the grid's fault -----------------------------------------------------------------------------


class GridError(LafsError):
    """The servers together could not do what was needed."""

    fault = Fault.GRID


class NotEnoughSharesError(GridError):
    """Fewer good shares than needed could be found; says which servers answered what."""


class NotHappyError(GridError):
    """Shares could not be placed on enough distinct servers; nothing was published."""


class GridFullError(NotHappyError):
    """Shares could not be placed because servers have no room."""

    errno = _errno.ENOSPC


class GridReadOnlyError(NotHappyError):
    """Shares could not be placed because servers do not accept writes."""

    errno = _errno.EROFS


class UncoordinatedWriteError(GridError):
    """Someone else wrote the mutable file meanwhile, and retrying did not get ahead of them."""

    errno = _errno.EBUSY


class DeadlineExceededError(GridError):
    """The grid did not answer within the deadline of the request."""

    errno = _errno.ETIMEDOUT
