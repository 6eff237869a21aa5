"""A note of each running mount, locked for as long as its process lives.

``fusermount3 -u`` returns when the mountpoint is free, which is before everything is stored. The
process that serves a mount therefore keeps an ``flock`` on a small file in the state directory:
whoever can take the lock knows that the process has ended, however it ended, and the file says
whether it ended well. The kernel drops the lock of a process that was killed. Beside the file is
the socket on which the process answers (:mod:`lafsfs.control`).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lafsfs.cli.app import summary
from lafsfs.errors import MountError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Mount:
    """What a record says: who serves the mountpoint, and how that ended.

    ``left``: what was not on the grid then, in words.
    """

    mountpoint: str
    pid: int
    error: str | None = None
    left: str | None = None


class MountRecord:
    """The record of one mountpoint. ``mountpoint`` is absolute, without symbolic links."""

    def __init__(self, state: Path, mountpoint: Path) -> None:
        name = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:32]
        self.mountpoint = mountpoint
        self.left: str | None = None  # set it before the end of :meth:`held`
        self._path = state / "mounts" / name

    @property
    def socket(self) -> Path:
        """Where the process that serves the mount can be reached."""
        return self._path.with_suffix(".socket")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the record while serving the mount; an error that ends it is written down.

        Raises:
            MountError: another process serves it, or is still storing what was written there; or
                the record cannot be written.
        """
        descriptor = self._open(os.O_RDWR | os.O_CREAT)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise MountError(
                    f"{self.mountpoint} is mounted already, or an earlier mount is still storing "
                    "what was written; lafsfs umount waits for that"
                ) from None
            self._write(descriptor, None)
            try:
                yield
            except BaseException as error:
                with contextlib.suppress(MountError):  # what went wrong first counts
                    self._write(descriptor, summary(error))
                raise
            else:
                if self.left is None:
                    self._path.unlink(missing_ok=True)
                else:
                    self._write(descriptor, None)
        finally:
            os.close(descriptor)

    def read(self) -> Mount | None:
        """What the record says, or None if there is none: nothing was mounted, or it ended well."""
        try:
            values = json.loads(self._path.read_text(encoding="utf-8"))
            left = values.get("left")
            return Mount(str(self.mountpoint), int(values["pid"]), values["error"], left)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return Mount(str(self.mountpoint), 0)

    def is_held(self) -> bool:
        """Whether the process that serves the mount still runs."""
        try:
            descriptor = self._open(os.O_RDONLY)
        except MountError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)

    def wait(self) -> Mount | None:
        """Wait until the process has ended: what it left behind, None if it ended well."""
        try:
            descriptor = self._open(os.O_RDONLY)
        except MountError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)
        return self.read()

    def forget(self) -> None:
        """Remove the record of a mount that has ended."""
        self._path.unlink(missing_ok=True)

    def _open(self, flags: int) -> int:
        try:
            if flags & os.O_CREAT:
                directory = self._path.parent
                directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                directory.mkdir(mode=0o700, exist_ok=True)
            return os.open(self._path, flags | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise MountError(f"cannot use {self._path}: {error.strerror}") from error

    def _write(self, descriptor: int, error: str | None) -> None:
        values = {"mountpoint": str(self.mountpoint), "pid": os.getpid(), "error": error}
        data = json.dumps({**values, "left": self.left}).encode()
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, data, 0)
        except OSError as failure:
            raise MountError(f"cannot write {self._path}: {failure.strerror}") from failure


def records(state: Path) -> list[MountRecord]:
    """The records of all mounts, running or not."""
    found = []
    for path in sorted((state / "mounts").glob("*")):
        try:
            mountpoint = json.loads(path.read_text(encoding="utf-8"))["mountpoint"]
            record = MountRecord(state, Path(mountpoint))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a socket, or somebody's note
        found.append(record)
    return found
