"""Bytes on their way between a slow client and a slot: in memory while few, else on disk.

A large request costs memory only while it is carried out, not while it arrives; and a large answer
not while it is taken. The file has no name and is gone with the object.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from functools import partial
from typing import TYPE_CHECKING

import trio

from lafsfs.gbs.service.limits import PIECE
from lafsfs.grid import disk

if TYPE_CHECKING:
    from pathlib import Path


class Spool:
    """A buffer that is written, then read."""

    def __init__(self, directory: Path) -> None:
        """``directory``: where the file is made, if one is needed."""
        self.size = 0
        self._directory = directory
        self._parts: list[bytes] = []
        self._waiting = 0  # bytes in the parts
        self._fd: int | None = None

    async def write(self, data: bytes) -> None:
        """Append. Raises ServerFullError if the disk has no room."""
        self._parts.append(data)
        self._waiting += len(data)
        self.size += len(data)
        if self._waiting > PIECE:
            await trio.to_thread.run_sync(self._put_away)

    def _put_away(self) -> None:
        with disk.translated(str(self._directory), writing=True):
            if self._fd is None:
                with tempfile.TemporaryFile(dir=self._directory, buffering=0) as file:
                    self._fd = os.dup(file.fileno())
                weakref.finalize(self, os.close, self._fd)
            data = b"".join(self._parts)
            disk.write_at(self._fd, self.size - len(data), data)
        self._parts, self._waiting = [], 0

    async def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` of the bytes written, from ``offset``."""
        if self._fd is None:
            return b"".join(self._parts)[offset : offset + size]
        return await trio.to_thread.run_sync(partial(self._read, offset, size))

    def _read(self, offset: int, size: int) -> bytes:
        if self._parts:
            self._put_away()
        assert self._fd is not None
        with disk.translated(str(self._directory), writing=False):
            return disk.read_at(self._fd, offset, size)

    async def contents(self) -> bytes:
        """Everything."""
        return await self.read(0, self.size)
