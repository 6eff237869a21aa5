"""Reaching one server: its addresses raced against each other, its failures remembered.

Theory. All NURLs of a server lead to the same server. The one that worked last is tried first; the
others follow a quarter of a second later each, or at once when the one before has failed, and the
first to show its key wins. (The addresses of one name are raced by Trio in the same way.)

Rules:

- After a failure nobody waits: until the back-off is over, whoever asks is told at once what the
  failure was. Then one caller tries, and the others are still told at once.
- A back-off ends at the latest after :data:`MAX_BACK_OFF`, so that a server that is back is used
  again soon, and at any answer from the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lafsfs.errors import ServerError, ServerUnavailableError
from lafsfs.gbs import tls
from lafsfs.gbs.connection import Connection

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from lafsfs.gbs.nurl import Nurl

STAGGER = 0.25  # seconds before the next address is tried as well (RFC 8305)
CONNECT_TIMEOUT = 10.0  # seconds for TCP and TLS; a server half a world away needs one
FIRST_BACK_OFF = 0.25  # seconds; doubles with every failure, up to
MAX_BACK_OFF = 8.0  # seconds


class Dialer:
    """Makes connections to one server."""

    def __init__(self, name: str, nurls: Sequence[Nurl], server_id: bytes | None = None) -> None:
        """``name`` is for messages. At least one NURL. ``server_id`` as in ``tls.open_pinned``."""
        if not nurls:
            raise ValueError("a server needs an address")
        self._name = name
        self._nurls = tuple(nurls)
        self._server_id = server_id
        self._context = tls.client_context()
        self._failures = 0
        self._retry_at = float("-inf")
        self._probing = False
        self.last_failure: str | None = None  # None while all is well

    def knows(self, nurl: Nurl) -> bool:
        """Whether that is an address of the server, as far as is known now."""
        return nurl in self._nurls

    def move(self, nurls: Sequence[Nurl]) -> None:
        """The server has new addresses; what failed at the old ones is forgotten."""
        if set(nurls) != set(self._nurls):
            self._nurls = tuple(nurls)
            self.succeeded()

    def check(self) -> None:
        """Raise ServerUnavailableError if the server is being left alone for now."""
        if self.last_failure is None:
            return
        wait = self._retry_at - trio.current_time()
        if wait > 0 or self._probing:
            raise ServerUnavailableError(f"{self._name} is left alone for now: {self.last_failure}")

    def succeeded(self) -> None:
        """The server has answered."""
        self._failures = 0
        self._retry_at = float("-inf")
        self.last_failure = None

    def failed(self, error: ServerError) -> None:
        """The server could not be reached, or did not answer in time."""
        self.last_failure = str(error)
        if trio.current_time() < self._retry_at:
            return  # one of several that failed together
        wait = min(MAX_BACK_OFF, FIRST_BACK_OFF * 2.0 ** min(self._failures, 30))
        self._failures += 1
        self._retry_at = trio.current_time() + wait

    async def dial(self) -> Connection:
        """Connect, within CONNECT_TIMEOUT.

        Raises:
            ServerUnavailableError: no address led to the server, or a back-off is not over.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self.check()
        self._probing = True
        try:
            return await self._race()
        except ServerUnavailableError as error:
            self.failed(error)
            raise ServerUnavailableError(f"{self._name} cannot be reached: {error}") from None
        finally:
            self._probing = False

    async def _race(self) -> Connection:
        race = _Race(self._nurls, self._context, self._server_id)
        try:
            with trio.move_on_after(CONNECT_TIMEOUT):
                await race.run()
        except BaseException:  # cancelled when the race was won, and before this could be told
            if race.winner is not None:
                await race.winner.aclose()
            raise
        if race.winner is None:
            late = [f"no connection within {CONNECT_TIMEOUT:.0f} s"] if race.is_open else []
            raise ServerUnavailableError("; ".join([*race.failures, *late]))
        nurl = race.winner.nurl
        self._nurls = (nurl, *(other for other in self._nurls if other != nurl))
        return race.winner


class _Race:
    """One race of all addresses; ``winner`` is there after it, or all ``failures``."""

    def __init__(
        self, nurls: Sequence[Nurl], context: ssl.SSLContext, server_id: bytes | None
    ) -> None:
        self._nurls = nurls
        self._context = context
        self._server_id = server_id
        self.failures: list[str] = []
        self.winner: Connection | None = None

    @property
    def is_open(self) -> bool:
        """Whether some address has neither won nor failed."""
        return self.winner is None and len(self.failures) < len(self._nurls)

    async def run(self) -> None:
        """Start them all, one after the other; ends with the first that wins."""
        async with trio.open_nursery() as nursery:
            for nurl in self._nurls:
                failed = trio.Event()
                nursery.start_soon(self._try, nurl, failed, nursery.cancel_scope)
                with trio.move_on_after(STAGGER):
                    await failed.wait()

    async def _try(self, nurl: Nurl, failed: trio.Event, race: trio.CancelScope) -> None:
        try:
            stream = await tls.open_pinned(nurl, self._context, self._server_id)
        except ServerUnavailableError as error:
            self.failures.append(str(error))
            failed.set()
            return
        if self.winner is None:
            self.winner = Connection(stream, nurl)
            race.cancel()
        else:
            await trio.aclose_forcefully(stream)


async def learn_server_id(nurl: Nurl) -> bytes:
    """The 20-byte id of a server of which no announcement is at hand.

    Raises:
        ServerUnavailableError: it cannot be reached, or shows another key.
    """
    with trio.move_on_after(CONNECT_TIMEOUT):
        stream = await tls.open_pinned(nurl, tls.client_context())
        try:
            return tls.server_id_of(stream)
        finally:
            await trio.aclose_forcefully(stream)
    raise ServerUnavailableError(f"{nurl.authority}: no connection within {CONNECT_TIMEOUT:.0f} s")
