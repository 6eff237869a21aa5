"""A large file that takes no room: a share of nothing but zeros, which a disk need not hold.

Its plaintext is the key stream. Everything else is as in any other file: every block is fetched,
verified and decrypted.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lafsfs.caps import CHKCap
from lafsfs.crypto import base32, hashes
from lafsfs.crypto.merkle import HashTree
from lafsfs.formats.chk import plan_layout
from lafsfs.formats.containers import pack_immutable_header
from lafsfs.formats.geometry import CHKGeometry
from lafsfs.formats.hashstore import pack_hash_tree, pack_share_hash_chain
from lafsfs.formats.ueb import UEB, ueb_size

if TYPE_CHECKING:
    from pathlib import Path


def plant(storage: Path, size: int) -> CHKCap:
    """Put a file of ``size`` bytes, 1-of-1, into a storage directory; its capability."""
    key = os.urandom(16)
    geometry = CHKGeometry.plan(size, 1, 1)
    whole, last = bytes(geometry.segment_size), bytes(geometry.tail_size)
    count = geometry.num_segments - 1
    segments = HashTree(
        [hashes.ciphertext_segment_hash(whole)] * count + [hashes.ciphertext_segment_hash(last)]
    )
    blocks = HashTree([hashes.block_hash(whole)] * count + [hashes.block_hash(last)])
    ueb = UEB(geometry, bytes(32), segments.root, HashTree([blocks.root]).root).pack()
    layout = plan_layout(geometry, ueb_size(geometry))
    header = layout.header
    parts = {
        0: header.pack(),
        header.crypttext_hash_tree: pack_hash_tree(segments.nodes),
        header.block_hashes: pack_hash_tree(blocks.nodes),
        header.share_hash_span.offset: pack_share_hash_chain({0: blocks.root}),
        header.uri_extension: layout.pack_ueb(ueb),
    }
    name = base32.encode(hashes.chk_storage_index(key))
    bucket = storage / "shares" / name[:2] / name
    bucket.mkdir(parents=True)
    with (bucket / "0").open("wb") as share:
        start = share.write(pack_immutable_header(layout.share_size, 0))
        for offset, data in parts.items():
            share.seek(start + offset)
            share.write(data)
    return CHKCap(key, hashes.ueb_hash(ueb), 1, 1, size)
