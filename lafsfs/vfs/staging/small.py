"""What was written to a small file, as one value for the journal. Pure.

    8 bytes each   size of the file, size of its base, how far the base still shows
    4 bytes        number of extents
    16 bytes each  start and length of an extent
    the bytes of all extents, one behind the other

All numbers are big-endian. The journal authenticates the value, so it is taken at its word.
"""

from __future__ import annotations

import struct
from typing import Final

from lafsfs.vfs.staging.extents import Extent, ExtentMap

INLINE_LIMIT: Final = 64 << 10  # bytes: up to here a transaction is cheaper than a file
MOST_EXTENTS: Final = 512

_HEAD: Final = struct.Struct(">QQQI")
_EXTENT: Final = struct.Struct(">QQ")


def is_small(extents: ExtentMap) -> bool:
    """Whether what was written is kept in one value."""
    if len(extents) > MOST_EXTENTS:
        return False
    return extents.size <= INLINE_LIMIT or extents.live <= INLINE_LIMIT


def pack(extents: ExtentMap, written: bytes) -> bytes:
    """``written``: the bytes of all extents, one behind the other."""
    head = _HEAD.pack(extents.size, extents.base_size, extents.base_limit, len(extents))
    return b"".join((head, *(_EXTENT.pack(e.start, e.length) for e in extents), written))


def unpack(value: bytes, record: int) -> tuple[ExtentMap, bytes]:
    """What :func:`pack` was given; the extents are of one record of that number."""
    size, base_size, base_limit, count = _HEAD.unpack_from(value)
    at = _HEAD.size + count * _EXTENT.size
    extents = ExtentMap(base_size)
    extents.size, extents.base_limit = size, base_limit
    found: list[Extent] = []
    skip = 0
    for start, length in _EXTENT.iter_unpack(value[_HEAD.size : at]):
        found.append(Extent(start, length, record, skip))
        skip += length
    extents.replace(found)
    return extents, value[at:]
