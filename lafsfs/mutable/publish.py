"""Write the shares of a new version, and read what the servers answer.

One call per server carries all of its shares: tested together, written together or not at all. The
answer also tells what else the slot held there, so that every publish is another look at the grid.
A server that fails is left out and its shares go elsewhere; a share that is not what the servermap
said is a *surprise*, and means that somebody else is writing.

Rules:

- All servers are written to at once. What was written stays written: a publish that fails half way
  leaves a version with too few shares, which the next map sees and the next publish outnumbers.
- A surprise whose checkstring is the new version's own is no surprise: an earlier try of ours that
  we never heard back from.
- Whether the outcome is good enough is decided once, at the end (:func:`verdict`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import trio

from lafsfs.errors import (
    GridFullError,
    GridReadOnlyError,
    NotHappyError,
    ProtocolError,
    ServerError,
    ServerFullError,
    ServerReadOnlyError,
    ServerUnavailableError,
    UncoordinatedWriteError,
)
from lafsfs.grid.api import ReadVector
from lafsfs.grid.happiness import happiness
from lafsfs.mutable.plan import by_server, new_targets, plan_targets
from lafsfs.mutable.servermap import MappedShare, Mode, ServerMap

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lafsfs.grid.api import StorageServer, TestWriteResult
    from lafsfs.mutable.encode import EncodedVersion
    from lafsfs.mutable.mapping import SlotView
    from lafsfs.mutable.plan import Target
    from lafsfs.mutable.servermap import Place, ServerId

log = logging.getLogger(__name__)

WRITE_TIMEOUT = 60.0  # seconds; a server that hangs must not hold up a publish for ever
GRACE = 5.0  # seconds; for servers still busy once the outcome is clear without them


@dataclass(slots=True)
class Outcome:
    """What became of the writes so far. Filled in as the answers arrive."""

    k: int
    happy: int
    placed: dict[Place, Target] = field(default_factory=dict)
    failed: dict[ServerId, tuple[StorageServer, ServerError]] = field(default_factory=dict)
    surprises: list[str] = field(default_factory=list)
    writing: set[trio.CancelScope] = field(default_factory=set)

    def distinct(self) -> int:
        """How many different shares have a place."""
        return len({shnum for _, shnum in self.placed})

    def happiness(self) -> int:
        """How many servers can be counted on for a share of their own."""
        held: dict[ServerId, set[int]] = {}
        for server_id, shnum in self.placed:
            held.setdefault(server_id, set()).add(shnum)
        return happiness(held)

    def good_enough(self) -> bool:
        """Whether the version can be read, and will be when a server is lost."""
        return self.distinct() >= self.k and self.happiness() >= self.happy

    @property
    def landed(self) -> bool:
        """Whether any write was made, or may have been made, so that traces of it may be there."""
        return bool(self.placed) or any(
            isinstance(error, ServerUnavailableError | ProtocolError)
            for _, error in self.failed.values()
        )


class CollisionError(UncoordinatedWriteError):
    """A publish was surprised. Traces of it may be on the grid all the same."""


async def publish(
    view: SlotView, encoded: EncodedVersion, servermap: ServerMap, happy: int
) -> Outcome:
    """Write every share of a version; never raises for what one server did.

    Servers that did not answer the map get nothing. Shares of servers that fail are moved to others
    until all have a place or nobody is left. After a surprise nothing more is written. After that,
    and once ``happy`` is reached, those still out get a moment more.
    """
    outcome = Outcome(encoded.version.k, happy)
    n = encoded.version.n
    takers = [server for server in view.servers if view.broker.accepts_new_shares(server)]
    targets = plan_targets(servermap, takers, n, servermap.failed)
    while targets:
        failures = len(outcome.failed)
        async with trio.open_nursery() as nursery:
            for group in by_server(targets).values():
                nursery.start_soon(_write, view, encoded, servermap, group, outcome)
        if outcome.surprises or len(outcome.failed) == failures:
            break
        placed = [(target.server, target.shnum) for target in outcome.placed.values()]
        targets = new_targets(placed, takers, n, {*outcome.failed, *servermap.failed})
    return outcome


async def _write(
    view: SlotView,
    encoded: EncodedVersion,
    servermap: ServerMap,
    targets: list[Target],
    outcome: Outcome,
) -> None:
    """Send one server its shares, and note what it says."""
    server = targets[0].server
    vectors = {t.shnum: t.vectors(encoded.shares[t.shnum]) for t in targets}
    reads = (ReadVector(0, len(encoded.version.pack())),)
    result = None
    try:
        with trio.move_on_after(WRITE_TIMEOUT) as scope:
            outcome.writing.add(scope)
            secrets = view.secrets_for(server)
            result = await server.read_test_write(view.storage_index, secrets, vectors, reads)
        if result is None:
            raise ServerUnavailableError(f"{server.name} did not answer in time")
    except ServerError as error:
        log.warning("publish: %s", error)
        if isinstance(error, ServerUnavailableError):
            view.broker.note_failure(server)
        outcome.failed[server.server_id] = (server, error)
        return
    finally:
        outcome.writing.discard(scope)
    _note(server, encoded, servermap, targets, result, outcome)
    if outcome.surprises or outcome.good_enough():
        for scope in outcome.writing:
            scope.deadline = min(scope.deadline, trio.current_time() + GRACE)


def _note(
    server: StorageServer,
    encoded: EncodedVersion,
    servermap: ServerMap,
    targets: list[Target],
    result: TestWriteResult,
    outcome: Outcome,
) -> None:
    """Sort a server's answer into placed shares and surprises."""
    ours = encoded.version.checkstring
    before = {shnum: reads[0] if reads else b"" for shnum, reads in result.reads.items()}
    already = {shnum for shnum, head in before.items() if head.startswith(ours)}
    written = {target.shnum for target in targets}
    if result.success or written <= already:
        outcome.placed.update((target.place, target) for target in targets)
    else:
        outcome.surprises.append(f"{server.name} holds other shares than it did")
    known = {
        shnum
        for server_id, shnum in (*servermap.shares, *servermap.bad)
        if server_id == server.server_id
    }
    outcome.surprises += [
        f"{server.name} holds share {shnum}, which it did not"
        for shnum in sorted(before.keys() - written - known - already)
    ]


def verdict(outcome: Outcome) -> None:
    """Raise unless the version is safely on the grid.

    Raises:
        CollisionError: somebody else wrote meanwhile.
        GridFullError: too few servers took shares, and those that did not have no room.
        GridReadOnlyError: the same, and those that did not accept no writes.
        NotHappyError: too few servers took shares.
    """
    if outcome.surprises:
        raise CollisionError("; ".join(outcome.surprises[:3]))
    if outcome.good_enough():
        return
    errors = [error for _, error in outcome.failed.values()]
    placed = (
        f"shares could be placed on {outcome.happiness()} servers, and {outcome.happy} are needed"
    )
    if outcome.distinct() < outcome.k:
        placed += f" ({outcome.distinct()} different ones, and it takes {outcome.k} to read)"
    message = "; ".join((placed, *sorted(map(str, errors))[:3]))
    if errors and all(isinstance(error, ServerFullError) for error in errors):
        raise GridFullError(message)
    if errors and all(isinstance(error, ServerReadOnlyError) for error in errors):
        raise GridReadOnlyError(message)
    raise NotHappyError(message)


def map_after(outcome: Outcome, encoded: EncodedVersion, servermap: ServerMap) -> ServerMap:
    """What is known to be where after a publish that went well."""
    version = encoded.version
    shares = {
        place: MappedShare(target.server, target.shnum, encoded.header)
        for place, target in outcome.placed.items()
    }
    elsewhere = {p: s for p, s in servermap.shares.items() if p not in shares}
    still_bad = {p: s for p, s in servermap.bad.items() if p not in shares}
    failed = {**servermap.failed, **{i: str(error) for i, (_, error) in outcome.failed.items()}}
    return ServerMap(
        mode=Mode.WRITE,
        shares=MappingProxyType(elsewhere | shares),
        bad=MappingProxyType(still_bad),
        answered=_together(servermap.answered, (t.server for t in outcome.placed.values())),
        failed=MappingProxyType(failed),
        highest_seen=version.seqnum,
    )


def _together(
    first: Iterable[StorageServer], second: Iterable[StorageServer]
) -> tuple[StorageServer, ...]:
    servers: Mapping[ServerId, StorageServer] = {s.server_id: s for s in (*first, *second)}
    return tuple(servers.values())
