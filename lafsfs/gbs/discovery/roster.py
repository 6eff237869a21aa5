"""The servers of a grid while it is in use, kept in step with whatever names them.

Theory. :class:`Sources` says who there is; a :class:`Roster` makes a server of each record and
hands them to the broker, at the start and again whenever one of the files changes. A server that
announced other addresses goes on as the same object, so that everything that is remembered of it,
and every share that was found there, stays good.

Rules:

- The 20-byte id of a server of which only a NURL is known comes with the first handshake. It is
  written down: secrets are made with it, so it must come out the same for ever. Until it is known
  the server cannot be used; it is asked again while the grid is open.
- Two records of one id are one server: directories on this machine first, then what was configured.
  Ids are also what secrets are made with, so a server that announces another's is not believed: the
  certificate must be of the id, and of several that announce one id, the one whose is gets it.
- A change that cannot be read leaves the servers as they are, and is warned about.
"""

from __future__ import annotations

import datetime
import json
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from lafsfs.crypto import base32
from lafsfs.errors import ConfigError, FormatError, ServerError
from lafsfs.gbs.dialer import learn_server_id
from lafsfs.gbs.discovery.grid_manager import permitted_until
from lafsfs.gbs.discovery.located import read_text, write_private
from lafsfs.gbs.server import GBSServer
from lafsfs.grid.api import StorageServer
from lafsfs.grid.broker import Broker
from lafsfs.grid.identity import SERVER_ID_SIZE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from lafsfs.gbs.discovery.announcements import ServerRecord
    from lafsfs.gbs.discovery.sources import Signature, Sources
    from lafsfs.gbs.nurl import Nurl

log = logging.getLogger(__name__)

POLL = 2.0  # seconds between looks at the files; each costs a stat
RETRY = 30.0  # seconds until servers whose id is not known are asked again

NOT_SEEN = "its id comes with the first connection, and there was none yet"
UNPROVEN = "it announces the id of another server, and could not prove that it is its own"


class RemoteServer(StorageServer, Protocol):
    """A storage server whose address may change."""

    async def move(self, nurls: Sequence[Nurl]) -> None:
        """Go on at other addresses."""

    async def aclose(self) -> None:
        """Close the connections."""


def make_server(record: ServerRecord, server_id: bytes) -> RemoteServer:
    """The server that a record speaks of."""
    return GBSServer(
        record.nurls,
        server_id=server_id,
        permutation_seed=record.permutation_seed,
        name=record.name,
        certified=record.announced,
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """One record, and the server made of it, or why there is none."""

    record: ServerRecord
    server: RemoteServer | None
    fault: str | None
    accepts_new_shares: bool


class Roster:
    """See the module. ``broker`` is what the rest of the client sees."""

    def __init__(
        self,
        sources: Sources,
        local: Sequence[StorageServer],
        note: Path,
        *,
        make: Callable[[ServerRecord, bytes], RemoteServer] = make_server,
        learn: Callable[[Nurl], Awaitable[bytes]] = learn_server_id,
    ) -> None:
        """Nothing is read before :meth:`refresh`. ``note``: where learnt ids are written down."""
        self.broker = Broker(local)
        self._sources = sources
        self._local = tuple(local)
        self._note = note
        self._make = make
        self._learn = learn
        self._records: tuple[ServerRecord, ...] = ()
        self._made: dict[str, tuple[ServerRecord, RemoteServer]] = {}
        self._faults: dict[str, str] = {}
        self._unheard: dict[str, str] = {}  # why nothing is known of them that only they can tell
        self._proven: dict[bytes, str] = {}  # disputed ids, and the key of whose they are
        self._permits: dict[StorageServer, datetime.datetime | None] = {}
        self._signature: Signature = ()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, sources: Sources, local: Sequence[StorageServer], note: Path
    ) -> AsyncIterator[Roster]:
        """A roster that has been read once; its connections are closed at the end.

        Raises:
            ConfigError: a file that names servers is broken.
        """
        roster = cls(sources, local, note)
        try:
            await roster.refresh()
            yield roster
        finally:
            await roster.aclose()

    @property
    def local(self) -> tuple[StorageServer, ...]:
        """The servers on this machine."""
        return self._local

    def entries(self) -> list[Entry]:
        """All that was named, used or not."""
        return [self._entry(record) for record in self._records]

    def _entry(self, record: ServerRecord) -> Entry:
        _, server = self._made.get(record.key, (record, None))
        fault = self._faults.get(record.key)
        return Entry(record, server, fault, server is not None and self._accepts(server))

    async def refresh(self) -> None:
        """Read the sources, and go on with the servers they name.

        Raises:
            ConfigError: a file is broken; the servers stay as they were.
        """
        # Before reading: a change meanwhile is then seen as one.
        self._signature = await trio.to_thread.run_sync(self._sources.signature)
        records = await trio.to_thread.run_sync(self._sources.read)
        self._unheard = {}
        ids = await self._identify(records)
        await self._apply(records, ids, await self._impostors(records))

    async def follow(self) -> None:
        """Keep in step, for ever."""
        asked_at = trio.current_time()
        while True:
            await trio.sleep(POLL)
            signature = await trio.to_thread.run_sync(self._sources.signature)
            changed = signature != self._signature
            waiting = any(text.startswith((NOT_SEEN, UNPROVEN)) for text in self._faults.values())
            if not changed and not (waiting and trio.current_time() - asked_at >= RETRY):
                continue
            asked_at = trio.current_time()
            try:
                await self.refresh()
            except ConfigError as error:
                log.warning("the storage servers stay as they were: %s", error)

    async def aclose(self) -> None:
        """Close all connections."""
        with trio.CancelScope(shield=True):
            for _, server in self._made.values():
                await server.aclose()

    # --- ids --------------------------------------------------------------------------------------

    async def _identify(self, records: Sequence[ServerRecord]) -> dict[str, bytes]:
        """The id of every record of which it is known, or can be learnt now."""
        ids = {r.key: r.server_id for r in records if r.server_id is not None}
        bare = [r for r in records if r.server_id is None and r.fault is None]
        if not bare:
            return ids
        noted = await trio.to_thread.run_sync(load_ids, self._note)
        learnt: dict[str, bytes] = {}
        async with trio.open_nursery() as nursery:
            for record in bare:
                if record.key in noted:
                    ids[record.key] = noted[record.key]
                else:
                    nursery.start_soon(self._ask_id, record, learnt)
        if learnt:
            await trio.to_thread.run_sync(save_ids, self._note, {**noted, **learnt})
        return ids | learnt

    async def _ask_id(self, record: ServerRecord, learnt: dict[str, bytes]) -> None:
        for nurl in record.nurls:
            try:
                learnt[record.key] = await self._learn(nurl)
            except ServerError as error:
                log.warning("%s is left out for now: %s", record.name, error)
                self._unheard[record.key] = str(error)
            else:
                self._unheard.pop(record.key, None)
                return

    async def _impostors(self, records: Sequence[ServerRecord]) -> frozenset[str]:
        """The keys of those records whose id others announce too, and who could not prove it."""
        claims: dict[bytes, list[ServerRecord]] = {}
        for record in records:
            if record.announced and record.server_id is not None and record.fault is None:
                claims.setdefault(record.server_id, []).append(record)
        rivals = {i: records for i, records in claims.items() if len(records) > 1}
        shown: dict[str, bytes] = {}
        async with trio.open_nursery() as nursery:
            for server_id, records in rivals.items():
                if self._proven.get(server_id) not in {record.key for record in records}:
                    for record in records:
                        nursery.start_soon(self._ask_id, record, shown)
        self._proven |= {server_id: key for key, server_id in shown.items() if server_id in rivals}
        return frozenset(
            record.key
            for server_id, records in rivals.items()
            for record in records
            if self._proven.get(server_id) != record.key
        )

    # --- servers ----------------------------------------------------------------------------------

    async def _apply(
        self,
        records: tuple[ServerRecord, ...],
        ids: dict[str, bytes],
        impostors: frozenset[str],
    ) -> None:
        taken = {server.server_id: server.name for server in self._local}
        made: dict[str, tuple[ServerRecord, RemoteServer]] = {}
        faults: dict[str, str] = {}
        for record in records:
            server_id = ids.get(record.key)
            if record.fault is not None:
                faults[record.key] = record.fault
            elif server_id is None:
                faults[record.key] = self._told(record, NOT_SEEN)
            elif record.key in impostors:
                faults[record.key] = self._told(record, UNPROVEN)
            elif server_id in taken:
                faults[record.key] = f"it has the id of {taken[server_id]}, and is left out"
            else:
                taken[server_id] = record.name
                made[record.key] = (record, await self._server(record, server_id))
        before = {server for _, server in self._made.values()}
        self._records, self._made, self._faults = records, made, faults
        self._permits = {server: self._permit(record) for record, server in made.values()}
        self._tell_broker()
        for server in before - self._permits.keys():
            await server.aclose()

    def _told(self, record: ServerRecord, fault: str) -> str:
        """A fault, and why the server could not be asked about it, where that is why."""
        why = self._unheard.get(record.key)
        return fault if why is None else f"{fault}: {why}"

    async def _server(self, record: ServerRecord, server_id: bytes) -> RemoteServer:
        """The server there was, at its new addresses, or a new one."""
        if record.key not in self._made:
            return self._make(record, server_id)
        known, server = self._made[record.key]
        if (server.server_id, known.permutation_seed) != (server_id, record.permutation_seed):
            return self._make(record, server_id)
        if known.nurls != record.nurls:
            log.info("%s has other addresses than before", record.name)
            await server.move(record.nurls)
        return server

    def _permit(self, record: ServerRecord) -> datetime.datetime | None:
        return permitted_until(self._sources.managers, record.certificates, record.verifying_key)

    def _accepts(self, server: StorageServer) -> bool:
        """Whether the Grid Managers, if there are any, let this server have new shares."""
        if not self._sources.managers or server not in self._permits:
            return True
        end = self._permits[server]
        return end is not None and datetime.datetime.now(datetime.UTC) < end

    def _tell_broker(self) -> None:
        preferred = frozenset(
            server
            for record, server in self._made.values()
            if record.key in self._sources.preferred
        )
        servers = [*self._local, *(server for _, server in self._made.values())]
        self.broker.set_servers(servers, preferred=preferred, accepts=self._accepts)


def load_ids(note: Path) -> dict[str, bytes]:
    """The ids that were learnt, by the keys of records. Raises ConfigError."""
    text = read_text(note)
    if text is None:
        return {}
    try:
        table = json.loads(text)
        return {key: base32.decode(value, SERVER_ID_SIZE) for key, value in table.items()}
    except (ValueError, TypeError, AttributeError, FormatError):
        raise ConfigError(f"{note} does not list the ids of servers; remove it") from None


def save_ids(note: Path, ids: dict[str, bytes]) -> None:
    """Write learnt ids down. Raises ConfigError."""
    table = {key: base32.encode(server_id) for key, server_id in ids.items()}
    write_private(note, json.dumps(table, indent=1) + "\n")
