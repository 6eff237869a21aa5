"""Immutable files: upload and download of CHK objects.

Upload      :mod:`upload`, from a :class:`Source`; :mod:`encoder` makes the shares' bytes, PURE;
            :mod:`placement` finds servers, :mod:`shareholders` sends to them.
Download    :mod:`file` reads ranges through the cache of :mod:`lafsfs.cache.segments`; on a miss
            :mod:`fetcher` races the :mod:`share` readers that :mod:`finder` found, in the order
            of :mod:`choosing`, and :mod:`verified` admits what they bring.
Both        ask servers by :mod:`lafsfs.grid.asking` and keep heavy work off the event loop by
            :mod:`lafsfs.grid.cpu`.
"""

from lafsfs.cache.segments import SegmentCache
from lafsfs.immutable.file import CHKFile
from lafsfs.immutable.source import (
    BytesSource,
    FileSource,
    Source,
    SourceChangedError,
    open_source,
)
from lafsfs.immutable.upload import LITERAL_LIMIT, upload

__all__ = [
    "LITERAL_LIMIT",
    "BytesSource",
    "CHKFile",
    "FileSource",
    "SegmentCache",
    "Source",
    "SourceChangedError",
    "open_source",
    "upload",
]
