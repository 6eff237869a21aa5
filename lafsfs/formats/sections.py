"""The sections of a mutable share, whichever format lays them out.

SDMF and MDMF have the same sections in different places. :class:`SlotSections` says where each is;
:mod:`~lafsfs.formats.sdmf` and :mod:`~lafsfs.formats.mdmf` turn it into their offset tables and
back. Offsets are from the share's first byte.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from lafsfs.errors import FormatError
from lafsfs.formats.geometry import MAX_SIZE, SHARE_HASH_SIZE, MutableGeometry, Span
from lafsfs.formats.hashstore import MAX_CHAIN_LENGTH

if TYPE_CHECKING:
    import struct
    from collections.abc import Callable

MAX_VERIFICATION_KEY_SIZE = 1000  # bytes; a 2048-bit key has 294
MAX_SIGNATURE_SIZE = 1000  # bytes; a 2048-bit key's have 256
MAX_ENC_PRIVKEY_SIZE = 4000  # bytes; a 2048-bit key has about 1,218
MAX_CHAIN_SIZE = MAX_CHAIN_LENGTH * SHARE_HASH_SIZE


@dataclass(frozen=True, slots=True)
class SectionSizes:
    """How many bytes each section has."""

    verification_key: int
    signature: int
    share_hash_chain: int
    block_hash_tree: int
    share_data: int
    enc_privkey: int


@dataclass(frozen=True, slots=True)
class SlotSections:
    """Where each section of a mutable share lies.

    Attributes:
        verification_key: the public key, SubjectPublicKeyInfo in DER.
        signature: RSA-PSS over the signed prefix.
        share_hash_chain: the hashes that lead from this share to the root hash.
        block_hash_tree: the whole tree over this share's blocks.
        share_data: the blocks, in MDMF each with its salt before it.
        enc_privkey: the encrypted private key.
        eof: the share's end; what a server has past it is left over from a longer version.
    """

    verification_key: Span
    signature: Span
    share_hash_chain: Span
    block_hash_tree: Span
    share_data: Span
    enc_privkey: Span
    eof: int

    def check(self, header_size: int, geometry: MutableGeometry) -> None:
        """Raise FormatError unless the sections are in bounds and as large as they must be.

        Nothing vouches for offsets. This bounds what reading by them can cost; that they are
        right shows when the hashes and the signature are.
        """
        spans = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "eof"}
        for name, span in spans.items():
            if span.offset < header_size or span.size < 0 or span.end > min(self.eof, MAX_SIZE):
                raise FormatError(f"the share's {name} lies out of range")
        limits = {
            "verification_key": MAX_VERIFICATION_KEY_SIZE,
            "signature": MAX_SIGNATURE_SIZE,
            "share_hash_chain": MAX_CHAIN_SIZE,
            "enc_privkey": MAX_ENC_PRIVKEY_SIZE,
        }
        for name, limit in limits.items():
            if spans[name].size > limit:
                raise FormatError(f"the share's {name} of {spans[name].size} bytes is too large")
        if self.share_hash_chain.size % SHARE_HASH_SIZE:
            raise FormatError("the share's share_hash_chain has a partial entry")
        if self.block_hash_tree.size != geometry.hash_tree_size:
            raise FormatError("the share's block_hash_tree is not the size of its geometry's")
        if self.share_data.size != geometry.share_data_size:
            raise FormatError("the share's share_data is not the size of its geometry's")


def spans_between(*offsets: int) -> list[Span]:
    """The ranges between consecutive offsets. Sizes may come out negative: check them."""
    return [Span(start, end - start) for start, end in itertools.pairwise(offsets)]


@dataclass(frozen=True, slots=True)
class SlotLayout:
    """One of the two formats, as what differs between them.

    Attributes:
        version: the share's first byte.
        prefix: the fields of the signed prefix.
        checkstring_size: bytes of the prefix that a writer tests for.
        header_size: bytes of signed prefix and offset table.
        unpack_sections: reads the offset table of a whole header; what it says is to be checked.
        pack_offsets: the offset table, which follows the signed prefix.
        plan_sections: where stock puts sections of these sizes.
    """

    version: int
    prefix: struct.Struct
    checkstring_size: int
    header_size: int
    unpack_sections: Callable[[bytes], SlotSections]
    pack_offsets: Callable[[SlotSections], bytes]
    plan_sections: Callable[[SectionSizes], SlotSections]
