"""Complete shares in a directory of stock Tahoe's layout: finding, reading, leases (blocking).

::

    shares/xx/STORAGEINDEX/SHNUM    a container (lafsfs.formats.containers); xx: first two letters
    shares/incoming/                uploads that are not complete (lafsfs.grid.uploads)
    corruption-advisories/          what clients say of our shares
    locks/                          ours: lock files (lafsfs.grid.disk)

Rules:

- Reading takes no lock. A container that is read is never changed under the reader but for its
  leases: slots are replaced as whole files, immutable shares never.
- What is not a container counts as absent, so that an upload or a publish can heal it.
- A directory that has gone is an error and never an absent share: an unplugged disk must not look
  like an empty one, nor be written to where it was mounted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lafsfs.crypto import base32
from lafsfs.errors import ConfigError, FormatError, NoSuchShareError, ServerUnavailableError
from lafsfs.formats import containers
from lafsfs.formats.containers import ImmutableContainer, Lease, MutableContainer
from lafsfs.grid import disk
from lafsfs.grid.api import ShareKind
from lafsfs.grid.identity import load_identity

if TYPE_CHECKING:
    from pathlib import Path

    from lafsfs.grid.api import LeaseSecrets

log = logging.getLogger(__name__)

SHARES = "shares"
LOCKS = "locks"
ADVISORIES = "corruption-advisories"
MAX_ADVISORIES = 1000  # files; one bad disk must not fill itself with complaints about it
MAX_REASON = 1000  # characters of an advisory
MAX_LEASE_BYTES = 1 << 22  # of one container: some 50,000 leases
IMMUTABLE_OWNER = 0  # the owner number that stock writes into immutable leases,
MUTABLE_OWNER = 1  # and into mutable ones, where 0 would mean that there is no lease

_SHNUM = re.compile(r"0|[1-9][0-9]{0,4}")

Container = ImmutableContainer | MutableContainer


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes of the volume that a directory is on, and a name for the volume."""

    total: int
    available: int
    volume: str


def parse_container(fd: int) -> Container | None:
    """The header of an open container, or None for a file that is not one."""
    prefix = disk.read_at(fd, 0, containers.PREFIX_SIZE)
    size = os.fstat(fd).st_size
    try:
        if containers.is_mutable(prefix):
            return containers.parse_mutable_head(prefix, size)
        return containers.parse_immutable_header(prefix, size)
    except FormatError as error:
        log.debug("file descriptor %d: %s", fd, error)
        return None


def kind_of(container: Container) -> ShareKind:
    """Which of the two kinds of container this is."""
    is_slot = isinstance(container, MutableContainer)
    return ShareKind.MUTABLE if is_slot else ShareKind.IMMUTABLE


class ShareSnapshot:
    """A share as it was when it was opened, whatever happens to its name meanwhile.

    The file is closed with the last reference to this object: whoever is cancelled while a thread
    opens or reads a share has nothing to clean up.
    """

    def __init__(self, fd: int, container: Container) -> None:
        self.container = container
        self.size = container.data_length  # bytes of data
        self._fd = fd
        weakref.finalize(self, os.close, fd)

    @classmethod
    def open(cls, path: Path) -> ShareSnapshot | None:
        """Open a container; None for a file that is not one. ``OSError`` comes through."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            container = parse_container(fd)
        except BaseException:
            os.close(fd)
            raise
        if container is None:
            os.close(fd)
            return None
        return cls(fd, container)

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes of data at ``offset``; fewer at the end, none past it."""
        return read_data(self._fd, self.container, offset, size)


class ShareDirectory:
    """One storage directory, and where everything in it lies."""

    def __init__(self, path: Path, server_id: bytes) -> None:
        self.path = path
        self.name = str(path)
        self.server_id = server_id
        self.shares = path / SHARES
        self.locks = disk.FileLocks(path / LOCKS)
        self._seen_as: tuple[int, int] | None = None
        self._advised: set[tuple[bytes, int]] = set()

    # --- where things are -------------------------------------------------------------------------

    def check_present(self) -> None:
        """Make sure that the directory is (still) there, and the same one.

        Raises:
            ServerUnavailableError: it has gone, or another storage directory has taken its place.
        """
        try:
            status = self.shares.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise ServerUnavailableError(
                f"{self.name} has gone: is its disk unplugged, or its share not mounted?"
            ) from None
        seen_as = (status.st_dev, status.st_ino)
        if seen_as != self._seen_as:
            try:
                identity = load_identity(self.path)
            except ConfigError as error:
                raise ServerUnavailableError(str(error)) from None
            if identity is not None and identity.server_id != self.server_id:
                raise ServerUnavailableError(f"{self.name} is another storage directory now")
            self._seen_as = seen_as

    def bucket(self, storage_index: bytes) -> Path:
        """The directory of all shares under a storage index."""
        text = base32.encode(storage_index)
        return self.shares / text[:2] / text

    def make_bucket(self, storage_index: bytes) -> Path:
        """The same directory, made durably if it is not there."""
        bucket = self.bucket(storage_index)
        disk.make_directory(bucket.parent)
        disk.make_directory(bucket)
        return bucket

    def begin_bucket(self, storage_index: bytes) -> list[Path]:
        """Make the same directory if it is not there; what is to be fsynced to keep it, and it.

        From the bucket up: where one sync of a file system brings everything to the disk, those
        behind the first cost nothing.
        """
        bucket = self.bucket(storage_index)
        made = [disk.begin_directory(bucket.parent), disk.begin_directory(bucket)]
        above = [bucket.parent] * made[1] + [self.shares] * made[0]
        return [bucket, *above]

    def share_files(self, storage_index: bytes) -> dict[int, Path]:
        """Every file that may be a share, by share number, in order."""
        bucket = self.bucket(storage_index)
        try:
            names = os.listdir(bucket)
        except FileNotFoundError:
            return {}
        return {int(name): bucket / name for name in sorted(names, key=_order) if _is_shnum(name)}

    def space(self, reserved: int = 0) -> Space:
        """What the volume has, less ``reserved`` bytes, and nothing where we may not write."""
        volume = os.statvfs(self.shares)
        available = max(0, volume.f_bavail * volume.f_frsize - reserved)
        if not os.access(self.shares, os.W_OK):
            available = 0
        device = self.shares.stat().st_dev
        return Space(volume.f_blocks * volume.f_frsize, available, f"device {device}")

    # --- reading ----------------------------------------------------------------------------------

    def containers(self, storage_index: bytes) -> dict[int, Container]:
        """The header of every complete share, of either kind."""
        found = {}
        for shnum, path in self.share_files(storage_index).items():
            with contextlib.suppress(FileNotFoundError), disk.opened(path, os.O_RDONLY) as fd:
                container = parse_container(fd)
                if container is not None:
                    found[shnum] = container
        return found

    def list_shares(self, kind: ShareKind, storage_index: bytes) -> frozenset[int]:
        """The numbers of all complete shares of a kind."""
        with disk.translated(self.name, writing=False):
            self.check_present()
            return frozenset(
                shnum
                for shnum, container in self.containers(storage_index).items()
                if kind_of(container) is kind
            )

    def read_share(
        self, kind: ShareKind, storage_index: bytes, shnum: int, offset: int, size: int
    ) -> bytes:
        """Part of a share's data; see :class:`lafsfs.grid.api.StorageServer`."""
        with disk.translated(self.name, writing=False):
            self.check_present()
            path = self.bucket(storage_index) / str(shnum)
            with contextlib.suppress(FileNotFoundError), disk.opened(path, os.O_RDONLY) as fd:
                container = parse_container(fd)
                if container is not None and kind_of(container) is kind:
                    return read_data(fd, container, offset, size)
        return b""

    def open_share(self, kind: ShareKind, storage_index: bytes, shnum: int) -> ShareSnapshot | None:
        """A share that is held open for reading, or None where there is none of that kind."""
        with disk.translated(self.name, writing=False):
            self.check_present()
            path = self.bucket(storage_index) / str(shnum)
            with contextlib.suppress(FileNotFoundError):
                share = ShareSnapshot.open(path)
                if share is not None and kind_of(share.container) is kind:
                    return share
        return None

    # --- leases -----------------------------------------------------------------------------------

    def add_lease(self, storage_index: bytes, lease: LeaseSecrets, expires: float) -> None:
        """Add or renew a lease on every share under a storage index."""
        with disk.translated(self.name, writing=True):
            self.check_present()
            with self.locks.held(disk.stripe_of(storage_index)):
                held = self.containers(storage_index)
                if not held:
                    raise NoSuchShareError(f"{self.name} holds no share of this file")
                self.lease_immutable(storage_index, held, lease, expires)
                for shnum, container in held.items():
                    if isinstance(container, MutableContainer):
                        self._lease_slot(self.bucket(storage_index) / str(shnum), lease, expires)

    def lease_immutable(
        self,
        storage_index: bytes,
        held: dict[int, Container],
        lease: LeaseSecrets,
        expires: float,
    ) -> None:
        """Add or renew a lease on the immutable shares among those held, under the lock.

        In place: first the lease behind the data, then the count. A crash in between leaves some
        bytes behind the data that no reader is led to.
        """
        new = Lease.shown(IMMUTABLE_OWNER, lease.renew, lease.cancel, expires)
        for shnum, container in held.items():
            if not isinstance(container, ImmutableContainer):
                continue
            path = self.bucket(storage_index) / str(shnum)
            with disk.opened(path, os.O_RDWR) as fd:
                size = min(container.leases_size, MAX_LEASE_BYTES)
                data = disk.read_at(fd, container.lease_offset, size)
                before = tuple(containers.parse_immutable_leases(container, data))
                after = containers.with_lease(before, new)
                _write_immutable_leases(fd, container, before, after)

    def _lease_slot(self, path: Path, lease: LeaseSecrets, expires: float) -> None:
        """Add or renew a lease on a slot by replacing the file, as every write of a slot does."""
        new = Lease.shown(MUTABLE_OWNER, lease.renew, lease.cancel, expires, self.server_id)
        with disk.opened(path, os.O_RDONLY) as fd:
            container = parse_container(fd)
            if not isinstance(container, MutableContainer):
                return
            leases = containers.with_lease(read_slot_leases(fd, container), new)
            start, length = containers.MUTABLE_DATA_OFFSET, container.data_length
            aside = slot_aside(path)
            try:
                with disk.opened(aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as target:
                    disk.copy_range(fd, target, start, length)
                    finish_slot(target, container, length, leases)
            except OSError:
                aside.unlink(missing_ok=True)
                raise
        aside.replace(path)
        disk.fsync_directory(path.parent)

    # --- complaints -------------------------------------------------------------------------------

    def advise_corrupt(
        self, kind: ShareKind, storage_index: bytes, shnum: int, reason: str, now: float | None
    ) -> None:
        """Log a bad share and leave a note, once per share and run, in stock's form.

        ``now``: seconds since 1970; None leaves no note.
        """
        text = base32.encode(storage_index)
        log.warning("share %d of %s in %s is corrupt: %s", shnum, text, self.name, reason)
        if now is None or (storage_index, shnum) in self._advised:
            return
        with disk.translated(self.name, writing=True):
            self.check_present()
            self._advised.add((storage_index, shnum))
            if not (self.bucket(storage_index) / str(shnum)).exists():
                return
            notes = self.path / ADVISORIES
            disk.make_directory(notes)
            if len(os.listdir(notes)) >= MAX_ADVISORIES:
                return
            report = (
                "report: Share Corruption\n"
                f"type: {kind.value}\nstorage_index: {text}\nshare_number: {shnum}\n\n"
                f"{reason[:MAX_REASON]}\n\n"
            )
            stamp = time.strftime("%Y-%m-%dT%H%M%S", time.gmtime(now))
            note = report.encode(errors="backslashreplace")
            disk.write_file(notes / f"{stamp}--{text}-{shnum}", note)


def _is_shnum(name: str) -> bool:
    return _SHNUM.fullmatch(name) is not None


def _order(name: str) -> tuple[int, str]:
    return len(name), name


# --- one container --------------------------------------------------------------------------------


def read_data(fd: int, container: Container, offset: int, size: int) -> bytes:
    """Up to ``size`` bytes of a share's data at ``offset``, never what lies around it."""
    size = min(size, container.data_length - offset)
    if size <= 0 or offset < 0:
        return b""
    return disk.read_at(fd, container.data_offset + offset, size)


def _write_immutable_leases(
    fd: int, container: ImmutableContainer, before: tuple[Lease, ...], after: tuple[Lease, ...]
) -> None:
    """Write the one lease that differs, in the container's own version."""
    for index, lease in enumerate(after):
        if index < len(before) and lease == before[index]:
            continue
        kept = lease.hashed() if container.version >= 2 else lease
        where = container.lease_offset + index * containers.IMMUTABLE_LEASE_SIZE
        disk.write_at(fd, where, kept.pack_immutable())
    if len(after) > container.lease_count:
        count = containers.pack_lease_count(len(after))
        disk.write_at(fd, containers.IMMUTABLE_LEASE_COUNT_OFFSET, count)


def read_slot_leases(fd: int, container: MutableContainer) -> tuple[Lease, ...]:
    """All leases of a slot, those behind the data included."""
    tail = disk.read_at(fd, container.extra_lease_offset, MAX_LEASE_BYTES)
    return containers.parse_mutable_tail(container, tail)


def slot_aside(path: Path) -> Path:
    """Where the next version of a slot is written: a name that no reader takes for a share."""
    return path.with_name(f".{path.name}.new")


def finish_slot(
    fd: int, container: MutableContainer, length: int, leases: tuple[Lease, ...]
) -> None:
    """Give a new slot file whose data is in place its length, header and leases, durably."""
    head = containers.pack_mutable_head(
        container.server_id, container.write_enabler, length, leases
    )
    disk.write_at(fd, 0, head)
    end = containers.MUTABLE_DATA_OFFSET + length
    os.ftruncate(fd, end)
    disk.write_at(fd, end, containers.pack_mutable_tail(leases))
    os.fsync(fd)
