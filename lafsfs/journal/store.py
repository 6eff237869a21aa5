"""The journal: what is accepted and not on the grid yet, on the local disk.

Theory. The journal holds what is *pending*, not what was done: one row for each pending object and
one for each pending name, put and deleted as things change, several of them in one transaction. It
knows nothing of what they mean. Contents go with their row: small ones as a blob in the same
transaction, large ones as a log in a file, of which the row needs so many bytes.

- :meth:`Journal.commit` is what *accepted* means. It takes tens of microseconds and is called in
  the event loop, without a thread (docs/decisions/0005): nobody sees a state between.
- :meth:`Journal.sync` brings everything committed before it to the disk: contents first, then the
  database's log. A commit is followed by a sync within ``SYNC_AFTER`` seconds by itself.
- Contents live as long as a row names them or somebody holds them. A file is deleted only after the
  sync behind the commit that took its name out of the rows: a power failure may bring the row back.
- A log is written by one task at a time, whoever made it or restored it.

Order of locks: none. ``commit`` and everything in :class:`Journal` that is not async is atomic;
while the database's log is cut (:meth:`Journal.ready`), committing is held up.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.crypto.hashes import derive_key
from lafsfs.errors import (
    HashMismatchError,
    JournalError,
    JournalFullError,
    StagingCorruptError,
)
from lafsfs.grid.asking import plain_errors
from lafsfs.journal.contents import SALT_SIZE, ContentsFile
from lafsfs.journal.database import ContentsRef, Database, checkpoint, inspect
from lafsfs.journal.faultpoints import reached
from lafsfs.journal.limits import Limits, Room
from lafsfs.journal.place import lock_place, sync_directory
from lafsfs.journal.recovery import recover
from lafsfs.journal.sealing import ValueSealer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from lafsfs.journal.contents import Entry
    from lafsfs.journal.database import Put, Row
    from lafsfs.journal.place import Place

log = logging.getLogger(__name__)

SYNC_AFTER: Final = 5.0  # seconds: what a power failure may cost
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
CHECKPOINT_AT: Final = 16 << 20  # bytes of SQLite's log: it is read whole when a journal is opened
CHECKPOINT_LEAST: Final = 1 << 20  # the same, where the disk keeps little free
MOST_LOG: Final = 4  # times as much, and committing waits for the disk
ROW_SIZE: Final = 100  # bytes that a row takes beside its value
PAGE: Final = 4120  # bytes of SQLite's log for a changed page


class Journal:
    """Made by :meth:`open`."""

    def __init__(self, place: Place, key: bytes, limits: Limits) -> None:
        """Read what is there. Blocks."""
        sealer = ValueSealer(derive_key(key, b"rows"))
        self._place = place
        self._contents_key = derive_key(key, b"contents")
        inspect(place.database, sealer, place.synced())
        self._database = Database(place.database, sealer)
        try:
            self._recover(limits)
        except BaseException:
            self._database.close()
            raise

    def _recover(self, limits: Limits) -> None:
        place = self._place
        found = recover(self._database, place, self._contents_key)
        self._rows = tuple(found.rows)
        self._row_sizes = {row.id: len(row.value) + ROW_SIZE for row in found.rows}
        self.went_back = found.went_back  # a power failure took some of the last commits
        self._sequence = 1 + max((row.sequence for row in found.rows), default=0)
        self._next_row = 1 + max((row.id for row in found.rows), default=0)
        self._next_contents = 1 + max(found.contents_ids, default=0)
        self._named = {  # which contents, other than none at all
            row.id: row.contents
            for row in found.rows
            if row.contents is not None and row.contents.id
        }
        self._in_rows = {ref.id for ref in self._named.values()}  # contents that a row names
        self._blob_sizes = found.blob_sizes
        self._files: dict[int, ContentsFile] = {}
        self._held: set[int] = set()  # ids of logs that somebody may write or read
        self._epoch = 0
        self._armed: frozenset[int] = frozenset()  # epochs whose undoing is being recorded
        self._changes = 0  # counts what a sync is to bring to the disk
        self._synced_changes = 0
        self._syncs = self._database.marked()  # begun, ever
        self._unsynced: set[int] = set()  # ids of logs with bytes that were not synced
        self._late_blobs: set[int] = set()  # dropped since the last sync began
        self._late_files: set[int] = set()
        self._new_names = {place.directory, place.contents}  # directories to be synced
        self._syncing = trio.Lock()
        self._gate: trio.Event | None = None  # set when committing is possible again
        self._wake = trio.Event()
        self._hurry = trio.Event()
        self._log_size = place.log_size()  # bytes of SQLite's log, about
        self._checkpoint_at = max(CHECKPOINT_LEAST, min(CHECKPOINT_AT, limits.margin // 8))
        self.room = Room(place.directory, limits)
        self._count_room(limits)

    def _count_room(self, limits: Limits) -> None:
        """Of what was found."""
        self.room.use(sum(self._blob_sizes.values()) + sum(self._row_sizes.values()))
        for ref in self._named.values():
            if ref.end:
                file = self._file(ref.id)
                file.end = file.synced = ref.end
                self.room.use(ref.end)
        if limits.staged is None:
            self.room.limit += self.room.used  # which the disk's free space is without

    @classmethod
    @asynccontextmanager
    async def open(
        cls, directory: Path, key: bytes, limits: Limits | None = None
    ) -> AsyncIterator[Journal]:
        """The journal in ``directory``, made (0700) if there is none.

        Args:
            key: 32 bytes that only those know who know the mounted capability.

        Raises:
            JournalBusyError: another process has it open.
            JournalFormatError: it is damaged, of a newer format, or another capability's.
            JournalError: the directory cannot be used.
        """
        place = await trio.to_thread.run_sync(lock_place, directory)
        try:
            journal = await trio.to_thread.run_sync(_opened, cls, place, key, limits or Limits())
            try:
                with plain_errors():
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(journal._keep_synced)
                        yield journal
                        nursery.cancel_scope.cancel()
            finally:
                with trio.CancelScope(shield=True):
                    await journal._close()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(place.close)

    # --- rows -------------------------------------------------------------------------------------

    def take_rows(self) -> Sequence[Row]:
        """The rows that were found, oldest first. They are not kept: ask once."""
        rows, self._rows = self._rows, ()
        return rows

    def new_row(self) -> int:
        """An id that no row has."""
        self._next_row += 1
        return self._next_row - 1

    async def ready(self) -> None:
        """Wait while committing is held up. What is committed is put together after this."""
        while self._log_size > MOST_LOG * self._checkpoint_at:
            await self._checkpoint_now()
        while self._gate is not None:
            await self._gate.wait()

    def commit(
        self,
        puts: Mapping[int, Put],
        deletes: Collection[int] = (),
        blobs: Mapping[int, bytes] | None = None,
    ) -> None:
        """Put rows (by id) and delete others, all or nothing; what they say is *accepted* then.

        Args:
            deletes: ids of rows, which need not be there.
            blobs: by contents id, contents that rows of ``puts`` name for the first time. What a
                row named before and does not name any more is deleted if nobody holds it.

        Raises:
            JournalFullError: the disk is full. Nothing is changed.
            JournalError: it refuses otherwise. Nothing is changed.
        """
        blobs = blobs or {}
        gone, synced, is_ahead = self._changed(puts, deletes)
        epochs = self._armed | {self._epoch} if is_ahead else self._armed
        gone_blobs = [ref.id for ref in gone if not ref.end and ref.id not in self._held]
        dropped = () if epochs else gone_blobs  # going back could need them
        reached("journal.commit.before")
        try:
            self._database.commit(
                self._sequence,
                puts,
                deletes,
                blobs,
                synced=synced,
                dropped=dropped,
                epochs=epochs,
            )
        except sqlite3.Error as error:
            raise _refused(error) from None
        reached("journal.commit.after")
        self._armed = epochs
        self._sequence += len(puts)
        self._note_sizes(puts, deletes, blobs)
        self._note_names(puts, deletes, gone)
        if epochs:
            self._late_blobs.update(gone_blobs)
        self._touch()

    def _changed(
        self, puts: Mapping[int, Put], deletes: Collection[int]
    ) -> tuple[list[ContentsRef], dict[int, int], bool]:
        """Contents that no row will name; how much of logs is synced, and if rows need more."""
        named = self._named
        gone = [named[id] for id in deletes if id in named]
        synced: dict[int, int] = {}
        is_ahead = False
        for id, put in puts.items():
            ref, before = put.contents, named.get(id)
            if before is not None and (ref is None or ref.id != before.id):
                gone.append(before)
            if ref is not None and ref.end:
                end = synced[ref.id] = self._files[ref.id].synced
                is_ahead = is_ahead or end < ref.end
        return gone, synced, is_ahead

    def _note_sizes(
        self, puts: Mapping[int, Put], deletes: Collection[int], blobs: Mapping[int, bytes]
    ) -> None:
        sizes, grown, written = self._row_sizes, 0, 2 * PAGE
        for id, blob in blobs.items():
            self._blob_sizes[id] = size = len(blob)
            grown += size
            written += size + PAGE
        for id, put in puts.items():
            size = len(put.value) + ROW_SIZE
            grown += size - sizes.get(id, 0)
            written += PAGE
            sizes[id] = size
        for id in deletes:
            grown -= sizes.pop(id, 0)
            written += PAGE
        self._log_size += written
        self.room.use(grown)

    def _note_names(
        self, puts: Mapping[int, Put], deletes: Collection[int], gone: Sequence[ContentsRef]
    ) -> None:
        for id in deletes:
            self._named.pop(id, None)
        for ref in gone:
            self._in_rows.discard(ref.id)
        for id, put in puts.items():
            if put.contents is None or not put.contents.id:
                self._named.pop(id, None)
            else:
                self._named[id] = put.contents
                self._in_rows.add(put.contents.id)
        for ref in gone:
            if ref.id not in self._held:
                self._drop(ref.id)

    def _touch(self) -> None:
        self._changes += 1
        if not self._wake.is_set():
            self._wake.set()
        if self._log_size > self._checkpoint_at or (self._late_files and self.room.is_scarce):
            self._hurry.set()

    # --- contents ---------------------------------------------------------------------------------

    def new_contents(self) -> int:
        """An id for contents: of a blob, or of a log."""
        self._next_contents += 1
        return self._next_contents - 1

    def blob(self, id: int) -> bytes:
        """A blob that a row names; takes microseconds.

        Raises:
            StagingCorruptError: it is not what was committed.
        """
        try:
            return self._database.blob(id)
        except (HashMismatchError, sqlite3.Error):
            raise StagingCorruptError(
                "what was written to a file, and kept in the journal, has changed there"
            ) from None

    def hold(self, id: int) -> ContentsFile:
        """The log of that id, new or named by a row; it stays until :meth:`let_go`."""
        self._held.add(id)
        return self._file(id)

    def hold_blob(self, id: int) -> None:
        """Have a blob that a row names stay until :meth:`let_go`."""
        self._held.add(id)

    def let_go(self, id: int) -> None:
        """Nobody writes or reads these contents any more; they go once no row names them."""
        self._held.discard(id)
        if id not in self._in_rows:
            if id in self._blob_sizes:
                self._late_blobs.add(id)
            self._drop(id)

    async def append(
        self,
        file: ContentsFile,
        entries: Sequence[Entry],
        beside: Callable[[], None] | None = None,
    ) -> list[int]:
        """Add records to a log, in a thread; their positions. One task at a time for one log.

        ``beside``: done in the same thread afterwards.

        Raises:
            JournalFullError: the disk is full. The log is as it was.
            JournalError: it refuses otherwise. The log is as it was.
        """
        is_new = file.end == SALT_SIZE
        if is_new:
            self._new_names.add(self._place.contents)
        try:
            positions = await trio.to_thread.run_sync(_append, file, entries, beside)
        except OSError as error:
            raise _refused(error) from None
        grown = sum(entry.size for entry in entries)
        file.end += grown
        self._unsynced.add(file.number)  # not before: a sync that began meanwhile did not see it
        self.room.use(grown + is_new * SALT_SIZE)
        return positions

    def _file(self, id: int) -> ContentsFile:
        file = self._files.get(id)
        if file is None:
            path = self._place.contents / str(id)
            file = self._files[id] = ContentsFile(path, self._contents_key, id)
        return file

    def _drop(self, id: int) -> None:
        """See to contents that are neither held nor named by a row any more."""
        if id in self._files:
            self._late_files.add(id)
        else:
            self.room.use(-self._blob_sizes.pop(id, 0))
        self._touch()

    # --- to the disk ------------------------------------------------------------------------------

    async def sync(self) -> None:
        """Have everything that is committed now survive a power failure.

        Raises:
            JournalFullError, JournalError: the disk refuses; it is tried again.
        """
        wanted = self._changes
        async with self._syncing:
            if self._synced_changes < wanted:
                with trio.CancelScope(shield=True):
                    await self._sync()

    async def _sync(self) -> None:
        """Contents, then the log of the database, then what had to wait for both."""
        changes, epoch = self._changes, self._epoch
        self._epoch += 1
        files = [self._files[id] for id in self._unsynced & self._in_rows]
        ends = {file.number: file.end for file in files}
        names, self._new_names = self._new_names, set()
        blobs, self._late_blobs = self._late_blobs, set()
        logs, self._late_files = self._late_files, set()
        self._unsynced -= self._in_rows
        self._syncs += 1
        try:
            self._database.mark(self._syncs)
            await trio.to_thread.run_sync(self._sync_now, files, names, self._syncs)
        except (OSError, sqlite3.Error) as error:
            self._unsynced |= set(ends)
            self._new_names |= names
            self._late_blobs |= blobs
            self._late_files |= logs
            raise _refused(error) from None
        self._synced_changes = changes
        await self._after_sync(epoch, ends, blobs, logs)

    def _sync_now(
        self, files: Sequence[ContentsFile], names: Collection[Path], number: int
    ) -> None:
        """In a thread."""
        for file in files:
            file.sync()
        for directory in names:
            sync_directory(directory)
        reached("journal.sync.contents")
        self._place.sync_log()
        reached("journal.sync.log")
        self._place.note_synced(number)

    async def _after_sync(
        self, epoch: int, ends: Mapping[int, int], blobs: set[int], logs: Collection[int]
    ) -> None:
        for id, end in ends.items():
            self._files[id].synced = max(self._files[id].synced, end)
        done = {armed for armed in self._armed if armed <= epoch}
        if done or blobs:
            try:
                self._database.synced(epoch, ends, blobs)
            except sqlite3.Error as error:
                self._late_blobs |= blobs
                self._late_files |= set(logs)
                raise _refused(error) from None
        self._armed -= done
        reached("journal.sync.after")
        paths = [self._forget_file(id) for id in logs if not self._is_wanted(id)]
        if paths:
            await trio.to_thread.run_sync(_delete, paths)

    def _is_wanted(self, id: int) -> bool:
        return id in self._held or id in self._in_rows

    def _forget_file(self, id: int) -> Path:
        file = self._files.pop(id)
        if file.end > SALT_SIZE:
            self.room.use(-file.end)
        return file.path

    async def _keep_synced(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            with trio.move_on_after(SYNC_AFTER):
                await self._hurry.wait()
            self._hurry = trio.Event()
            try:
                await self.sync()
                if self._log_size > self._checkpoint_at:
                    await self._checkpoint_now()
            except JournalError as error:
                log.warning("the journal is not on the disk: %s", error)
                self._wake.set()

    async def _checkpoint_now(self) -> None:
        """Empty SQLite's log: first what can be done beside commits, then the rest without them."""
        async with self._syncing:
            await self._checkpoint("PASSIVE")
            gate = self._gate = trio.Event()
            try:
                await self._checkpoint("TRUNCATE")
                self._log_size = 0
            finally:
                self._gate = None
                gate.set()

    async def _checkpoint(self, mode: str) -> None:
        try:
            await trio.to_thread.run_sync(checkpoint, self._place.database, mode)
        except sqlite3.Error as error:
            raise _refused(error) from None
        reached(f"journal.checkpoint.{mode.lower()}")

    async def _close(self) -> None:
        try:
            await self.sync()
        except JournalError as error:
            log.warning("the journal is closed without being on the disk: %s", error)
        await trio.to_thread.run_sync(self._database.close)


# --- in threads -----------------------------------------------------------------------------------


def _opened(kind: type[Journal], place: Place, key: bytes, limits: Limits) -> Journal:
    try:
        return kind(place, place.key(key), limits)
    except (OSError, sqlite3.Error) as error:
        raise _refused(error) from None


def _append(
    file: ContentsFile, entries: Sequence[Entry], beside: Callable[[], None] | None
) -> list[int]:
    positions = file.append(entries)
    if beside is not None:
        beside()
    return positions


def _delete(paths: Sequence[Path]) -> None:
    for path in paths:
        with suppress(FileNotFoundError):
            path.unlink()
        reached("journal.contents.deleted")


def _refused(error: OSError | sqlite3.Error) -> JournalError:
    """Why the disk did not take something, in our words."""
    if isinstance(error, OSError):
        is_full, why = error.errno in _FULL, error.strerror
    else:
        is_full, why = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL, str(error)
    kind = JournalFullError if is_full else JournalError
    return kind(f"the journal cannot be written: {why}")
