"""Immutable shares that are not complete yet (blocking).

Theory. An upload is a file that no reader looks at, with the container's header in front of its
data. When the last of its bytes has arrived, the lease is put behind them, the file is fsynced and
renamed to where shares are found. Which bytes have arrived is kept in memory only: after a crash,
an upload begins again from its first byte.

::

    shares/incoming/lafsfs-SESSION/STORAGEINDEX.SHNUM
    shares/incoming/lafsfs-SESSION.lock                 locked for as long as the session lives

Each process (each :class:`Uploads`) has a session of its own, so that nobody clears away what
somebody else is writing; sessions whose lock nobody holds were left by a crash, and the next one
that begins removes them. Whatever else is in ``incoming`` is a stock server's, and not touched.

Rules:

- Verbs come from several threads: the table is guarded by one lock, each upload by its own. Who
  holds an upload's lock never takes the table's.
- Only the upload secret finds an upload again. Another one is refused until 30 minutes pass
  without a write.
- If two processes complete the same share, the first one stands.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import shutil
import threading
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lafsfs.crypto import base32
from lafsfs.errors import NoSuchUploadError, ProtocolError
from lafsfs.formats import containers
from lafsfs.formats.containers import ImmutableContainer, Lease
from lafsfs.grid import disk
from lafsfs.grid.api import Allocation, LeaseSecrets, Pieces
from lafsfs.grid.ranges import WrittenRanges
from lafsfs.grid.shares import IMMUTABLE_OWNER, ShareDirectory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INCOMING = "incoming"
SESSION_PREFIX = "lafsfs-"
SESSIONS_LOCK = "incoming"  # under which sessions begin and are cleared away
IDLE_SECONDS = 30 * 60  # without a write, until another client may take over: as stock has it
DATA_OFFSET = containers.IMMUTABLE_HEADER_SIZE

Key = tuple[bytes, int]


class WrongUploadSecretError(NoSuchUploadError):
    """There is an unfinished upload of the share, under another upload secret."""


class ConflictingWriteError(ProtocolError):
    """A range that was written already was written again with other bytes."""


class BeyondAllocationError(ProtocolError):
    """Bytes were written past the size that was allocated."""


@dataclass(slots=True)
class Upload:
    """One share on its way. ``touched`` is seconds of the injected clock."""

    path: Path
    size: int
    secret: bytes = field(repr=False)
    lease: LeaseSecrets
    touched: float
    written: WrittenRanges = field(default_factory=WrittenRanges)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    is_over: bool = False


class Uploads:
    """All unfinished uploads that this process makes into one storage directory."""

    def __init__(
        self, directory: ShareDirectory, clock: Callable[[], float], reserved: int = 0
    ) -> None:
        """``clock``: seconds since 1970. ``reserved``: bytes of the volume to leave free."""
        self._directory = directory
        self._clock = clock
        self._reserved = reserved
        self._table: dict[Key, Upload] = {}
        self._mutex = threading.Lock()
        self._session: Path | None = None
        self._release: Callable[[], object] | None = None

    # --- sessions ---------------------------------------------------------------------------------

    def _ensure_session(self) -> Path:
        """The session's directory; begun, after clearing away dead ones, if there is none."""
        if self._session is not None and self._session.is_dir():
            return self._session
        self._table.clear()  # whoever took the directory away took the uploads with it
        incoming = self._directory.shares / INCOMING
        disk.make_directory(incoming)
        with self._directory.locks.held(SESSIONS_LOCK):
            self._clear_dead_sessions(incoming)
            session = incoming / f"{SESSION_PREFIX}{secrets.token_hex(8)}"
            fd = os.open(
                session.with_suffix(".lock"),
                os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
                disk.PRIVATE_FILE,
            )
            self._let_go()
            self._release = weakref.finalize(self, os.close, fd)
            self._directory.locks.take(fd)
            session.mkdir(disk.PRIVATE_DIRECTORY)
        self._session = session
        return session

    def _clear_dead_sessions(self, incoming: Path) -> None:
        for lock in incoming.glob(f"{SESSION_PREFIX}*.lock"):
            with contextlib.suppress(disk.LockBusyError), disk.opened(lock, os.O_RDWR) as fd:
                self._directory.locks.take(fd)
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)

    def _let_go(self) -> None:
        if self._release is not None:
            self._release()
            self._release = None

    def close(self) -> None:
        """Abort every upload and end the session. What is complete stays."""
        with self._mutex:
            self._table.clear()
            session, self._session = self._session, None
            if session is not None:
                shutil.rmtree(session, ignore_errors=True)
                with contextlib.suppress(OSError):
                    session.with_suffix(".lock").unlink()
            self._let_go()

    # --- allocate ---------------------------------------------------------------------------------

    def allocate(
        self,
        storage_index: bytes,
        shnums: frozenset[int],
        size: int,
        upload_secret: bytes,
        lease: LeaseSecrets,
    ) -> Allocation:
        """See :class:`lafsfs.grid.api.StorageServer`. Raises LockBusyError with nothing done."""
        if size <= 0:
            raise ProtocolError("an immutable share has at least one byte")
        directory = self._directory
        with disk.translated(directory.name, writing=True):
            directory.check_present()
            with directory.locks.held(disk.stripe_of(storage_index)), self._mutex:
                held = directory.containers(storage_index)
                expires = self._clock() + containers.LEASE_SECONDS
                directory.lease_immutable(storage_index, held, lease, expires)
                if any(not isinstance(c, ImmutableContainer) for c in held.values()):
                    return Allocation(frozenset(), frozenset())
                self._forget_idle()
                allocated = frozenset(
                    shnum
                    for shnum in sorted(shnums - held.keys())
                    if self._begin((storage_index, shnum), size, upload_secret, lease)
                )
        return Allocation(frozenset(held), allocated)

    def _begin(self, key: Key, size: int, secret: bytes, lease: LeaseSecrets) -> bool:
        """Find the upload again or begin it; False if it is refused."""
        upload = self._table.get(key)
        if upload is not None:
            if not hmac.compare_digest(upload.secret, secret):
                return False
            if upload.size == size:
                upload.touched = self._clock()
                return True
            self._discard(key, upload)
        if size > self._directory.space(self._reserved).available - self._promised():
            return False
        storage_index, shnum = key
        path = self._ensure_session() / f"{base32.encode(storage_index)}.{shnum}"
        with disk.opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
            disk.write_at(fd, 0, containers.pack_immutable_header(size, lease_count=1))
        self._table[key] = Upload(path, size, secret, lease, self._clock())
        return True

    def _promised(self) -> int:
        """Bytes that were allocated and have not been written yet."""
        return sum(upload.size - upload.written.total for upload in self._table.values())

    def __len__(self) -> int:
        """How many shares are on their way."""
        return len(self._table)

    def forget_idle(self) -> None:
        """Discard uploads to which nothing was written for 30 minutes."""
        with disk.translated(self._directory.name, writing=True), self._mutex:
            self._forget_idle()

    def _forget_idle(self) -> None:
        too_old = self._clock() - IDLE_SECONDS
        for key, upload in list(self._table.items()):
            if upload.touched < too_old:
                self._discard(key, upload)

    def _discard(self, key: Key, upload: Upload) -> None:
        with upload.lock:
            upload.is_over = True
            self._table.pop(key, None)
            upload.path.unlink(missing_ok=True)

    # --- write and abort --------------------------------------------------------------------------

    def _find(self, key: Key, secret: bytes) -> Upload:
        with self._mutex:
            upload = self._table.get(key)
        if upload is None:
            raise self._no_such_upload(key[1])
        if not hmac.compare_digest(upload.secret, secret):
            raise WrongUploadSecretError(
                f"the upload of share {key[1]} to {self._directory.name} is another client's"
            )
        return upload

    def _no_such_upload(self, shnum: int) -> NoSuchUploadError:
        return NoSuchUploadError(
            f"{self._directory.name} has no such upload of share {shnum} under way"
        )

    def write(
        self,
        storage_index: bytes,
        shnum: int,
        upload_secret: bytes,
        offset: int,
        data: bytes | Pieces,
    ) -> list[tuple[int, int]]:
        """Write part of a share, and say which ranges of it are missing: none once it is complete.

        See :class:`lafsfs.grid.api.StorageServer`. Raises LockBusyError when all is written and
        only the last step waits; repeat it then.
        """
        key = (storage_index, shnum)
        with disk.translated(self._directory.name, writing=True):
            self._directory.check_present()
            upload = self._find(key, upload_secret)
            with upload.lock:
                if upload.is_over:
                    raise self._no_such_upload(shnum)
                self._write(upload, offset, data if isinstance(data, bytes) else b"".join(data))
                if not upload.written.covers(upload.size):
                    return upload.written.missing(upload.size)
                self._complete(storage_index, shnum, upload)
            with self._mutex:  # never taken inside an upload's lock
                if self._table.get(key) is upload:
                    del self._table[key]
        return []

    def _write(self, upload: Upload, offset: int, data: bytes) -> None:
        stop = offset + len(data)
        if offset < 0 or stop > upload.size:
            raise BeyondAllocationError("written past the end of what was allocated")
        try:
            fd = os.open(upload.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NoSuchUploadError(f"{upload.path} was cleared away meanwhile") from None
        try:
            for low, high in upload.written.overlap(offset, stop):
                there = disk.read_at(fd, DATA_OFFSET + low, high - low)
                if there != data[low - offset : high - offset]:
                    raise ConflictingWriteError("a range was written again with other bytes")
            disk.write_at(fd, DATA_OFFSET + offset, data)
        finally:
            os.close(fd)
        upload.written.add(offset, stop)
        upload.touched = self._clock()

    def _complete(self, storage_index: bytes, shnum: int, upload: Upload) -> None:
        """Make a share that has all its bytes visible, durably."""
        expires = self._clock() + containers.LEASE_SECONDS
        lease = Lease.shown(IMMUTABLE_OWNER, upload.lease.renew, upload.lease.cancel, expires)
        with disk.opened(upload.path, os.O_RDWR) as fd:
            disk.write_at(fd, DATA_OFFSET + upload.size, lease.hashed().pack_immutable())
            os.fsync(fd)
        directory = self._directory
        with directory.locks.held(disk.stripe_of(storage_index)):
            if shnum in directory.containers(storage_index):
                upload.path.unlink()
            else:
                bucket, *above = directory.begin_bucket(storage_index)
                upload.path.replace(bucket / str(shnum))
                for changed in (bucket, *above):
                    disk.fsync_directory(changed)
        upload.is_over = True

    def abort(self, storage_index: bytes, shnum: int, upload_secret: bytes) -> None:
        """See :class:`lafsfs.grid.api.StorageServer`."""
        with disk.translated(self._directory.name, writing=True):
            self._directory.check_present()
            upload = self._find((storage_index, shnum), upload_secret)
            with self._mutex:
                if upload.is_over:
                    raise self._no_such_upload(shnum)
                self._discard((storage_index, shnum), upload)
