"""The CHK share: where everything lies in an immutable share.

A share is a header with a table of offsets, the blocks, three hash trees (one of them unused), the
share hash chain and the UEB. Version 1 has 4-byte fields; version 2 has 8-byte ones and is written
only when version 1 cannot hold the share.

Rules:

- Readers go by the offsets of the header, never by assumed positions; writers use
  :func:`plan_layout`, which places things exactly as stock Tahoe-LAFS does.
- A header is foreign and nothing vouches for it. :func:`parse_header` bounds what it says of
  itself, :meth:`CHKHeader.require` what it says of a known geometry; a lie that passes both leads
  to bytes whose hash is wrong, or to a short read.
- The header's block size and data size are written for very old readers and ignored.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from lafsfs.errors import FileTooBigError, FormatError
from lafsfs.formats.geometry import (
    MAX_SIZE,
    SHARE_HASH_SIZE,
    CHKGeometry,
    Span,
)
from lafsfs.formats.hashstore import MAX_CHAIN_LENGTH
from lafsfs.formats.ueb import MAX_UEB_SIZE

HEADER_SIZE_V1 = 0x24  # bytes
HEADER_SIZE_V2 = 0x44  # bytes; reading this much of a share is enough for either version

_VERSION = struct.Struct(">L")
_HEADER = {1: struct.Struct(">L8L"), 2: struct.Struct(">L8Q")}
_LENGTH = {1: struct.Struct(">L"), 2: struct.Struct(">Q")}
_LIMIT = {1: 1 << 32, 2: MAX_SIZE}  # what a field of each version stays below


@dataclass(frozen=True, slots=True)
class CHKHeader:
    """The header of a share. Sizes and offsets in bytes, offsets from the share's first byte.

    Attributes:
        version: 1 or 2.
        block_size: bytes of each block but the last. Ignored by readers.
        data_size: bytes of all blocks. Ignored by readers.
        data: offset of the first block.
        plaintext_hash_tree: offset of the unused tree of zeros.
        crypttext_hash_tree: offset of the hash tree over the ciphertext segments.
        block_hashes: offset of the hash tree over this share's blocks.
        share_hashes: offset of the share hash chain, which ends where the UEB begins.
        uri_extension: offset of the UEB's length field; the UEB follows it.
    """

    version: int
    block_size: int
    data_size: int
    data: int
    plaintext_hash_tree: int
    crypttext_hash_tree: int
    block_hashes: int
    share_hashes: int
    uri_extension: int

    def pack(self) -> bytes:
        """The header as it is stored."""
        return _HEADER[self.version].pack(
            self.version,
            self.block_size,
            self.data_size,
            self.data,
            self.plaintext_hash_tree,
            self.crypttext_hash_tree,
            self.block_hashes,
            self.share_hashes,
            self.uri_extension,
        )

    @property
    def header_size(self) -> int:
        """Bytes of the header itself."""
        return _HEADER[self.version].size

    @property
    def ueb_length_span(self) -> Span:
        """Where the UEB's length is."""
        return Span(self.uri_extension, _LENGTH[self.version].size)

    def parse_ueb_length(self, data: bytes) -> int:
        """Read the bytes of :attr:`ueb_length_span`. FormatError when short or absurd."""
        field = _LENGTH[self.version]
        if len(data) != field.size:
            raise FormatError("the share ends before the UEB's length")
        length: int = field.unpack(data)[0]
        if not 0 < length <= MAX_UEB_SIZE:
            raise FormatError(f"a UEB of {length} bytes is out of range")
        return length

    def pack_ueb_length(self, length: int) -> bytes:
        """The UEB's length as it is stored."""
        return _LENGTH[self.version].pack(length)

    def ueb_span(self, length: int) -> Span:
        """Where the UEB itself is."""
        return Span(self.ueb_length_span.end, length)

    @property
    def share_hash_span(self) -> Span:
        """Where the share hash chain is."""
        return Span(self.share_hashes, self.uri_extension - self.share_hashes)

    def crypttext_hash_tree_span(self, geometry: CHKGeometry) -> Span:
        """Where the whole ciphertext hash tree is."""
        return Span(self.crypttext_hash_tree, geometry.hash_tree_size)

    def block_hash_tree_span(self, geometry: CHKGeometry) -> Span:
        """Where the whole block hash tree is."""
        return Span(self.block_hashes, geometry.hash_tree_size)

    def blocks_span(self, geometry: CHKGeometry, first: int, count: int = 1) -> Span:
        """Where ``count`` consecutive blocks from segment ``first`` are."""
        inside = geometry.stored_blocks(first, count)
        return Span(self.data + inside.offset, inside.size)

    def require(self, geometry: CHKGeometry) -> None:
        """Raise FormatError unless every section has the room that the geometry needs.

        Sections may lie apart and in any order, but none may run into the header or reach past
        what an offset can say.
        """
        tree = geometry.hash_tree_size
        sections = {
            "data": Span(self.data, geometry.share_data_size),
            "ciphertext hash tree": Span(self.crypttext_hash_tree, tree),
            "block hash tree": Span(self.block_hashes, tree),
        }
        for name, span in sections.items():
            if span.end > MAX_SIZE:
                raise FormatError(f"the share's {name} lies out of range")
        starts = sorted((*(span.offset for span in sections.values()), self.share_hashes))
        for name, span in sections.items():
            following = next((start for start in starts if start > span.offset), span.end)
            if span.end > following:
                raise FormatError(f"the share has too little room for its {name}")


def parse_header(data: bytes) -> CHKHeader:
    """Read the header from a share's first :data:`HEADER_SIZE_V2` bytes, or fewer in a short share.

    Raises FormatError for an unknown version, a short header, or offsets that no share can have.
    """
    if len(data) < _VERSION.size:
        raise FormatError("the share is shorter than its version number")
    version: int = _VERSION.unpack_from(data)[0]
    if version not in _HEADER:
        raise FormatError(f"CHK share version {version} is unknown")
    fields = _HEADER[version]
    if len(data) < fields.size:
        raise FormatError("the share is shorter than its header")
    header = CHKHeader(*fields.unpack_from(data))
    _check_offsets(header)
    return header


def _check_offsets(header: CHKHeader) -> None:
    """What can be said of offsets before the geometry is known."""
    offsets = (
        header.data,
        header.crypttext_hash_tree,
        header.block_hashes,
        header.share_hashes,
        header.uri_extension,
    )
    if not all(header.header_size <= offset < _LIMIT[header.version] for offset in offsets):
        raise FormatError("an offset in the share's header is out of range")
    chain = header.share_hash_span.size
    if not 0 <= chain <= MAX_CHAIN_LENGTH * SHARE_HASH_SIZE or chain % SHARE_HASH_SIZE:
        raise FormatError(f"the share's hash chain cannot have {chain} bytes")


@dataclass(frozen=True, slots=True)
class CHKShareLayout:
    """Where everything goes in a share that is to be written, in the order it is written.

    Header, blocks, zeros, ciphertext hash tree, block hash tree, share hash chain, UEB: no gaps.
    """

    header: CHKHeader
    geometry: CHKGeometry
    ueb_size: int

    @property
    def share_size(self) -> int:
        """Bytes to allocate: the whole share."""
        return self.header.ueb_span(self.ueb_size).end

    @property
    def unused_tree(self) -> Span:
        """The plaintext hash tree nobody uses: to be filled with zeros."""
        return Span(self.header.plaintext_hash_tree, self.geometry.hash_tree_size)

    @property
    def crypttext_hash_tree(self) -> Span:
        """Where the ciphertext hash tree goes."""
        return self.header.crypttext_hash_tree_span(self.geometry)

    @property
    def block_hash_tree(self) -> Span:
        """Where the block hash tree goes."""
        return self.header.block_hash_tree_span(self.geometry)

    @property
    def share_hash_chain(self) -> Span:
        """Where the share hash chain goes."""
        return self.header.share_hash_span

    def block(self, segment: int) -> Span:
        """Where a segment's block goes."""
        return self.header.blocks_span(self.geometry, segment)

    def pack_ueb(self, ueb: bytes) -> bytes:
        """Length field and UEB, which go at ``header.uri_extension`` and end the share."""
        if len(ueb) != self.ueb_size:
            raise ValueError(f"a UEB of {len(ueb)} bytes where {self.ueb_size} were planned")
        return self.header.pack_ueb_length(len(ueb)) + ueb


def plan_layout(geometry: CHKGeometry, ueb_size: int, version: int | None = None) -> CHKShareLayout:
    """Lay out a share as stock does.

    Args:
        geometry: what to encode.
        ueb_size: bytes of the UEB (:func:`lafsfs.formats.ueb.ueb_size`).
        version: 1 or 2; by default 1 unless its 4-byte fields are too small.

    Raises:
        FileTooBigError: the fields of this version cannot hold the share.
    """
    if version is None:
        version = 1 if _fits(_plan_header(geometry, 1)) else 2
    header = _plan_header(geometry, version)
    if not _fits(header):
        raise FileTooBigError(f"a share this large does not fit CHK share version {version}")
    return CHKShareLayout(header, geometry, ueb_size)


def _plan_header(geometry: CHKGeometry, version: int) -> CHKHeader:
    tree = geometry.hash_tree_size
    data = _HEADER[version].size
    unused = data + geometry.share_data_size
    share_hashes = unused + 3 * tree
    return CHKHeader(
        version=version,
        block_size=geometry.block_size,
        data_size=geometry.share_data_size,
        data=data,
        plaintext_hash_tree=unused,
        crypttext_hash_tree=unused + tree,
        block_hashes=unused + 2 * tree,
        share_hashes=share_hashes,
        uri_extension=share_hashes + geometry.share_hash_chain_length * SHARE_HASH_SIZE,
    )


def _fits(header: CHKHeader) -> bool:
    """Whether the largest field stays below the version's limit; the UEB may lie past it."""
    return header.uri_extension < _LIMIT[header.version]
