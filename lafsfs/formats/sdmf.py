"""SDMF: where things lie in a small mutable file's share (``mutable.rst``, "SDMF Slot Format").

Signed prefix (75 bytes), six offsets, verification key, signature, share hash chain, block hash
tree, the one block, encrypted private key. Each section ends where the next begins.
"""

from __future__ import annotations

import struct
from itertools import accumulate

from lafsfs.formats.sections import SectionSizes, SlotLayout, SlotSections, spans_between

VERSION = 0  # the share's first byte
PREFIX = struct.Struct(">BQ32s16sBBQQ")  # version seqnum root IV k n segment_size data_length
CHECKSTRING_SIZE = struct.calcsize(">BQ32s16s")  # 57 bytes: version to IV
_OFFSETS = struct.Struct(">LLLLQQ")  # signature chain tree data privkey EOF
HEADER_SIZE = PREFIX.size + _OFFSETS.size  # 107 bytes, where the verification key begins


def unpack_sections(header: bytes) -> SlotSections:
    """Read the offset table of a whole header. What it says is still to be checked."""
    signature, chain, tree, data, privkey, eof = _OFFSETS.unpack_from(header, PREFIX.size)
    return _sections(HEADER_SIZE, signature, chain, tree, data, privkey, eof)


def pack_offsets(sections: SlotSections) -> bytes:
    """The offset table, which follows the signed prefix."""
    return _OFFSETS.pack(
        sections.signature.offset,
        sections.share_hash_chain.offset,
        sections.block_hash_tree.offset,
        sections.share_data.offset,
        sections.enc_privkey.offset,
        sections.eof,
    )


def plan_sections(sizes: SectionSizes) -> SlotSections:
    """Where stock puts sections of these sizes."""
    ordered = (
        HEADER_SIZE,
        sizes.verification_key,
        sizes.signature,
        sizes.share_hash_chain,
        sizes.block_hash_tree,
        sizes.share_data,
        sizes.enc_privkey,
    )
    return _sections(*accumulate(ordered))


def _sections(*offsets: int) -> SlotSections:
    key, signature, chain, tree, data, privkey = spans_between(*offsets)
    return SlotSections(
        verification_key=key,
        signature=signature,
        share_hash_chain=chain,
        block_hash_tree=tree,
        share_data=data,
        enc_privkey=privkey,
        eof=offsets[-1],
    )


LAYOUT = SlotLayout(
    VERSION,
    PREFIX,
    CHECKSTRING_SIZE,
    HEADER_SIZE,
    unpack_sections,
    pack_offsets,
    plan_sections,
)
