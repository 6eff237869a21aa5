"""Renewing the leases on everything that can be reached, before servers may forget it.

A lease lasts 31 days, and servers that collect garbage delete what has none
(``garbage-collection.rst``). Every server is asked about every object: shares may be anywhere, and
a server that has none says so.

Rules:

- Literal files are in their capability and have no leases; unknown children cannot be renewed.
- An object is renewed if at least one server had shares of it. What the others said is kept.
- Some objects at a time, all servers of each at once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from lafsfs.caps import DirectoryCap
from lafsfs.errors import NoSuchShareError, ServerError
from lafsfs.nodes.walk import Step, walk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from lafsfs.caps import Cap, UnknownCap
    from lafsfs.grid.api import StorageServer
    from lafsfs.nodes.maker import NodeMaker

PARALLEL = 10  # objects at a time; a server sees as many requests at once
PATIENCE = 60.0  # seconds for one server and one object


@dataclass(slots=True)
class Renewals:
    """What became of it.

    Attributes:
        renewed: objects whose lease at least one server renewed.
        unknown: children of a kind that cannot be renewed.
        lost: paths of objects of which no server that answered has a share.
        unreadable: paths of directories that could not be read, and why: what is below is missing.
        failures: objects that a server was asked about in vain, by its name.
        reasons: the last thing that such a server said.
    """

    renewed: int = 0
    unknown: int = 0
    lost: list[tuple[str, ...]] = field(default_factory=list)
    unreadable: list[tuple[tuple[str, ...], str]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether every server renewed everything that it has."""
        return not (self.lost or self.unreadable or self.failures)


async def renew_leases(
    maker: NodeMaker,
    starts: Iterable[tuple[tuple[str, ...], Cap | UnknownCap]],
    progress: Callable[[], None] = lambda: None,
) -> Renewals:
    """Renew ``starts``, given with their paths, and all below them; ``progress`` after each."""
    renewals = Renewals()
    met: set[bytes] = set()
    send, receive = trio.open_memory_channel[Step](0)

    async def work() -> None:
        async for step in receive:
            await _renew(maker, step, renewals)
            progress()

    async with trio.open_nursery() as nursery:
        for _ in range(PARALLEL):
            nursery.start_soon(work)
        async with send:
            for path, cap in starts:
                async for step in _steps(maker, path, cap):
                    index = step.cap.storage_index
                    if index is None:
                        renewals.unknown += step.cap.kind == "unknown"
                    elif index not in met:
                        met.add(index)
                        await send.send(step)
    return renewals


async def _steps(
    maker: NodeMaker, path: tuple[str, ...], cap: Cap | UnknownCap
) -> AsyncIterator[Step]:
    if not isinstance(cap, DirectoryCap):
        yield Step(path, cap, None)
        return
    async for step in walk(maker, cap):
        yield Step((*path, *step.path), step.cap, step.child, step.error)


async def _renew(maker: NodeMaker, step: Step, renewals: Renewals) -> None:
    """Ask every server about one object."""
    if step.error is not None:
        renewals.unreadable.append((step.path, str(step.error)))
    index = step.cap.storage_index
    assert index is not None
    renewed: list[StorageServer] = []
    failed: list[StorageServer] = []

    async def ask(server: StorageServer) -> None:
        lease = maker.grid.secrets.lease(index, server)
        reason = f"no answer within {PATIENCE:.0f} s"
        with trio.move_on_after(PATIENCE):
            try:
                await server.add_lease(index, lease)
            except NoSuchShareError:
                return
            except ServerError as error:
                reason = str(error)
            else:
                renewed.append(server)
                return
        failed.append(server)
        renewals.failures[server.name] += 1
        renewals.reasons[server.name] = reason

    async with trio.open_nursery() as nursery:
        for server in maker.grid.broker.servers:
            nursery.start_soon(ask, server)
    if renewed:
        renewals.renewed += 1
    elif not failed:
        renewals.lost.append(step.path)
