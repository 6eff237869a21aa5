"""What has been written to files and is not on the grid yet: what all staged files share.

A staged file itself is :class:`~lafsfs.vfs.staging.staged.StagedContents`. This is where it comes
from: new, over what the grid has, or restored from the row of a journal.
"""

from __future__ import annotations

import secrets
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio
from cachetools import LRUCache

from lafsfs.errors import LocalError
from lafsfs.grid.asking import plain_errors
from lafsfs.journal import Journal
from lafsfs.vfs.staging.extents import ExtentMap
from lafsfs.vfs.staging.log import StagedLog, read_records
from lafsfs.vfs.staging.staged import StagedContents

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from lafsfs.immutable.source import Hashed
    from lafsfs.vfs.staging.kept import Kept
    from lafsfs.vfs.staging.reading import Base, Readable

BUDGET: Final = 64 << 20  # bytes of all files waiting in memory to be sealed or accepted
CACHE_SIZE: Final = 16 << 20  # bytes read back, for reading in order and for small files' uploads


class StagingArea:
    """The journal, and the memory that staged files may take."""

    def __init__(
        self,
        journal: Journal,
        nursery: trio.Nursery,
        budget: int = BUDGET,
        hashed: Callable[[], Hashed | None] | None = None,
        draws_keys: bool = False,
    ) -> None:
        self.journal = journal
        self.draws_keys = draws_keys
        self.nursery = nursery
        self.budget = budget
        self._hashed = hashed
        self.buffered = 0  # bytes in memory alone, of all files
        self.cache: LRUCache[tuple[Readable, int], bytes] = LRUCache(CACHE_SIZE, getsizeof=len)

    @classmethod
    @asynccontextmanager
    async def over(
        cls,
        journal: Journal,
        budget: int = BUDGET,
        hashed: Callable[[], Hashed | None] | None = None,
        draws_keys: bool = False,
    ) -> AsyncIterator[StagingArea]:
        """Stage into ``journal``.

        ``hashed`` begins a hash for the convergent key of a file. ``draws_keys``: nothing
        converges, so keys for uploads are drawn, and accepted with what they are for.
        """
        with plain_errors():
            async with trio.open_nursery() as nursery:
                yield cls(journal, nursery, budget, hashed, draws_keys)
                nursery.cancel_scope.cancel()

    @classmethod
    @asynccontextmanager
    async def open(cls, directory: Path, budget: int = BUDGET) -> AsyncIterator[StagingArea]:
        """Stage into a journal in ``directory`` that ends with this block.

        Raises:
            LocalError: the directory cannot be made or is something else.
        """
        path = directory / f"staging-{secrets.token_hex(8)}"
        try:
            await trio.to_thread.run_sync(_make_directory, directory)
        except OSError as error:
            raise LocalError(f"cannot stage files in {directory}: {error.strerror}") from None
        try:
            key = secrets.token_bytes(32)
            async with Journal.open(path, key) as journal, cls.over(journal, budget) as area:
                yield area
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(shutil.rmtree, path, True)

    def begin_hash(self, size: int) -> Hashed | None:
        """For a file of that size so far, if its segments will have the size that is assumed."""
        hashed = None if self._hashed is None else self._hashed()
        return hashed if hashed is not None and size >= hashed.parameters[2] else None

    def stage(self, base: Base | None, base_size: int) -> StagedContents:
        """Begin to write over ``base``; nothing touches the disk yet."""
        return StagedContents(self, base, ExtentMap(base_size))

    async def restore(self, kept: Kept) -> StagedContents:
        """What was accepted earlier, from what its row says.

        Raises:
            StagingCorruptError: the local disk lost or changed it.
        """
        ref = kept.ref
        assert ref is not None
        staged = self.stage(kept.base, 0)
        if not ref.end:
            await trio.lowlevel.checkpoint()
            staged.restore_small(kept)
            return staged
        file = self.journal.hold(ref.id)
        try:
            records = await trio.to_thread.run_sync(read_records, file, ref.end)
        except BaseException:
            self.journal.let_go(ref.id)
            raise
        staged.restore_large(kept, StagedLog(self.journal, file, None), records)
        return staged


def _make_directory(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
