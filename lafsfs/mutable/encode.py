"""From contents and keys to every share of a new version. Pure, and all of it CPU work.

    contents -> segments -> ciphertext (AES-CTR, a data key per salt) -> k + (n - k) blocks
    blocks -> a block hash tree per share -> roots -> the share hash tree -> the root hash R
    sequence number, R, encoding -> signed prefix -> RSA-PSS signature

SDMF has one salt (the IV) in its signed prefix; MDMF has one before each block, covered by the
block's hash (``mutable.rst``, "SDMF Slot Format"; ``docs/formats.md``).

Rules:

- A salt is never used for two different contents: each is drawn fresh.
- An empty file has no segments and no blocks, and still one hash in each block hash tree.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lafsfs.caps import MutableFormat
from lafsfs.crypto import aes, erasure, hashes
from lafsfs.crypto.merkle import HashTree
from lafsfs.errors import FileTooBigError, FormatError
from lafsfs.formats.geometry import SALT_SIZE, MDMFGeometry, SDMFGeometry
from lafsfs.formats.slot import SlotPrefix, SlotShare

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lafsfs.crypto.rsa import SigningKey
    from lafsfs.formats.geometry import MutableGeometry
    from lafsfs.formats.slot import SlotHeader
    from lafsfs.mutable.servermap import Version


@dataclass(frozen=True, slots=True)
class SlotKeys:
    """What it takes to write a slot. Made from the key pair; its write key names the slot."""

    signing_key: SigningKey = field(repr=False)

    @property
    def write_key(self) -> bytes:
        """The 16 bytes from which read key, storage index and write enablers follow."""
        return hashes.ssk_writekey(self.signing_key.der)

    @property
    def fingerprint(self) -> bytes:
        """The 32 bytes by which capabilities know the public key."""
        return hashes.ssk_fingerprint(self.signing_key.verifying_key.der)

    def encrypted(self) -> bytes:
        """The private key as every share holds it: under the write key, always the same bytes."""
        return aes.ctr(self.write_key, self.signing_key.der)


@dataclass(frozen=True, slots=True)
class EncodedVersion:
    """A version ready to be published: whole shares by share number, and their common header."""

    header: SlotHeader
    shares: Mapping[int, bytes] = field(repr=False)

    @property
    def version(self) -> Version:
        """Which version the shares are of."""
        return self.header.prefix


def plan_geometry(format_: MutableFormat, size: int, k: int, n: int) -> MutableGeometry:
    """How stock would cut up new contents. Raises FileTooBigError where the format ends."""
    kind = SDMFGeometry if format_ is MutableFormat.SDMF else MDMFGeometry
    kind.plan(0, k, n)  # an impossible encoding is not the contents' fault
    try:
        return kind.plan(size, k, n)
    except FormatError as error:
        raise FileTooBigError(f"{size} bytes are too many for {format_.value}: {error}") from None


def encode_version(
    contents: bytes,
    format_: MutableFormat,
    k: int,
    n: int,
    seqnum: int,
    keys: SlotKeys,
) -> EncodedVersion:
    """Make every share of a version.

    Args:
        k, n: the encoding, ``1 <= k <= n <= 255``.
        seqnum: the version's sequence number, from 1.

    Raises:
        FileTooBigError: the format cannot hold this much.
    """
    geometry = plan_geometry(format_, len(contents), k, n)
    iv = os.urandom(SALT_SIZE) if format_ is MutableFormat.SDMF else None
    data = _encode_segments(contents, geometry, iv, hashes.ssk_readkey(keys.write_key))
    block_trees = [HashTree([hashes.block_hash(block) for block in share]) for share in data]
    share_tree = HashTree([tree.root for tree in block_trees])
    prefix = SlotPrefix(
        format_, seqnum, share_tree.root, iv, k, n, geometry.segment_size, len(contents)
    )
    signature = keys.signing_key.sign(prefix.pack())
    parts = [
        SlotShare(
            prefix=prefix,
            verification_key=keys.signing_key.verifying_key.der,
            signature=signature,
            share_hash_chain={i: share_tree.nodes[i] for i in share_tree.needed_for(shnum, False)},
            block_hashes=block_trees[shnum].nodes,
            share_data=b"".join(data[shnum]),
            enc_privkey=keys.encrypted(),
        )
        for shnum in range(n)
    ]
    return EncodedVersion(
        parts[0].header(), {shnum: share.pack() for shnum, share in enumerate(parts)}
    )


def _encode_segments(
    contents: bytes, geometry: MutableGeometry, iv: bytes | None, read_key: bytes
) -> list[list[bytes]]:
    """By share number, what is stored of each segment: its block, behind a salt without an IV."""
    data: list[list[bytes]] = [[] for _ in range(geometry.n)]
    for segment in range(geometry.num_segments):
        salt = os.urandom(SALT_SIZE) if iv is None else iv
        blocks = _encode_segment(contents, geometry, segment, hashes.ssk_datakey(salt, read_key))
        for shnum, block in enumerate(blocks):
            data[shnum].append(block if iv is not None else salt + block)
    return data


def _encode_segment(
    contents: bytes, geometry: MutableGeometry, segment: int, key: bytes
) -> list[bytes]:
    """The n blocks of one segment."""
    start = geometry.segment_offset(segment)
    ciphertext = aes.ctr(key, contents[start : start + geometry.segment_length(segment)])
    padded = ciphertext.ljust(geometry.padded_length(segment), b"\0")
    size = geometry.block_length(segment)
    pieces = [padded[i : i + size] for i in range(0, len(padded), size)]
    return erasure.encode(pieces, geometry.k, geometry.n, None)
