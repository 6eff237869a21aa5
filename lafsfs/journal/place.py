"""Where a journal lives: its directory, its lock, its secret, and the keys that follow from it.

    lock           locked (flock) by the process that has the journal open, and names it
    secret         32 random bytes, made once
    synced         the number of the last sync: what the database must have heard of
    journal.db     and journal.db-wal, journal.db-shm: SQLite's
    contents/ID    what was written to a file that is too large for the database

Everything is 0600 in a directory that is 0700. The keys are derived from the mounted capability and
the secret: whoever finds the directory without the capability learns sizes and times, and whoever
knows the capability without the directory nothing.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from typing import TYPE_CHECKING, Final

from lafsfs.crypto.aes import SEAL_KEY_SIZE
from lafsfs.crypto.hashes import derive_key
from lafsfs.errors import JournalBusyError, JournalError, JournalFormatError

if TYPE_CHECKING:
    from pathlib import Path

LOCK: Final = "lock"
SECRET: Final = "secret"
SYNCED: Final = "synced"
DATABASE: Final = "journal.db"
WAL: Final = "journal.db-wal"
CONTENTS: Final = "contents"


class Place:
    """A locked journal directory. All methods block: call them in a thread."""

    def __init__(self, directory: Path) -> None:
        """Make the directory if it is not there, and lock it.

        Raises:
            JournalBusyError: another process has it.
            OSError: as the system says.
        """
        self.directory = directory
        self.database = directory / DATABASE
        self.wal = directory / WAL
        self.contents = directory / CONTENTS
        for each in (directory, self.contents):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
            each.chmod(0o700)
        self._lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take_lock()
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Let others have it."""
        os.ftruncate(self._lock, 0)
        os.close(self._lock)

    def sync_log(self) -> None:
        """Bring SQLite's log to the disk. (SQLite locks its other files, and loses the locks when
        somebody closes one of them: those are never opened here.)"""
        try:
            descriptor = os.open(self.wal, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def log_size(self) -> int:
        """Bytes of SQLite's log."""
        return self.wal.stat().st_size if self.wal.exists() else 0

    def synced(self) -> int:
        """The number of the newest sync that is known to have been complete; 0 if none is."""
        try:
            return int.from_bytes((self.directory / SYNCED).read_bytes()[:8], "big")
        except FileNotFoundError:
            return 0

    def note_synced(self, number: int) -> None:
        """Write that down. It need not reach the disk, only not before the sync is complete."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self.directory / SYNCED, flags, 0o600)
        try:
            os.pwrite(descriptor, number.to_bytes(8, "big"), 0)
        finally:
            os.close(descriptor)

    def key(self, key: bytes) -> bytes:
        """The journal's own key, from the mounted capability's ``key`` and the secret.

        Raises:
            JournalFormatError: the secret is gone or damaged, and the journal is not.
        """
        path = self.directory / SECRET
        try:
            secret = path.read_bytes()
        except FileNotFoundError:
            if self.database.exists():
                raise JournalFormatError(
                    f"the journal in {self.directory} has lost its file '{SECRET}', without which"
                    " nothing in it can be read: bring that file back, or move the directory away"
                    " to go on without what is in it"
                ) from None
            secret = self._make_secret(path)
        if len(secret) != SEAL_KEY_SIZE:
            raise JournalFormatError(
                f"the file '{SECRET}' of the journal in {self.directory} is damaged: bring the"
                " right one back, or move the directory away to go on without what is in it"
            )
        return derive_key(key, b"journal:" + secret)

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._lock, 20, 0).decode("ascii", "replace").strip()
            by = f" by process {owner}" if owner.isdigit() else ""
            raise JournalBusyError(
                f"this capability is mounted already{by} ('lafsfs status' says where): unmount it"
                " there, or mount with -o ro"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)

    def _make_secret(self, path: Path) -> bytes:
        secret = secrets.token_bytes(SEAL_KEY_SIZE)
        draft = path.with_suffix(".draft")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, secret)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        draft.rename(path)
        sync_directory(self.directory)
        return secret


def sync_directory(directory: Path) -> None:
    """Bring the names in it to the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_place(directory: Path) -> Place:
    """As :class:`Place`, in our own words.

    Raises:
        JournalBusyError: another process has it.
        JournalError: it cannot be used.
    """
    try:
        return Place(directory)
    except OSError as error:
        raise JournalError(f"cannot keep a journal in {directory}: {error.strerror}") from None
