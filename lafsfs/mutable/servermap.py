"""What was found where: the shares of a slot by server, as a value that answers questions. Pure.

A servermap is the memory of one look around the grid. It holds every share whose header carried a
valid signature, the bad ones with the bytes they begin with (so that they can be replaced under
test-and-set), and who answered. From these follow the *recoverable* versions (those with k distinct
share numbers), the best of them, and the sequence number that a new version needs.

Rules:

- Only signed versions get in. That a share's blocks are good is known only after retrieving them;
  a share found bad then is taken out with :meth:`ServerMap.without`.
- A map is never changed, only replaced: whoever holds one holds a moment.
- Nothing here asks a server or looks at a clock.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from lafsfs.formats.slot import SlotPrefix

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lafsfs.formats.slot import SlotHeader
    from lafsfs.grid.api import StorageServer

Version: TypeAlias = SlotPrefix  # a version is its signed prefix, no more and no less
ServerId: TypeAlias = bytes
Place: TypeAlias = tuple[ServerId, int]  # which share number at which server


def rank(version: Version) -> tuple[int, bytes]:
    """What versions are ordered by: the newer one is greater."""
    return version.seqnum, version.root_hash


class Mode(enum.Enum):
    """How hard to look before a map counts as good enough."""

    ANYTHING = "anything"  # any recoverable version will do
    READ = "read"  # the newest version, unless it hides: k more servers than necessary are asked
    WRITE = "write"  # all shares there are, most likely: on until k servers in a row have none
    CHECK = "check"  # every server there is


@dataclass(frozen=True, slots=True)
class MappedShare:
    """A share whose signed prefix checked out.

    Attributes:
        header: the prefix, and where this share keeps its sections (which nobody signed).
        head: the share's first bytes as the map read them, to save reading them again.
        whole: whether ``head`` is all there is.
    """

    server: StorageServer
    shnum: int
    header: SlotHeader
    head: bytes = field(default=b"", repr=False)
    whole: bool = False

    @property
    def version(self) -> Version:
        """Which version the share is of."""
        return self.header.prefix

    @property
    def place(self) -> Place:
        """Where the share is."""
        return self.server.server_id, self.shnum


@dataclass(frozen=True, slots=True)
class BadShare:
    """A share that failed verification.

    ``head`` is how its stored bytes begin, at most a checkstring's length: what a write that
    replaces it tests against.
    """

    server: StorageServer
    shnum: int
    head: bytes = field(repr=False)
    reason: str

    @property
    def place(self) -> Place:
        """Where the share is."""
        return self.server.server_id, self.shnum


@dataclass(frozen=True, slots=True)
class ServerMap:
    """The result of one mapping (or of one publish, which leaves things as it knows).

    Attributes:
        answered: the servers that told what they hold, in the order they were asked in.
        failed: why the others did not.
        highest_seen: a sequence number known to have existed, whether or not it is in the map.
    """

    mode: Mode
    shares: Mapping[Place, MappedShare] = field(default_factory=lambda: MappingProxyType({}))
    bad: Mapping[Place, BadShare] = field(default_factory=lambda: MappingProxyType({}))
    answered: tuple[StorageServer, ...] = ()
    failed: Mapping[ServerId, str] = field(default_factory=lambda: MappingProxyType({}))
    highest_seen: int = 0

    def versions(self) -> dict[Version, frozenset[int]]:
        """The share numbers found of each version."""
        found: defaultdict[Version, set[int]] = defaultdict(set)
        for share in self.shares.values():
            found[share.version].add(share.shnum)
        return {version: frozenset(shnums) for version, shnums in found.items()}

    def recoverable(self) -> list[Version]:
        """The versions with k distinct shares, best first."""
        found = [v for v, shnums in self.versions().items() if len(shnums) >= v.k]
        return sorted(found, key=rank, reverse=True)

    def best(self) -> Version | None:
        """The recoverable version with the highest sequence number, then the highest root hash."""
        return next(iter(self.recoverable()), None)

    def newest(self) -> Version | None:
        """The newest version seen, recoverable or not."""
        return max(self.versions(), key=rank, default=None)

    def unrecoverable_newer(self) -> list[Version]:
        """Versions that are too few shares to recover, yet newer than the best recoverable one."""
        best = self.best()
        floor = best.seqnum if best is not None else -1
        return [
            version
            for version, shnums in self.versions().items()
            if len(shnums) < version.k and version.seqnum > floor
        ]

    def highest_seqnum(self) -> int:
        """The highest sequence number known, recoverable or not; 0 when there is none."""
        found = (share.version.seqnum for share in self.shares.values())
        return max(self.highest_seen, *found, 0)

    def shares_of(self, version: Version) -> list[MappedShare]:
        """The shares of one version, lowest share number first."""
        found = [share for share in self.shares.values() if share.version == version]
        return sorted(found, key=lambda share: share.shnum)

    def settled(self) -> bool:
        """Whether all n shares of one version are there, nothing else is, and everyone answered.

        Then the next version can be published on the strength of this map alone: whatever
        somebody else does meanwhile, the test-and-set of the servers will notice.
        """
        versions = self.versions()
        if self.bad or self.failed or len(versions) != 1:
            return False
        ((version, shnums),) = versions.items()
        return len(shnums) == version.n and version.seqnum >= self.highest_seen

    def without(self, bad: Iterable[BadShare]) -> ServerMap:
        """The same map after these shares turned out to be bad."""
        shares, worse = dict(self.shares), dict(self.bad)
        for share in bad:
            shares.pop(share.place, None)
            worse[share.place] = share
        return replace(self, shares=MappingProxyType(shares), bad=MappingProxyType(worse))

    def lighter(self) -> ServerMap:
        """The same map without the shares' first bytes, to be kept for longer."""
        shares = {place: replace(s, head=b"", whole=False) for place, s in self.shares.items()}
        return replace(self, shares=MappingProxyType(shares))

    def describe(self) -> str:
        """One line for messages: versions with their share counts, and who did not answer.

        Whoever tries again and again says the same as long as nothing has changed.
        """
        parts = [
            f"version {version.seqnum}: {len(shnums)} of {version.k} needed shares"
            for version, shnums in sorted(
                self.versions().items(), key=lambda item: rank(item[0]), reverse=True
            )
        ]
        if self.bad:
            parts.append(f"{len(self.bad)} corrupt")
        if not parts and not self.answered:
            parts.append("no server answers")
        elif not parts and self.failed:
            parts.append(f"no share on the {len(self.answered)} servers that answer")
        elif not parts:
            parts.append(
                f"no share on any of {len(self.answered)} servers: was it stored on others?"
            )
        return "; ".join((*parts, *sorted(self.failed.values())))
