"""How fast shares come from one storage server, with nothing around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lafsfs.caps import CHKCap, parse
from lafsfs.gbs.discovery.node_dir import NodeDirectory
from lafsfs.gbs.discovery.roster import Roster
from lafsfs.gbs.discovery.sources import Sources
from lafsfs.grid.api import ShareKind

if TYPE_CHECKING:
    from pathlib import Path

RANGE = 1 << 20  # bytes of one request
ENOUGH = 200 << 20  # bytes to read in all


async def read_rate(node_directory: Path, text: str, scratch: Path) -> float:
    """Bytes per second that a client of this node gets out of one server's share of a file.

    ``text``: the file's capability. ``scratch``: a directory for what a client keeps.
    """
    cap = parse(text)
    assert isinstance(cap, CHKCap)
    node = NodeDirectory(node_directory)
    sources = Sources().with_node(node, node.settings(), scratch)
    async with Roster.open(sources, (), scratch / "ids.json") as roster:
        for server in roster.broker.servers_for(cap.storage_index):
            shnums = await server.list_shares(ShareKind.IMMUTABLE, cap.storage_index)
            if shnums:
                break
        shnum, done, offset = min(shnums), 0, 0
        start = trio.current_time()
        while done < ENOUGH:
            data = await server.read_share(
                ShareKind.IMMUTABLE, cap.storage_index, shnum, offset, RANGE
            )
            done += len(data)
            offset = offset + RANGE if data else 0
        return done / (trio.current_time() - start)
