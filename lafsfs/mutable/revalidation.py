"""Whether the newest version of a slot that was seen still is: one short read at each server.

Only when it is not, or too few servers say so, must the slot be mapped again.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.errors import ServerError
from lafsfs.grid.api import ShareKind

if TYPE_CHECKING:
    from lafsfs.grid.broker import Broker
    from lafsfs.mutable.servermap import MappedShare, ServerMap, Version

TIMEOUT: Final = 2.0  # seconds; mapping the slot is where there is more patience


async def is_still_there(
    storage_index: bytes, servermap: ServerMap, version: Version, broker: Broker
) -> bool:
    """Whether the servers that had ``version`` have at least k shares of it, and nothing else.

    Servers that did not answer lately are not asked, and those that do not now are noted. One that
    failed before is not waited for where the others are enough: it would hold up every look.
    """
    wanted = version.pack()
    same: set[int] = set()
    different = False
    shares = [
        share
        for share in one_per_server(servermap, version)
        if not broker.is_backing_off(share.server)
    ]
    awaited = {share.place for share in shares if not broker.health(share.server).failures}

    async def check(share: MappedShare) -> None:
        nonlocal different
        head = None
        with suppress(ServerError), trio.move_on_after(TIMEOUT):
            head = await share.server.read_share(
                ShareKind.MUTABLE, storage_index, share.shnum, 0, len(wanted)
            )
        if head is None:
            broker.note_failure(share.server)
        elif head == wanted:
            same.add(share.shnum)
        else:
            different = True
        awaited.discard(share.place)
        if different or (not awaited and len(same) >= version.k):
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for share in shares:
            nursery.start_soon(check, share)
    return not different and len(same) >= version.k


def one_per_server(servermap: ServerMap, version: Version) -> list[MappedShare]:
    """A share of the version at each server that has one, of as many numbers as can be."""
    chosen: dict[bytes, MappedShare] = {}
    taken: set[int] = set()
    for share in servermap.shares_of(version):
        server_id = share.server.server_id
        if server_id not in chosen or (
            chosen[server_id].shnum in taken and share.shnum not in taken
        ):
            chosen[server_id] = share
        taken.add(share.shnum)
    return list(chosen.values())
