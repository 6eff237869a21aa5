"""Where the bytes of a staged file lie: in memory, in a blob of the journal, or in a log.

A :class:`Stretch` is some written bytes that stay together. It is born in memory; once it is
retired, its bytes never change, wherever they go.

A :class:`StagedLog` is a log of the journal that one staged file is written to. While the file is
written from front to back, the log hashes along, for the convergent key; what it has hashed is a
prefix of the file as long as nothing of it is written again, which its owner watches.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.errors import StagingCorruptError
from lafsfs.immutable.source import Hashed
from lafsfs.journal import Entry, Kind, Record
from lafsfs.vfs.staging.extents import Extent, ExtentMap
from lafsfs.vfs.staging.small import unpack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from lafsfs.journal import ContentsFile, Journal

BATCH: Final = 4 << 20  # bytes appended at a time when a log is written anew


@dataclass(eq=False, slots=True)
class Stretch:
    """Written bytes: those of one record of the extent map.

    ``number``: in the extent map. ``start``: of its first byte in the file. ``buffer``: in memory;
    else ``blob`` or ``log`` says where the ``length`` bytes are.
    """

    number: int
    start: int
    buffer: bytearray | bytes | None = field(default=None, repr=False)
    length: int = 0
    blob: InBlob | None = None
    log: InLog | None = None

    def entry(self) -> Entry:
        """What a log says of it. It is retired and in memory."""
        assert self.buffer is not None
        return Entry(Kind.WRITE, self.start, self.buffer)


@dataclass(frozen=True, slots=True)
class Cut:
    """The file was made this long."""

    size: int

    def entry(self) -> Entry:
        """What a log says of it."""
        return Entry(Kind.CUT, self.size)


@dataclass(frozen=True, slots=True)
class InBlob:
    """From byte ``skip`` of what is written in a blob."""

    id: int
    skip: int


@dataclass(frozen=True, slots=True)
class InLog:
    """A record of a log."""

    file: ContentsFile
    record: Record


class StagedLog:
    """Appends to one log; one task at a time."""

    def __init__(self, journal: Journal, file: ContentsFile, hashed: Hashed | None) -> None:
        """``hashed``: of nothing so far; None not to hash."""
        self.file = file
        self.hashed = hashed
        self._journal = journal

    async def append(self, entries: Sequence[Entry]) -> list[InLog]:
        """Where they are.

        Raises:
            JournalFullError, JournalError: nothing was appended.
        """
        after = self.hashed

        def hash_along() -> None:
            nonlocal after
            after = _with(self.hashed, entries)

        positions = await self._journal.append(self.file, entries, hash_along)
        self.hashed = after
        return [
            InLog(self.file, Record(entry.kind, entry.start, len(entry.data), position))
            for entry, position in zip(entries, positions, strict=True)
        ]


def _with(hashed: Hashed | None, entries: Sequence[Entry]) -> Hashed | None:
    """Hash on what continues the prefix. The old value stays as it was."""
    if hashed is None:
        return None
    hasher, length = hashed.hasher.copy(), hashed.length
    for entry in entries:
        if entry.kind is Kind.WRITE and entry.start == length:
            hasher.update(entry.data)
            length += len(entry.data)
    return Hashed(hashed.parameters, hasher, length)


async def write_anew(
    log: StagedLog,
    extents: ExtentMap,
    stretches: Mapping[int, Stretch],
    shown: Callable[[Extent, Stretch], Awaitable[memoryview]],
) -> list[InLog]:
    """Say in a new log what ``extents`` show; the place of each of them.

    ``shown`` gives an extent's bytes, which do not change meanwhile.

    Raises:
        JournalFullError, JournalError: the log does not say all of it.
        StagingCorruptError: the bytes cannot be read back.
    """
    entries = [Entry(Kind.BEGIN, extents.base_size)]
    if extents.base_limit < extents.base_size:
        entries.append(Entry(Kind.CUT, extents.base_limit))
    places: list[InLog] = []
    size, batch = extents.base_limit, 0
    for extent in extents:
        data = await shown(extent, stretches[extent.record])
        entries.append(Entry(Kind.WRITE, extent.start, data))
        size, batch = max(size, extent.end), batch + extent.length
        if batch >= BATCH:
            places += await log.append(entries)
            entries, batch = [], 0
    if size < extents.size:
        entries.append(Entry(Kind.CUT, extents.size))
    places += await log.append(entries)
    return [place for place in places if place.record.kind is Kind.WRITE]


def restored(file: ContentsFile, records: Iterable[Record]) -> tuple[ExtentMap, dict[int, Stretch]]:
    """What the records of a log say: what shows, and the stretches, numbered from 0 on."""
    extents = ExtentMap(0)
    stretches: dict[int, Stretch] = {}
    for record in records:
        if record.kind is Kind.WRITE:
            number = len(stretches)
            place = InLog(file, record)
            stretches[number] = Stretch(number, record.start, length=record.length, log=place)
            extents.write(Extent(record.start, record.length, number, 0))
        elif record.kind is Kind.CUT:
            extents.truncate(record.start)
        else:
            extents = ExtentMap(record.start)
    return extents, stretches


def placed(number: int, source: Extent, place: InBlob | InLog) -> Stretch:
    """A stretch of that number with the bytes of ``source``, which are at ``place`` now."""
    stretch = Stretch(number, source.start, length=source.length)
    if isinstance(place, InBlob):
        stretch.blob = place
    else:
        stretch.log = place
    return stretch


def relocated(
    current: ExtentMap,
    stretches: Mapping[int, Stretch],
    copied: ExtentMap,
    places: Sequence[InLog],
    first: int,
) -> tuple[dict[int, Stretch], list[Extent]]:
    """Have ``current`` show the bytes of ``copied``, an earlier state of it, from ``places``.

    Returns what stretches there are then, those with a place numbered from ``first`` on, and the
    extents. What ``current`` shows of later writes stays where it is.
    """
    sources = list(copied)
    starts = [source.start for source in sources]
    fresh: dict[int, Stretch] = {}
    shown: list[Extent] = []
    for extent in current:
        at = bisect_right(starts, extent.start) - 1
        if at < 0 or sources[at].record != extent.record:
            fresh[extent.record] = stretches[extent.record]
            shown.append(extent)
            continue
        source, number = sources[at], first + at
        if number not in fresh:
            fresh[number] = placed(number, source, places[at])
        shown.append(Extent(extent.start, extent.length, number, extent.start - source.start))
    return fresh, shown


async def read(journal: Journal, stretch: Stretch) -> bytes:
    """The bytes of a stretch that is not in memory.

    Raises:
        StagingCorruptError: the local disk gave back something else.
    """
    if stretch.blob is not None:
        await trio.lowlevel.checkpoint()
        return read_blob(journal, stretch.blob, stretch.length)
    assert stretch.log is not None
    return await trio.to_thread.run_sync(_read_log, stretch.log)


def read_blob(journal: Journal, place: InBlob, length: int) -> bytes:
    """Some bytes of a blob."""
    return unpack(journal.blob(place.id), 0)[1][place.skip : place.skip + length]


def _read_log(place: InLog) -> bytes:
    """In a thread."""
    try:
        return place.file.read(place.record)
    except OSError as error:
        raise StagingCorruptError(f"cannot read what was staged: {error.strerror}") from None


def read_records(file: ContentsFile, end: int) -> list[Record]:
    """What a log says, as a list. Blocks.

    Raises:
        StagingCorruptError: it cannot be read, or is not what was written.
    """
    try:
        return file.records(end)
    except OSError as error:
        raise StagingCorruptError(
            f"what was written to a file is missing from {file.path.parent}: {error.strerror}"
        ) from None
