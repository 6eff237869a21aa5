"""What tests of uploads share: contents, and storing them on a fake grid."""

from lafsfs.grid.encoding import Encoding
from lafsfs.immutable import BytesSource, CHKFile, SegmentCache, upload
from tests import golden_data
from tests.immutable.grids import SECRETS

SMALL = golden_data.generated("an upload", 1000)
LARGE = golden_data.generated("an upload", 100_000)
SEGMENTED = Encoding(2, 3, 4, max_segment_size=10_000)  # LARGE is ten segments then


async def put(broker, data, encoding=SEGMENTED, convergence=SECRETS.convergence_secret):
    source = data if hasattr(data, "read") else BytesSource(data)
    return await upload(
        source, broker=broker, secrets=SECRETS, encoding=encoding, convergence=convergence
    )


async def reads_back(broker, cap, data):
    async with SegmentCache.open() as cache:
        return await CHKFile(cap, broker, cache).read(0, len(data) + 10) == data


def nothing_unfinished(servers):
    return not any(server.uploads for server in servers)
