"""The journal's rows, in SQLite: what survives what, and how a power failure is undone.

Theory. SQLite's write-ahead log is written at each commit and brought to the disk only by a sync.
The death of the process loses nothing. A power failure leaves a *prefix* of the commits, at least
those of the last sync: SQLite's checksums see to that. With contents in files there would be a gap:
the log may reach the disk ahead of a contents file that its rows need. So from the moment a row
needs bytes that were not synced yet, the database is *armed*: before a row is changed for the first
time, what it was is copied to the table ``undo``. Whoever opens the journal verifies the bytes that
were not known to be on the disk; if any are missing, the whole database goes back to the moment
before it was armed, and so shows a state that it once had, not a mixture.

Rules:

- Everything is done in one transaction or not at all.
- A sync takes time, and commits go on meanwhile, so undoing is counted in *epochs*: each sync
  begins one. An epoch's entries lead back to the moment it began, and are deleted when a later
  sync is complete. Going back is newest epoch first.
- Values are opaque, and sealed as this row with this sequence number and these contents.
- A connection is used in one thread at a time.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from lafsfs.errors import HashMismatchError, JournalFormatError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from lafsfs.journal.sealing import ValueSealer

FORMAT: Final = 1
PAGE_SIZE: Final = 4096  # bytes; larger ones cost more than they save (docs/decisions/0005)
MOST_FREE: Final = 16 << 20  # bytes of free pages that are kept for what comes next
_APPLICATION: Final = 0x6C61_6673  # "lafs", in the header of the database
_CHECK: Final = b"lafsfs journal"
_BELONGS: Final = struct.Struct(">cqqqq")

_SCHEMA: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    # contents, needs: the id of the row's contents, and how far into the log they count (0: they
    # are in the table blobs). synced: how much of that was known to survive a power failure.
    "CREATE TABLE rows (id INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, contents INTEGER,"
    " needs INTEGER NOT NULL, synced INTEGER NOT NULL, value BLOB NOT NULL)",
    "CREATE TABLE blobs (id INTEGER PRIMARY KEY, value BLOB NOT NULL)",
    # What a row was before an epoch changed it; value NULL: it was not there.
    "CREATE TABLE undo (epoch INTEGER NOT NULL, id INTEGER NOT NULL, sequence INTEGER,"
    " contents INTEGER, needs INTEGER, synced INTEGER, value BLOB, PRIMARY KEY (epoch, id))"
    " WITHOUT ROWID",
)


@dataclass(frozen=True, slots=True)
class ContentsRef:
    """Which contents a row needs: the first ``end`` bytes of a log, or (0) a blob.

    Id 0 is no contents: a new file, to which nothing was written. It takes no place.
    """

    id: int
    end: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One row. ``sequence`` grows with every row that is put."""

    id: int
    sequence: int
    value: bytes = field(repr=False)
    contents: ContentsRef | None = None
    synced: int = 0  # bytes of the log that were known to survive a power failure


@dataclass(frozen=True, slots=True)
class Put:
    """What a row is to hold."""

    value: bytes = field(repr=False)
    contents: ContentsRef | None = None


class Database:
    """An open journal database."""

    def __init__(self, path: Path, sealer: ValueSealer) -> None:
        """Open or make it; :func:`inspect` has found nothing wrong."""
        os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite would make it 0644
        self._sealer = sealer
        self._connection = connection = _connected(path)
        self._execute = connection.execute
        self._transaction = _Transaction(connection)
        try:
            if not _is_ours(connection):
                self._make()
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Write everything to the main file, and close."""
        self._connection.close()

    def commit(
        self,
        sequence: int,
        puts: Mapping[int, Put],
        deletes: Collection[int],
        blobs: Mapping[int, bytes],
        *,
        synced: Mapping[int, int],
        dropped: Collection[int],
        epochs: Collection[int],
    ) -> None:
        """Put and delete rows and blobs. Raises sqlite3.Error, and has done nothing then.

        Args:
            sequence: of the first row put.
            synced: by id, how much of each log survives a power failure.
            dropped: ids of blobs to be deleted.
            epochs: those that are to be able to undo this.
        """
        execute = self._execute
        with self._transaction:
            for epoch in epochs:
                self._keep(epoch, (*puts, *deletes))
            for id, blob in blobs.items():
                execute("INSERT INTO blobs VALUES (?, ?)", (id, self._sealed_blob(id, blob)))
            for id, put in puts.items():
                row = self._sealed_row(id, sequence, put, synced)
                execute("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?)", row)
                sequence += 1
            for id in deletes:
                execute("DELETE FROM rows WHERE id = ?", (id,))
            for id in dropped:
                execute("DELETE FROM blobs WHERE id = ?", (id,))

    def synced(self, epoch: int, ends: Mapping[int, int], dropped: Collection[int]) -> None:
        """A sync is complete: there is no going back behind the end of ``epoch``.

        Args:
            ends: how much of each log, by id, survives a power failure now.
            dropped: ids of blobs to be deleted.
        """
        with self._transaction:
            self._execute("DELETE FROM undo WHERE epoch <= ?", (epoch,))
            for id, end in ends.items():
                self._execute(
                    "UPDATE rows SET synced = min(needs, ?) WHERE contents = ? AND synced < needs",
                    (end, id),
                )
            for id in dropped:
                self._execute("DELETE FROM blobs WHERE id = ?", (id,))

    def mark(self, number: int) -> None:
        """The sync of that number begins."""
        self._execute("INSERT OR REPLACE INTO meta VALUES ('syncs', ?)", (number,))

    def marked(self) -> int:
        """The number of the last sync that began."""
        return _marked(self._connection)

    def blob(self, id: int) -> bytes:
        """A blob.

        Raises:
            HashMismatchError: it is not what was put, or not there.
        """
        found = self._execute("SELECT value FROM blobs WHERE id = ?", (id,)).fetchone()
        if found is None:
            raise HashMismatchError("contents are missing from the journal")
        return self._sealer.open(found[0], _belongs(b"b", id))

    def rows(self) -> list[Row]:
        """All rows, oldest first.

        Raises:
            HashMismatchError: one is not what was put.
        """
        rows = self._execute(
            "SELECT id, sequence, contents, needs, synced, value FROM rows ORDER BY sequence"
        )
        return [self._opened_row(*row) for row in rows]

    def newest_epoch(self) -> int | None:
        """The newest epoch that could be undone."""
        epoch: int | None = self._execute("SELECT max(epoch) FROM undo").fetchone()[0]
        return epoch

    def undo(self, epoch: int) -> None:
        """Go back to the moment it began."""
        with self._transaction:
            self._execute(
                "DELETE FROM rows WHERE id IN (SELECT id FROM undo WHERE epoch = ?)", (epoch,)
            )
            self._execute(
                "INSERT INTO rows SELECT id, sequence, contents, needs, synced, value FROM undo"
                " WHERE epoch = ? AND value IS NOT NULL",
                (epoch,),
            )
            self._execute("DELETE FROM undo WHERE epoch >= ?", (epoch,))

    def blob_sizes(self) -> dict[int, int]:
        """The bytes that each blob takes."""
        return dict(self._execute("SELECT id, length(value) FROM blobs"))

    def give_back(self) -> None:
        """Make the file smaller if it holds next to nothing but free pages."""
        free = self._execute("PRAGMA freelist_count").fetchone()[0]
        pages = self._execute("PRAGMA page_count").fetchone()[0]
        if free * PAGE_SIZE > MOST_FREE and 2 * free > pages:
            self._execute("VACUUM")

    def drop_blobs(self, ids: Collection[int]) -> None:
        """Delete blobs that no row names."""
        with self._transaction:
            for id in ids:
                self._execute("DELETE FROM blobs WHERE id = ?", (id,))

    # --- inside -----------------------------------------------------------------------------------

    def _make(self) -> None:
        with self._transaction:
            for statement in _SCHEMA:
                self._execute(statement)
            check = self._sealer.seal(_CHECK, _belongs(b"c", FORMAT))
            self._execute("INSERT INTO meta VALUES ('check', ?)", (check,))
            self._execute(f"PRAGMA application_id = {_APPLICATION}")
            self._execute(f"PRAGMA user_version = {FORMAT}")

    def _keep(self, epoch: int, ids: Collection[int]) -> None:
        for id in ids:
            self._execute(
                "INSERT OR IGNORE INTO undo SELECT ?, id, sequence, contents, needs, synced, value"
                " FROM rows WHERE id = ?",
                (epoch, id),
            )
            self._execute("INSERT OR IGNORE INTO undo (epoch, id) VALUES (?, ?)", (epoch, id))

    def _sealed_row(
        self, id: int, sequence: int, put: Put, synced: Mapping[int, int]
    ) -> tuple[int | bytes | None, ...]:
        contents = put.contents
        ref, needs = (None, 0) if contents is None else (contents.id, contents.end)
        known = 0 if ref is None else min(needs, synced.get(ref, 0))
        belongs = _BELONGS.pack(b"r", id, sequence, -1 if ref is None else ref, needs)
        return id, sequence, ref, needs, known, self._sealer.seal(put.value, belongs)

    def _opened_row(
        self, id: int, sequence: int, ref: int | None, needs: int, synced: int, sealed: bytes
    ) -> Row:
        belongs = _BELONGS.pack(b"r", id, sequence, -1 if ref is None else ref, needs)
        contents = None if ref is None else ContentsRef(ref, needs)
        return Row(id, sequence, self._sealer.open(sealed, belongs), contents, synced)

    def _sealed_blob(self, id: int, blob: bytes) -> bytes:
        return self._sealer.seal(blob, _belongs(b"b", id))


class _Transaction:
    """All of what is executed in its ``with`` block, or nothing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def inspect(path: Path, sealer: ValueSealer, synced: int) -> None:
    """See whether the database can be used, without changing it.

    ``synced``: the number of a sync that it must have heard of.

    Raises:
        JournalFormatError: it cannot, and says why.
    """
    if not path.exists() or not path.stat().st_size:
        if synced:
            raise JournalFormatError(
                f"the journal {path} is gone: restore it from a backup, or delete the file 'synced'"
                " beside it to go on without what was in it"
            )
        return
    way_out = f"or move {path.parent} away to go on without what is in it"
    how = "mode=ro" if _has_log(path) else "immutable=1"  # which does not even make a log
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)
        try:
            _inspect(connection, sealer, way_out)
            heard_of = _marked(connection) if _is_ours(connection) else 0
        finally:
            connection.close()
    except (sqlite3.Error, HashMismatchError, struct.error, TypeError, ValueError) as error:
        raise JournalFormatError(
            f"the journal {path} is damaged ({error}): restore it from a backup, {way_out}"
        ) from None
    if heard_of < synced:
        raise JournalFormatError(
            f"the journal {path} has lost changes that were on the disk already; most likely"
            f" {path.name}-wal is damaged: restore it from a backup, or delete the file 'synced'"
            " beside it to go on with what is left"
        )


def _inspect(connection: sqlite3.Connection, sealer: ValueSealer, way_out: str) -> None:
    execute = connection.execute
    version = execute("PRAGMA user_version").fetchone()[0]
    if not _is_ours(connection):
        if version or execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise sqlite3.DatabaseError("it is another program's")
        return  # the process that made it did not get any further
    if version > FORMAT:
        raise JournalFormatError(
            f"the journal is of format {version}, written by a newer lafsfs, and this one knows"
            f" {FORMAT}: use the newer one, {way_out}"
        )
    found = execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(found)
    found = {sql for (sql,) in execute("SELECT sql FROM sqlite_master WHERE type = 'table'")}
    if found != set(_SCHEMA):
        raise sqlite3.DatabaseError("its tables are not those of a journal")
    check = execute("SELECT value FROM meta WHERE name = 'check'").fetchone()
    try:
        sealer.open(check[0], _belongs(b"c", version))
    except HashMismatchError:
        raise JournalFormatError(
            "the journal belongs to another capability, or its secret was exchanged: mount that"
            f" capability, bring back the secret, {way_out}"
        ) from None


def checkpoint(path: Path, mode: str) -> None:
    """Bring the write-ahead log to the disk and into the main file, by a connection of its own.

    ``mode``: PASSIVE, while commits go on, or TRUNCATE, while there are none.
    """
    connection = _connected(path)
    try:
        connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        if mode == "TRUNCATE":  # the first write behind it syncs the log's new header: here
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('restarted', x'')")
    finally:
        connection.close()


def _marked(connection: sqlite3.Connection) -> int:
    found = connection.execute("SELECT value FROM meta WHERE name = 'syncs'").fetchone()
    return 0 if found is None else int(found[0])


def _has_log(path: Path) -> bool:
    log = path.with_name(path.name + "-wal")
    return log.exists() and log.stat().st_size > 0


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for pragma in (
            f"page_size = {PAGE_SIZE}",
            "journal_mode = WAL",
            "synchronous = NORMAL",  # a commit is written, a checkpoint syncs
            "wal_autocheckpoint = 0",
            "secure_delete = OFF",  # values are sealed; some builds overwrite what is deleted
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _is_ours(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION)


def _belongs(kind: bytes, id: int) -> bytes:
    return _BELONGS.pack(kind, id, 0, 0, 0)
