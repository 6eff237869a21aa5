"""A few connections to one server, kept for the next request.

Rules:

- Never more than the limit: who comes when all are busy waits in line. Waiting is not part of a
  request's deadline.
- The connection used last is used next, so that those that are not needed grow old and are closed.
- A connection that its server has closed, or on which anything arrived unasked, is not used again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from lafsfs.gbs.connection import Connection
    from lafsfs.gbs.dialer import Dialer

MAX_CONNECTIONS = 8  # per server: enough to hide round trips, few enough for a small server
MAX_IDLE = 50.0  # seconds; stock servers close after 60


class Pool:
    """The connections to one server."""

    def __init__(self, dialer: Dialer, *, limit: int = MAX_CONNECTIONS) -> None:
        self._dialer = dialer
        self._turns = trio.Semaphore(limit)
        self._idle: list[Connection] = []

    @property
    def turn(self) -> trio.Semaphore:
        """To be held, with ``async with``, by whoever takes a connection."""
        return self._turns

    async def take(self, *, fresh: bool = False) -> Connection:
        """A connection of one's own, to be given back by :meth:`give`.

        ``fresh``: a new one, because the others are suspect.

        Raises:
            ServerUnavailableError: there is none, and none can be made.
        """
        while self._idle:
            connection = self._idle.pop()
            if not (fresh or self._is_too_old(connection) or connection.is_stale()):
                return connection
            await connection.aclose()
        return await self._dialer.dial()

    async def give(self, connection: Connection) -> None:
        """Take a connection back, and keep it if it is still good. Closes those too old."""
        while self._idle and self._is_too_old(self._idle[0]):
            await self._idle.pop(0).aclose()
        if connection.is_open and self._dialer.knows(connection.nurl):
            self._idle.append(connection)
        else:
            await connection.aclose()

    @staticmethod
    def _is_too_old(connection: Connection) -> bool:
        return trio.current_time() - connection.idle_since > MAX_IDLE

    async def aclose(self) -> None:
        """Close what is idle."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.aclose()
