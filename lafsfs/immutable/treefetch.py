"""Fetching rows of the ciphertext hash tree that did not come with the blocks.

Every share has a copy of that tree. Those that gave good blocks are asked before all others, one
after the other: one copy is enough, and :mod:`~lafsfs.immutable.claims` sees to it that it is
fetched once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lafsfs.errors import CorruptShareError, ServerError
from lafsfs.formats.geometry import HASH_SIZE
from lafsfs.immutable.treerows import ROW_LEAVES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from lafsfs.errors import LafsError
    from lafsfs.immutable.download import Download
    from lafsfs.immutable.share import Run, ShareReader


class TreeFetch:
    """What one fetch does about the tree.

    ``note``: is told what was wrong with a share. ``news``: waits until the finder may know more.
    """

    def __init__(
        self,
        download: Download,
        note: Callable[[ShareReader, LafsError], None],
        news: Callable[[], Awaitable[None]],
    ) -> None:
        self._verified = download.verified
        self._finder = download.finder
        self._broker = download.broker
        self._trees = download.trees
        self._note = note
        self._news = news

    async def complete(self, run: Run, preferred: Collection[ShareReader]) -> bool:
        """Have the rows over one segment; whether anybody had them."""
        geometry = self._verified.geometry
        assert geometry is not None
        tried: set[ShareReader] = set()
        while rows := self._verified.ciphertext_rows(run.segments(geometry), geometry.num_segments):
            reader = self._candidate(preferred, tried)
            if self._trees.is_claimed(rows):
                await self._trees.released()
            elif reader is not None:
                tried.add(reader)
                await self._load(reader, run, rows)
            elif not self._finder.is_exhausted:
                self._finder.ask_more()
                await self._news()
            else:
                return False
        return True

    def _candidate(
        self, preferred: Collection[ShareReader], tried: set[ShareReader]
    ) -> ShareReader | None:
        for reader in (*preferred, *self._finder.readers):
            if reader not in tried and not reader.has_bad_tree and not reader.is_corrupt:
                return reader
        return None

    async def _load(self, reader: ShareReader, run: Run, rows: list[range]) -> None:
        size = HASH_SIZE * ROW_LEAVES * len(rows)
        owner = object()
        self._trees.claim(rows, owner)
        try:
            with trio.move_on_after(self._broker.overdue_after(reader.server, size)) as scope:
                await reader.load_tree(run)
            if scope.cancelled_caught:
                self._broker.note_late(reader.server)
        except (CorruptShareError, ServerError) as error:
            self._note(reader, error)
        finally:
            self._trees.release(owner)
