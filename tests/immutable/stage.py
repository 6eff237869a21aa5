"""A stage for scenarios of reading: a file on a grid, on the virtual clock.

The grid: five servers with one share each, 3-of-5, and a file of ten segments whose blocks are
small enough to be hashed without a worker thread. Every answer takes :data:`RTT` unless a scenario
says otherwise. Before each scenario the file may have been read a little (*warm*): then geometry,
hashes and places are known, and so is how long servers take to answer.
"""

from dataclasses import dataclass

import trio

from lafsfs.cache.places import PlaceMemory, Places
from lafsfs.grid.broker import Broker
from lafsfs.grid.encoding import Encoding
from lafsfs.immutable import BytesSource, CHKFile, SegmentCache, upload
from tests import golden_data
from tests.fakes import fake_servers
from tests.immutable.grids import SECRETS

RTT = 1.0
SEGMENT = 3000
SIZE = 10 * SEGMENT
CONTENTS = golden_data.generated("scenarios", SIZE)
K, N = 3, 5


@dataclass
class Stage:
    """A file on a grid, and a reader's view of it. Servers are in order of their share numbers."""

    servers: list
    broker: Broker
    cap: object
    cache: SegmentCache
    file: CHKFile | None = None

    def asked(self, verb="read_share"):
        """How often each server was asked."""
        return [server.count(verb) for server in self.servers]

    def forget_calls(self):
        for server in self.servers:
            server.calls.clear()

    def overdue(self, number):
        """After how long that server's answer with one block is overdue."""
        return self.broker.overdue_after(self.servers[number], SEGMENT // K)

    async def segment(self, number, file=None):
        """Read ten bytes of a segment, and how long that took."""
        started = trio.current_time()
        offset = number * SEGMENT
        assert await (file or self.file).read(offset, 10) == CONTENTS[offset : offset + 10]
        return trio.current_time() - started

    async def everything(self):
        """Read all of the file, and how long that took."""
        started = trio.current_time()
        assert await self.file.read(0, SIZE) == CONTENTS
        return trio.current_time() - started


async def store():
    servers = fake_servers(N)
    cap = await upload(
        BytesSource(CONTENTS),
        broker=Broker(servers),
        secrets=SECRETS,
        encoding=Encoding(K, N, N, max_segment_size=SEGMENT),
        convergence=b"scenarios",
    )
    servers.sort(key=lambda server: min(server.held(cap.storage_index)))
    for server in servers:
        server.calls.clear()
        server.delay = RTT
    return servers, cap


def reader_of(stage, shares=None):
    """A new reader of the file, who knows how it is cut and perhaps where its shares are."""
    places = PlaceMemory(None, b"")
    places.note(stage.cap.storage_index, Places(shares or {}, SEGMENT))
    return CHKFile(stage.cap, stage.broker, stage.cache, places)
