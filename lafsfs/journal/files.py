"""The logs of contents in use: how far they go, and how much of them was synced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lafsfs.journal.contents import SALT_SIZE, ContentsFile
from lafsfs.journal.refusal import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from lafsfs.journal.contents import Entry
    from lafsfs.journal.database import ContentsRef, Put


class ContentsFiles:
    """The logs in one directory, by contents id. Each is written by one task at a time.

    Attributes:
        unsynced: ids of those with bytes that were not synced.
    """

    def __init__(self, directory: Path, key: bytes) -> None:
        self._directory = directory
        self._key = key
        self._files: dict[int, ContentsFile] = {}
        self.unsynced: set[int] = set()

    def __contains__(self, id: int) -> bool:
        return id in self._files

    def file(self, id: int) -> ContentsFile:
        """The log of that id; one that was not in use is taken for new."""
        file = self._files.get(id)
        if file is None:
            file = self._files[id] = ContentsFile(self._directory / str(id), self._key, id)
        return file

    def restore(self, ref: ContentsRef) -> None:
        """A row that was found names so much of a log, all of which is on the disk."""
        file = self.file(ref.id)
        file.end = file.synced = ref.end

    def synced_of(self, puts: Mapping[int, Put]) -> tuple[dict[int, int], bool]:
        """How much is synced of the logs that rows name, and whether they name more than that."""
        synced: dict[int, int] = {}
        is_ahead = False
        for put in puts.values():
            ref = put.contents
            if ref is not None and ref.end:
                end = synced[ref.id] = self._files[ref.id].synced
                is_ahead = is_ahead or end < ref.end
        return synced, is_ahead

    async def append(
        self, file: ContentsFile, entries: Sequence[Entry], beside: Callable[[], None] | None
    ) -> tuple[list[int], int]:
        """Add records to a log, in a thread; their positions, and by how much it has grown.

        ``beside``: done in the same thread afterwards.

        Raises:
            JournalFullError, JournalError: the disk refuses. The log is as it was.
        """
        is_new = file.end == SALT_SIZE
        try:
            positions = await trio.to_thread.run_sync(_append, file, entries, beside)
        except OSError as error:
            raise refused(error) from None
        grown = sum(entry.size for entry in entries)
        file.end += grown
        self.unsynced.add(file.number)  # not before: a sync that began meanwhile did not see it
        return positions, grown + is_new * SALT_SIZE

    def take_unsynced(self, named: Collection[int]) -> list[ContentsFile]:
        """Those to be synced now: of what was not synced, what rows name."""
        taken = self.unsynced.intersection(named)
        self.unsynced -= taken
        return [self._files[id] for id in taken]

    def note_synced(self, ends: Mapping[int, int]) -> None:
        """So much of these is on the disk now."""
        for id, end in ends.items():
            file = self._files[id]
            file.synced = max(file.synced, end)

    def forget(self, ids: Iterable[int]) -> tuple[list[Path], int]:
        """Nobody needs these any more; where they are, and how many bytes they take."""
        files = [self._files.pop(id) for id in ids]
        return [file.path for file in files], sum(f.end for f in files if f.end > SALT_SIZE)


def _append(
    file: ContentsFile, entries: Sequence[Entry], beside: Callable[[], None] | None
) -> list[int]:
    positions = file.append(entries)
    if beside is not None:
        beside()
    return positions
