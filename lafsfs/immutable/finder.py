"""Finding where the shares of one immutable file are.

Servers are asked in permuted order, a few at once, and only while shares are wanted. What is found
stays known for the file's next segments, and so does who has been asked. Where shares were seen in
an earlier life is known from the start: then nobody is asked, as long as what is there suffices.

Rules:

- Servers whose shares are remembered are asked after the others, and servers in doubt only when
  nobody else is left to be waited for, or when a probe of them is due: one that hangs must not be
  asked anew for every file.
- Questions belong to nobody's fetch. They are small, :data:`PARALLEL` of them at most are waited
  for at a time, and a late answer is as welcome as any.
- An answer may bring many shares: a reader is made for each, and the fetcher chooses.
- Several fetches use one finder at once; all that listen are told of every change.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import trio

from lafsfs.errors import ServerError
from lafsfs.grid.api import ShareKind
from lafsfs.grid.asking import ask, plain_errors
from lafsfs.grid.broker import SOONEST_OVERDUE
from lafsfs.immutable.share import ShareReader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from lafsfs.cache.places import Places
    from lafsfs.grid.api import StorageServer
    from lafsfs.grid.broker import Broker
    from lafsfs.immutable.verified import VerifiedFile

PARALLEL = 10  # servers asked at once, as stock does: enough to find 3 of 10 in one round trip
LIST_PATIENCE = 30.0  # seconds; longer than a disk takes to spin up


class ShareFinder:
    """The shares of one file, as far as they have been found."""

    def __init__(
        self,
        broker: Broker,
        verified: VerifiedFile,
        start: Callable[[Callable[[], Awaitable[None]]], None],
        places: Places | None = None,
    ) -> None:
        """``start`` runs something that nobody waits for; ``places`` are remembered ones."""
        self._broker = broker
        self._verified = verified
        self._start = start
        self._asked_at: dict[StorageServer, float] = {}  # who has not answered yet
        self._late: set[StorageServer] = set()
        self.readers: list[ShareReader] = []
        self.notes: dict[StorageServer, str] = {}
        self.listeners: set[Callable[[], None]] = set()
        servers = broker.servers_for(verified.cap.storage_index)
        remembered = self._recall(servers, places)

        def order(server: StorageServer) -> tuple[bool, bool]:  # sorting is stable
            return broker.is_doubtful(server), server in remembered

        self._queue = deque(sorted(servers, key=order))

    def _recall(
        self, servers: Iterable[StorageServer], places: Places | None
    ) -> set[StorageServer]:
        remembered = set()
        for server in servers if places is not None else ():
            shnums = places.shares.get(server.server_id) if places is not None else None
            if shnums:
                remembered.add(server)
                self._found(server, shnums)
        return remembered

    @property
    def is_exhausted(self) -> bool:
        """Whether every server has answered, or failed to."""
        return not self._queue and not self._asked_at

    @property
    def expected(self) -> int:
        """How many answers are under way that are not overdue yet."""
        return len(self._asked_at) - len(self._late)

    @property
    def silent(self) -> list[StorageServer]:
        """Those that have been asked and did not answer yet."""
        return list(self._asked_at)

    def places(self) -> dict[bytes, frozenset[int]]:
        """The shares by server id, those that turned out corrupt left out."""
        shares: dict[bytes, set[int]] = {}
        for reader in self.readers:
            if not reader.is_corrupt:
                shares.setdefault(reader.server.server_id, set()).add(reader.shnum)
        return {server_id: frozenset(shnums) for server_id, shnums in shares.items()}

    def forget(self, reader: ShareReader) -> None:
        """The share is not there (any more): ask its server again what it has, in its turn."""
        if reader in self.readers:
            self.readers.remove(reader)
            self.notes[reader.server] = f"{reader.server.name} does not hold share {reader.shnum}"

    # --- asking -----------------------------------------------------------------------------------

    def ask_more(self) -> None:
        """Ask the next servers, as far as no more than :data:`PARALLEL` are being waited for."""
        while self.expected < PARALLEL and (server := self._next()) is not None:
            self._queue.remove(server)
            self._asked_at[server] = trio.current_time()
            self._start(partial(self._ask, server))

    def _next(self) -> StorageServer | None:
        for server in self._queue:
            if (
                not self.expected
                or not self._broker.is_doubtful(server)
                or self._broker.take_probe(server)
            ):
                return server
        return None

    async def _ask(self, server: StorageServer) -> None:
        try:
            with plain_errors():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch, server)
                    shnums = await self._list(server)
                    nursery.cancel_scope.cancel()
            self._found(server, shnums)
        except ServerError as error:
            self.notes[server] = str(error)
        finally:
            self._asked_at.pop(server, None)
            self._late.discard(server)
            self._tell()

    async def _list(self, server: StorageServer) -> frozenset[int]:
        index = self._verified.cap.storage_index
        return await ask(
            self._broker,
            server,
            lambda: server.list_shares(ShareKind.IMMUTABLE, index),
            patience=LIST_PATIENCE,
        )

    async def _watch(self, server: StorageServer) -> None:
        """Stop hoping for a better spread from a server that is overdue.

        When that is, may turn out while we wait: by how long others take.
        """
        while True:
            left = self._overdue_at(server) - trio.current_time()
            if left <= 0:
                break
            await trio.sleep(min(left, SOONEST_OVERDUE))
        self._late.add(server)
        self._broker.note_late(server)
        self._tell()

    def _overdue_at(self, server: StorageServer) -> float:
        return self._asked_at[server] + self._broker.overdue_after(server, 0)

    def _tell(self) -> None:
        for listener in tuple(self.listeners):
            listener()

    def _found(self, server: StorageServer, shnums: Iterable[int]) -> None:
        known = {reader.shnum for reader in self.readers if reader.server is server}
        good = sorted(shnum for shnum in shnums if 0 <= shnum < self._verified.cap.n)
        if not good:
            self.notes[server] = f"{server.name} has none"
        for shnum in good:
            if shnum not in known:
                self.readers.append(ShareReader(self._broker, server, shnum, self._verified))
