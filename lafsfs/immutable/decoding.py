"""From k blocks to a segment of ciphertext. PURE, and work for a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lafsfs.crypto import erasure
from lafsfs.crypto.hashes import ciphertext_segment_hash

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lafsfs.formats.geometry import CHKGeometry


def decode(blocks: Mapping[int, memoryview], geometry: CHKGeometry, size: int) -> bytes:
    """The segment of ``size`` bytes that k blocks make; the primary ones are only put together."""
    k = geometry.k
    if sorted(blocks) == list(range(k)):
        return b"".join(blocks[shnum] for shnum in range(k))[:size]
    whole = {shnum: bytes(block) for shnum, block in blocks.items()}
    return b"".join(erasure.decode(whole, k, geometry.n))[:size]


def decode_and_hash(
    blocks: Mapping[int, memoryview], geometry: CHKGeometry, size: int
) -> tuple[bytes, bytes]:
    """The segment that k blocks make, and its hash."""
    ciphertext = decode(blocks, geometry, size)
    return ciphertext, ciphertext_segment_hash(ciphertext)
