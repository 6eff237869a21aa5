"""Reading a staged file: from memory, from the journal, or from the contents beneath.

Rules: who reads keeps what is read with :meth:`Readable.in_use`; contents of the journal that
nobody needs any more are let go of when the last reader is done.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import trio

from lafsfs.vfs.staging.extents import BasePiece, Extent, Hole
from lafsfs.vfs.staging.log import read, read_blob

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lafsfs.caps import Cap, UnknownCap
    from lafsfs.immutable.source import Hashed
    from lafsfs.vfs.staging.area import StagingArea
    from lafsfs.vfs.staging.extents import ExtentMap, Piece
    from lafsfs.vfs.staging.log import Stretch


class Base(Protocol):
    """The contents beneath what was written."""

    @property
    def cap(self) -> Cap | UnknownCap:
        """What leads to them, also after a restart."""

    async def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes at ``offset``."""


class Readable:
    """The stretches of a staged file."""

    extents: ExtentMap
    base: Base | None

    def __init__(self, area: StagingArea) -> None:
        self._area = area
        self._journal = area.journal
        self._stretches: dict[int, Stretch] = {}  # by record number of the extent map
        self._place: int | None = None  # id of the contents that stretches are in
        self._old: list[int] = []  # ids of those that only who is reading now needs
        self._users = 0
        self._discarded = False

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep everything that can be read now meanwhile."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._release_if_unused()

    def got_on(self) -> None:
        """An upload does: whoever waits for room may go on waiting."""
        self._journal.room.progress()

    async def assemble(
        self, pieces: Iterable[Piece], stretches: Mapping[int, Stretch], base: Base | None
    ) -> bytes:
        """The bytes of ``pieces``."""
        parts: list[bytes] = []
        with self.in_use():
            for piece in pieces:
                parts.append(await self._piece(piece, stretches, base))
        await trio.lowlevel.checkpoint()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _piece(
        self, piece: Piece, stretches: Mapping[int, Stretch], base: Base | None
    ) -> bytes:
        if isinstance(piece, Hole):
            return bytes(piece.length)
        if isinstance(piece, BasePiece):
            data = b"" if base is None else await base.read(piece.start, piece.length)
            return data.ljust(piece.length, b"\0")  # a mutable base may have shrunk since
        return bytes(await self._shown(piece, stretches[piece.record]))

    async def _shown(self, extent: Extent, stretch: Stretch) -> memoryview:
        """Not to be kept beyond the next await: a tail cannot grow meanwhile."""
        buffer = stretch.buffer
        data = await self._opened(extent.record, stretch) if buffer is None else buffer
        return memoryview(data)[extent.skip : extent.skip + extent.length]

    async def _opened(self, number: int, stretch: Stretch) -> bytes:
        opened: bytes | None = self._area.cache.get((self, number))
        if opened is None:
            opened = await read(self._journal, stretch)
            if not self._discarded:
                self._area.cache[self, number] = opened
        return opened

    def _bytes_of(self, extent: Extent) -> bytes:
        """Of an extent in memory or in a blob, at once."""
        part = self._cached(extent)
        if part is not None:
            return part
        stretch = self._stretches[extent.record]
        assert stretch.blob is not None
        data = read_blob(self._journal, stretch.blob, stretch.length)
        return data[extent.skip : extent.skip + extent.length]

    def _cached(self, extent: Extent) -> bytes | None:
        buffer = self._stretches[extent.record].buffer
        data = self._area.cache.get((self, extent.record)) if buffer is None else buffer
        return None if data is None else bytes(data[extent.skip : extent.skip + extent.length])

    def _leave_place(self, id: int | None) -> None:
        if self._place is not None:
            self._old.append(self._place)
        self._place = id

    def _release_if_unused(self) -> None:
        if self._users:
            return
        old, self._old = self._old, []
        for id in old:
            self._journal.let_go(id)
        if self._discarded:
            self._forget_cached()
            self._stretches = {}

    def _forget_cached(self) -> None:
        for number in self._stretches:
            self._area.cache.pop((self, number), None)


class Snapshot:
    """A file as it was at one moment: a Source to upload. Hold it with ``with``."""

    def __init__(
        self,
        contents: Readable,
        stretches: Mapping[int, Stretch],
        hashed: Hashed | None,
    ) -> None:
        self.extents = contents.extents.copy()
        self.hashed = hashed
        self._contents = contents
        self._stretches = stretches
        self._base = contents.base
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
        self._contents.got_on()
        return await self._assemble(self.extents.pieces(offset, size))

    async def written(self) -> list[tuple[int, bytes]]:
        """Everything that was written and still shows: (offset, bytes). Only for small files."""
        return [(e.start, await self._assemble([e])) for e in self.extents]

    async def _assemble(self, pieces: Iterable[Piece]) -> bytes:
        return await self._contents.assemble(list(pieces), self._stretches, self._base)
