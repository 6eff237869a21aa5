"""The servers of a grid: their order for a storage index, how they have behaved, their space.

Rules:

- The order is the permuted one that every Tahoe client computes, and never depends on a server's
  behaviour: that is how shares are found again. Who reads may *prefer* by :meth:`Broker.health`.
  Servers that the user prefers come first, in permuted order among themselves.
- All servers are read from. Who may be given new shares is for a policy to say (Grid Managers).
- The servers may change at any time. Whoever works with one that is gone goes on, or fails as with
  any server that cannot be reached; what is remembered of those that stay is kept.
- Whoever talks to a server reports how it went; the broker itself asks only for space.
- Two servers on one volume share its space: it is counted once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from lafsfs.crypto.hashes import permuted_position
from lafsfs.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from lafsfs.grid.api import ServerVersion, StorageServer

FIRST_BACK_OFF = 1.0  # seconds; a disk that is plugged in again is noticed at once
MAX_BACK_OFF = 60.0  # seconds; a server that comes back is used again within a minute
LATENCY_WEIGHT = 0.25  # of the newest answer in the running mean: about the last ten count


@dataclass(frozen=True, slots=True)
class Health:
    """How a server has behaved, in seconds of the broker's clock."""

    failures: int = 0  # in a row, since the last answer
    retry_at: float = float("-inf")  # before then, ask it only when nobody else can help
    latency: float | None = None  # running mean; None before the first answer


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes of all volumes that answered. Not divided by the expansion of any encoding."""

    total: int
    available: int


def _everyone(server: StorageServer) -> bool:
    """The policy of who configured none."""
    return True


class Broker:
    """Knows the servers, and who comes first."""

    def __init__(
        self, servers: Sequence[StorageServer], *, clock: Callable[[], float] = trio.current_time
    ) -> None:
        """``clock`` gives seconds that never run backwards; it is read only within verbs."""
        self._servers = tuple(servers)
        self._preferred: Collection[StorageServer] = frozenset()
        self._accepts: Callable[[StorageServer], bool] = _everyone
        self._clock = clock
        self._health: dict[StorageServer, Health] = {}

    @property
    def servers(self) -> tuple[StorageServer, ...]:
        """All servers, in the order they were given."""
        return self._servers

    def set_servers(
        self,
        servers: Sequence[StorageServer],
        *,
        preferred: Collection[StorageServer] = frozenset(),
        accepts: Callable[[StorageServer], bool] = _everyone,
    ) -> None:
        """Go on with these servers. Those that were there before are to be the same objects.

        Args:
            preferred: come first in every order.
            accepts: whether a server may be given new shares; asked each time.
        """
        self._servers = tuple(servers)
        self._preferred = preferred
        self._accepts = accepts
        self._health = {s: self._health[s] for s in self._servers if s in self._health}

    def servers_for(self, storage_index: bytes) -> tuple[StorageServer, ...]:
        """All servers in the order in which this storage index prefers them."""

        def place(server: StorageServer) -> tuple[bool, bytes]:
            position = permuted_position(storage_index, server.permutation_seed)
            return server not in self._preferred, position

        return tuple(sorted(self._servers, key=place))

    def accepts_new_shares(self, server: StorageServer) -> bool:
        """Whether a server may be given shares that it does not hold yet."""
        return self._accepts(server)

    def health(self, server: StorageServer) -> Health:
        """What has been noted about a server so far."""
        return self._health.get(server, Health())

    def is_backing_off(self, server: StorageServer) -> bool:
        """Whether the server failed so recently that another one is the better choice."""
        return self._clock() < self.health(server).retry_at

    def note_success(self, server: StorageServer, latency: float) -> None:
        """An answer came, ``latency`` seconds after it was asked for."""
        before = self.health(server).latency
        mean = latency if before is None else before + LATENCY_WEIGHT * (latency - before)
        self._health[server] = Health(latency=mean)

    def note_failure(self, server: StorageServer) -> None:
        """The server could not be reached or broke the protocol: leave it alone for a while."""
        before = self.health(server)
        failures = before.failures + 1
        wait = min(MAX_BACK_OFF, FIRST_BACK_OFF * 2.0 ** min(failures - 1, 30))
        self._health[server] = Health(failures, self._clock() + wait, before.latency)

    async def space(self) -> Space:
        """Ask every server at once, and add up what those that answer have."""
        versions: dict[StorageServer, ServerVersion] = {}

        async def ask(server: StorageServer) -> None:
            try:
                versions[server] = await server.version()
            except ServerError:
                self.note_failure(server)

        async with trio.open_nursery() as nursery:
            for server in self._servers:
                nursery.start_soon(ask, server)
        return _sum_of_volumes(versions.values())


def _sum_of_volumes(versions: Iterable[ServerVersion]) -> Space:
    """Each volume once; a server that does not say what volume it is on counts for itself."""
    total = available = 0
    seen: set[str] = set()
    for version in versions:
        if version.volume is not None:
            if version.volume in seen:
                continue
            seen.add(version.volume)
        available += version.available_space
        total += version.available_space if version.total_space is None else version.total_space
    return Space(total, available)
