"""The mutable share of either format: signed prefix, header, and the whole share from its parts.

The first byte tells the format: 0 is SDMF, 1 is MDMF. Everything up to the data length is the
*signed prefix*, which identifies a version; the offset table behind it is not signed and may differ
from share to share. The *checkstring* is the part of the prefix that a writer tests for.

Rules:

- Parsers bound what they read before the signature is checked: a share's cost is limited by its
  geometry, and the geometry by :mod:`~lafsfs.formats.geometry`.
- A share ends at ``sections.eof``. Servers may hold more: stock does not shorten an MDMF share.
- Nothing here hashes, signs or verifies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lafsfs.caps import MutableFormat
from lafsfs.errors import FormatError
from lafsfs.formats import mdmf, sdmf
from lafsfs.formats.geometry import (
    HASH_SIZE,
    SALT_SIZE,
    MDMFGeometry,
    MutableGeometry,
    SDMFGeometry,
    Span,
)
from lafsfs.formats.hashstore import (
    pack_hash_tree,
    pack_share_hash_chain,
    parse_hash_tree,
    parse_share_hash_chain,
)
from lafsfs.formats.sections import SectionSizes, SlotLayout, SlotSections

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HEADER_SIZE = max(sdmf.HEADER_SIZE, mdmf.HEADER_SIZE)  # 123 bytes tell either header
_LAYOUTS: dict[MutableFormat, SlotLayout] = {
    MutableFormat.SDMF: sdmf.LAYOUT,
    MutableFormat.MDMF: mdmf.LAYOUT,
}

MAX_SEQNUM = (1 << 63) - 1  # half of what the field holds, so that there is always a next one


@dataclass(frozen=True, slots=True)
class SlotPrefix:
    """The signed prefix: one version of a mutable file.

    Attributes:
        format: SDMF or MDMF.
        seqnum: counts publishes, from 1.
        root_hash: 32 bytes, the root of the share hash tree.
        iv: 16 bytes, SDMF's one salt; None in MDMF.
        k, n, segment_size, data_length: the encoding; see :attr:`geometry`.
    """

    format: MutableFormat
    seqnum: int
    root_hash: bytes
    iv: bytes | None
    k: int
    n: int
    segment_size: int
    data_length: int

    def __post_init__(self) -> None:
        if not 0 <= self.seqnum <= MAX_SEQNUM:
            raise FormatError(f"sequence number {self.seqnum} is out of range")
        if len(self.root_hash) != HASH_SIZE:
            raise FormatError("the root hash does not have 32 bytes")
        if self.format is MutableFormat.MDMF and self.iv is not None:
            raise FormatError("MDMF has no initialization vector of its own")
        if self.format is MutableFormat.SDMF and (self.iv is None or len(self.iv) != SALT_SIZE):
            raise FormatError("SDMF's initialization vector must have 16 bytes")
        _ = self.geometry  # refuses an impossible encoding

    @property
    def geometry(self) -> MutableGeometry:
        """The sizes that follow from the encoding."""
        kind = SDMFGeometry if self.format is MutableFormat.SDMF else MDMFGeometry
        return kind(self.data_length, self.k, self.n, self.segment_size)

    def pack(self) -> bytes:
        """The bytes that are signed and begin the share: 75 in SDMF, 59 in MDMF."""
        encoding = (self.k, self.n, self.segment_size, self.data_length)
        if self.iv is not None:
            return sdmf.PREFIX.pack(sdmf.VERSION, self.seqnum, self.root_hash, self.iv, *encoding)
        return mdmf.PREFIX.pack(mdmf.VERSION, self.seqnum, self.root_hash, *encoding)

    @property
    def checkstring(self) -> bytes:
        """The first bytes of the share, which tell this version from others: 57 or 41."""
        return self.pack()[: _LAYOUTS[self.format].checkstring_size]

    @property
    def header_size(self) -> int:
        """Bytes of the signed prefix and the offset table."""
        return _LAYOUTS[self.format].header_size


def parse_prefix(data: bytes) -> SlotPrefix:
    """Read the signed prefix at the beginning of a share; further bytes are ignored.

    Raises FormatError for an unknown version, too few bytes or an impossible encoding.
    """
    format_ = share_format(data)
    fields = _LAYOUTS[format_].prefix
    if len(data) < fields.size:
        raise FormatError("the share is shorter than its signed prefix")
    if format_ is MutableFormat.SDMF:
        _, seqnum, root_hash, iv, *encoding = fields.unpack_from(data)
        return SlotPrefix(format_, seqnum, root_hash, iv, *encoding)
    _, seqnum, root_hash, *encoding = fields.unpack_from(data)
    return SlotPrefix(format_, seqnum, root_hash, None, *encoding)


def share_format(data: bytes) -> MutableFormat:
    """The format that a share's first byte tells."""
    if not data:
        raise FormatError("the share is empty")
    for format_, layout in _LAYOUTS.items():
        if data[0] == layout.version:
            return format_
    raise FormatError(f"mutable share version {data[0]} is unknown")


@dataclass(frozen=True, slots=True)
class SlotHeader:
    """A share's beginning: which version it is of, and where its sections are."""

    prefix: SlotPrefix
    sections: SlotSections

    @property
    def geometry(self) -> MutableGeometry:
        """The sizes that follow from the encoding."""
        return self.prefix.geometry

    def pack(self) -> bytes:
        """Signed prefix and offset table."""
        return self.prefix.pack() + _LAYOUTS[self.prefix.format].pack_offsets(self.sections)

    def blocks_span(self, first: int, count: int = 1) -> Span:
        """Where ``count`` consecutive blocks from segment ``first`` are, MDMF's salts included."""
        inside = self.geometry.stored_blocks(first, count)
        return Span(self.sections.share_data.offset + inside.offset, inside.size)


def parse_slot_header(data: bytes) -> SlotHeader:
    """Read the header from a share's first :data:`HEADER_SIZE` bytes; further ones are ignored.

    Raises FormatError for an unknown version, too few bytes, an impossible encoding, or offsets
    that no share of that encoding can have.
    """
    prefix = parse_prefix(data)
    layout = _LAYOUTS[prefix.format]
    if len(data) < layout.header_size:
        raise FormatError("the share is shorter than its header")
    sections = layout.unpack_sections(data)
    sections.check(layout.header_size, prefix.geometry)
    return SlotHeader(prefix, sections)


@dataclass(frozen=True, slots=True)
class SlotShare:
    """A whole mutable share in parts.

    Attributes:
        prefix: the signed prefix.
        verification_key: the public key, SubjectPublicKeyInfo in DER.
        signature: RSA-PSS over the packed prefix.
        share_hash_chain: hashes by index, without the share's own leaf and without the root.
        block_hashes: every node of the block hash tree, root first.
        share_data: the blocks, in MDMF each with its 16-byte salt before it.
        enc_privkey: the encrypted private key.
    """

    prefix: SlotPrefix
    verification_key: bytes
    signature: bytes
    share_hash_chain: Mapping[int, bytes]
    block_hashes: Sequence[bytes] = field(repr=False)
    share_data: bytes = field(repr=False)
    enc_privkey: bytes = field(repr=False)

    def header(self) -> SlotHeader:
        """The header of the share as it will be packed. ValueError when a part has a wrong size."""
        geometry = self.prefix.geometry
        sizes = SectionSizes(
            verification_key=len(self.verification_key),
            signature=len(self.signature),
            share_hash_chain=len(pack_share_hash_chain(self.share_hash_chain)),
            block_hash_tree=len(self.block_hashes) * HASH_SIZE,
            share_data=len(self.share_data),
            enc_privkey=len(self.enc_privkey),
        )
        if (sizes.block_hash_tree, sizes.share_data) != (
            geometry.hash_tree_size,
            geometry.share_data_size,
        ):
            raise ValueError("a share's data or tree is not the size that its prefix says")
        return SlotHeader(self.prefix, _LAYOUTS[self.prefix.format].plan_sections(sizes))

    def pack(self) -> bytes:
        """The share's bytes, as stock would write them over nothing."""
        header = self.header()
        sections = header.sections
        placed = [
            (Span(0, self.prefix.header_size), header.pack()),
            (sections.verification_key, self.verification_key),
            (sections.signature, self.signature),
            (sections.share_hash_chain, pack_share_hash_chain(self.share_hash_chain)),
            (sections.block_hash_tree, pack_hash_tree(self.block_hashes)),
            (sections.share_data, self.share_data),
            (sections.enc_privkey, self.enc_privkey),
        ]
        share = bytearray(sections.eof)
        for span, data in placed:
            share[span.offset : span.end] = data
        return bytes(share)


def parse_share(data: bytes) -> SlotShare:
    """Read a whole share. What lies past its end is ignored; FormatError when it is cut short."""
    header = parse_slot_header(data)
    sections = header.sections
    if len(data) < sections.eof:
        raise FormatError(f"the share has {len(data)} bytes of {sections.eof}")
    return SlotShare(
        prefix=header.prefix,
        verification_key=_cut(data, sections.verification_key),
        signature=_cut(data, sections.signature),
        share_hash_chain=parse_share_hash_chain(_cut(data, sections.share_hash_chain)),
        block_hashes=parse_hash_tree(_cut(data, sections.block_hash_tree)),
        share_data=_cut(data, sections.share_data),
        enc_privkey=_cut(data, sections.enc_privkey),
    )


def _cut(data: bytes, span: Span) -> bytes:
    return data[span.offset : span.end]
