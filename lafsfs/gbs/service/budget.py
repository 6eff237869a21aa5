"""Memory as something to wait for."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Budget:
    """So many bytes for everybody. Who comes first is served first, however much it wants."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._turn = trio.Lock()
        self._freed = trio.Event()

    @asynccontextmanager
    async def reserved(self, size: int) -> AsyncIterator[None]:
        """Wait for ``size`` bytes, or all there are if it wants more, and keep them for a block."""
        size = min(size, self._size)
        async with self._turn:
            while self._free < size:
                self._freed = trio.Event()
                await self._freed.wait()
            self._free -= size
        try:
            yield
        finally:
            self._free += size
            self._freed.set()
