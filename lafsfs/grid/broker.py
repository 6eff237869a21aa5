"""The servers of a grid: their order for a storage index, how they have behaved, their space.

Rules:

- The order is the permuted one that every Tahoe client computes, and never depends on a server's
  behaviour: that is how shares are found again. Who reads may *prefer* by :meth:`Broker.health`.
  Servers that the user prefers come first, in permuted order among themselves.
- All servers are read from. Who may be given new shares is for a policy to say (Grid Managers).
- The servers may change at any time. Whoever works with one that is gone goes on, or fails as with
  any server that cannot be reached; what is remembered of those that stay is kept.
- Whoever talks to a server reports how it went; the broker itself asks only for space.
- Overdue is not failed. How long an answer may take before somebody else is asked beside, is a
  matter of how long that server's answers took so far and how much they vary, and how much there is
  to carry; of a server never heard of it is what the slowest of the others would be given.
- A server that failed or was late is in *doubt* until it has answered again: it is not chosen while
  others will do. Time alone does not clear it, but makes a probe due (:meth:`Broker.take_probe`).
- Two servers on one volume share its space: it is counted once.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from lafsfs.crypto.hashes import permuted_position
from lafsfs.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from lafsfs.grid.api import ServerVersion, StorageServer

FIRST_BACK_OFF = 1.0  # seconds; a disk that is plugged in again is noticed at once
MAX_BACK_OFF = 60.0  # seconds; a server that comes back is used again within a minute
LATENCY_WEIGHT = 0.25  # of the newest answer in the running mean: about the last ten count
DEVIATIONS = 4.0  # above the mean is late: as TCP has it, and never before twice the mean
SOONEST_OVERDUE = 0.5  # seconds; shorter pauses are those of a busy machine, ours or theirs
UNKNOWN_OVERDUE = 5.0  # seconds, when no server has answered anything yet: a disk may spin up
UNKNOWN_RATE = 256 << 10  # bytes/s expected of a server that has not carried anything yet
HALF_LIFE = 60.0  # seconds after which the last measurement of a server counts half as much
SPACE_PATIENCE = 2.0  # seconds; what a server has free is not worth more waiting
SMALL = 32 << 10  # bytes: up to here an answer's time is latency, beyond it is pace


@dataclass(frozen=True, slots=True)
class Estimate:
    """A running mean and how far single values were off it."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, before: Estimate | None, value: float) -> Estimate:
        """The estimate with one more value."""
        if before is None:
            return cls(value, value / 2)
        error = value - before.mean
        change = LATENCY_WEIGHT * (abs(error) - before.deviation)
        return cls(before.mean + LATENCY_WEIGHT * error, before.deviation + change)

    @property
    def late(self) -> float:
        """What no value that is still normal exceeds."""
        return max(2 * self.mean, self.mean + DEVIATIONS * self.deviation)


@dataclass(frozen=True, slots=True)
class Health:
    """How a server has behaved, in seconds of the broker's clock.

    ``delay``: of small answers, in seconds. ``pace``: of large ones, in seconds per byte of all
    that was on its way to us at the time: what is asked for at once shares our line.
    """

    failures: int = 0  # in a row, since the last answer
    lates: int = 0  # times overdue, since the last answer that carried anything
    probes: int = 0  # since it came into doubt
    retry_at: float = float("-inf")  # before then, ask it only when nobody else can help
    delay: Estimate | None = None
    pace: Estimate | None = None
    heard_at: float = 0.0  # when it answered last, if it has

    @property
    def latency(self) -> float | None:
        """Seconds for a small answer; None before the first one."""
        return None if self.delay is None else self.delay.mean


@dataclass(eq=False, slots=True)
class Load:
    """``peak``: the most bytes that were on their way at once while an answer was waited for.

    Whoever is asked first of many at once shares the line with all of them, as does the last.
    """

    peak: int = 0


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes of all volumes that are known. Not divided by the expansion of any encoding."""

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
        self._versions: dict[StorageServer, ServerVersion] = {}  # what they said of their space
        self._carried = 0
        self._loads: set[Load] = set()

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
        health = self.health(server)
        return health.failures > 0 and self._clock() < health.retry_at

    def is_doubtful(self, server: StorageServer) -> bool:
        """Whether the server failed or was late, and has not answered since."""
        health = self.health(server)
        return health.failures > 0 or health.lates > 0

    def take_probe(self, server: StorageServer) -> bool:
        """Whether somebody should try whether the server answers again.

        Says so to one caller at a time, and ever more rarely.
        """
        if not self.is_doubtful(server) or self._clock() < self.health(server).retry_at:
            return False
        health = self.health(server)
        probes = health.probes + 1
        wait = _back_off(health.failures + probes)
        retry_at = self._clock() + wait
        self._health[server] = replace(health, probes=probes, retry_at=retry_at)
        return True

    @property
    def carried(self) -> int:
        """Bytes that are on their way, to or from any server."""
        return self._carried

    @contextmanager
    def carrying(self, size: int) -> Iterator[Load]:
        """While it lasts, ``size`` bytes more are on their way, and what else is gets noted."""
        own = Load()
        self._loads.add(own)
        self._carried += size
        for load in self._loads:
            load.peak = max(load.peak, self._carried)
        try:
            yield own
        finally:
            self._loads.discard(own)
            self._carried -= size

    def overdue_after(self, server: StorageServer, size: int) -> float:
        """Seconds after which an answer is overdue.

        ``size``: its bytes, or where those are many, all that is on its way together with it.
        """
        own = _overdue_after(self.health(server), size)
        if own is None:
            others = (_overdue_after(health, size) for health in self._health.values())
            own = max((time for time in others if time is not None), default=None)
        if own is None:
            return UNKNOWN_OVERDUE + size / UNKNOWN_RATE
        return max(SOONEST_OVERDUE, own)

    def expected(self, server: StorageServer, size: int) -> float | None:
        """Seconds that an answer of ``size`` bytes is likely to take; None if nobody can say."""
        health = self.health(server)
        if size > SMALL and health.pace is not None:
            return max(health.latency or 0.0, health.pace.mean * size)
        return health.latency

    def freshness(self, server: StorageServer) -> float:
        """How much what was measured of a server still counts: 1.0, and half in each half-life."""
        age = self._clock() - self.health(server).heard_at
        return float(0.5 ** (age // HALF_LIFE))

    def note_success(
        self, server: StorageServer, latency: float, size: int = 0, load: int = 0
    ) -> None:
        """An answer of ``size`` bytes came, ``latency`` seconds after it was asked for.

        ``load``: the most bytes that were on their way meanwhile, this answer's included.
        """
        before = self.health(server)
        delay, pace = before.delay, before.pace
        if size > SMALL:
            pace = Estimate.of(pace, latency / max(size, load))
        else:
            delay = Estimate.of(delay, latency)
        lates, probes = (0, 0) if size else (before.lates, before.probes)
        now = self._clock()
        self._health[server] = Health(0, lates, probes, before.retry_at, delay, pace, now)

    def note_failure(self, server: StorageServer) -> None:
        """The server could not be reached or broke the protocol: leave it alone for a while."""
        before = self.health(server)
        failures = before.failures + 1
        retry_at = self._clock() + _back_off(failures)
        self._health[server] = replace(before, failures=failures, retry_at=retry_at)

    def note_late(self, server: StorageServer) -> None:
        """The server is overdue with an answer. That is no failure: the answer is still welcome."""
        before = self.health(server)
        now = self._clock()
        if before.lates and now < before.retry_at:
            return  # several answers of one and the same pause
        lates = before.lates + 1
        self._health[server] = replace(before, lates=lates, retry_at=now + _back_off(lates))

    async def space(self) -> Space:
        """Ask every server at once, and add up what they have; after two seconds at most.

        Those that did not answer in time have what they said last, and so have all if none can be
        reached: they will be back, and no program is to think of the grid as full.
        """
        answers: dict[StorageServer, ServerVersion] = {}
        failed: set[StorageServer] = set()

        async def ask(server: StorageServer) -> None:
            try:
                answers[server] = await server.version()
            except ServerError:
                failed.add(server)
                self.note_failure(server)

        with trio.move_on_after(SPACE_PATIENCE):
            async with trio.open_nursery() as nursery:
                for server in self._servers:
                    nursery.start_soon(ask, server)
        gone = set() if failed.issuperset(self._servers) else failed
        known = self._versions | answers
        self._versions = {s: known[s] for s in self._servers if s in known and s not in gone}
        return _sum_of_volumes(self._versions.values())


def _back_off(failures: int) -> float:
    """Seconds to leave a server alone that failed so many times in a row."""
    return min(MAX_BACK_OFF, FIRST_BACK_OFF * 2.0 ** min(failures - 1, 30))


def _overdue_after(health: Health, size: int) -> float | None:
    if size <= SMALL:
        return None if health.delay is None else health.delay.late
    delay = 0.0 if health.delay is None else health.delay.late
    if health.pace is not None:
        return max(delay, health.pace.late * size)  # whichever it is that takes the time
    return None if health.delay is None else delay + size / UNKNOWN_RATE


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
