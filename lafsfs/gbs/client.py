"""Asking one server, and getting a whole answer or one clear error.

Theory. A request has one deadline, in which it may be sent again over a new connection if the old
one breaks: servers close connections when they like. Who sends something that must not be done
twice asks for a single attempt, and finds out what became of it.

Rules:

- Waiting for a connection is not part of the deadline; what there is to carry prolongs it.
- A server that did not answer in time counts as one that could not be reached.
- Messages begin with the server's name and hold no secret.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeVar

import trio

from lafsfs.errors import (
    ProtocolError,
    ServerError,
    ServerFullError,
    ServerReadOnlyError,
    ServerUnavailableError,
)
from lafsfs.gbs import messages
from lafsfs.gbs.body import ConnectionLostError
from lafsfs.gbs.connection import Reply, Request
from lafsfs.gbs.dialer import Dialer
from lafsfs.gbs.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from lafsfs.gbs.nurl import Nurl

PATIENCE = 30.0  # seconds for a request that carries nothing
SLOWEST_RATE = 16 << 10  # bytes/s; what a request carries prolongs its deadline at this rate
MAX_ATTEMPTS = 3  # of a request whose connection breaks
THREAD_SIZE = 256 << 10  # bytes of CBOR from which a thread is worth its hop

T = TypeVar("T")

log = logging.getLogger(__name__)


class Client:
    """The HTTP client of one server. Connects when it is needed; end it with :meth:`aclose`."""

    def __init__(
        self, name: str, nurls: Sequence[Nurl], patience: float, server_id: bytes | None = None
    ) -> None:
        """See :class:`lafsfs.gbs.server.GBSServer`."""
        self.name = name
        self._swissnums = {nurl: _swissnum_header(nurl) for nurl in nurls}
        self._patience = patience
        self._dialer = Dialer(name, nurls, server_id)
        self._pool = Pool(self._dialer)

    @property
    def last_failure(self) -> str | None:
        """Why the server could not be reached last time, or None if it could."""
        return self._dialer.last_failure

    async def move(self, nurls: Sequence[Nurl]) -> None:
        """Go on at other addresses. Requests under way end where they are."""
        self._swissnums |= {nurl: _swissnum_header(nurl) for nurl in nurls}
        self._dialer.move(nurls)
        await self._pool.aclose()

    async def aclose(self) -> None:
        """Close the connections. Later requests would open new ones."""
        await self._pool.aclose()

    async def ask(
        self, request: Request, limit: int, *, carries: int = 0, attempts: int = MAX_ATTEMPTS
    ) -> Reply:
        """Send a request until it is answered, at most ``attempts`` times, within one deadline.

        Args:
            limit: bytes that the reply's body may have.
            carries: bytes that it is likely to have.

        Raises:
            ConnectionLostError: the connection broke each time.
            ServerUnavailableError: no connection, no answer in time, or an unknown swissnum.
            ProtocolError: an answer that is none.
        """
        async with self._pool.turn:
            self._dialer.check()
            seconds = self._patience + (request.size + carries) / SLOWEST_RATE
            with trio.move_on_after(seconds):
                try:
                    reply = await self._attempts(request, limit, attempts)
                except ConnectionLostError as lost:
                    if attempts > 1:  # once may be chance, and is found out about
                        self._dialer.failed(lost)
                    raise
                self._dialer.succeeded()
                return reply
            error = ServerUnavailableError(f"{self.name} did not answer within {seconds:.0f} s")
            self._dialer.failed(error)
            raise error

    async def _attempts(self, request: Request, limit: int, attempts: int) -> Reply:
        for attempt in range(attempts):
            connection = await self._pool.take(fresh=attempt > 0)
            signed = Request(
                request.method,
                request.target,
                (self._swissnums[connection.nurl], *request.headers),
                request.body,
            )
            try:
                reply = await connection.exchange(signed, max(limit, messages.MAX_ERROR_BODY))
            except ConnectionLostError as error:
                log.debug("%s: attempt %d: %s", self.name, attempt + 1, error)
                lost = error
                continue
            except ProtocolError as error:
                raise ProtocolError(f"{self.name}: {error}") from None
            await self._pool.give(connection)
            return reply
        raise ConnectionLostError(f"{self.name}: {lost}")

    async def parsed(self, reply: Reply, parse: Callable[[bytes], T]) -> T:
        """The message in a reply."""
        mime_type = reply.header(b"content-type").partition(";")[0].strip().lower()
        try:
            if mime_type != messages.MIME_TYPE:
                raise ProtocolError("its answer is not CBOR: is there a proxy in between?")
            return await maybe_in_thread(len(reply.body), partial(parse, reply.body))
        except ProtocolError as error:
            raise ProtocolError(f"{self.name}: {error}") from None

    def refuse(self, reply: Reply, doing: str) -> NoReturn:
        """Raise what a status means that the verb has no use for."""
        status = reply.status
        if status == 401:
            raise ServerUnavailableError(
                f"{self.name} does not know the swissnum of its NURL (401): is there a newer NURL?"
            )
        if status == 507:
            raise ServerFullError(f"{self.name} is full")
        if status == 503:
            raise ServerUnavailableError(f"{self.name} is not available at the moment (503)")
        if status == 403:
            raise ServerReadOnlyError(f"{self.name} does not allow {doing} (403)")
        if 300 <= status < 400:
            raise ProtocolError(f"{self.name} redirects ({status}), which no storage server does")
        raise ProtocolError(f"{self.name} answered {status} to {doing}")


def _swissnum_header(nurl: Nurl) -> tuple[str, str]:
    return ("Authorization", f"Tahoe-LAFS {b64encode(nurl.swissnum).decode('ascii')}")


async def maybe_in_thread(size: int, work: Callable[[], T]) -> T:
    """Pack or parse ``size`` bytes: in a thread where that takes longer than the hop."""
    if size < THREAD_SIZE:
        return work()
    return await trio.to_thread.run_sync(work)


async def all_of(tasks: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Run tasks side by side; the first server error ends them all and is raised as itself."""
    if len(tasks) == 1:
        await tasks[0]()
        return
    await trio.lowlevel.checkpoint()
    failures: list[ServerError] = []

    async def guard(task: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
        try:
            await task()
        except ServerError as error:
            failures.append(error)
            scope.cancel()

    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(guard, task, nursery.cancel_scope)
    if failures:
        raise failures[0]
