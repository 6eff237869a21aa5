"""What has been written to files and is not on the grid yet, sealed on the local disk.

A :class:`StagedContents` is one file being written: an extent map over the contents it had (its
base), and *records* that hold what was written. The newest record, the tail, is open: a write that
continues it or falls into it changes it in memory. When a write goes elsewhere, or the record is
full, the tail is retired: from then on it never changes, and sooner or later it is sealed and
appended to the staging file. So every record is encrypted exactly once, with its number as nonce
under a key of this file alone.

Rules:

- Changing the map and the tail happens without an await in between: whoever is scheduled next sees
  all of a write or none of it. Sealing changes nothing that readers see.
- A :meth:`StagedContents.snapshot` retires the tail and copies the map: what it shows never
  changes, however often it is read, while writing goes on.
- At most ``BUFFER_SIZE`` bytes of one file and ``StagingArea.budget`` bytes in all are waiting in
  memory to be sealed, but for what is being written this moment. Small files never reach the disk.
- The staging file has no name from the moment it is made, so a crash leaves nothing behind; its key
  exists in memory alone. (The journal will change both.)
- A write that cannot be sealed for lack of disk space raises, and what it wrote stays in memory:
  nothing accepted is ever lost to a full disk.
- ``discard`` closes the file once nobody is reading.
"""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import trio
from cachetools import LRUCache

from lafsfs.crypto import aes
from lafsfs.crypto.hashes import derive_key
from lafsfs.errors import HashMismatchError, JournalFullError, LocalError, StagingCorruptError
from lafsfs.vfs.extents import BasePiece, Extent, ExtentMap, Hole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from pathlib import Path

    from lafsfs.vfs.extents import Piece

RECORD_SIZE: Final = 1 << 20  # bytes: what one random read must open; GCM does 1 MiB in 0.3 ms
BUFFER_SIZE: Final = 1 << 20  # bytes of one file waiting to be sealed; more goes to the disk
BUDGET: Final = 64 << 20  # bytes of all files waiting to be sealed
CACHE_SIZE: Final = 16 << 20  # bytes of opened records, for reading back in order

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Base(Protocol):
    """The contents beneath what was written."""

    async def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes at ``offset``."""


@dataclass(slots=True)
class _Record:
    """One stretch of written bytes: ``buffer`` in memory, or sealed at ``position`` on the disk."""

    number: int
    buffer: bytearray | None = field(repr=False)
    start: int  # of its first byte in the file, while it is the tail
    position: int = 0
    length: int = 0


class StagingArea:
    """Where staged contents live: a directory of the local disk and a key of this mount."""

    def __init__(self, directory: Path, budget: int = BUDGET) -> None:
        self.directory = directory
        self.budget = budget
        self.buffered = 0  # bytes waiting to be sealed, of all files
        self._key = secrets.token_bytes(aes.SEAL_KEY_SIZE)
        self._files = 0
        self.cache: LRUCache[tuple[StagedContents, int], bytes] = LRUCache(
            CACHE_SIZE, getsizeof=len
        )

    @classmethod
    @asynccontextmanager
    async def open(cls, directory: Path, budget: int = BUDGET) -> AsyncIterator[StagingArea]:
        """Use ``directory``, making it (0700) if it is not there.

        Raises:
            LocalError: it cannot be made or is something else.
        """
        try:
            await trio.to_thread.run_sync(_make_directory, directory)
        except OSError as error:
            raise LocalError(f"cannot stage files in {directory}: {error.strerror}") from None
        yield cls(directory, budget)

    def stage(self, base: Base | None, base_size: int) -> StagedContents:
        """Begin to write over ``base``; nothing touches the disk yet."""
        self._files += 1
        return StagedContents(self, derive_key(self._key, b"%d" % self._files), base, base_size)


class StagedContents:
    """One file being written."""

    def __init__(self, area: StagingArea, key: bytes, base: Base | None, base_size: int) -> None:
        self.extents = ExtentMap(base_size)
        self.changes = 0  # counts writes and truncations
        self._area = area
        self._key = key
        self._base = base
        self._records: list[_Record] = []
        self._tail: _Record | None = None
        self._retired: list[_Record] = []  # to be sealed
        self._descriptor: int | None = None
        self._end = 0  # of the staging file
        self._sealing = trio.Lock()  # one thread at a time appends
        self._users = 0
        self._discarded = False

    def __repr__(self) -> str:
        return f"<StagedContents {self.size} bytes, {len(self.extents)} extents>"

    @property
    def size(self) -> int:
        """Bytes of the file as written."""
        return self.extents.size

    async def write(self, offset: int, data: bytes) -> None:
        """Lay ``data`` over the file at ``offset``.

        Raises:
            JournalFullError: no room on the local disk.
        """
        view = memoryview(data)
        while view:
            taken = self._take(offset, view)
            view, offset = view[taken:], offset + taken
        self.changes += 1
        await self._make_room()

    def truncate(self, size: int) -> None:
        """Cut the file, or let it grow by zeros."""
        self.extents.truncate(size)
        self.changes += 1
        self._retire()

    async def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes at ``offset`` of the file as it is now.

        Raises:
            StagingCorruptError: the local disk gave back something else.
            NotEnoughSharesError: the base cannot be read.
        """
        return await self._assemble(list(self.extents.pieces(offset, size)))

    def snapshot(self) -> Snapshot:
        """The file as it is now, to be read again and again. Discard it afterwards."""
        self._retire()
        return Snapshot(self, self.extents.copy())

    def discard(self) -> None:
        """Nobody will ask any more, but for those who are reading now."""
        self._discarded = True
        self._close_if_unused()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the staging file open meanwhile."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._close_if_unused()

    # writing

    def _take(self, offset: int, view: memoryview) -> int:
        """Put the beginning of ``view`` into the tail; how much of it."""
        tail = self._tail
        buffer = None if tail is None else tail.buffer
        if tail is None or buffer is None or not _fits(tail.start, len(buffer), offset):
            self._retire()
            tail = self._tail = _Record(len(self._records), bytearray(), offset)
            self._records.append(tail)
            buffer = tail.buffer
            assert buffer is not None
        skip = offset - tail.start
        taken = min(len(view), RECORD_SIZE - skip)
        grown = max(0, skip + taken - len(buffer))
        buffer[skip : skip + taken] = view[:taken]
        self._area.buffered += grown
        self.extents.write(Extent(offset, taken, tail.number, skip))
        return taken

    def _retire(self) -> None:
        if self._tail is not None:
            self._retired.append(self._tail)
            self._tail = None

    async def _make_room(self) -> None:
        if self._area.buffered > self._area.budget:
            self._retire()
        elif sum(len(record.buffer or b"") for record in self._retired) < BUFFER_SIZE:
            return
        batch, self._retired = self._retired, []
        if batch:
            await self._seal(batch)

    async def _seal(self, batch: list[_Record]) -> None:
        """Bring retired records to the disk; on failure they stay retired."""
        with self.in_use():
            positions = [self._allot(record) for record in batch]
            try:
                async with self._sealing:
                    await trio.to_thread.run_sync(self._write_sealed, batch, positions)
            except OSError as error:
                self._retired = batch + self._retired
                kind = JournalFullError if error.errno in _FULL else LocalError
                raise kind(f"cannot stage what was written: {error.strerror}") from None
            except BaseException:
                self._retired = batch + self._retired
                raise
            for record, position in zip(batch, positions, strict=True):
                self._sealed_at(record, position)

    def _allot(self, record: _Record) -> int:
        position = self._end
        self._end += len(record.buffer or b"") + aes.TAG_SIZE
        return position

    def _sealed_at(self, record: _Record, position: int) -> None:
        assert record.buffer is not None
        record.position, record.length = position, len(record.buffer)
        record.buffer = None
        self._area.buffered -= record.length

    def _write_sealed(self, batch: list[_Record], positions: list[int]) -> None:
        """In a thread: retired buffers do not change, and positions are allotted."""
        if self._descriptor is None:
            self._descriptor = _nameless_file(self._area.directory)
        for record, position in zip(batch, positions, strict=True):
            assert record.buffer is not None
            sealed = aes.seal(self._key, _nonce(record.number), record.buffer)
            _write_all(self._descriptor, sealed, position)

    # reading

    async def _assemble(self, pieces: Iterable[Piece]) -> bytes:
        parts: list[bytes] = []
        with self.in_use():
            for piece in pieces:
                parts.append(await self._piece(piece))
        await trio.lowlevel.checkpoint()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _piece(self, piece: Piece) -> bytes:
        if isinstance(piece, Hole):
            return bytes(piece.length)
        if isinstance(piece, BasePiece):
            data = b"" if self._base is None else await self._base.read(piece.start, piece.length)
            return data.ljust(piece.length, b"\0")  # a mutable base may have shrunk since
        record = self._records[piece.record]
        part = slice(piece.skip, piece.skip + piece.length)
        if record.buffer is not None:
            return bytes(record.buffer[part])
        return (await self._opened(record))[part]

    async def _opened(self, record: _Record) -> bytes:
        key = (self, record.number)
        opened: bytes | None = self._area.cache.get(key)
        if opened is None:
            opened = await trio.to_thread.run_sync(self._read_sealed, record)
            self._area.cache[key] = opened
        return opened

    def _read_sealed(self, record: _Record) -> bytes:
        """In a thread."""
        assert self._descriptor is not None
        try:
            sealed = os.pread(self._descriptor, record.length + aes.TAG_SIZE, record.position)
            return aes.open_sealed(self._key, _nonce(record.number), sealed)
        except HashMismatchError:
            raise StagingCorruptError("what was staged on the local disk has changed") from None
        except OSError as error:
            raise LocalError(f"cannot read what was staged: {error.strerror}") from None

    def _close_if_unused(self) -> None:
        if not self._discarded or self._users:
            return
        self._area.buffered -= sum(len(record.buffer or b"") for record in self._records)
        for record in self._records:
            self._area.cache.pop((self, record.number), None)
        self._records = []
        self._retired = []
        self._tail = None
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Snapshot:
    """A file as it was at one moment: a Source to upload. Hold it with ``with``."""

    def __init__(self, contents: StagedContents, extents: ExtentMap) -> None:
        self._contents = contents
        self.extents = extents
        self._use = contents.in_use()

    def __enter__(self) -> Snapshot:
        self._use.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._use.__exit__(None, None, None)

    @property
    def size(self) -> int:
        return self.extents.size

    async def read(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes at ``offset``, the same each time."""
        return await self._contents._assemble(list(self.extents.pieces(offset, size)))

    async def written(self) -> list[tuple[int, bytes]]:
        """Everything that was written and still shows: (offset, bytes). Only for small files."""
        return [(e.start, await self._contents._assemble([e])) for e in self.extents]


def _fits(start: int, length: int, offset: int) -> bool:
    """Whether a write at ``offset`` continues or falls into a tail at ``start``, with room left."""
    return start <= offset <= start + length and offset < start + RECORD_SIZE


def _nonce(number: int) -> bytes:
    return number.to_bytes(aes.NONCE_SIZE, "big")


def _make_directory(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)


def _nameless_file(directory: Path) -> int:
    """A file open for reading and writing that nobody else can find."""
    descriptor, path = tempfile.mkstemp(prefix="staging-", dir=directory)
    os.unlink(path)
    return descriptor


def _write_all(descriptor: int, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, position)
        view, position = view[written:], position + written
