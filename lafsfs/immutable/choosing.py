"""Which of the shares that would help is tried next.

Lower ranks first:

- good standing: nothing in the share was wrong so far, its server is not in doubt;
- quick, to a factor of two, by what the broker measured; a server that is used for this fetch
  already counts as that much slower, which spreads a fetch over servers as long as they are alike;
  and one that was slow a while ago as less so, since nobody asks it who could find out otherwise;
- low numbers: with the first k shares there is nothing to decode.
"""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lafsfs.grid.api import StorageServer
    from lafsfs.grid.broker import Broker
    from lafsfs.immutable.share import ShareReader

SAME = 0.010  # seconds; servers this quick are equally quick, and primary shares decode for free
TOLERANCE = 0.25  # octaves: what takes 1.7 times as long is slower; what takes 1.5 times is not


def best_reader(
    readers: Iterable[ShareReader], broker: Broker, load: Mapping[StorageServer, int], size: int
) -> ShareReader:
    """The best of one or more readers.

    Args:
        load: how many shares of each server this fetch has asked for; 0 is understood.
        size: bytes that each would have to bring.
    """
    readers = list(readers)
    times = {r.server: max(SAME, broker.expected(r.server, size) or 0.0) for r in readers}
    fastest = min(times.values())

    def rank(reader: ShareReader) -> tuple[bool, bool, int, int, int]:
        busy = load.get(reader.server, 0)
        time = max(fastest, times[reader.server] * broker.freshness(reader.server))
        slower = int(log2(time * (1 + busy) / fastest) + TOLERANCE)
        doubtful = broker.is_doubtful(reader.server)
        return reader.is_suspect, doubtful, slower, busy, reader.shnum

    return min(readers, key=rank)


def is_last_resort(reader: ShareReader, broker: Broker) -> bool:
    """Whether to look for better shares before this one is tried."""
    return reader.is_suspect or broker.is_doubtful(reader.server)
