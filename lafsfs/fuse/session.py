"""One FUSE session: mount, serve until unmounted or told to stop, unmount.

pyfuse3 keeps the session in module globals, so there is one mount in a process. Rules:

- Whatever happens while serving, the mountpoint is released on the way out.
- Stopping lets requests that are being handled finish; new ones are answered by the kernel once the
  session is gone.
"""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pyfuse3
import trio

from lafsfs.errors import MountError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator

    from lafsfs.fuse.invalidation import Invalidations
    from lafsfs.fuse.operations import LafsOperations

log = logging.getLogger(__name__)

FUSE_DEVICE = Path("/dev/fuse")
MAX_REQUESTS = 500  # handled at once: those that wait for the grid must not starve the rest
_NOBODY_WAITS = tuple(map(os.strerror, (errno.ENOENT, errno.ENODEV, errno.ENOTCONN)))
LEAVE_TIMEOUT = 5.0  # seconds for notifications to come back before the session is destroyed


def check_mountpoint(mountpoint: Path, *, device: Path = FUSE_DEVICE) -> None:
    """Find out what would keep us from mounting there, in words.

    Raises:
        MountError: not an empty directory, something is mounted there, or no FUSE device.
    """
    try:
        entries = os.listdir(mountpoint)
    except FileNotFoundError:
        raise MountError(f"{mountpoint} does not exist: make the directory first") from None
    except NotADirectoryError:
        raise MountError(f"{mountpoint} is not a directory") from None
    except OSError as error:
        died = error.errno in (errno.ENOTCONN, errno.EIO)
        hint = f"; a mount died there: lafsfs umount {mountpoint}" if died else ""
        raise MountError(f"{mountpoint} cannot be read: {error.strerror}{hint}") from None
    if os.path.ismount(mountpoint):
        raise MountError(f"something is mounted on {mountpoint} already")
    if entries:
        raise MountError(f"{mountpoint} is not empty: what is in it would be hidden")
    if not device.exists():
        raise MountError(
            f"there is no {device}: load the fuse kernel module, or pass the device in"
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise MountError(f"no permission to open {device}: root can allow it, chmod 666 {device}")


def is_late_reply(record: logging.LogRecord) -> bool:
    """Whether pyfuse3 complains of a reply that nobody waited for any more.

    The kernel takes a request back when its process is killed, or when the file system is unmounted
    while the last close is still being handled. That is no error of anybody's.
    """
    message = record.getMessage()
    return "fuse_reply_* failed" in message and message.endswith(_NOBODY_WAITS)


def _worth_saying(record: logging.LogRecord) -> bool:
    return not is_late_reply(record)


class Session:
    """A mounted file system, ready to be served."""

    def __init__(self, mountpoint: Path) -> None:
        self.mountpoint = mountpoint
        self._serving = False

    async def serve(self) -> None:
        """Answer requests until the file system is unmounted or :meth:`stop` is called."""
        self._serving = True
        try:
            await pyfuse3.main(max_tasks=MAX_REQUESTS)
        finally:
            self._serving = False

    def stop(self) -> None:
        """Let :meth:`serve` return once the requests being handled are answered."""
        if self._serving:
            pyfuse3.terminate()


@asynccontextmanager
async def open_session(
    operations: LafsOperations,
    mountpoint: Path,
    options: Collection[str],
    invalidations: Invalidations,
) -> AsyncIterator[Session]:
    """Mount for as long as the context lasts.

    Raises:
        MountError: the kernel or fusermount3 refused.
    """
    with tempfile.TemporaryFile() as said:
        try:
            with _standard_error_to(said.fileno()):
                pyfuse3.init(operations, str(mountpoint), set(options))
        except RuntimeError as error:
            reason = _last_line(said) or str(error)
            raise MountError(f"cannot mount on {mountpoint}: {reason}") from None
    complaints = logging.getLogger("pyfuse3")
    complaints.addFilter(_worth_saying)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(invalidations.run)
            yield Session(mountpoint)
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await _leave(mountpoint, invalidations)
        complaints.removeFilter(_worth_saying)


@contextmanager
def _standard_error_to(descriptor: int) -> Iterator[None]:
    """Catch what libfuse and fusermount3 say, which is the only place where they say why."""
    sys.stderr.flush()
    saved = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _last_line(file: IO[bytes]) -> str:
    file.seek(0)
    lines = file.read().decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


async def _leave(mountpoint: Path, invalidations: Invalidations) -> None:
    if await invalidations.quiet(LEAVE_TIMEOUT):
        pyfuse3.close()
        return
    # A thread is stuck in the kernel behind a request: leave the session to the process's end.
    log.warning("unmounting %s lazily: the kernel still holds a request", mountpoint)
    await trio.to_thread.run_sync(_detach, mountpoint)


def _detach(mountpoint: Path) -> None:
    subprocess.run(["fusermount3", "-u", "-z", str(mountpoint)], check=False)
