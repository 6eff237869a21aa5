"""How many good shares of an object were seen, and where: what ``user.lafs.health`` says.

What reading has seen costs nothing to tell. Of an object that was not read yet the servers can be
asked what they hold, which says nothing about whether it is good.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.errors import ServerError
from lafsfs.grid.asking import ask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lafsfs.grid.api import ShareKind, StorageServer
    from lafsfs.grid.broker import Broker

PATIENCE: Final = 10.0  # seconds for a server to say what it holds


@dataclass(frozen=True, slots=True)
class Health:
    """Shares by the name of the server they were seen at; ``needed`` of ``total`` are needed.

    ``total`` is 0 where nobody knows. ``bad`` are those that failed verification.
    """

    needed: int
    total: int
    good: Mapping[str, frozenset[int]]
    bad: Mapping[str, frozenset[int]] = field(default_factory=lambda: MappingProxyType({}))
    verified: bool = True

    @property
    def missing(self) -> frozenset[int]:
        """The shares that were not seen, where it is known how many there are."""
        return frozenset(range(self.total)).difference(*self.good.values())

    @property
    def text(self) -> str:
        """One line: ``9 good shares of 10 on 5 servers, 3 needed, 1 bad``."""
        shnums = frozenset[int]().union(*self.good.values())
        servers = sum(bool(held) for held in self.good.values())
        bad = sum(map(len, self.bad.values()))
        return (
            f"{len(shnums)} {'good ' if self.verified else ''}share{'s' * (len(shnums) != 1)}"
            + (f" of {self.total}" if self.total else "")
            + f" on {servers} server{'s' * (servers != 1)}"
            + (f", {self.needed} needed" if self.needed else "")
            + (f", {bad} bad" if bad else "")
            + ("" if self.verified else ", not verified")
        )


async def look(
    broker: Broker, kind: ShareKind, storage_index: bytes, needed: int, total: int
) -> Health:
    """Ask every server what it holds of an object. Those that do not answer hold nothing."""
    found: dict[str, frozenset[int]] = {}

    async def one(server: StorageServer) -> None:
        try:
            found[server.name] = await ask(
                broker, server, lambda: server.list_shares(kind, storage_index), patience=PATIENCE
            )
        except ServerError:
            found[server.name] = frozenset()

    async with trio.open_nursery() as nursery:
        for server in broker.servers:
            nursery.start_soon(one, server)
    return Health(needed, total, MappingProxyType(found), verified=False)
