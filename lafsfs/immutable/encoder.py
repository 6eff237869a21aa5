"""From plaintext to the bytes of every share. PURE, apart from what it remembers of the file.

Theory (``file-encoding.rst``). Each segment is encrypted, cut into k pieces and erasure coded into
n blocks. Every block is a leaf of its share's block hash tree, the roots of these trees are the
leaves of the share hash tree, and its root, with the root over the ciphertext segments, goes into
the UEB whose hash is in the capability.

A share has no gaps: header, blocks, a tree of zeros, ciphertext hash tree, block hash tree, share
hash chain, UEB. So an encoder produces n streams, each appended to from front to back:

    header() ; encode(first segments) ... encode(last) ; trees(shnum) for every share ; finish()

The code works on every byte of the k pieces by itself. So several segments are coded at once, from
what the first k shares will hold of them, and what comes out is what the others will hold.

Rules:

- All n shares are encoded, whoever takes them: their roots are in the UEB.
- Calls come one at a time and in this order, from whichever thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lafsfs.crypto import aes, erasure, hashes
from lafsfs.crypto.merkle import HashTree
from lafsfs.formats.chk import CHKShareLayout, plan_layout
from lafsfs.formats.hashstore import pack_hash_tree, pack_share_hash_chain
from lafsfs.formats.ueb import UEB, ueb_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lafsfs.formats.geometry import CHKGeometry


@dataclass(frozen=True, slots=True)
class Endings:
    """What ends the shares, once everything else is known.

    ``endings``: by share number, the share hash chain, the UEB's length and the UEB.
    """

    ueb_hash: bytes
    endings: tuple[bytes, ...]


class Encoder:
    """Encodes one file. ``key`` is its 16-byte encryption key."""

    def __init__(self, key: bytes, geometry: CHKGeometry) -> None:
        self._key = key
        self.geometry = geometry
        self.layout: CHKShareLayout = plan_layout(geometry, ueb_size(geometry))
        self._flat = hashes.ciphertext_hasher()
        self._segment_hashes: list[bytes] = []
        self._block_hashes: list[list[bytes]] = [[] for _ in range(geometry.n)]
        self._roots: list[bytes] = []
        self._ciphertext_root = b""
        self._before_block_tree = b""

    def header(self) -> bytes:
        """What every share begins with."""
        return self.layout.header.pack()

    def encode(self, plaintext: bytes) -> list[bytes]:
        """What each share holds of the next segments, by share number.

        ``plaintext``: one segment or several, whole.
        """
        geometry = self.geometry
        first = len(self._segment_hashes)
        ciphertext = aes.ctr(self._key, plaintext, geometry.segment_offset(first))
        self._flat.update(ciphertext)
        primary: list[list[bytes]] = [[] for _ in range(geometry.k)]
        sizes = []
        for segment in _split(ciphertext, geometry, first):
            self._segment_hashes.append(hashes.ciphertext_segment_hash(segment))
            size = -(-len(segment) // geometry.k)
            sizes.append(size)
            for number, blocks in enumerate(primary):
                block = segment[number * size : (number + 1) * size]
                blocks.append(block.ljust(size, b"\0"))
        pieces = [b"".join(blocks) for blocks in primary]
        streams = erasure.encode(pieces, geometry.k, geometry.n)
        for own, stream in zip(self._block_hashes, streams, strict=True):
            own.extend(_block_hashes(stream, sizes))
        return streams

    def trees(self, shnum: int) -> bytes:
        """The hash trees of a share, and the zeros before them. Once for each, in order."""
        if not self._before_block_tree:
            tree = HashTree(self._segment_hashes)
            self._ciphertext_root = tree.root
            zeros = bytes(self.layout.unused_tree.size)
            self._before_block_tree = zeros + pack_hash_tree(tree.nodes)
        block_tree = HashTree(self._block_hashes[shnum])
        self._block_hashes[shnum].clear()
        self._roots.append(block_tree.root)
        return self._before_block_tree + pack_hash_tree(block_tree.nodes)

    def finish(self) -> Endings:
        """The ends of all shares, and the hash that makes the capability."""
        share_tree = HashTree(self._roots)
        ueb = UEB(
            geometry=self.geometry,
            crypttext_hash=self._flat.digest(),
            crypttext_root_hash=self._ciphertext_root,
            share_root_hash=share_tree.root,
        ).pack()
        packed = self.layout.pack_ueb(ueb)
        endings = []
        for shnum in range(self.geometry.n):
            indices = share_tree.needed_for(shnum, include_leaf=True)
            chain = {index: share_tree.nodes[index] for index in indices}
            endings.append(pack_share_hash_chain(chain) + packed)
        return Endings(hashes.ueb_hash(ueb), tuple(endings))


def _split(data: bytes, geometry: CHKGeometry, first: int) -> Iterator[bytes]:
    """The segments that ``data`` consists of, the first of them being of that number."""
    at = 0
    while at < len(data):
        size = geometry.segment_length(first)
        yield data[at : at + size]
        at, first = at + size, first + 1


def _block_hashes(stream: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """The hashes of the blocks of those sizes that a stream consists of."""
    at, view = 0, memoryview(stream)
    for size in sizes:
        yield hashes.block_hash(view[at : at + size])
        at += size
