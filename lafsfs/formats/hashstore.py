"""Stored Merkle trees and share hash chains: how hashes lie in a share, of any kind.

A whole tree is its nodes in heap order, root first, 32 bytes each. A share hash chain is the few
nodes of the share hash tree that lead from one share to the root, each with its 16-bit big-endian
index in front. What a hash must be is for :mod:`lafsfs.crypto.merkle` to say, not for this module.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from lafsfs.errors import FormatError
from lafsfs.formats.geometry import HASH_SIZE, MAX_CHK_SHARES, SHARE_HASH_SIZE, chain_length

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_CHAIN_LENGTH = chain_length(MAX_CHK_SHARES) + 1  # entries: eight levels and the leaf

_ENTRY = struct.Struct(f">H{HASH_SIZE}s")


def pack_hash_tree(nodes: Iterable[bytes]) -> bytes:
    """A whole tree as it is stored."""
    hashes = tuple(nodes)
    if any(len(node) != HASH_SIZE for node in hashes):
        raise ValueError("a hash does not have 32 bytes")
    return b"".join(hashes)


def parse_hash_tree(data: bytes) -> list[bytes]:
    """The nodes of a stored tree, or of a run of its nodes. A partial hash is a FormatError."""
    if len(data) % HASH_SIZE:
        raise FormatError(f"{len(data)} bytes are no whole number of hashes")
    return [data[i : i + HASH_SIZE] for i in range(0, len(data), HASH_SIZE)]


def pack_share_hash_chain(chain: Mapping[int, bytes]) -> bytes:
    """A share hash chain as it is stored: by ascending index."""
    if any(len(node) != HASH_SIZE for node in chain.values()):
        raise ValueError("a hash does not have 32 bytes")
    return b"".join(_ENTRY.pack(index, chain[index]) for index in sorted(chain))


def parse_share_hash_chain(data: bytes) -> dict[int, bytes]:
    """The hashes of a stored chain by their index in the tree, in the order they were stored.

    Stock writes them in ascending order while the tree has no more than 32 nodes; the order of
    larger ones is arbitrary, and nothing vouches for it.
    """
    if len(data) % SHARE_HASH_SIZE:
        raise FormatError(f"{len(data)} bytes are no whole number of share hash chain entries")
    if len(data) > MAX_CHAIN_LENGTH * SHARE_HASH_SIZE:
        raise FormatError(f"a share hash chain of {len(data)} bytes is too long")
    chain: dict[int, bytes] = {}
    for index, node in _ENTRY.iter_unpack(data):
        if index in chain:
            raise FormatError(f"node {index} occurs twice in the share hash chain")
        chain[index] = node
    return chain
