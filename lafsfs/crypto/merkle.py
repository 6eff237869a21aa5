"""Merkle trees: complete ones for writing, incomplete ones for verifying what servers send.

Theory. Leaves are hashes. Their row is filled up to a power of two with *empty leaves*, and every
node above is the pair hash of its two children. Nodes are numbered as a heap:

                 0
            1         2
          3   4     5   6          4 leaves: node 3 + i is leaf i

The children of node i are 2i+1 and 2i+2. A leaf is verified by its *uncle chain*: the sibling of
every node on its way to the root. A tree of no leaves has one node, an empty leaf.

Rules:

- Verify, then admit. An :class:`IncompleteHashTree` holds only nodes that lead to its root, so of
  each pair of siblings it knows both or neither; a batch enters whole or not at all.
- The filling of a foreign tree is taken from its share like any other node: readers verify the tree
  that the writer made, whatever its writer put there.
- Trees belong to one owner; no two threads may touch one at once.

Source: ``docs/specifications/file-encoding.rst`` (the hash trees); tags are in ``crypto.hashes``.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from lafsfs.crypto.hashes import HASH_SIZE, empty_leaf_hash, pair_hash
from lafsfs.errors import FormatError, HashMismatchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_NONE: Mapping[int, bytes] = MappingProxyType({})


# --- numbers of nodes -----------------------------------------------------------------------------


def first_leaf(num_leaves: int) -> int:
    """The number of the node that is leaf 0."""
    return (1 << (max(num_leaves, 1) - 1).bit_length()) - 1


def tree_size(num_leaves: int) -> int:
    """How many nodes the tree has, its filling included. At least 1."""
    return 2 * first_leaf(num_leaves) + 1


def _sibling(index: int) -> int:
    return index + 1 if index % 2 else index - 1


def _parent(index: int) -> int:
    return (index - 1) // 2


def _uncles(index: int) -> Iterator[int]:
    while index:
        yield _sibling(index)
        index = _parent(index)


# --- a whole tree ---------------------------------------------------------------------------------


class HashTree:
    """The tree over all its leaves, as a writer makes it.

    Costs ``2 * len(leaves)`` small hashes to make: for a thousand leaves and more, in a thread.
    """

    __slots__ = ("_num_leaves", "nodes")

    nodes: tuple[bytes, ...]

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._num_leaves = len(leaves)
        width = first_leaf(len(leaves)) + 1
        row = [*leaves, *(empty_leaf_hash(i) for i in range(len(leaves), width))]
        rows = [row]
        while len(row) > 1:
            row = [pair_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
            rows.append(row)
        self.nodes = tuple(node for row in reversed(rows) for node in row)

    def __len__(self) -> int:
        """How many nodes there are."""
        return len(self.nodes)

    @property
    def root(self) -> bytes:
        """The 32 bytes that stand for all the leaves."""
        return self.nodes[0]

    def needed_for(self, leafnum: int, include_leaf: bool = False) -> tuple[int, ...]:
        """The numbers of the nodes that verify a leaf against the root, ascending.

        The root is not among them, and the leaf's own node only with ``include_leaf``.
        """
        if not 0 <= leafnum < max(self._num_leaves, 1):
            raise ValueError(f"no leaf {leafnum} among {self._num_leaves}")
        leaf = first_leaf(self._num_leaves) + leafnum
        own = [leaf] if include_leaf else []
        return tuple(sorted([*own, *_uncles(leaf)]))


# --- a tree of what has been verified -------------------------------------------------------------


class IncompleteHashTree:
    """A tree of known size, holding the nodes verified so far. Memory grows with those alone.

    Without a root at first, the first batch that reaches node 0 settles it: the caller then
    compares :attr:`root` with something trusted before believing anything.
    """

    __slots__ = ("_first_leaf", "_nodes", "_num_leaves", "_size")

    def __init__(self, num_leaves: int, root: bytes | None = None) -> None:
        if num_leaves < 0:
            raise ValueError("a tree cannot have fewer than no leaves")
        self._num_leaves = num_leaves
        self._first_leaf = first_leaf(num_leaves)
        self._size = tree_size(num_leaves)
        self._nodes: dict[int, bytes] = {}
        if root is not None:
            _check_hash(root)
            self._nodes[0] = root

    def __len__(self) -> int:
        """How many nodes the whole tree has, known or not."""
        return self._size

    @property
    def root(self) -> bytes | None:
        """The root, once known."""
        return self._nodes.get(0)

    def has(self, index: int) -> bool:
        """Whether the node of that number is verified."""
        return index in self._nodes

    def get(self, index: int) -> bytes | None:
        """The verified hash of the node of that number, or None."""
        return self._nodes.get(index)

    def leaf(self, leafnum: int) -> bytes | None:
        """The verified hash of a leaf, or None.

        Raises:
            FormatError: the tree has no such leaf.
        """
        return self._nodes.get(self._leaf_index(leafnum))

    def needed_hashes(self, leafnum: int, include_leaf: bool = False) -> frozenset[int]:
        """The numbers of the nodes still missing to verify a leaf.

        Raises:
            FormatError: the tree has no such leaf.
        """
        index = self._leaf_index(leafnum)
        wanted = set(_uncles(index))
        if include_leaf:
            wanted.add(index)
        return frozenset(wanted - self._nodes.keys())

    def set_hashes(
        self, hashes: Mapping[int, bytes] = _NONE, leaves: Mapping[int, bytes] = _NONE
    ) -> None:
        """Verify a batch of nodes (by node number) and leaves (by leaf number), and admit it.

        Raises:
            HashMismatchError: a node contradicts another, or the root.
            FormatError: a number outside the tree, a hash of another size than 32, or a node that
                the batch gives no way to verify.

        After any error the tree is as it was.
        """
        batch = self._collect(hashes, leaves)
        staged: dict[int, bytes] = {}
        for index, value in batch.items():
            known = self._nodes.get(index)
            if known is None:
                staged[index] = value
            elif known != value:
                raise HashMismatchError(f"hash tree: node {index} is not what it was")
        self._nodes.update(self._verified(staged))

    def _collect(
        self, hashes: Mapping[int, bytes], leaves: Mapping[int, bytes]
    ) -> dict[int, bytes]:
        """Bring a batch into node numbers and hold it to the bounds of the tree."""
        batch: dict[int, bytes] = {}
        for index, value in hashes.items():
            if not 0 <= index < self._size:
                raise FormatError(f"hash tree: no node {index} among {self._size}")
            batch[index] = value
        for leafnum, value in leaves.items():
            if batch.setdefault(self._leaf_index(leafnum), value) != value:
                raise HashMismatchError(f"hash tree: leaf {leafnum} does not match its node")
        for value in batch.values():
            _check_hash(value)
        return batch

    def _verified(self, staged: dict[int, bytes]) -> dict[int, bytes]:
        """Check new nodes upwards, row by row, until known ones; add the nodes found between."""
        found = dict(staged)
        rows: dict[int, set[int]] = {}
        for index in staged:
            rows.setdefault(_depth(index), set()).add(index)
        for depth in range(_depth(self._size - 1), 0, -1):
            for parent in {_parent(index) for index in rows.get(depth, ())}:
                value = self._pair_below(parent, found)
                known = self._nodes.get(parent)
                if known is None:
                    known = found.setdefault(parent, value)
                    rows.setdefault(depth - 1, set()).add(parent)
                if known != value:
                    raise HashMismatchError(f"hash tree: node {parent} does not match its children")
        return found

    def _pair_below(self, parent: int, found: Mapping[int, bytes]) -> bytes:
        """The hash of a parent from its children: one being new, both are."""
        left, right = found.get(2 * parent + 1), found.get(2 * parent + 2)
        if left is None or right is None:
            missing = 2 * parent + (1 if left is None else 2)
            raise FormatError(f"hash tree: node {missing} is missing, its sibling unverifiable")
        return pair_hash(left, right)

    def _leaf_index(self, leafnum: int) -> int:
        if not 0 <= leafnum < max(self._num_leaves, 1):
            raise FormatError(f"hash tree: no leaf {leafnum} among {self._num_leaves}")
        return self._first_leaf + leafnum


def _depth(index: int) -> int:
    return (index + 1).bit_length() - 1


def _check_hash(value: bytes) -> None:
    if len(value) != HASH_SIZE:
        raise FormatError(f"hash tree: a hash of {len(value)} bytes, not {HASH_SIZE}")
