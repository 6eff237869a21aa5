"""At what rate bytes get onto servers."""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

WINDOW: Final = 10.0  # seconds over which the rate is taken


class Rate:
    """What was placed in the last ``WINDOW`` seconds."""

    def __init__(self) -> None:
        self._placed: deque[tuple[float, int]] = deque()

    def note(self, size: int) -> None:
        """So many bytes are placed."""
        self._placed.append((trio.current_time(), size))

    @property
    def per_second(self) -> float:
        """Bytes in a second, of late."""
        now = trio.current_time()
        while self._placed and self._placed[0][0] < now - WINDOW:
            self._placed.popleft()
        if not self._placed:
            return 0.0
        seconds = max(1.0, now - self._placed[0][0])
        return sum(size for _, size in self._placed) / seconds
