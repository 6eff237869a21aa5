"""One file that is being written: its contents until they are on the grid.

A :class:`StagedContents` is an extent map over the contents it had (its base), and *stretches* that
hold what was written. The newest stretch, the tail, is open: a write that continues it or falls
into it changes it in memory. When a write goes elsewhere, or the stretch is full, the tail is
retired: from then on its bytes never change.

Where they go (docs/decisions/0005): what was written to a *small* file stays in memory until it is
accepted, and is one value in the very transaction that accepts it. Of a larger one, stretches are
sealed and appended to a log, in a thread and ahead of need, while writing goes on; accepting it
needs the rest only, and a row that says how far into the log the file goes. A file becomes large
when ``BUFFER_SIZE`` bytes of it wait in memory, or when more than a small one has is accepted.

    await staged.seal()           everything written so far is where describe() can name it
    kept = staged.describe()      what a row has to say, and a blob; no await from here ...
    journal.commit(...)
    staged.accepted(kept)         ... to here

Rules:

- Changing the map and the tail happens without an await in between: whoever is scheduled next sees
  all of a write or none of it. Sealing, and moving bytes, change nothing that readers see.
- A :meth:`StagedContents.snapshot` retires the tail and copies the map: what it shows never
  changes, however often it is read, while writing goes on.
- Every byte in memory has its place on the disk promised before it is taken (journal/limits.py): a
  full disk is told to ``write``, not to ``close``. What was taken stays in memory if sealing fails.
- At most the area's budget of bytes wait in memory, and ``MOST_WAITING`` of one file.
- ``discard`` lets go of the journal's contents once nobody is reading.
- Where keys do not follow from contents, one is drawn for what is written, and accepted with it
  (``Kept.key``): an upload that is made again after a crash finds its own shares. A row that says
  less than what is written has none.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.errors import LafsError
from lafsfs.journal import ContentsRef
from lafsfs.vfs.staging.extents import Extent, ExtentMap
from lafsfs.vfs.staging.kept import Kept, UploadKey
from lafsfs.vfs.staging.log import (
    Cut,
    InBlob,
    InLog,
    StagedLog,
    Stretch,
    placed,
    relocated,
    restored,
    write_anew,
)
from lafsfs.vfs.staging.reading import Readable, Snapshot
from lafsfs.vfs.staging.small import is_small, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lafsfs.journal import Record
    from lafsfs.vfs.staging.area import StagingArea
    from lafsfs.vfs.staging.reading import Base

log = logging.getLogger(__name__)

RECORD_SIZE: Final = 1 << 20  # bytes: what one random read must open; GCM does 1 MiB in 0.1 ms
BUFFER_SIZE: Final = 1 << 20  # bytes of one file waiting to be sealed; more goes to its log
ADOPTED: Final = 256 << 10  # bytes of one write that are a stretch as they are, and not copied
MOST_WAITING: Final = 4 << 20  # bytes of one file in memory before its writer waits for the disk
LOOK_AT: Final = 64 << 20  # bytes of a log, before it is written anew without what is covered


class StagedContents(Readable):
    """One file being written. Made by :class:`~lafsfs.vfs.staging.area.StagingArea`."""

    def __init__(self, area: StagingArea, base: Base | None, extents: ExtentMap) -> None:
        super().__init__(area)
        self.base = base
        self.extents = extents
        self.changes = 0  # counts writes and truncations
        self.arriving = 0  # writes that wait for room
        self.kept: Kept | None = None  # what is accepted
        self._kept_changes = -1  # the changes that this covers
        self._key = UploadKey()
        self._next = 0  # number of the next stretch
        self._tail: Stretch | None = None
        self._waiting: list[Stretch | Cut] = []  # retired and not in the log
        self._buffered = 0  # bytes in memory alone
        self._retired_end = 0  # of what was retired, in the file
        self._in_order = True  # nothing that was retired was written again
        self._log: StagedLog | None = None
        self._is_logged = False  # there is a log, or one is being begun
        self._sealing = trio.Lock()  # one task at a time appends
        self._is_sealing = False  # ahead of need
        self._look_at = LOOK_AT  # bytes of the log: then see how much of it still shows

    def __repr__(self) -> str:
        return f"<StagedContents {self.size} bytes, {len(self.extents)} extents>"

    @property
    def size(self) -> int:
        """Bytes of the file as written."""
        return self.extents.size

    async def write(self, offset: int | None, data: bytes) -> None:
        """Lay ``data`` over the file at ``offset``; None: behind its last byte.

        Raises:
            JournalFullError: no room on the local disk.
        """
        room = self._journal.room
        self.arriving += 1
        try:
            await room.promise(len(data))
        finally:
            self.arriving -= 1
        before = self._buffered
        offset = self.size if offset is None else offset
        if ADOPTED <= len(data) <= RECORD_SIZE and not self._falls_into_tail(offset):
            self._begin_tail(offset, data)
            self._retire()
        else:
            self._copy_in(offset, memoryview(data))
        self.changes += 1
        room.release(len(data) - (self._buffered - before))  # what fell into the tail
        await self._make_room()

    def truncate(self, size: int) -> None:
        """Cut the file, or let it grow by zeros."""
        self._retire()
        if size < self._retired_end:
            self._in_order = False
        self.extents.truncate(size)
        self.changes += 1
        if self._is_logged:
            self._waiting.append(Cut(size))

    @property
    def kept_key(self) -> bytes | None:
        """The key that was accepted with what is written now; None if none was."""
        return self._key.kept_for(self.changes)

    async def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes at ``offset`` of the file as it is now.

        Raises:
            StagingCorruptError: the local disk gave back something else.
            NotEnoughSharesError: the base cannot be read.
        """
        pieces = list(self.extents.pieces(offset, size))
        return await self.assemble(pieces, self._stretches, self.base)

    def snapshot(self) -> Snapshot:
        """The file as it is now, to be read again and again. Discard it afterwards."""
        self._retire()
        hashed = self._log.hashed if self._log is not None and self._in_order else None
        return Snapshot(self, self._stretches, hashed)

    def discard(self) -> None:
        """Nobody will ask any more, but for those who are reading now."""
        if not self._discarded:
            self._discarded = True
            self._waiting, self._tail = [], None
            self._journal.room.release(self._buffered)
            self._count(-self._buffered)
            self._leave_place(None)
            self._release_if_unused()

    # --- into the journal -------------------------------------------------------------------------

    async def seal(self) -> None:
        """Have everything that is written now where :meth:`describe` can name it.

        Raises:
            JournalFullError, JournalError: it is not, and stays in memory.
        """
        self._retire()
        if not self._is_inline():
            await self._seal_waiting()

    def describe(self) -> Kept:
        """What a row has to say of everything that is sealed; the file itself, if it is small."""
        if self._log is not None:
            ref = ContentsRef(self._log.file.number, self._log.file.end)
            is_whole = self._tail is None and not self._waiting and not self._sealing.locked()
            return Kept(ref, self.base, key=self._drawn_key() if is_whole else None)
        if self.kept is not None and self._kept_changes == self.changes:
            return self.kept
        if not self._is_inline():
            return self.kept or Kept(None, self.base)
        if self.base is None and not self.size:
            return Kept(ContentsRef(0), None)
        self._retire()
        written = b"".join(map(self._bytes_of, self.extents))
        id = self._journal.new_contents()
        blobs = {id: pack(self.extents, written)}
        return Kept(ContentsRef(id), self.base, blobs, self._drawn_key())

    def accepted(self, kept: Kept) -> None:
        """The journal holds what :meth:`describe` said."""
        if kept.key is not None and kept is not self.kept:
            self._key.accepted(self.changes)
        self.kept = replace(kept, blobs={}) if kept.blobs else kept
        if kept.blobs:
            assert kept.ref is not None
            self._move_to_blob(kept.ref.id)
            self._kept_changes = self.changes

    def restore_small(self, kept: Kept) -> None:
        """Become what a blob says.

        Raises:
            StagingCorruptError: it is not what was committed.
        """
        assert kept.ref is not None
        if not kept.ref.id:
            self.kept = kept
            return
        self.extents, _ = unpack(self._journal.blob(kept.ref.id), 0)
        self._stretches = {0: Stretch(0, 0)}
        self._next = 1
        self._move_to_blob(kept.ref.id)
        self._restored(kept)

    def restore_large(self, kept: Kept, log: StagedLog, records: Sequence[Record]) -> None:
        """Become what a log says."""
        self.extents, self._stretches = restored(log.file, records)
        self._next = len(self._stretches)
        self._log, self._is_logged, self._place = log, True, log.file.number
        self._restored(kept)

    def _restored(self, kept: Kept) -> None:
        self._in_order = False  # nothing was hashed
        self.kept, self._kept_changes = kept, self.changes
        self._key.restore(kept.key, self.changes)

    def _drawn_key(self) -> bytes | None:
        return self._key.drawn_for(self.changes) if self._area.draws_keys else None

    # --- writing ----------------------------------------------------------------------------------

    def _falls_into_tail(self, offset: int) -> bool:
        """Whether a write there continues the tail or falls into it, with room left."""
        tail = self._tail
        if tail is None or tail.buffer is None:
            return False
        end = tail.start + len(tail.buffer)
        return tail.start <= offset <= end and offset < tail.start + RECORD_SIZE

    def _copy_in(self, offset: int, view: memoryview) -> None:
        while view:
            if not self._falls_into_tail(offset):
                self._begin_tail(offset, bytearray())
            taken = self._take(offset, view)
            view, offset = view[taken:], offset + taken

    def _begin_tail(self, offset: int, buffer: bytearray | bytes) -> None:
        self._retire()
        if offset < self._retired_end:
            self._in_order = False
        self._tail = self._stretches[self._next] = Stretch(self._next, offset, buffer)
        if buffer:
            self._count(len(buffer))
            self.extents.write(Extent(offset, len(buffer), self._next, 0))
        self._next += 1

    def _take(self, offset: int, view: memoryview) -> int:
        """Put the beginning of ``view`` into the tail; how much of it."""
        tail = self._tail
        assert tail is not None
        buffer = tail.buffer
        assert isinstance(buffer, bytearray)
        skip = offset - tail.start
        taken = min(len(view), RECORD_SIZE - skip)
        grown = max(0, skip + taken - len(buffer))
        buffer[skip : skip + taken] = view[:taken]
        self._count(grown)
        self.extents.write(Extent(offset, taken, tail.number, skip))
        return taken

    def _retire(self) -> None:
        tail = self._tail
        if tail is not None:
            assert tail.buffer is not None
            tail.length = len(tail.buffer)
            self._retired_end = max(self._retired_end, tail.start + tail.length)
            self._waiting.append(tail)
            self._tail = None

    def _is_inline(self) -> bool:
        """Whether all of it is accepted as one value."""
        return not self._is_logged and is_small(self.extents)

    def _count(self, grown: int) -> None:
        self._buffered += grown
        self._area.buffered += grown

    async def _make_room(self) -> None:
        if self._area.buffered > self._area.budget:
            self._retire()
            await self._seal_waiting()
        elif self._buffered >= MOST_WAITING:
            await self._seal_waiting()
        elif self._buffered >= BUFFER_SIZE and self._waiting and not self._is_sealing:
            self._is_sealing = True
            self._area.nursery.start_soon(self._seal_ahead)

    async def _seal_ahead(self) -> None:
        try:
            await self._seal_waiting()
        except LafsError as error:  # whoever writes or closes next will be told
            log.info("what was written stays in memory: %s", error)
        finally:
            self._is_sealing = False

    async def _seal_waiting(self) -> None:
        """Bring what is retired to the log, making one if there is none."""
        with self.in_use():
            async with self._sealing:
                while not self._discarded:
                    if self._log is None or self._is_mostly_dead(self._log):
                        await self._begin_log()
                    elif self._waiting:
                        await self._append_waiting(self._log)
                    else:
                        break

    def _is_mostly_dead(self, log: StagedLog) -> bool:
        """Whether a new log would take a quarter of this one."""
        if log.file.end < self._look_at:
            return False
        self._look_at = max(LOOK_AT, 4 * self.extents.live)
        return log.file.end >= self._look_at

    async def _append_waiting(self, log: StagedLog) -> None:
        batch, self._waiting = self._waiting, []
        try:
            places = await log.append([item.entry() for item in batch])
        except BaseException:
            self._waiting = batch + self._waiting
            raise
        for item, place in zip(batch, places, strict=True):
            if isinstance(item, Stretch):
                self._forget_buffer(item)
                item.log = place

    def _forget_buffer(self, stretch: Stretch) -> None:
        """Its bytes are in the journal as well."""
        assert stretch.buffer is not None
        size, stretch.buffer = len(stretch.buffer), None
        if not self._discarded:
            self._journal.room.release(size)
            self._count(-size)

    def _recount(self) -> None:
        """Only what is in stretches counts as waiting in memory; others are forgotten."""
        found = sum(len(s.buffer) for s in self._stretches.values() if s.buffer is not None)
        self._journal.room.release(self._buffered - found)
        self._count(found - self._buffered)

    # --- moving -----------------------------------------------------------------------------------

    async def _begin_log(self) -> None:
        """Write a log that says what the file is now, and go on with it."""
        self._retire()
        before, self._log, self._is_logged = self._log, None, True
        covered, self._waiting = self._waiting, []
        extents = self.extents.copy()
        self._in_order = True
        file = self._journal.hold(self._journal.new_contents())
        log = StagedLog(self._journal, file, self._area.begin_hash(self.size))
        try:
            places = await write_anew(log, extents, self._stretches, self._shown)
        except BaseException:
            self._waiting = covered + self._waiting
            self._log, self._is_logged = before, before is not None
            self._journal.let_go(file.number)
            raise
        self._log = log
        self._relocate(extents, places, file.number)

    def _move_to_blob(self, id: int) -> None:
        """What the extents show is in a blob now, one behind the other."""
        self._journal.hold_blob(id)
        fresh: dict[int, Stretch] = {}
        shown: list[Extent] = []
        parts = [self._cached(extent) for extent in self.extents]
        skip = 0
        for number, extent in enumerate(self.extents, self._next):
            fresh[number] = placed(number, extent, InBlob(id, skip))
            shown.append(Extent(extent.start, extent.length, number, 0))
            skip += extent.length
        self._next += len(shown)
        self._waiting, self._tail = [], None
        self._settle(fresh, shown, id)
        for extent, part in zip(shown, parts, strict=True):
            if part is not None:
                self._area.cache[self, extent.record] = part
        self._release_if_unused()

    def _relocate(self, extents: ExtentMap, places: Sequence[InLog], id: int) -> None:
        """The bytes of ``extents`` are at ``places`` in the log ``id``: see there what still shows.

        What was written since ``extents`` were copied stays where it is.
        """
        fresh, shown = relocated(self.extents, self._stretches, extents, places, self._next)
        self._next += len(extents)
        for item in (*self._waiting, self._tail):
            if isinstance(item, Stretch):
                fresh[item.number] = item
        self._settle(fresh, shown, id)

    def _settle(self, fresh: dict[int, Stretch], shown: list[Extent], id: int) -> None:
        self._forget_cached()
        self._stretches = fresh
        self.extents.replace(shown)
        self._recount()
        self._leave_place(id)
