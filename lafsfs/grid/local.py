"""The embedded grid: a directory on this machine as a storage server.

The directory has stock Tahoe's layout (:mod:`lafsfs.grid.shares`), so that a stock server can be
pointed at it later, though never at the same time: stock takes no lock and empties ``incoming``.

Rules:

- One verb is one hop into a worker thread; this module holds no logic of its own. The threads of
  one server are limited, so that a hanging disk does not take those of the others.
- A cancelled verb is left to its thread. What the thread does is atomic by itself: a slot is
  written or not, under a lock that the thread holds; an upload has the bytes or not.
- A lock that is taken is waited for here, where waiting can be cancelled.
- The clock (seconds since 1970) is injected; it dates leases and idle uploads only.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import trio

from lafsfs import __version__
from lafsfs.errors import (
    ConfigError,
    ServerFullError,
    ServerReadOnlyError,
    ServerUnavailableError,
)
from lafsfs.formats.containers import LEASE_SECONDS, MAX_MUTABLE_SHARE_SIZE
from lafsfs.grid import disk, slots
from lafsfs.grid.api import (
    Allocation,
    LeaseSecrets,
    Pieces,
    ReadVector,
    ServerVersion,
    ShareKind,
    SlotSecrets,
    TestWriteResult,
    TestWriteVectors,
)
from lafsfs.grid.identity import NODE_PEM, SERVER_ID, Identity, ensure_identity
from lafsfs.grid.shares import ADVISORIES, LOCKS, SHARES, ShareDirectory
from lafsfs.grid.uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from lafsfs.grid.shares import ShareSnapshot

MAX_THREADS = 16  # at work on one directory: a disk gains nothing from more
FIRST_WAIT = 0.001  # seconds before a taken lock is tried again; doubles up to
LONGEST_WAIT = 0.05  # seconds, about what fsyncing a large slot takes

# What may be in a directory that is not a storage directory yet: what a new file system has, and
# what is left when making one was interrupted.
_AS_GOOD_AS_EMPTY = {"lost+found", NODE_PEM, f".{NODE_PEM}.new", SERVER_ID, LOCKS, ADVISORIES}

P = ParamSpec("P")
T = TypeVar("T")


class LocalServer:
    """A storage server in a directory. Make one with :meth:`open`; end it with :meth:`aclose`."""

    def __init__(
        self,
        directory: Path,
        identity: Identity,
        *,
        clock: Callable[[], float] = time.time,
        reserved: int = 0,
        read_only: bool = False,
    ) -> None:
        """A server over a storage directory whose identity is known. Touches nothing yet.

        Args:
            clock: seconds since 1970.
            reserved: bytes of the volume that uploads leave free.
            read_only: refuse everything that writes.
        """
        self._directory = ShareDirectory(directory, identity.server_id)
        self._uploads = Uploads(self._directory, clock, reserved)
        self._identity = identity
        self._clock = clock
        self._reserved = reserved
        self._read_only = read_only
        self._threads = trio.CapacityLimiter(MAX_THREADS)

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        create: bool,
        clock: Callable[[], float] = time.time,
        reserved: int = 0,
        read_only: bool = False,
    ) -> LocalServer:
        """Open a storage directory, making its identity if it has none yet.

        Args:
            create: make an empty or missing directory into a storage directory.

        Raises:
            ServerUnavailableError: the directory is missing, empty or cannot be read, which is how
                an unplugged disk looks.
            ConfigError: it holds something else, or its identity file is unreadable.
        """
        prepare = functools.partial(_prepare_directory, directory, create=create)
        identity = await _in_thread(prepare, trio.CapacityLimiter(1))
        return cls(directory, identity, clock=clock, reserved=reserved, read_only=read_only)

    async def aclose(self) -> None:
        """Abort unfinished uploads. Runs to its end even when cancelled."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._uploads.close)

    def __repr__(self) -> str:
        return f"<LocalServer {self.name}>"

    @property
    def name(self) -> str:
        """The directory's path."""
        return self._directory.name

    @property
    def server_id(self) -> bytes:
        """See :class:`lafsfs.grid.identity.Identity`."""
        return self._identity.server_id

    @property
    def permutation_seed(self) -> bytes:
        """See :class:`lafsfs.grid.identity.Identity`."""
        return self._identity.permutation_seed

    # --- how verbs run ----------------------------------------------------------------------------

    async def _run(self, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _in_thread(functools.partial(verb, *args, **kwargs), self._threads)

    def _check_writable(self) -> None:
        if self._read_only:
            raise ServerReadOnlyError(f"{self.name} is used read-only")

    def _lease_end(self) -> float:
        return self._clock() + LEASE_SECONDS

    # --- the verbs --------------------------------------------------------------------------------

    async def version(self) -> ServerVersion:
        """Limits and free space; see :class:`lafsfs.grid.api.StorageServer`."""
        return await self._run(self._version)

    def _version(self) -> ServerVersion:
        with disk.translated(self.name, writing=False):
            self._directory.check_present()
            space = self._directory.space(self._reserved)
        free = 0 if self._read_only else space.available
        return ServerVersion(
            application=f"lafsfs/{__version__}",
            available_space=free,
            maximum_immutable_share_size=free,
            maximum_mutable_share_size=MAX_MUTABLE_SHARE_SIZE,
            total_space=space.total,
            volume=space.volume,
        )

    async def list_shares(self, kind: ShareKind, storage_index: bytes) -> frozenset[int]:
        """See :class:`lafsfs.grid.api.StorageServer`."""
        return await self._run(self._directory.list_shares, kind, storage_index)

    async def read_share(
        self, kind: ShareKind, storage_index: bytes, shnum: int, offset: int, size: int
    ) -> bytes:
        """See :class:`lafsfs.grid.api.StorageServer`."""
        read = self._directory.read_share
        return await self._run(read, kind, storage_index, shnum, offset, size)

    async def open_share(
        self, kind: ShareKind, storage_index: bytes, shnum: int
    ) -> SnapshotReader | None:
        """A share held open, for reading more of it than fits into memory; None if it is absent."""
        share = await self._run(self._directory.open_share, kind, storage_index, shnum)
        return None if share is None else SnapshotReader(share, self.name, self._threads)

    async def allocate(
        self,
        storage_index: bytes,
        shnums: frozenset[int],
        size: int,
        upload_secret: bytes,
        lease: LeaseSecrets,
    ) -> Allocation:
        """See :class:`lafsfs.grid.api.StorageServer`."""
        self._check_writable()
        allocate = self._uploads.allocate
        return await self._run(allocate, storage_index, shnums, size, upload_secret, lease)

    async def write_share(
        self,
        storage_index: bytes,
        shnum: int,
        upload_secret: bytes,
        offset: int,
        data: bytes | Pieces,
    ) -> bool:
        """See :class:`lafsfs.grid.api.StorageServer`."""
        return not await self.write_range(storage_index, shnum, upload_secret, offset, data)

    async def write_range(
        self,
        storage_index: bytes,
        shnum: int,
        upload_secret: bytes,
        offset: int,
        data: bytes | Pieces,
    ) -> list[tuple[int, int]]:
        """As :meth:`write_share`; says which ranges ``[start, stop)`` are missing still.

        Raises:
            WrongUploadSecretError, ConflictingWriteError, BeyondAllocationError: kinds of what
                ``write_share`` raises, of :mod:`lafsfs.grid.uploads`.
        """
        self._check_writable()
        write = self._uploads.write
        return await self._run(write, storage_index, shnum, upload_secret, offset, data)

    @property
    def uploads_in_progress(self) -> int:
        """How many shares are on their way."""
        return len(self._uploads)

    async def forget_idle_uploads(self) -> None:
        """Discard uploads to which nothing was written for 30 minutes, as allocating also does."""
        await self._run(self._uploads.forget_idle)

    async def abort_share(self, storage_index: bytes, shnum: int, upload_secret: bytes) -> None:
        """See :class:`lafsfs.grid.api.StorageServer`."""
        self._check_writable()
        await self._run(self._uploads.abort, storage_index, shnum, upload_secret)

    async def read_test_write(
        self,
        storage_index: bytes,
        secrets: SlotSecrets,
        vectors: Mapping[int, TestWriteVectors],
        reads: Sequence[ReadVector],
        *,
        max_read: int | None = None,
    ) -> TestWriteResult:
        """See :class:`lafsfs.grid.api.StorageServer`.

        Raises:
            TooMuchToReadError: the reads come to more than ``max_read`` bytes; nothing was done.
        """
        if any(vector.writes or vector.new_length is not None for vector in vectors.values()):
            self._check_writable()
        return await self._run(
            slots.read_test_write,
            self._directory,
            storage_index,
            secrets,
            vectors,
            reads,
            self._lease_end(),
            max_read,
        )

    async def add_lease(self, storage_index: bytes, lease: LeaseSecrets) -> None:
        """See :class:`lafsfs.grid.api.StorageServer`."""
        self._check_writable()
        await self._run(self._directory.add_lease, storage_index, lease, self._lease_end())

    async def advise_corrupt_share(
        self, kind: ShareKind, storage_index: bytes, shnum: int, reason: str
    ) -> None:
        """Log it, and leave a note in the directory if there is room for one."""
        advise = self._directory.advise_corrupt
        now = None if self._read_only else self._clock()
        with contextlib.suppress(ServerReadOnlyError, ServerFullError):
            await self._run(advise, kind, storage_index, shnum, reason, now)


class SnapshotReader:
    """One share as it was when it was opened: see :meth:`LocalServer.open_share`."""

    def __init__(self, share: ShareSnapshot, name: str, threads: trio.CapacityLimiter) -> None:
        self.size = share.size  # bytes
        self._share = share
        self._name = name
        self._threads = threads

    async def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes at ``offset``; fewer at the end, none past it."""
        return await _in_thread(functools.partial(self._read, offset, size), self._threads)

    def _read(self, offset: int, size: int) -> bytes:
        with disk.translated(self._name, writing=False):
            return self._share.read(offset, size)


async def _in_thread(call: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
    """Run a blocking call in a thread, again and again while somebody else has the lock."""
    wait = FIRST_WAIT
    while True:
        try:
            return await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)
        except disk.LockBusyError:
            await trio.sleep(wait)
            wait = min(LONGEST_WAIT, 2 * wait)


def _prepare_directory(directory: Path, *, create: bool) -> Identity:
    """Check what is there, make what may be made, and say whose it is (blocking)."""
    with disk.translated(str(directory), writing=create):
        names = _names_in(directory, create=create)
        if SHARES not in names:
            _check_mistaken(directory, names)
            if not create:
                raise ServerUnavailableError(
                    f"{directory} is empty: is its disk unplugged, or its share not mounted?"
                )
            directory.mkdir(disk.PRIVATE_DIRECTORY, parents=True, exist_ok=True)
            identity = _ensure_identity(directory)
            disk.make_directory(directory / SHARES)
            return identity
        return _ensure_identity(directory)


def _ensure_identity(directory: Path) -> Identity:
    """At most one process makes an identity at a time, and the others find it."""
    shared = not os.access(directory, os.W_OK)
    with disk.FileLocks(directory / LOCKS).held("identity", shared=shared):
        return ensure_identity(directory)


def _names_in(directory: Path, *, create: bool) -> set[str]:
    try:
        return set(os.listdir(directory))
    except FileNotFoundError:
        if create:
            return set()
        raise ServerUnavailableError(
            f"{directory} does not exist: is its disk unplugged, or its share not mounted?"
        ) from None
    except NotADirectoryError:
        raise ConfigError(f"{directory} is not a directory") from None


def _check_mistaken(directory: Path, names: set[str]) -> None:
    """Refuse a directory that is somebody's for something else."""
    if names <= _AS_GOOD_AS_EMPTY:
        return
    hint = ""
    if (directory / "storage" / SHARES).is_dir():
        hint = f"; it looks like a Tahoe node, whose storage directory is {directory / 'storage'}"
    raise ConfigError(f"{directory} is neither empty nor a storage directory (no 'shares'){hint}")
