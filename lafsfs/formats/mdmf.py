"""MDMF: where things lie in a large mutable file's share (``mutable.rst``, "MDMF Slot Format").

Signed prefix (59 bytes), eight offsets, encrypted private key, share hash chain, signature,
verification key, room left over, the salted blocks, block hash tree. The room is there so that the
first blocks stay where they are whatever happens to the sections before them: a share's data
begins at byte 2,167.
"""

from __future__ import annotations

import struct

from lafsfs.formats.geometry import SALT_SIZE, Span
from lafsfs.formats.sections import SectionSizes, SlotLayout, SlotSections

VERSION = 1  # the share's first byte
PREFIX = struct.Struct(">BQ32sBBQQ")  # version seqnum root k n segment_size data_length
CHECKSTRING_SIZE = struct.calcsize(">BQ32s")  # 41 bytes: version to root hash
_OFFSETS = struct.Struct(">8Q")  # privkey chain signature key key_end data tree EOF
HEADER_SIZE = PREFIX.size + _OFFSETS.size  # 123 bytes, where the encrypted private key begins

# Stock reserves 1220 + 260 + 292 bytes for private key, signature and verification key, and eight
# share hash chain entries of 34.
SHARE_DATA_OFFSET = HEADER_SIZE + 1220 + 260 + 292 + 8 * 34


def unpack_sections(header: bytes) -> SlotSections:
    """Read the offset table of a whole header. What it says is still to be checked."""
    privkey, chain, signature, key, key_end, data, tree, eof = _OFFSETS.unpack_from(
        header, PREFIX.size
    )
    return SlotSections(
        enc_privkey=Span(privkey, chain - privkey),
        share_hash_chain=Span(chain, signature - chain),
        signature=Span(signature, key - signature),
        verification_key=Span(key, key_end - key),
        share_data=Span(data, tree - data),
        block_hash_tree=Span(tree, eof - tree),
        eof=eof,
    )


def pack_offsets(sections: SlotSections) -> bytes:
    """The offset table, which follows the signed prefix."""
    return _OFFSETS.pack(
        sections.enc_privkey.offset,
        sections.share_hash_chain.offset,
        sections.signature.offset,
        sections.verification_key.offset,
        sections.verification_key.end,
        sections.share_data.offset,
        sections.block_hash_tree.offset,
        sections.eof,
    )


def plan_sections(sizes: SectionSizes) -> SlotSections:
    """Where stock puts sections of these sizes.

    ValueError when those before the data need more room than there is. Those of a 2048-bit key
    never do.
    """
    privkey = Span(HEADER_SIZE, sizes.enc_privkey)
    chain = Span(privkey.end, sizes.share_hash_chain)
    signature = Span(chain.end, sizes.signature)
    key = Span(signature.end, sizes.verification_key)
    if key.end > SHARE_DATA_OFFSET:
        raise ValueError(f"{key.end} bytes before share data that begins at {SHARE_DATA_OFFSET}")
    data = Span(SHARE_DATA_OFFSET, sizes.share_data)
    tree = Span(data.end, sizes.block_hash_tree)
    return SlotSections(key, signature, chain, tree, data, privkey, tree.end)


def split_salt(stored_block: bytes) -> tuple[bytes, bytes]:
    """The salt and the block of one stored block. Both together are what the block hash covers."""
    return stored_block[:SALT_SIZE], stored_block[SALT_SIZE:]


LAYOUT = SlotLayout(
    VERSION,
    PREFIX,
    CHECKSTRING_SIZE,
    HEADER_SIZE,
    unpack_sections,
    pack_offsets,
    plan_sections,
)
