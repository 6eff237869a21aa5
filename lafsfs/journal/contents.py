"""Contents too large for the database: files of sealed records that are only appended to.

A contents file is a log of what was done to one file: *these bytes were laid at this offset*, or
*it was cut to this size*. Read from the front, it gives the file again, so that a row of the
journal needs to name nothing but the file's id and how far into the log it counts. What lies
behind that is the rest of what was never accepted; the next record is written over it.

    16 bytes       salt; the file's key is derived from it, the journal's key and the id
    records        one behind the other:
      12 bytes     nonce, random but for its highest bit, which is 0
      33 bytes     sealed: kind (1 byte), start and length (8 bytes each, big-endian)
      length + 16  sealed: the bytes, under the same nonce with its highest bit 1; if length > 0

Rules:

- Associated with every sealed part is its record's position, so records can be neither moved nor
  exchanged. Nonces are random: whatever a crash leaves, none is used again under a file's key.
- A failed write leaves the log as long as it was.
- Nothing here stays open between two calls: the number of files is not limited by descriptors.
"""

from __future__ import annotations

import enum
import os
import secrets
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from lafsfs.crypto import aes
from lafsfs.crypto.hashes import derive_key
from lafsfs.errors import HashMismatchError, StagingCorruptError
from lafsfs.journal.faultpoints import reached

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lafsfs.crypto.hashes import BytesLike

SALT_SIZE: Final = 16
_HEADER: Final = struct.Struct(">BQQ")
_SEALED_HEADER: Final = _HEADER.size + aes.TAG_SIZE
HEADER_SIZE: Final = aes.NONCE_SIZE + _SEALED_HEADER
_IOV_MAX: Final = 1000  # buffers in one call; Linux takes 1024


class Kind(enum.IntEnum):
    """What a record says."""

    BEGIN = 0  # the file was this long (start) before anything was written
    WRITE = 1  # these bytes lie at start
    CUT = 2  # the file is this long (start) now


@dataclass(frozen=True, slots=True)
class Entry:
    """A record to be appended."""

    kind: Kind
    start: int
    data: BytesLike = field(default=b"", repr=False)

    @property
    def size(self) -> int:
        """Bytes that it takes in the log."""
        return record_size(len(self.data))


@dataclass(frozen=True, slots=True)
class Record:
    """A record in the log, at ``position``."""

    kind: Kind
    start: int
    length: int
    position: int

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.position + record_size(self.length)


def record_size(length: int) -> int:
    """Bytes that a record with so many bytes of data takes in the log."""
    return HEADER_SIZE + (length + aes.TAG_SIZE if length else 0)


class ContentsFile:
    """One log on the disk. All methods block: call them in a thread, one :meth:`append` at a time.

    ``end``: where the next record goes; moved by whoever appended, once that is done.
    ``synced``: up to where the log is known to survive a power failure.
    """

    def __init__(self, path: Path, key: bytes, number: int) -> None:
        """``key``: for all contents; ``number``: this one's id."""
        self.path = path
        self.number = number
        self.end = SALT_SIZE
        self.synced = 0
        self._key = key
        self._sealer: aes.Sealer | None = None

    def append(self, entries: Sequence[Entry]) -> list[int]:
        """Write records at ``end``; their positions.

        Raises:
            OSError: as the system does; nothing is appended then.
        """
        is_new = self._sealer is None
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if is_new else 0)
        descriptor = os.open(self.path, flags, 0o600)
        try:
            sealer = self._sealer or self._salted(descriptor)
            parts: list[bytes] = []
            positions: list[int] = []
            position = self.end
            for entry in entries:
                positions.append(position)
                parts += _sealed(sealer, entry, position)
                position += entry.size
            _write_all(descriptor, parts, self.end)
            self._sealer = sealer
        finally:
            os.close(descriptor)
        reached("journal.contents.appended")
        return positions

    def read(self, record: Record) -> bytes:
        """The bytes of a WRITE record.

        Raises:
            StagingCorruptError: they are not what was written.
            OSError: as the system does.
        """
        with _opened(self.path) as descriptor:
            return self._data(descriptor, self._opener(descriptor), record)

    def records(self, end: int) -> list[Record]:
        """What the log says up to ``end``, without reading the data.

        Raises:
            StagingCorruptError: it is not what was written.
            OSError: as the system does.
        """
        with _opened(self.path) as descriptor:
            return list(self._scan(descriptor, SALT_SIZE, end))

    def verify(self, start: int, end: int) -> None:
        """Read all of the log from ``start`` (a record's position, or 0) to ``end``.

        Raises:
            StagingCorruptError: some of it is not what was written.
            OSError: as the system does.
        """
        with _opened(self.path) as descriptor:
            sealer = self._opener(descriptor)
            for record in self._scan(descriptor, max(start, SALT_SIZE), end):
                self._data(descriptor, sealer, record)

    def sync(self) -> None:
        """Bring all of it to the disk. Raises OSError as the system does."""
        with _opened(self.path) as descriptor:
            os.fdatasync(descriptor)

    def _scan(self, descriptor: int, position: int, end: int) -> Iterator[Record]:
        sealer = self._opener(descriptor)
        while position < end:
            raw = os.pread(descriptor, HEADER_SIZE, position)
            record = _parsed(sealer, raw, position)
            if record.end > end:
                raise _corrupt(self.path)
            yield record
            position = record.end

    def _data(self, descriptor: int, sealer: aes.Sealer, record: Record) -> bytes:
        if not record.length:
            return b""
        nonce = os.pread(descriptor, aes.NONCE_SIZE, record.position)
        place = record.position + HEADER_SIZE
        sealed = os.pread(descriptor, record.length + aes.TAG_SIZE, place)
        try:
            return sealer.open(_for_data(nonce), sealed, _associated(record.position))
        except HashMismatchError:
            raise _corrupt(self.path) from None

    def _opener(self, descriptor: int) -> aes.Sealer:
        if self._sealer is None:
            salt = os.pread(descriptor, SALT_SIZE, 0)
            if len(salt) != SALT_SIZE:
                raise _corrupt(self.path)
            self._sealer = self._sealer_of(salt)
        return self._sealer

    def _salted(self, descriptor: int) -> aes.Sealer:
        """Of a file that nothing was appended to by this process: it may be there already."""
        salt = os.pread(descriptor, SALT_SIZE, 0)
        if len(salt) != SALT_SIZE:
            salt = secrets.token_bytes(SALT_SIZE)
            _write_all(descriptor, [salt], 0)
        return self._sealer_of(salt)

    def _sealer_of(self, salt: bytes) -> aes.Sealer:
        return aes.Sealer(derive_key(self._key, b"%d:" % self.number + salt))


class _opened:
    """A descriptor to read with, for the length of a ``with``."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *exc: object) -> None:
        os.close(self._descriptor)


def _sealed(sealer: aes.Sealer, entry: Entry, position: int) -> list[bytes]:
    nonce = bytearray(secrets.token_bytes(aes.NONCE_SIZE))
    nonce[0] &= 0x7F
    header = _HEADER.pack(entry.kind, entry.start, len(entry.data))
    associated = _associated(position)
    parts = [bytes(nonce), sealer.seal(bytes(nonce), header, associated)]
    if len(entry.data):
        parts.append(sealer.seal(_for_data(nonce), entry.data, associated))
    return parts


def _parsed(sealer: aes.Sealer, raw: bytes, position: int) -> Record:
    try:
        nonce, sealed = raw[: aes.NONCE_SIZE], raw[aes.NONCE_SIZE :]
        header = sealer.open(nonce, sealed, _associated(position))
    except HashMismatchError:
        raise StagingCorruptError(
            "what was written to a file, and kept on the local disk, has changed there"
        ) from None
    kind, start, length = _HEADER.unpack(header)
    return Record(Kind(kind), start, length, position)


def _for_data(nonce: BytesLike) -> bytes:
    """The nonce of a record's data, from that of its header."""
    return bytes((nonce[0] | 0x80, *nonce[1:])) if len(nonce) else b""


def _associated(position: int) -> bytes:
    return position.to_bytes(8, "big")


def _corrupt(path: Path) -> StagingCorruptError:
    return StagingCorruptError(
        f"what was written to a file, and kept on the local disk as {path}, has changed there"
    )


def _write_all(descriptor: int, parts: Sequence[bytes], position: int) -> None:
    for at in range(0, len(parts), _IOV_MAX):
        batch = [memoryview(part) for part in parts[at : at + _IOV_MAX]]
        while batch:
            written = os.pwritev(descriptor, batch, position)
            position += written
            while batch and written >= len(batch[0]):
                written -= len(batch.pop(0))
            if batch:
                batch[0] = batch[0][written:]
