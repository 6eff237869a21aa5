"""What is done with a journal that was left behind, before anybody reads it. Blocks.

After a killed process everything is there. After a power failure the database may know of contents
that never reached the disk (:mod:`lafsfs.journal.database` has the theory), so what is not known to
have been synced is read and verified, and the rows go back as far as they must. Then what remains
is synced: from then on it is the past that counts.

Contents whose loss going back does not mend (a disk that forgot what was synced) are left alone:
who asks for them is told.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lafsfs.errors import HashMismatchError, JournalFormatError, StagingCorruptError
from lafsfs.journal.contents import ContentsFile
from lafsfs.journal.faultpoints import reached
from lafsfs.journal.place import sync_directory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lafsfs.journal.database import Database, Row
    from lafsfs.journal.place import Place

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was found. ``contents_ids``: all that were ever heard of, as far as is known."""

    rows: Sequence[Row]
    blob_sizes: dict[int, int]
    contents_ids: frozenset[int]
    went_back: bool


def recover(database: Database, place: Place, contents_key: bytes) -> Recovered:
    """Bring the journal to a state that it once had, with all its contents on the disk.

    Raises:
        JournalFormatError: a row is not what was put.
        OSError, sqlite3.Error: as the system says.
    """
    rows = _rows(database, place)
    heard_of = {row.contents.id for row in rows if row.contents is not None}
    went_back = False
    while not _is_whole(rows, place, contents_key):
        epoch = database.newest_epoch()
        if epoch is None:
            break
        went_back = True
        database.undo(epoch)
        reached("journal.recovery.undone")
        rows = _rows(database, place)
    if went_back:
        log.warning("the last seconds before a power failure are not in the journal")
    _settle(database, place, rows)
    sizes = database.blob_sizes()
    files = {int(name) for name in os.listdir(place.contents) if name.isascii() and name.isdigit()}
    _remove_orphans(database, place, rows, set(sizes), files)
    with suppress(sqlite3.Error):  # for want of room
        database.give_back()
    named = {row.contents.id for row in rows if row.contents is not None}
    kept = {id: size for id, size in sizes.items() if id in named}
    return Recovered(rows, kept, frozenset(heard_of | files | set(sizes)), went_back)


def _rows(database: Database, place: Place) -> list[Row]:
    try:
        return database.rows()
    except (HashMismatchError, sqlite3.IntegrityError, sqlite3.DataError, TypeError, struct.error):
        raise JournalFormatError(
            f"the journal in {place.directory} is damaged: restore it from a backup, or move the"
            " directory away to go on without what is in it"
        ) from None


def _unsynced(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.contents is not None and row.synced < row.contents.end]


def _is_whole(rows: Sequence[Row], place: Place, key: bytes) -> bool:
    for row in _unsynced(rows):
        assert row.contents is not None
        file = ContentsFile(place.contents / str(row.contents.id), key, row.contents.id)
        try:
            file.verify(row.synced, row.contents.end)
        except (StagingCorruptError, FileNotFoundError):
            return False
    return True


def _settle(database: Database, place: Place, rows: Sequence[Row]) -> None:
    """Have what is here now survive a power failure, and forget what was before."""
    ends: dict[int, int] = {}
    for row in _unsynced(rows):
        assert row.contents is not None
        file = ContentsFile(place.contents / str(row.contents.id), b"", row.contents.id)
        with suppress(FileNotFoundError):
            file.sync()
            ends[file.number] = row.contents.end
    epoch = database.newest_epoch()
    if ends or epoch is not None:
        sync_directory(place.contents)
        reached("journal.recovery.synced")
        database.synced(epoch or 0, ends, ())


def _remove_orphans(
    database: Database, place: Place, rows: Sequence[Row], blobs: set[int], files: set[int]
) -> None:
    """Contents that no row names: they were never accepted, or are not needed any more."""
    named = {row.contents.id for row in rows if row.contents is not None}
    if blobs - named:
        database.drop_blobs(blobs - named)
    if files - named:
        place.sync_log()  # or a power failure brings back a row whose contents are deleted
        for id in files - named:
            (place.contents / str(id)).unlink(missing_ok=True)
