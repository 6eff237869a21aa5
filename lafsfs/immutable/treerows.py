"""Which stored hashes to fetch to verify a leaf of a large Merkle tree. PURE.

Theory. A stored tree is its nodes in heap order, so each level is one run of bytes. The classic way
to verify a leaf, its chain of uncles, is one small range per level, scattered over the tree.
Instead the tree is read in *rows*: cut it into sub-trees :data:`ROW_LEVELS` levels high (the top
one may be lower), and take the bottom row of each sub-tree between root and leaf. A row is one
contiguous range of at most 8 KiB; with it everything in its sub-tree can be computed, up to the
node that the row above has verified. A file of up to 256 segments needs one row, once, for all of
them; one of up to 65,536 segments needs two, the second again after every 256 segments.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from lafsfs.formats.geometry import padded_leaves

if TYPE_CHECKING:
    from collections.abc import Iterator

ROW_LEVELS = 8  # 256 hashes: 8 KiB to fetch, about a millisecond to verify
ROW_LEAVES = 1 << ROW_LEVELS


def rows_to(leaf: int, num_leaves: int) -> Iterator[range]:
    """The rows between the root and a leaf, top down, as ranges of node indices (root is 0).

    The last one contains the leaf itself. A tree of one leaf has none: its root is the leaf.
    """
    if not 0 <= leaf < num_leaves:
        raise ValueError(f"leaf {leaf} of {num_leaves}")
    depth = padded_leaves(num_leaves).bit_length() - 1
    top = 0
    for bottom in range(depth % ROW_LEVELS or ROW_LEVELS, depth + 1, ROW_LEVELS):
        width = 1 << (bottom - top)
        first = (1 << bottom) - 1 + (leaf >> (depth - top)) * width
        yield range(first, first + width)
        top = bottom


@lru_cache(maxsize=1024)  # asked several times for each segment that is read
def rows_over(leaves: range, num_leaves: int) -> tuple[range, ...]:
    """The rows between the root and a run of at most :data:`ROW_LEAVES` leaves, top down."""
    if not 0 < len(leaves) <= ROW_LEAVES:
        raise ValueError(f"a run of {len(leaves)} leaves")
    ends = (*rows_to(leaves[0], num_leaves), *rows_to(leaves[-1], num_leaves))
    return tuple(sorted(set(ends), key=lambda row: row.start))
