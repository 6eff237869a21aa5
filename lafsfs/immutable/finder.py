"""Finding where the shares of one immutable file are.

Servers are asked in permuted order, a few at once, and only while shares are wanted. What is found
stays known for the file's next segments, and so does who has been asked; whoever was being asked
when nobody wanted shares any more goes back into the queue.

Rules:

- Servers that have been failing are asked last.
- An answer may bring many shares: a reader is made for each, and the fetcher chooses.
- Several fetches use one finder at once; all that listen are told of every change.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from lafsfs.errors import ServerError
from lafsfs.grid.api import ShareKind
from lafsfs.grid.asking import ask
from lafsfs.immutable.share import ShareReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from lafsfs.grid.api import StorageServer
    from lafsfs.grid.broker import Broker
    from lafsfs.immutable.verified import VerifiedFile

PARALLEL = 10  # servers asked at once, as stock does: enough to find 3 of 10 in one round trip
LIST_PATIENCE = 30.0  # seconds; longer than a disk takes to spin up
OVERDUE = 5.0  # seconds until we stop hoping for a better spread and take what is there


class ShareFinder:
    """The shares of one file, as far as they have been found."""

    def __init__(self, broker: Broker, verified: VerifiedFile) -> None:
        self._broker = broker
        self._verified = verified
        servers = broker.servers_for(verified.cap.storage_index)
        self._queue = deque(sorted(servers, key=broker.is_backing_off))  # stable: order is kept
        self._asking: set[StorageServer] = set()
        self._overdue: set[StorageServer] = set()
        self.readers: list[ShareReader] = []
        self.notes: dict[StorageServer, str] = {}
        self.listeners: set[Callable[[], None]] = set()

    @property
    def is_exhausted(self) -> bool:
        """Whether every server has answered, or failed to."""
        return not self._queue and not self._asking

    @property
    def expected(self) -> int:
        """How many answers are under way that are not overdue yet."""
        return len(self._asking - self._overdue)

    def ask_more(self, nursery: trio.Nursery) -> None:
        """Ask the next servers, in tasks of ``nursery``."""
        while self._queue and self.expected < PARALLEL:
            server = self._queue.popleft()
            self._asking.add(server)
            nursery.start_soon(self._ask, server)
            nursery.start_soon(self._watch, server)

    async def _watch(self, server: StorageServer) -> None:
        await trio.sleep(OVERDUE)
        if server in self._asking:
            self._overdue.add(server)
            self._tell()

    async def _ask(self, server: StorageServer) -> None:
        index = self._verified.cap.storage_index
        answered = False
        try:
            shnums = await ask(
                self._broker,
                server,
                lambda: server.list_shares(ShareKind.IMMUTABLE, index),
                patience=LIST_PATIENCE,
            )
            answered = True
            self._found(server, shnums)
        except ServerError as error:
            answered = True
            self.notes[server] = str(error)
        finally:
            self._asking.discard(server)
            self._overdue.discard(server)
            if not answered:  # cancelled, by a fetch that has all it needs
                self._queue.appendleft(server)
            self._tell()

    def _found(self, server: StorageServer, shnums: frozenset[int]) -> None:
        good = sorted(shnum for shnum in shnums if 0 <= shnum < self._verified.cap.n)
        if not good:
            self.notes[server] = f"{server.name} has none"
        for shnum in good:
            self.readers.append(ShareReader(self._broker, server, shnum, self._verified))

    def _tell(self) -> None:
        for listener in tuple(self.listeners):
            listener()
