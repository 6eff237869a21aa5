"""What a storage server can do, as the rest of lafsfs sees it.

This is the storage protocol of Tahoe-LAFS (``http-storage-node-protocol.rst``) without its
transport: a directory on this machine, a server reached over HTTPS and the in-memory server of the
tests all implement :class:`StorageServer` and pass the same contract suite
(``tests/grid/contract.py``).

Rules:

- A server is not trusted. Bytes it returns are foreign until a hash says otherwise.
- Every method is a checkpoint, may raise :class:`~lafsfs.errors.ServerError`, and may be cancelled
  at any await. A cancelled write may or may not have happened.
- An absent share reads as no bytes; only writes to uploads can name something that is not there.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Pieces: TypeAlias = tuple[bytes, ...]  # bytes that follow one another, as they were made


class ShareKind(enum.Enum):
    """Immutable shares and mutable slots are different containers with different verbs."""

    IMMUTABLE = "immutable"
    MUTABLE = "mutable"


@dataclass(frozen=True, slots=True)
class LeaseSecrets:
    """The two 32-byte secrets of one client's lease on one share set at one server."""

    renew: bytes = field(repr=False)
    cancel: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SlotSecrets:
    """What a slot write must show: the 32-byte write enabler, and the lease to leave behind."""

    write_enabler: bytes = field(repr=False)
    lease: LeaseSecrets


@dataclass(frozen=True, slots=True)
class ServerVersion:
    """What a server says of itself. Sizes in bytes."""

    application: str
    available_space: int
    maximum_immutable_share_size: int
    maximum_mutable_share_size: int
    total_space: int | None = None  # capacity of the volume, where the server knows it
    volume: str | None = None  # servers that name the same volume share its space


@dataclass(frozen=True, slots=True)
class Allocation:
    """The answer to an allocation: share numbers that are there already, and those to send.

    A number in neither set was refused: no room, or another upload of it is under way.
    """

    already_have: frozenset[int]
    allocated: frozenset[int]


@dataclass(frozen=True, slots=True)
class TestVector:
    """Read ``size`` bytes at ``offset`` and require them to equal ``specimen``.

    Past the end, and for an absent share, fewer or no bytes are read. "This share must not exist"
    is ``TestVector(0, 1, b"")``.
    """

    __test__ = False  # not a test class, whatever pytest thinks of its name

    offset: int
    size: int
    specimen: bytes


@dataclass(frozen=True, slots=True)
class WriteVector:
    """Write ``data`` at ``offset``; a gap before it is filled with zeros."""

    offset: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReadVector:
    """Read up to ``size`` bytes at ``offset``."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class TestWriteVectors:
    """What to test and write in one share of a slot.

    ``new_length``: ``None`` keeps the share's length (grown by the writes), otherwise the share is
    cut to this many bytes if it is longer, and 0 deletes it.
    """

    __test__ = False

    tests: tuple[TestVector, ...] = ()
    writes: tuple[WriteVector, ...] = ()
    new_length: int | None = None


@dataclass(frozen=True, slots=True)
class TestWriteResult:
    """Whether every test passed (and so every write was made), and what the shares held *before*.

    ``reads`` has an entry for every share of the slot that existed before the call, with one bytes
    per read vector.
    """

    __test__ = False

    success: bool
    reads: Mapping[int, tuple[bytes, ...]]


class StorageServer(Protocol):
    """One storage server."""

    @property
    def name(self) -> str:
        """A short name for messages and logs: a nickname or the directory's path."""

    @property
    def server_id(self) -> bytes:
        """The 20-byte tub id: what write enablers and lease secrets are derived with."""

    @property
    def permutation_seed(self) -> bytes:
        """What the server's place in a storage index's order is computed from."""

    async def version(self) -> ServerVersion:
        """Ask for limits and free space."""

    async def list_shares(self, kind: ShareKind, storage_index: bytes) -> frozenset[int]:
        """The complete shares held. Empty when the other kind is stored under this index."""

    async def read_share(
        self, kind: ShareKind, storage_index: bytes, shnum: int, offset: int, size: int
    ) -> bytes:
        """Up to ``size`` bytes at ``offset``; fewer at the end, none past it or without a share."""

    async def allocate(
        self,
        storage_index: bytes,
        shnums: frozenset[int],
        size: int,
        upload_secret: bytes,
        lease: LeaseSecrets,
    ) -> Allocation:
        """Reserve ``size`` bytes for each immutable share.

        Leases on shares that are there already are added or renewed. Allocating again under the
        same upload secret finds the same unfinished upload, from its first byte.
        """

    async def write_share(
        self,
        storage_index: bytes,
        shnum: int,
        upload_secret: bytes,
        offset: int,
        data: bytes | Pieces,
    ) -> bool:
        """Write part of an immutable share; True once every byte of it has been written.

        Until then nobody can see it, from then on nobody can change it. Rewriting a range with
        other bytes is a :class:`~lafsfs.errors.ProtocolError`.

        Raises:
            NoSuchUploadError: not allocated under this secret, finished, aborted or expired.
        """

    async def abort_share(self, storage_index: bytes, shnum: int, upload_secret: bytes) -> None:
        """Forget an unfinished upload. Raises NoSuchUploadError when there is none."""

    async def read_test_write(
        self,
        storage_index: bytes,
        secrets: SlotSecrets,
        vectors: Mapping[int, TestWriteVectors],
        reads: Sequence[ReadVector],
    ) -> TestWriteResult:
        """Atomically test all shares named and, if all tests pass, write them all.

        With empty ``vectors`` it reads every share of the slot in one round trip.

        Raises:
            BadWriteEnablerError: the slot belongs to another write enabler.
        """

    async def add_lease(self, storage_index: bytes, lease: LeaseSecrets) -> None:
        """Add or renew a lease on every share, of either kind.

        Raises:
            NoSuchShareError: the server holds no share under this index.
        """

    async def advise_corrupt_share(
        self, kind: ShareKind, storage_index: bytes, shnum: int, reason: str
    ) -> None:
        """Tell the server's operator that a share failed verification."""
