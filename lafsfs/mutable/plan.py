"""Which share goes where, and what each write expects to replace. Pure.

Shares stay where they are: every place that holds a share of the slot, good or bad, of whatever
version, gets the new one, tested against the bytes that the servermap saw there. Share numbers
without a place go to the servers with the fewest, in permuted order, tested against absence
(``mutable.rst``, "Recovery", lays out why a version should have all its n shares).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lafsfs.grid.api import TestVector, TestWriteVectors, WriteVector
from lafsfs.grid.happiness import place

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from lafsfs.grid.api import StorageServer
    from lafsfs.mutable.servermap import Place, ServerId, ServerMap

ABSENT = TestVector(0, 1, b"")  # an absent share reads as empty, and no share we replace is empty


@dataclass(frozen=True, slots=True)
class Target:
    """One share to write: where, and the first bytes it must find there (none: no share)."""

    server: StorageServer
    shnum: int
    expected: bytes = field(repr=False)

    @property
    def place(self) -> Place:
        """Where the share goes."""
        return self.server.server_id, self.shnum

    def vectors(self, share: bytes) -> TestWriteVectors:
        """Replace the whole share, cutting off what a longer old one would leave behind."""
        test = TestVector(0, len(self.expected), self.expected) if self.expected else ABSENT
        return TestWriteVectors((test,), (WriteVector(0, share),), len(share))


def existing_targets(servermap: ServerMap, n: int, dead: Collection[ServerId]) -> list[Target]:
    """Every place that the map knows and that is still worth writing to."""
    shares, bad = servermap.shares.values(), servermap.bad.values()
    seen = [
        *(Target(share.server, share.shnum, share.version.checkstring) for share in shares),
        *(Target(share.server, share.shnum, share.head) for share in bad),
    ]
    return [t for t in seen if t.shnum < n and t.server.server_id not in dead]


def new_targets(
    taken: Iterable[tuple[StorageServer, int]],
    servers: Sequence[StorageServer],
    n: int,
    dead: Collection[ServerId],
) -> list[Target]:
    """Places to add to those in ``taken``, so that every share number has one.

    ``servers`` are in permuted order; those in ``dead`` get nothing. A share number that has a
    place gets another one where that spreads the shares over more servers.
    """
    existing: dict[StorageServer, set[int]] = {}
    for server, shnum in taken:
        existing.setdefault(server, set()).add(shnum)
    living = [server for server in servers if server.server_id not in dead]
    uploads = place(existing, living, n).uploads
    return [
        Target(server, shnum, b"") for server, shnums in uploads.items() for shnum in sorted(shnums)
    ]


def plan_targets(
    servermap: ServerMap,
    servers: Sequence[StorageServer],
    n: int,
    dead: Collection[ServerId],
) -> list[Target]:
    """All writes of a publish: old places, and new ones for share numbers that have none."""
    kept = existing_targets(servermap, n, dead)
    return kept + new_targets([(t.server, t.shnum) for t in kept], servers, n, dead)


def by_server(targets: Iterable[Target]) -> dict[ServerId, list[Target]]:
    """The targets of each server: they are written in one atomic call."""
    grouped: dict[ServerId, list[Target]] = {}
    for target in targets:
        grouped.setdefault(target.server.server_id, []).append(target)
    return grouped
