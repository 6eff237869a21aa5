"""The files in which a storage server keeps shares, with the leases on them. PURE.

A share on disk is wrapped in a *container*. There are two, one for immutable shares and one for
mutable slots, each in two versions that differ in how lease secrets are kept: version 1 in clear,
version 2 as BLAKE2b-256. Both versions are read, version 2 is written, and a lease is moved from 1
to 2 by hashing it (:meth:`Lease.hashed`).

Immutable (big-endian; A is the length of the share's data)::

    0       4   version, 1 or 2
    4       4   A, or 2**32 - 1 where A is larger
    8       4   number of leases
    12      A   data
    12 + A  72 each: owner 4, renew secret 32, cancel secret 32, expiry 4

The data ends where the leases at the end of the file begin; the length field is what is left of an
older format, but still tells a file that was cut off from one that was not.

Mutable::

    0       32  magic: "Tahoe mutable container v1\\n" or v2, and five more bytes
    32      20  id of the server that took the write enabler
    52      32  write enabler, in clear
    84      8   length of the data, A
    92      8   absolute offset of the extra leases, E >= 468 + A
    100     368 four leases
    468     A   data
    E       4   number of extra leases, which follow, 92 bytes each

A mutable lease is owner 4, expiry 4, renew secret 32, cancel secret 32, server id 20; owner 0 marks
an empty place.

Rules:

- Sizes that a container claims are held against the size of its file before anything relies on
  them; nothing here allocates by a number it has only read.
- A slot whose end is missing is still read as far as it goes. It may be the only copy, and what
  remains of it verifies or does not. A cut-off immutable share has lost its URI extension block, so
  it counts as no container at all.

Facts from stock 1.20's ``allmydata/storage`` (the containers have no document of their own).
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, field, replace

from lafsfs.errors import FormatError

IMMUTABLE_HEADER_SIZE = 12
IMMUTABLE_LEASE_SIZE = 72
MUTABLE_HEADER_SIZE = 100  # without the four leases
MUTABLE_LEASE_SIZE = 92
MUTABLE_LEASE_PLACES = 4  # in front of the data; more go behind it
MUTABLE_DATA_OFFSET = MUTABLE_HEADER_SIZE + MUTABLE_LEASE_PLACES * MUTABLE_LEASE_SIZE
LEASE_COUNT_SIZE = 4

PREFIX_SIZE = MUTABLE_DATA_OFFSET  # bytes from the start of a file that tell all about it
NEWEST_VERSION = 2
LEASE_SECONDS = 31 * 24 * 3600
MAX_EXPIRY = 2**32 - 1  # seconds since 1970: the last one the field holds, in 2106
LONGEST_RECORDED = 2**32 - 1  # bytes; the immutable length field saturates here

# Stock refuses slots larger than this, and no disk holds one.
MAX_MUTABLE_SHARE_SIZE = 69105 * 10**12

_IMMUTABLE_HEADER = struct.Struct(">LLL")
_IMMUTABLE_LEASE = struct.Struct(">L32s32sL")
_MUTABLE_HEADER = struct.Struct(">32s20s32sQQ")
_MUTABLE_LEASE = struct.Struct(">LL32s32s20s")
_MAGICS = {
    1: b"Tahoe mutable container v1\n\x75\x09\x44\x03\x8e",
    2: b"Tahoe mutable container v2\n\xc3\x55\x21\x99\x25",
}
_VERSIONS = {magic: version for version, magic in _MAGICS.items()}
_NO_SERVER_ID = bytes(20)


# --- leases ---------------------------------------------------------------------------------------


def hash_lease_secret(secret: bytes) -> bytes:
    """What version 2 keeps of a 32-byte lease secret."""
    return hashlib.blake2b(secret, digest_size=32).digest()


@dataclass(frozen=True, slots=True)
class Lease:
    """One client's wish that a share be kept until ``expires`` (seconds since 1970).

    ``renew`` and ``cancel`` are 32 bytes each, hashed or not as ``is_hashed`` says. ``server_id``
    is the 20-byte id of who took the lease; immutable containers do not keep it.
    """

    owner: int
    renew: bytes = field(repr=False)
    cancel: bytes = field(repr=False)
    expires: int
    server_id: bytes = _NO_SERVER_ID
    is_hashed: bool = True

    @classmethod
    def shown(
        cls,
        owner: int,
        renew: bytes,
        cancel: bytes,
        expires: float,
        server_id: bytes = _NO_SERVER_ID,
    ) -> Lease:
        """A lease from the secrets (in clear) that a client shows. A slot's owner is not 0."""
        return cls(owner, renew, cancel, _clip_expiry(expires), server_id, is_hashed=False)

    def hashed(self) -> Lease:
        """The same lease with hashed secrets."""
        if self.is_hashed:
            return self
        return replace(
            self,
            renew=hash_lease_secret(self.renew),
            cancel=hash_lease_secret(self.cancel),
            is_hashed=True,
        )

    def is_renewed_by(self, secret: bytes) -> bool:
        """Whether this is the renewal secret (in clear) of the lease."""
        shown = hash_lease_secret(secret) if self.is_hashed else secret
        return hmac.compare_digest(shown, self.renew)

    def renewed(self, expires: float) -> Lease:
        """The same lease lasting until then, or as long as before if that is longer."""
        return replace(self, expires=max(self.expires, _clip_expiry(expires)))

    def pack_immutable(self) -> bytes:
        """72 bytes for an immutable container of this lease's version."""
        return _IMMUTABLE_LEASE.pack(self.owner, self.renew, self.cancel, self.expires)

    def pack_mutable(self) -> bytes:
        """92 bytes for a mutable container of this lease's version."""
        return _MUTABLE_LEASE.pack(
            self.owner, self.expires, self.renew, self.cancel, self.server_id
        )


def _clip_expiry(expires: float) -> int:
    return min(max(int(expires), 0), MAX_EXPIRY)


# --- immutable ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImmutableContainer:
    """Where things are in an immutable container. ``lease_offset`` counts from its first byte."""

    version: int
    data_length: int
    lease_count: int

    @property
    def data_offset(self) -> int:
        """Where the share's data begins."""
        return IMMUTABLE_HEADER_SIZE

    @property
    def lease_offset(self) -> int:
        """Where the share's data ends and its leases begin."""
        return IMMUTABLE_HEADER_SIZE + self.data_length

    @property
    def leases_size(self) -> int:
        """Bytes of all leases."""
        return self.lease_count * IMMUTABLE_LEASE_SIZE


def pack_immutable_header(data_length: int, lease_count: int) -> bytes:
    """The first 12 bytes of a version 2 container."""
    return _IMMUTABLE_HEADER.pack(NEWEST_VERSION, min(data_length, LONGEST_RECORDED), lease_count)


def parse_immutable_header(prefix: bytes, file_size: int) -> ImmutableContainer:
    """Read a container's header, given at least 12 bytes of it and the size of the whole file.

    Raises:
        FormatError: not an immutable container, or one whose data is cut off.
    """
    if min(len(prefix), file_size) < IMMUTABLE_HEADER_SIZE:
        raise FormatError("immutable container: shorter than its header")
    version, recorded, leases = _IMMUTABLE_HEADER.unpack_from(prefix)
    if version not in (1, 2):
        raise FormatError(f"immutable container: version {version} is not known")
    room = file_size - IMMUTABLE_HEADER_SIZE
    length = room - leases * IMMUTABLE_LEASE_SIZE
    if length >= recorded:
        return ImmutableContainer(version, length, leases)
    if recorded == LONGEST_RECORDED or room < recorded:
        raise FormatError("immutable container: cut off, or more leases claimed than fit")
    # All of the data is there and only leases are missing: keep those that are whole.
    return ImmutableContainer(version, recorded, (room - recorded) // IMMUTABLE_LEASE_SIZE)


def pack_lease_count(count: int) -> bytes:
    """The number of leases: at byte 8 of an immutable container, or before extra leases."""
    return count.to_bytes(LEASE_COUNT_SIZE, "big")


IMMUTABLE_LEASE_COUNT_OFFSET = 8


def parse_immutable_leases(container: ImmutableContainer, data: bytes) -> list[Lease]:
    """The leases, from the bytes at ``container.lease_offset``; those cut off are left out."""
    whole = min(container.lease_count, len(data) // IMMUTABLE_LEASE_SIZE)
    is_hashed = container.version >= 2
    return [
        Lease(owner, renew, cancel, expires, is_hashed=is_hashed)
        for owner, renew, cancel, expires in _IMMUTABLE_LEASE.iter_unpack(
            data[: whole * IMMUTABLE_LEASE_SIZE]
        )
    ]


# --- mutable --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MutableContainer:
    """A mutable container's header and first four places for leases.

    ``data_length`` is what the file really holds, ``recorded_length`` what the header claims; they
    differ only in a file that was cut off.
    """

    version: int
    server_id: bytes
    write_enabler: bytes = field(repr=False)
    recorded_length: int
    data_length: int
    extra_lease_offset: int
    leases: tuple[Lease, ...] = field(repr=False)

    @classmethod
    def new(cls, server_id: bytes, write_enabler: bytes) -> MutableContainer:
        """An empty container, of the newest version, made for this write enabler."""
        empty = pack_mutable_head(server_id, write_enabler, 0, ())
        return parse_mutable_head(empty, MUTABLE_DATA_OFFSET + LEASE_COUNT_SIZE)

    @property
    def data_offset(self) -> int:
        """Where the share's data begins."""
        return MUTABLE_DATA_OFFSET

    def accepts(self, write_enabler: bytes) -> bool:
        """Whether this is the slot's write enabler, in time that tells nothing."""
        return hmac.compare_digest(self.write_enabler, write_enabler)


def pack_mutable_head(
    server_id: bytes, write_enabler: bytes, data_length: int, leases: tuple[Lease, ...]
) -> bytes:
    """The 468 bytes before the data of a version 2 container, with the first four leases.

    The extra leases follow the data at once (:func:`pack_mutable_tail`).
    """
    header = _MUTABLE_HEADER.pack(
        _MAGICS[NEWEST_VERSION],
        server_id,
        write_enabler,
        data_length,
        MUTABLE_DATA_OFFSET + data_length,
    )
    first = b"".join(lease.hashed().pack_mutable() for lease in leases[:MUTABLE_LEASE_PLACES])
    return (header + first).ljust(MUTABLE_DATA_OFFSET, b"\0")


def pack_mutable_tail(leases: tuple[Lease, ...]) -> bytes:
    """What follows the data of a version 2 container: the fifth lease and all after it."""
    extra = leases[MUTABLE_LEASE_PLACES:]
    return pack_lease_count(len(extra)) + b"".join(lease.hashed().pack_mutable() for lease in extra)


def is_mutable(prefix: bytes) -> bool:
    """Whether a file that begins with these 32 bytes is a mutable container."""
    return prefix[:32] in _VERSIONS


def parse_mutable_head(prefix: bytes, file_size: int) -> MutableContainer:
    """Read a container's first 468 bytes, given also the size of the whole file.

    Raises:
        FormatError: not a mutable container, or one whose header makes no sense.
    """
    if min(len(prefix), file_size) < MUTABLE_DATA_OFFSET:
        raise FormatError("mutable container: shorter than its header")
    magic, server_id, enabler, length, extra_offset = _MUTABLE_HEADER.unpack_from(prefix)
    if magic not in _VERSIONS:
        raise FormatError("mutable container: the magic is not known")
    if length > MAX_MUTABLE_SHARE_SIZE or extra_offset < MUTABLE_DATA_OFFSET + length:
        raise FormatError("mutable container: lengths and offsets contradict each other")
    version = _VERSIONS[magic]
    return MutableContainer(
        version=version,
        server_id=server_id,
        write_enabler=enabler,
        recorded_length=length,
        data_length=min(length, file_size - MUTABLE_DATA_OFFSET),
        extra_lease_offset=extra_offset,
        leases=_mutable_leases(version, prefix[MUTABLE_HEADER_SIZE:MUTABLE_DATA_OFFSET]),
    )


def parse_mutable_tail(container: MutableContainer, tail: bytes) -> tuple[Lease, ...]:
    """All leases, from the bytes at ``extra_lease_offset`` on; those cut off are left out."""
    count = int.from_bytes(tail[:LEASE_COUNT_SIZE], "big")
    whole = min(count, max(0, len(tail) - LEASE_COUNT_SIZE) // MUTABLE_LEASE_SIZE)
    end = LEASE_COUNT_SIZE + whole * MUTABLE_LEASE_SIZE
    return container.leases + _mutable_leases(container.version, tail[LEASE_COUNT_SIZE:end])


def _mutable_leases(version: int, data: bytes) -> tuple[Lease, ...]:
    return tuple(
        Lease(owner, renew, cancel, expires, server_id, is_hashed=version >= 2)
        for owner, expires, renew, cancel, server_id in _MUTABLE_LEASE.iter_unpack(data)
        if owner != 0
    )


# --- both -----------------------------------------------------------------------------------------


def with_lease(leases: tuple[Lease, ...], new: Lease) -> tuple[Lease, ...]:
    """The leases with ``new`` (its secrets in clear) among them, or the one renewed that it names.

    A clock that went backwards shortens nothing.
    """
    for index, lease in enumerate(leases):
        if lease.is_renewed_by(new.renew):
            return (*leases[:index], lease.renewed(new.expires), *leases[index + 1 :])
    return (*leases, new)
