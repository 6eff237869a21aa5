"""Which contents the rows of a journal name, who holds them, and how much there is of it all.

Contents are *wanted* as long as a row names them or somebody holds them: reads or writes them. This
only keeps count, from what the journal says was committed; it deletes nothing and asks no disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from lafsfs.journal.database import ContentsRef, Put, Row

ROW_SIZE: Final = 100  # bytes that a row takes beside its value


class Register:
    """What is in a journal. Sizes are in bytes.

    Attributes:
        named: ids of the contents that rows name, other than none at all.
        held: ids of the contents that somebody reads or writes.
    """

    def __init__(self, rows: Sequence[Row], blob_sizes: Mapping[int, int]) -> None:
        """``blob_sizes``: by contents id, of the blobs that ``rows`` name."""
        self._row_sizes = {row.id: len(row.value) + ROW_SIZE for row in rows}
        self._blob_sizes = dict(blob_sizes)
        self._refs = {
            row.id: row.contents for row in rows if row.contents is not None and row.contents.id
        }
        self.named = {ref.id for ref in self._refs.values()}
        self.held: set[int] = set()

    @property
    def size(self) -> int:
        """What rows and blobs take, all together."""
        return sum(self._row_sizes.values()) + sum(self._blob_sizes.values())

    def refs(self) -> Iterable[ContentsRef]:
        """What rows say of contents."""
        return self._refs.values()

    def is_wanted(self, id: int) -> bool:
        """Whether contents are to stay."""
        return id in self.held or id in self.named

    def is_blob(self, id: int) -> bool:
        """Whether these contents are a blob that has been committed."""
        return id in self._blob_sizes

    def let_go_by(self, puts: Mapping[int, Put], deletes: Collection[int]) -> list[ContentsRef]:
        """What rows name now and will not name when these are put and those deleted."""
        refs = self._refs
        gone = [refs[id] for id in deletes if id in refs]
        for id, put in puts.items():
            before = refs.get(id)
            if before is not None and (put.contents is None or put.contents.id != before.id):
                gone.append(before)
        return gone

    def committed(
        self,
        puts: Mapping[int, Put],
        deletes: Collection[int],
        blobs: Mapping[int, bytes],
        gone: Sequence[ContentsRef],
    ) -> int:
        """Take note of a commit, by which ``gone`` were let go; by how much there is more now."""
        self._note_names(puts, deletes, gone)
        return self._note_sizes(puts, deletes, blobs)

    def forget_blob(self, id: int) -> int:
        """A blob has been deleted, or soon is; what it took."""
        return self._blob_sizes.pop(id, 0)

    def _note_sizes(
        self, puts: Mapping[int, Put], deletes: Collection[int], blobs: Mapping[int, bytes]
    ) -> int:
        sizes, grown = self._row_sizes, 0
        for id, blob in blobs.items():
            self._blob_sizes[id] = size = len(blob)
            grown += size
        for id, put in puts.items():
            size = len(put.value) + ROW_SIZE
            grown += size - sizes.get(id, 0)
            sizes[id] = size
        for id in deletes:
            grown -= sizes.pop(id, 0)
        return grown

    def _note_names(
        self, puts: Mapping[int, Put], deletes: Collection[int], gone: Sequence[ContentsRef]
    ) -> None:
        for id in deletes:
            self._refs.pop(id, None)
        for ref in gone:
            self.named.discard(ref.id)
        for id, put in puts.items():
            if put.contents is None or not put.contents.id:
                self._refs.pop(id, None)
            else:
                self._refs[id] = put.contents
                self.named.add(put.contents.id)
