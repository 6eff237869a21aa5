"""Finding places for the shares of an upload before the first byte of them is sent.

Theory (``servers-of-happiness.rst``). The first servers in permuted order are asked what they hold
already; :func:`lafsfs.grid.happiness.place` then decides who gets which share, and each server is
asked to reserve the room. Whoever refuses is left out and the rest is planned anew, until every
share has a place or nobody takes any more.

Rules:

- Two round trips when nobody refuses; a refusal costs one more.
- A reservation that does not become part of an upload is given back (:func:`abandon`), even when
  we are cancelled.
- Shares that are there already are only *claimed* to be; the upload checks them at its end.
- A server that has been failing is not waited for while the others are enough.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from lafsfs.errors import (
    GridFullError,
    GridReadOnlyError,
    NotHappyError,
    ServerError,
    ServerFullError,
    ServerReadOnlyError,
)
from lafsfs.grid.api import ShareKind
from lafsfs.grid.asking import ask
from lafsfs.grid.happiness import happiness, place

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lafsfs.grid.api import Allocation, StorageServer
    from lafsfs.grid.broker import Broker
    from lafsfs.grid.encoding import Encoding
    from lafsfs.grid.secrets import ClientSecrets

LIST_PATIENCE = 15.0  # seconds: a server that cannot even say what it holds gets nothing new
ABORT_PATIENCE = 5.0  # seconds for giving reservations back; an unfinished upload expires anyway
MAX_NOTES = 8  # how many servers an error message speaks of


@dataclass(frozen=True, slots=True)
class Job:
    """One upload as placement sees it. ``share_size``: bytes of each share, the same for all."""

    broker: Broker
    secrets: ClientSecrets
    encoding: Encoding
    storage_index: bytes
    share_size: int

    def upload_secret(self, server: StorageServer) -> bytes:
        """What names this upload to one server."""
        return self.secrets.upload_secret(self.storage_index, server)


@dataclass(slots=True)
class Places:
    """Where shares are and where they may go.

    ``held``: what servers say they hold, complete. ``reserved``: room we were given and must fill
    or give back. ``notes``: what went wrong, by server, for people to read.
    """

    held: dict[StorageServer, set[int]] = field(default_factory=dict)
    reserved: dict[StorageServer, set[int]] = field(default_factory=dict)
    notes: dict[StorageServer, str] = field(default_factory=dict)
    lacks_room: bool = False
    lacks_rights: bool = False

    def spread(self) -> dict[StorageServer, set[int]]:
        """Held and reserved shares together."""
        servers = self.held.keys() | self.reserved.keys()
        return {s: self.held.get(s, set()) | self.reserved.get(s, set()) for s in servers}

    def require_happiness(self, encoding: Encoding) -> None:
        """Raise NotHappyError (or the kind of it that says what was wanting) unless happy."""
        reached = happiness(self.spread())
        if reached >= encoding.happy:
            return
        text = (
            f"shares can be placed on {reached} {'server' if reached == 1 else 'servers'}, and "
            f"{encoding.happy} are needed"
            f"{_listed(self.notes.values())}"
        )
        if self.lacks_room:
            raise GridFullError(text)
        raise GridReadOnlyError(text) if self.lacks_rights else NotHappyError(text)


def _listed(notes: Iterable[str]) -> str:
    shown = list(notes)
    if not shown:
        return ""
    more = len(shown) - MAX_NOTES
    text = "; ".join(shown[:MAX_NOTES])
    return f": {text}; and {more} more" if more > 0 else f": {text}"


async def find_places(job: Job) -> Places:
    """Reserve room for every share that is not there yet.

    Raises:
        NotHappyError: not enough distinct servers; nothing stays reserved.
    """
    places = Places()
    try:
        await _list_shares(job, places)
        await _reserve(job, places)
        places.require_happiness(job.encoding)
    except BaseException:
        await abandon(job, places.reserved)
        raise
    return places


def _candidates(job: Job) -> tuple[StorageServer, ...]:
    """The first 2n servers in permuted order, without those backing off if enough others are."""
    broker = job.broker
    servers = tuple(
        server
        for server in broker.servers_for(job.storage_index)
        if broker.accepts_new_shares(server)
    )
    if not servers:
        known = len(broker.servers)
        why = f"none of {known} has a Grid Manager's certificate" if known else "none is known"
        raise NotHappyError(f"there is no storage server to put shares on: {why}")
    ready = tuple(server for server in servers if not broker.is_backing_off(server))
    chosen = ready if len(ready) >= job.encoding.happy else servers
    return chosen[: 2 * job.encoding.n]


async def _list_shares(job: Job, places: Places) -> None:
    """Ask all candidates what they hold."""

    async def ask_one(server: StorageServer) -> None:
        try:
            held = await ask(
                job.broker,
                server,
                lambda: server.list_shares(ShareKind.IMMUTABLE, job.storage_index),
                patience=LIST_PATIENCE,
            )
        except ServerError as error:
            places.notes[server] = str(error)
        else:
            answers[server] = {shnum for shnum in held if 0 <= shnum < job.encoding.n}

    candidates = _candidates(job)
    for server in job.broker.servers:
        if not job.broker.accepts_new_shares(server):
            places.notes[server] = f"{server.name} has no Grid Manager's certificate"
    answers: dict[StorageServer, set[int]] = {}
    async with trio.open_nursery() as nursery:
        for server in candidates:
            nursery.start_soon(ask_one, server)
    places.held = {server: answers[server] for server in candidates if server in answers}


async def _reserve(job: Job, places: Places) -> None:
    """Plan, ask, and plan again without those who refused."""
    encoding = job.encoding
    takers = list(places.held)
    while True:
        placement = place(places.spread(), takers, encoding.n, encoding.happy)
        if not placement.uploads:
            return
        async with trio.open_nursery() as nursery:
            for server, shnums in placement.uploads.items():
                nursery.start_soon(_allocate, job, places, server, shnums)
        refused = {
            server
            for server, shnums in placement.uploads.items()
            if shnums - places.spread().get(server, set())
        }
        takers = [server for server in takers if server not in refused]


async def _allocate(
    job: Job, places: Places, server: StorageServer, shnums: frozenset[int]
) -> None:
    """Ask one server for room. What may have been reserved counts until we know better."""
    places.reserved.setdefault(server, set()).update(shnums)
    given: Allocation | None = None
    try:
        given = await ask(
            job.broker,
            server,
            lambda: server.allocate(
                job.storage_index,
                shnums,
                job.share_size,
                job.upload_secret(server),
                job.secrets.lease(job.storage_index, server),
            ),
        )
    except ServerError as error:
        places.notes[server] = str(error)
        places.lacks_room |= isinstance(error, ServerFullError)
        places.lacks_rights |= isinstance(error, ServerReadOnlyError)
        places.reserved[server] -= shnums
        return
    places.held.setdefault(server, set()).update(given.already_have & shnums)
    places.reserved[server] -= shnums - given.allocated
    if shnums - given.allocated - given.already_have:
        places.lacks_room = True
        places.notes[server] = f"{server.name} has no room"


async def abandon(job: Job, reserved: Mapping[StorageServer, Iterable[int]]) -> None:
    """Give reservations back, as far as servers let us within :data:`ABORT_PATIENCE`.

    Not to be cancelled: what called us may be ending because it was.
    """

    async def abort(server: StorageServer, shnum: int) -> None:
        with suppress(ServerError):  # it may be gone, or never have reserved anything
            await server.abort_share(job.storage_index, shnum, job.upload_secret(server))

    with trio.CancelScope(shield=True, deadline=trio.current_time() + ABORT_PATIENCE):
        async with trio.open_nursery() as nursery:
            for server, shnums in reserved.items():
                for shnum in shnums:
                    nursery.start_soon(abort, server, shnum)
