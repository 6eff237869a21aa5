"""What tests of downloads share: contents that are stored on a fake grid."""

from lafsfs.grid.broker import Broker
from lafsfs.grid.encoding import Encoding
from lafsfs.immutable import BytesSource, upload
from tests import golden_data
from tests.immutable.grids import SECRETS, empty_grid

CONTENTS = golden_data.generated("a download", 100_000)
SEGMENTED = Encoding(2, 2, 4, max_segment_size=10_000)


async def stored(count=4, data=CONTENTS, encoding=SEGMENTED):
    """A grid that holds ``data``: its servers, broker and the capability."""
    servers, broker = empty_grid(count)
    cap = await upload(
        BytesSource(data),
        broker=broker,
        secrets=SECRETS,
        encoding=encoding,
        convergence=SECRETS.convergence_secret,
    )
    for server in servers:
        server.calls.clear()
    return servers, Broker(servers), cap


def holders_in_order(servers, broker, cap):
    """Servers that hold shares, by the number of the share (they hold one each)."""
    held = {next(iter(s.held(cap.storage_index))): s for s in servers if s.held(cap.storage_index)}
    return [held[shnum] for shnum in sorted(held)]
