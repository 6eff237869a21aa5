"""All arithmetic of sizes, segments, blocks, tails, padding and tree sizes. Nothing else computes.

A file of ``size`` bytes is cut into segments of ``segment_size`` bytes, a multiple of ``k``; the
last one, the tail, may be shorter and is padded with zeros to a multiple of ``k`` before it is
erasure coded. Segment ``s`` becomes one block on each of the ``n`` shares, ``1/k`` of the padded
segment long. A share's data is its blocks, one after the other; in MDMF every block has a 16-byte
salt before it.

Rules:

- Offsets and sizes are bytes. "In the file" counts from the plaintext's first byte, "in the share
  data" from the first byte of the share's data section, wherever the offset table puts that.
- A constructed geometry is valid and bounded: numbers from a capability, a UEB or a slot header go
  straight into it and :class:`~lafsfs.errors.FormatError` says what is wrong with them.
- ``plan`` constructors choose the segment size as stock Tahoe-LAFS does when it writes, and raise
  :class:`~lafsfs.errors.FileTooBigError` for a size that cannot be stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

from lafsfs.errors import FileTooBigError, FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

HASH_SIZE = 32  # bytes of a SHA-256d
SALT_SIZE = 16  # bytes before each MDMF block, and of SDMF's one IV
SHARE_HASH_SIZE = 2 + HASH_SIZE  # bytes of a share hash chain entry

DEFAULT_CHK_SEGMENT_SIZE = 1 << 20  # bytes; stock's default, 128 KiB in older versions
DEFAULT_MDMF_SEGMENT_SIZE = 128 << 10  # bytes; stock has no setting for it

MAX_CHK_SHARES = 256  # the erasure code's field has no more points
MAX_MUTABLE_SHARES = 255  # k and n are one byte each in a slot
MAX_SEGMENT_SIZE = 128 << 20  # bytes; a segment is held in memory several times over
MAX_SDMF_SIZE = 1 << 30  # bytes; an SDMF file is one segment and is held whole
MAX_SEGMENTS = 1 << 24  # bounds a hash tree to 1 GiB: 16 TiB in segments of 1 MiB
MAX_SIZE = (1 << 63) - 1  # bytes; what a file offset of the operating system can say


class Span(NamedTuple):
    """A range of bytes: ``size`` bytes from ``offset``."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        """The offset of the first byte after the range."""
        return self.offset + self.size


class Piece(NamedTuple):
    """A part of one segment: ``length`` bytes of it, after the first ``skip``."""

    segment: int
    skip: int
    length: int


def div_ceil(n: int, d: int) -> int:
    """``n / d`` rounded up."""
    return -(-n // d)


def round_up(n: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is not below ``n``."""
    return div_ceil(n, multiple) * multiple


def padded_leaves(num_leaves: int) -> int:
    """How many leaves a Merkle tree over ``num_leaves`` has: a power of two, one at least."""
    return 1 << max(0, num_leaves - 1).bit_length()


def tree_nodes(num_leaves: int) -> int:
    """How many hashes the whole tree has, root and padding included."""
    return 2 * padded_leaves(num_leaves) - 1


def hash_tree_size(num_leaves: int) -> int:
    """Bytes of a whole stored hash tree."""
    return tree_nodes(num_leaves) * HASH_SIZE


def chain_length(n: int) -> int:
    """How many hashes lead from one of ``n`` leaves to the root: neither leaf nor root counted."""
    return padded_leaves(n).bit_length() - 1


@dataclass(frozen=True, slots=True)
class Geometry:
    """What CHK, SDMF and MDMF have in common. Use one of the subclasses.

    Attributes:
        size: bytes of plaintext (and of ciphertext, without padding).
        k: shares needed.
        n: shares made.
        segment_size: bytes of each segment but the tail; a multiple of ``k``.
    """

    size: int
    k: int
    n: int
    segment_size: int

    max_shares: ClassVar[int] = MAX_CHK_SHARES
    max_segment_size: ClassVar[int] = MAX_SEGMENT_SIZE
    min_size: ClassVar[int] = 0
    salt_size: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.n <= self.max_shares:
            raise FormatError(
                f"{self.k}-of-{self.n} is not an encoding of {self.max_shares} shares"
            )
        if not self.min_size <= self.size <= MAX_SIZE:
            raise FormatError(f"a size of {self.size} bytes is out of range")
        if not 0 <= self.segment_size <= self.max_segment_size + self.k:
            raise FormatError(f"a segment size of {self.segment_size} bytes is out of range")
        if self.segment_size % self.k:
            raise FormatError(
                f"a segment size of {self.segment_size} is not a multiple of k = {self.k}"
            )
        if self.size and not self.segment_size:
            raise FormatError("segments of no bytes cannot hold a file")
        if self.num_segments > MAX_SEGMENTS:
            raise FormatError(f"{self.num_segments} segments are too many")

    @property
    def num_segments(self) -> int:
        """How many segments; none in an empty file."""
        return div_ceil(self.size, self.segment_size) if self.size else 0

    @property
    def block_size(self) -> int:
        """Bytes of each block but the tail's, without salt."""
        return self.segment_size // self.k

    @property
    def tail_size(self) -> int:
        """Bytes of the file in the last segment, without padding; 0 in an empty file."""
        return self.segment_length(self.num_segments - 1) if self.size else 0

    @property
    def tail_padded_size(self) -> int:
        """Bytes of the last segment as it is erasure coded."""
        return round_up(self.tail_size, self.k)

    @property
    def tail_block_size(self) -> int:
        """Bytes of the last block, without salt."""
        return self.tail_padded_size // self.k

    @property
    def stored_block_size(self) -> int:
        """Bytes from one block's start to the next one's in the share data, salt included."""
        return self.block_size + self.salt_size

    @property
    def share_data_size(self) -> int:
        """Bytes of a share's data section: all blocks (and salts)."""
        if not self.size:
            return 0
        whole = (self.num_segments - 1) * self.stored_block_size
        return whole + self.salt_size + self.tail_block_size

    @property
    def tree_nodes(self) -> int:
        """Hashes in the block hash tree, and in CHK's ciphertext hash tree."""
        return tree_nodes(self.num_segments)

    @property
    def hash_tree_size(self) -> int:
        """Bytes of the block hash tree, and of CHK's ciphertext hash tree."""
        return hash_tree_size(self.num_segments)

    def _check_segment(self, segment: int) -> None:
        if not 0 <= segment < self.num_segments:
            raise ValueError(f"segment {segment} of {self.num_segments}")

    def segment_offset(self, segment: int) -> int:
        """Where a segment starts in the file."""
        self._check_segment(segment)
        return segment * self.segment_size

    def segment_length(self, segment: int) -> int:
        """Bytes of the file in a segment, without padding."""
        self._check_segment(segment)
        return min(self.segment_size, self.size - segment * self.segment_size)

    def padded_length(self, segment: int) -> int:
        """Bytes of a segment as it is erasure coded: ``k`` blocks."""
        return round_up(self.segment_length(segment), self.k)

    def block_length(self, segment: int) -> int:
        """Bytes of a segment's block, without salt."""
        return self.padded_length(segment) // self.k

    def stored_block(self, segment: int) -> Span:
        """Where a segment's block lies in the share data, salt included."""
        return self.stored_blocks(segment, 1)

    def stored_blocks(self, first: int, count: int) -> Span:
        """Where ``count`` consecutive blocks from segment ``first`` lie in the share data."""
        if count < 1:
            raise ValueError(f"a run of {count} blocks")
        last = first + count - 1
        self._check_segment(first)
        start = first * self.stored_block_size
        end = last * self.stored_block_size + self.salt_size + self.block_length(last)
        return Span(start, end - start)

    def split_blocks(self, data: bytes, first: int) -> list[bytes]:
        """Cut bytes read at ``stored_blocks(first, count)`` into stored blocks.

        A short read gives fewer blocks; what is left of a partial one is dropped.
        """
        blocks = []
        offset = 0
        for segment in range(first, self.num_segments):
            end = offset + self.salt_size + self.block_length(segment)
            if end > len(data):
                break
            blocks.append(data[offset:end])
            offset = end
        return blocks

    def locate(self, offset: int, size: int) -> Iterator[Piece]:
        """The pieces of segments that make up a range of the file, in order.

        The range is clipped at the file's end; nothing is yielded for one that is empty or lies
        past it.
        """
        if offset < 0 or size < 0:
            raise ValueError(f"a range of {size} bytes at {offset}")
        end = min(offset + size, self.size)
        while offset < end:
            segment, skip = divmod(offset, self.segment_size)
            length = min(self.segment_size - skip, end - offset)
            yield Piece(segment, skip, length)
            offset += length


@dataclass(frozen=True, slots=True)
class CHKGeometry(Geometry):
    """An immutable file. There are no empty ones: up to 55 bytes live in the capability itself."""

    min_size: ClassVar[int] = 1

    @classmethod
    def plan(
        cls, size: int, k: int, n: int, max_segment_size: int = DEFAULT_CHK_SEGMENT_SIZE
    ) -> Self:
        """What to encode a new file with: ``min(max_segment_size, size)`` rounded up to ``k``."""
        refuse_too_big(size, MAX_SEGMENTS * max_segment_size)
        return cls(size, k, n, planned_segment_size(size, k, max_segment_size))

    @property
    def share_hash_chain_length(self) -> int:
        """Entries of a share hash chain: the share's own leaf is one, the root is not.

        With a single share the leaf is the root, and is stored.
        """
        return chain_length(self.n) + 1


@dataclass(frozen=True, slots=True)
class MutableGeometry(Geometry):
    """A mutable file in either format. Use one of the subclasses."""

    max_shares: ClassVar[int] = MAX_MUTABLE_SHARES

    @property
    def share_hash_chain_length(self) -> int:
        """Entries of a share hash chain: neither the share's own leaf nor the root."""
        return chain_length(self.n)


@dataclass(frozen=True, slots=True)
class SDMFGeometry(MutableGeometry):
    """A mutable file of one segment, or of none when it is empty."""

    max_segment_size: ClassVar[int] = MAX_SDMF_SIZE

    def __post_init__(self) -> None:
        MutableGeometry.__post_init__(self)
        if self.num_segments > 1:
            raise FormatError(f"an SDMF file has one segment, not {self.num_segments}")

    @classmethod
    def plan(cls, size: int, k: int, n: int) -> Self:
        """What to encode new contents with: one segment of ``size`` rounded up to ``k``."""
        refuse_too_big(size, MAX_SDMF_SIZE)
        return cls(size, k, n, round_up(size, k) if k > 0 else size)


@dataclass(frozen=True, slots=True)
class MDMFGeometry(MutableGeometry):
    """A mutable file of many segments, each block with its own salt before it."""

    salt_size: ClassVar[int] = SALT_SIZE

    @classmethod
    def plan(cls, size: int, k: int, n: int, segment_size: int = DEFAULT_MDMF_SEGMENT_SIZE) -> Self:
        """What to encode new contents with: ``segment_size`` rounded up to ``k``."""
        refuse_too_big(size, MAX_SEGMENTS * segment_size)
        return cls(size, k, n, round_up(segment_size, k) if k > 0 else segment_size)


def planned_segment_size(size: int, k: int, max_segment_size: int) -> int:
    """The segment size that stock gives an immutable file; a part of its convergence key."""
    smaller = min(size, max_segment_size)
    return round_up(smaller, k) if k > 0 else smaller


def refuse_too_big(size: int, limit: int) -> None:
    """Refuse to store more than a format holds (a foreign size is a FormatError instead)."""
    if size > limit:
        raise FileTooBigError(f"{size} bytes are more than this format holds ({limit})")
