"""Asking every server of a grid how it is: for people who want to know what they have.

Every server that is known gets one line, those that cannot be used with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from lafsfs.errors import ServerError

if TYPE_CHECKING:
    from lafsfs.gbs.discovery.roster import Entry, Roster
    from lafsfs.grid.api import ServerVersion, StorageServer

PATIENCE = 10.0  # seconds for an answer


@dataclass(frozen=True, slots=True)
class Report:
    """One server.

    Attributes:
        server_id: 20 bytes; None where it is not known yet.
        addresses: HOST:PORT, or the directory.
        origin: who names it; empty for a directory.
        version: what it answered; None if it did not.
        round_trip: seconds for a question on a connection that is there already.
        fault: why it is not connected.
        accepts_new_shares: as far as Grid Managers are concerned.
    """

    name: str
    server_id: bytes | None
    addresses: tuple[str, ...]
    origin: str
    version: ServerVersion | None = None
    round_trip: float | None = None
    fault: str | None = None
    accepts_new_shares: bool = True


async def survey(roster: Roster) -> list[Report]:
    """Ask all servers at once, each for at most :data:`PATIENCE`. In the roster's order."""
    reports: dict[int, Report] = {}

    async def local(place: int, server: StorageServer) -> None:
        version, seconds, fault = await _ask(server)
        reports[place] = Report(
            server.name, server.server_id, (server.name,), "", version, seconds, fault
        )

    async def remote(place: int, entry: Entry) -> None:
        reports[place] = await _remote(entry)

    async with trio.open_nursery() as nursery:
        for place, server in enumerate(roster.local):
            nursery.start_soon(local, place, server)
        for place, entry in enumerate(roster.entries(), len(roster.local)):
            nursery.start_soon(remote, place, entry)
    return [reports[place] for place in sorted(reports)]


async def _remote(entry: Entry) -> Report:
    record, server = entry.record, entry.server
    addresses = tuple(nurl.authority for nurl in record.nurls)
    if server is None:
        return Report(record.name, record.server_id, addresses, record.origin, fault=entry.fault)
    version, seconds, fault = await _ask(server)
    return Report(
        record.name,
        server.server_id,
        addresses,
        record.origin,
        version,
        seconds,
        fault,
        entry.accepts_new_shares,
    )


async def _ask(server: StorageServer) -> tuple[ServerVersion | None, float | None, str | None]:
    """What a server answers, how fast, and why it does not."""
    fault = f"no answer within {PATIENCE:.0f} s"
    with trio.move_on_after(PATIENCE):
        try:
            await server.version()  # the first question pays for connecting
            asked_at = trio.current_time()
            version = await server.version()
        except ServerError as error:
            return None, None, str(error).removeprefix(f"{server.name} ").removeprefix("is ")
        return version, trio.current_time() - asked_at, None
    return None, None, fault
