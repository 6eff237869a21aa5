"""Finding places for the shares of an upload before the first byte of them is sent.

Theory (``servers-of-happiness.rst``). :func:`lafsfs.grid.happiness.place` decides who gets which
share, from what servers hold already, and each server is asked to reserve the room. The answer to
that says what the server holds. So nobody is asked beforehand: as most files are new, room is
reserved at first as if nobody held anything, and only those of the first servers in permuted order
that would get nothing are asked what they hold. If somebody does hold shares, what was reserved
needlessly is given back. Whoever refuses is left out and the rest is planned anew, until every
share has a place or nobody takes any more.

Rules:

- One round trip for a new file, and for one that is stored already, when nobody refuses.
- A reservation that does not become part of an upload is given back (:func:`abandon`), even when
  we are cancelled.
- Shares that are there already are only *claimed* to be; the upload checks them at its end.
- A server that has been failing is not waited for while the others are enough.
- Who takes no more shares still counts with those it holds.
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
    ServerUnavailableError,
)
from lafsfs.grid.api import ShareKind
from lafsfs.grid.asking import PATIENCE, ask
from lafsfs.grid.happiness import happiness, place

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lafsfs.grid.api import StorageServer
    from lafsfs.grid.broker import Broker
    from lafsfs.grid.encoding import Encoding
    from lafsfs.grid.secrets import ClientSecrets

FIRST_PATIENCE = 15.0  # seconds: a server that cannot even say what it holds gets nothing new
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
    or give back. ``leased``: those that have our lease on all they hold. ``silent``: those that did
    not answer. ``notes``: what went wrong, by server, for people to read.
    """

    held: dict[StorageServer, set[int]] = field(default_factory=dict)
    reserved: dict[StorageServer, set[int]] = field(default_factory=dict)
    leased: set[StorageServer] = field(default_factory=set)
    silent: set[StorageServer] = field(default_factory=set)
    notes: dict[StorageServer, str] = field(default_factory=dict)
    lacks_room: bool = False
    lacks_rights: bool = False

    def holds(self, server: StorageServer, shnums: Iterable[int], n: int) -> None:
        """Note what a server says it holds; numbers that the file does not have mean nothing."""
        self.held.setdefault(server, set()).update(s for s in shnums if 0 <= s < n)

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
        takers = await _ask_around(job, places)
        await _give_back_needless(job, places, takers)
        await _reserve(job, places, takers)
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


async def _ask_around(job: Job, places: Places) -> list[StorageServer]:
    """Ask all candidates for room or for what they hold; returns those that may be asked again."""
    candidates = _candidates(job)
    for server in job.broker.servers:
        if not job.broker.accepts_new_shares(server):
            places.notes[server] = f"{server.name} has no Grid Manager's certificate"
    guess = place({}, candidates, job.encoding.n).uploads
    takers: set[StorageServer] = set()

    async def ask_one(server: StorageServer) -> None:
        wanted = guess.get(server, frozenset())
        if not wanted:
            if await _list(job, places, server):
                takers.add(server)
        elif await _allocate(job, places, server, wanted, FIRST_PATIENCE):
            takers.add(server)
        elif not places.held.get(server) and server not in places.silent:
            await _list(job, places, server)  # not all who refuse say what they hold

    async with trio.open_nursery() as nursery:
        for server in candidates:
            nursery.start_soon(ask_one, server)
    places.held = {server: places.held[server] for server in candidates if server in places.held}
    return [server for server in candidates if server in takers]


async def _list(job: Job, places: Places, server: StorageServer) -> bool:
    """Ask one server what it holds; False if it does not say."""
    try:
        held = await ask(
            job.broker,
            server,
            lambda: server.list_shares(ShareKind.IMMUTABLE, job.storage_index),
            patience=FIRST_PATIENCE,
        )
    except ServerError as error:
        places.notes[server] = str(error)
        return False
    places.holds(server, held, job.encoding.n)
    return True


async def _give_back_needless(job: Job, places: Places, takers: Sequence[StorageServer]) -> None:
    """Drop reservations for which there is no need, considering what turned out to be held."""
    if not any(places.held.values()):
        return
    encoding = job.encoding
    servers = [*takers, *(s for s, given in places.reserved.items() if given and s not in takers)]
    needed = place(places.held, servers, encoding.n).uploads
    needless: dict[StorageServer, set[int]] = {}
    for server, shnums in places.reserved.items():
        needless[server] = shnums - needed.get(server, frozenset())
        shnums -= needless[server]
    await abandon(job, needless)


async def _reserve(job: Job, places: Places, takers: list[StorageServer]) -> None:
    """Plan, ask, and plan again without those who refused."""
    encoding = job.encoding
    while True:
        placement = place(places.spread(), takers, encoding.n)
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
    job: Job,
    places: Places,
    server: StorageServer,
    shnums: frozenset[int],
    patience: float = PATIENCE,
) -> bool:
    """Ask one server for room; whether it gave all of it, or holds those shares already.

    What may have been reserved counts until we know better.
    """
    reserved = places.reserved.setdefault(server, set())
    reserved |= shnums
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
            patience=patience,
        )
    except ServerError as error:
        places.notes[server] = str(error)
        places.lacks_room |= isinstance(error, ServerFullError)
        places.lacks_rights |= isinstance(error, ServerReadOnlyError)
        if isinstance(error, ServerUnavailableError):
            places.silent.add(server)
        reserved -= shnums
        return False
    places.holds(server, given.already_have, job.encoding.n)
    places.leased.add(server)
    reserved -= shnums - given.allocated
    if shnums - given.allocated - given.already_have:
        places.lacks_room = True
        places.notes[server] = f"{server.name} has no room"
        return False
    return True


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
