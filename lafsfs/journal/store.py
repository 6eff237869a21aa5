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

import logging
import sqlite3
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.crypto.hashes import derive_key
from lafsfs.errors import HashMismatchError, JournalError, StagingCorruptError
from lafsfs.grid.asking import plain_errors
from lafsfs.journal.checkpoints import CommitLog
from lafsfs.journal.contents import SALT_SIZE
from lafsfs.journal.database import Database, inspect
from lafsfs.journal.faultpoints import reached
from lafsfs.journal.files import ContentsFiles
from lafsfs.journal.limits import Limits, Room
from lafsfs.journal.place import lock_place, sync_directory
from lafsfs.journal.recovery import recover
from lafsfs.journal.refusal import refused
from lafsfs.journal.register import Register
from lafsfs.journal.sealing import ValueSealer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from lafsfs.journal.contents import ContentsFile, Entry
    from lafsfs.journal.database import ContentsRef, Put, Row
    from lafsfs.journal.place import Place

log = logging.getLogger(__name__)

SYNC_AFTER: Final = 5.0  # seconds: what a power failure may cost


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
        self.went_back = found.went_back  # a power failure took some of the last commits
        self._sequence = 1 + max((row.sequence for row in found.rows), default=0)
        self._next_row = 1 + max((row.id for row in found.rows), default=0)
        self._next_contents = 1 + max(found.contents_ids, default=0)
        self._register = Register(found.rows, found.blob_sizes)
        self._files = ContentsFiles(place.contents, self._contents_key)
        self._epoch = 0
        self._armed: frozenset[int] = frozenset()  # epochs whose undoing is being recorded
        self._changes = 0  # counts what a sync is to bring to the disk
        self._synced_changes = 0
        self._syncs = self._database.marked()  # begun, ever
        self._late_blobs: set[int] = set()  # dropped since the last sync began
        self._late_files: set[int] = set()
        self._new_names = {place.directory, place.contents}  # directories to be synced
        self._syncing = trio.Lock()
        self._commit_log = CommitLog(place, limits.margin, self._syncing)
        self._wake = trio.Event()
        self._hurry = trio.Event()
        self.room = Room(place.directory, limits)
        self._count_room(limits)

    def _count_room(self, limits: Limits) -> None:
        """Of what was found."""
        self.room.use(self._register.size)
        for ref in self._register.refs():
            if ref.end:
                self._files.restore(ref)
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
        """Wait while committing is held up. What is committed is put together after this.

        Raises:
            JournalFullError, JournalError: the disk has refused too much, and still does.
        """
        await self._commit_log.ready()

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
        gone = self._register.let_go_by(puts, deletes)
        synced, is_ahead = self._files.synced_of(puts)
        epochs = self._armed | {self._epoch} if is_ahead else self._armed
        gone_blobs = [ref.id for ref in gone if not ref.end and ref.id not in self._register.held]
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
            raise refused(error) from None
        reached("journal.commit.after")
        self._armed = epochs
        self._sequence += len(puts)
        if epochs:
            self._late_blobs.update(gone_blobs)
        self._committed(puts, deletes, blobs, gone)

    def _committed(
        self,
        puts: Mapping[int, Put],
        deletes: Collection[int],
        blobs: Mapping[int, bytes],
        gone: Sequence[ContentsRef],
    ) -> None:
        self.room.use(self._register.committed(puts, deletes, blobs, gone))
        for ref in gone:
            if ref.id not in self._register.held:
                self._drop(ref.id)
        written = sum(len(blob) for blob in blobs.values())
        self._commit_log.grow(len(puts) + len(deletes) + len(blobs), written)
        self._touch()

    def _touch(self) -> None:
        self._changes += 1
        if not self._wake.is_set():
            self._wake.set()
        if self._commit_log.is_long or (self._late_files and self.room.is_scarce):
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
        self._register.held.add(id)
        return self._files.file(id)

    def hold_blob(self, id: int) -> None:
        """Have a blob that a row names stay until :meth:`let_go`."""
        self._register.held.add(id)

    def let_go(self, id: int) -> None:
        """Nobody writes or reads these contents any more; they go once no row names them."""
        self._register.held.discard(id)
        if not self._register.is_wanted(id):
            if self._register.is_blob(id):
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
        if file.end == SALT_SIZE:
            self._new_names.add(self._place.contents)
        positions, grown = await self._files.append(file, entries, beside)
        self.room.use(grown)
        return positions

    def _drop(self, id: int) -> None:
        """See to contents that are neither held nor named by a row any more."""
        if id in self._files:
            self._late_files.add(id)
        else:
            self.room.use(-self._register.forget_blob(id))
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
        files = self._files.take_unsynced(self._register.named)
        ends = {file.number: file.end for file in files}
        names, self._new_names = self._new_names, set()
        blobs, self._late_blobs = self._late_blobs, set()
        logs, self._late_files = self._late_files, set()
        self._syncs += 1
        try:
            self._database.mark(self._syncs)
            await trio.to_thread.run_sync(self._sync_now, files, names, self._syncs)
        except (OSError, sqlite3.Error) as error:
            self._files.unsynced.update(ends)
            self._new_names |= names
            self._late_blobs |= blobs
            self._late_files |= logs
            raise refused(error) from None
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
        self._files.note_synced(ends)
        done = {armed for armed in self._armed if armed <= epoch}
        if done or blobs:
            try:
                self._database.synced(epoch, ends, blobs)
            except sqlite3.Error as error:
                self._late_blobs |= blobs
                self._late_files |= set(logs)
                raise refused(error) from None
        self._armed -= done
        reached("journal.sync.after")
        paths, size = self._files.forget([id for id in logs if not self._register.is_wanted(id)])
        self.room.use(-size)
        if paths:
            await trio.to_thread.run_sync(_delete, paths)

    async def _keep_synced(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            with trio.move_on_after(SYNC_AFTER):
                await self._hurry.wait()
            self._hurry = trio.Event()
            try:
                await self.sync()
                if self._commit_log.is_long:
                    await self._commit_log.empty()
            except JournalError as error:
                log.warning("the journal is not on the disk: %s", error)
                self._wake.set()

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
        raise refused(error) from None


def _delete(paths: Sequence[Path]) -> None:
    for path in paths:
        with suppress(FileNotFoundError):
            path.unlink()
        reached("journal.contents.deleted")
