"""Who is fetching which rows of a file's ciphertext hash tree, so that no two do.

Every share has a copy of that tree, and one copy is enough. Who starts a reader claims the rows
that are missing on its behalf; everybody else fetches blocks alone and waits for the rows when it
comes to decoding. A claim ends with the attempt it was made for, or when that is overdue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable


class TreeClaims:
    """The claims on one file's rows. Owners are compared by identity."""

    def __init__(self) -> None:
        self._owners: dict[range, object] = {}
        self._released = trio.Event()

    def claim(self, rows: Iterable[range], owner: object) -> bool:
        """Claim those that nobody has; whether there were any."""
        free = [row for row in rows if row not in self._owners]
        self._owners.update((row, owner) for row in free)
        return bool(free)

    def is_claimed(self, rows: Iterable[range]) -> bool:
        """Whether somebody is at each of them."""
        return all(row in self._owners for row in rows)

    def release(self, owner: object) -> None:
        """What ``owner`` claimed has come, or it is to be left to others."""
        held = [row for row, holder in self._owners.items() if holder is owner]
        for row in held:
            del self._owners[row]
        if held:
            self._released.set()

    async def released(self) -> None:
        """Wait until any claim is released."""
        if self._released.is_set():
            self._released = trio.Event()
        await self._released.wait()
