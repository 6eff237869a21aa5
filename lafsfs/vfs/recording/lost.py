"""What was accepted of a file and cannot be read back from the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lafsfs.errors import StagingCorruptError
from lafsfs.vfs.staging.extents import ExtentMap
from lafsfs.vfs.staging.staged import StagedContents

if TYPE_CHECKING:
    from lafsfs.vfs.staging.area import StagingArea
    from lafsfs.vfs.staging.kept import Kept
    from lafsfs.vfs.staging.reading import Snapshot


class LostContents(StagedContents):
    """Contents that the local disk has lost: reading, writing and uploading say so.

    Their row stays in the journal, until the file is removed or replaced.
    """

    def __init__(self, area: StagingArea, kept: Kept, why: str) -> None:
        super().__init__(area, kept.base, ExtentMap(0))
        self.kept = kept
        self._why = why

    async def write(self, offset: int | None, data: bytes) -> None:
        """Raises StagingCorruptError."""
        await trio.lowlevel.checkpoint()
        raise self._error()

    def truncate(self, size: int) -> None:
        """Raises StagingCorruptError."""
        raise self._error()

    async def read(self, offset: int, size: int) -> bytes:
        """Raises StagingCorruptError."""
        await trio.lowlevel.checkpoint()
        raise self._error()

    def snapshot(self) -> Snapshot:
        """Raises StagingCorruptError."""
        raise self._error()

    async def seal(self) -> None:
        """There is nothing to seal."""
        await trio.lowlevel.checkpoint()

    def describe(self) -> Kept:
        """What the journal has already."""
        assert self.kept is not None
        return self.kept

    def _error(self) -> StagingCorruptError:
        return StagingCorruptError(self._why)
