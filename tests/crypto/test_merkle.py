"""Merkle trees: what stock made is what we make, and nothing unverified gets in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.crypto import base32
from lafsfs.crypto.hashes import block_hash, empty_leaf_hash, pair_hash
from lafsfs.crypto.merkle import HashTree, IncompleteHashTree, first_leaf, tree_size
from lafsfs.errors import FormatError, HashMismatchError
from tests import golden_data as golden
from tests.crypto.golden_shares import CHK, EVERYTHING, SLOTS, chk_shares, slot_shares


def leaves(count: int) -> list[bytes]:
    return [bytes([i % 256, 1 + i // 256]) * 16 for i in range(count)]


def known(tree: IncompleteHashTree) -> dict[int, bytes]:
    """Everything a tree holds."""
    return {i: node for i in range(len(tree)) if (node := tree.get(i)) is not None}


# --- the shape ---


@pytest.mark.parametrize(
    ("num_leaves", "size"), [(0, 1), (1, 1), (2, 3), (3, 7), (4, 7), (5, 15), (10, 31), (256, 511)]
)
def test_size(num_leaves: int, size: int) -> None:
    tree = HashTree(leaves(num_leaves))
    assert len(tree) == len(tree.nodes) == tree_size(num_leaves) == size
    assert len(IncompleteHashTree(num_leaves)) == size
    assert first_leaf(num_leaves) == size // 2


def test_three_leaves_by_hand() -> None:
    a, b, c = leaves(3)
    left, right = pair_hash(a, b), pair_hash(c, empty_leaf_hash(3))
    root = pair_hash(left, right)
    assert HashTree([a, b, c]).nodes == (root, left, right, a, b, c, empty_leaf_hash(3))
    assert HashTree([a, b, c]).root == root


def test_no_leaves_are_one_empty_leaf() -> None:
    assert HashTree([]).nodes == (empty_leaf_hash(0),)
    assert HashTree([]).needed_for(0) == ()
    assert HashTree([]).needed_for(0, include_leaf=True) == (0,)


def test_uncle_chain() -> None:
    tree = HashTree(leaves(10))
    assert tree.needed_for(9) == (1, 6, 12, 23)
    assert tree.needed_for(9, include_leaf=True) == (1, 6, 12, 23, 24)
    assert HashTree(leaves(1)).needed_for(0) == ()


@pytest.mark.parametrize("leafnum", [-1, 10, 16])
def test_no_chain_for_a_leaf_that_is_not_there(leafnum: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        HashTree(leaves(10)).needed_for(leafnum)


# --- what stock made ---


@pytest.mark.parametrize("name", CHK)
def test_trees_of_golden_files(name: str) -> None:
    shares = chk_shares(name)
    tree = HashTree([shares[i].block_hashes[0] for i in range(golden.N)])
    for shnum, share in shares.items():
        num_segments = int(share.ueb_field("num_segments"))
        first = first_leaf(num_segments)
        used = slice(first, first + num_segments)
        assert list(HashTree(share.block_hashes[used]).nodes) == share.block_hashes
        assert list(HashTree(share.ciphertext_hashes[used]).nodes) == share.ciphertext_hashes
        assert share.ciphertext_hashes[0] == share.ueb_field("crypttext_root_hash")
        assert tree.root == share.ueb_field("share_root_hash")
        # The order in the share as well: a fresh upload must write the same bytes.
        needed = tree.needed_for(shnum, include_leaf=True)
        assert list(share.share_hash_chain.items()) == [(i, tree.nodes[i]) for i in needed]


@pytest.mark.parametrize("name", SLOTS)
def test_trees_of_golden_slots(name: str) -> None:
    shares = slot_shares(name)
    root_hash = shares[0].root_hash
    mdmf = EVERYTHING[name].kind.lower().endswith("mdmf")
    for shnum, share in shares.items():
        hashed = [block_hash(iv + data if mdmf else data) for iv, data in share.blocks]
        if share.data_length == 0:
            hashed = []
        assert list(HashTree(hashed).nodes) == share.block_hashes
        incomplete = IncompleteHashTree(golden.N, root_hash)
        assert incomplete.needed_hashes(shnum) == share.share_hash_chain.keys()
        incomplete.set_hashes(share.share_hash_chain, {shnum: share.block_hashes[0]})
        assert incomplete.leaf(shnum) == share.block_hashes[0]


@pytest.mark.parametrize("name", ["imm-2100000", "mdmf-131073"])
def test_shares_of_another_file_are_refused(name: str) -> None:
    shares = slot_shares(name) if name in SLOTS else chk_shares(name)
    tree = IncompleteHashTree(golden.N, base32.decode(EVERYTHING[name].cap.split(":")[3]))
    chain = dict(shares[4].share_hash_chain)
    with pytest.raises(HashMismatchError):
        tree.set_hashes(chain, {4: shares[4].block_hashes[0]})
    assert known(tree).keys() == {0}


# --- verify, then admit ---


@given(st.integers(0, 40), st.data())
def test_every_leaf_verifies_by_the_hashes_asked_for(count: int, draw) -> None:
    whole = HashTree(leaves(count))
    tree = IncompleteHashTree(count, whole.root)
    for leafnum in draw.draw(st.permutations(range(count))):
        include_leaf = draw.draw(st.booleans())
        needed = tree.needed_hashes(leafnum, include_leaf)
        batch = {i: whole.nodes[i] for i in needed}
        tree.set_hashes(batch, {leafnum: leaves(count)[leafnum]})
        assert tree.needed_hashes(leafnum, include_leaf=True) == frozenset()
        assert tree.leaf(leafnum) == leaves(count)[leafnum]
    assert all(whole.nodes[i] == node for i, node in known(tree).items())


@given(st.integers(1, 20), st.data())
def test_any_batch_enters_whole_and_true_or_not_at_all(count: int, draw) -> None:
    """Whatever a server sends, the tree afterwards holds only nodes of the one true tree."""
    whole = HashTree(leaves(count))
    tree = IncompleteHashTree(count, whole.root)
    numbers = st.integers(-1, len(whole))
    for _ in range(draw.draw(st.integers(1, 5))):
        chosen = draw.draw(st.sets(numbers, max_size=len(whole)))
        chosen |= tree.needed_hashes(draw.draw(st.integers(0, count - 1)), include_leaf=True)
        batch = {i: whole.nodes[i] if 0 <= i < len(whole) else bytes(32) for i in sorted(chosen)}
        for i in draw.draw(st.sets(st.sampled_from(sorted(batch)), max_size=1)) if batch else ():
            batch[i] = draw.draw(st.sampled_from([bytes(32), b"", bytes(33), whole.nodes[0]]))
        before = known(tree)
        try:
            tree.set_hashes(batch)
        except FormatError:
            assert known(tree) == before
        else:
            assert known(tree).items() >= (before | batch).items()
        assert all(whole.nodes[i] == node for i, node in known(tree).items())


@given(st.integers(2, 20), st.data())
def test_one_wrong_hash_spoils_its_batch(count: int, draw) -> None:
    whole = HashTree(leaves(count))
    leafnum = draw.draw(st.integers(0, count - 1))
    batch = {i: whole.nodes[i] for i in whole.needed_for(leafnum, include_leaf=True)}
    wrong = draw.draw(st.sampled_from(sorted(batch)))
    batch[wrong] = bytes([batch[wrong][0] ^ 1]) + batch[wrong][1:]
    tree = IncompleteHashTree(count, whole.root)
    with pytest.raises(HashMismatchError):
        tree.set_hashes(batch)
    assert known(tree) == {0: whole.root}


def test_a_hash_that_cannot_be_verified_is_refused() -> None:
    whole = HashTree(leaves(4))
    tree = IncompleteHashTree(4, whole.root)
    with pytest.raises(FormatError, match="node 4 is missing"):
        tree.set_hashes({2: whole.nodes[2]}, {0: leaves(4)[0]})
    assert known(tree) == {0: whole.root}


def test_known_nodes_cannot_be_changed() -> None:
    whole = HashTree(leaves(4))
    tree = IncompleteHashTree(4, whole.root)
    tree.set_hashes({i: whole.nodes[i] for i in (1, 2)})
    tree.set_hashes({0: whole.root, 1: whole.nodes[1]})  # the same again is fine
    with pytest.raises(HashMismatchError, match="node 1 is not what it was"):
        tree.set_hashes({1: bytes(32)})


def test_a_leaf_and_its_node_must_agree() -> None:
    whole = HashTree(leaves(2))
    tree = IncompleteHashTree(2, whole.root)
    with pytest.raises(HashMismatchError, match="leaf 0"):
        tree.set_hashes({1: whole.nodes[1], 2: whole.nodes[2]}, {0: bytes(32)})


@pytest.mark.parametrize(
    ("hashes", "of_leaves", "fault"),
    [
        ({7: bytes(32)}, {}, "no node 7"),
        ({-1: bytes(32)}, {}, "no node -1"),
        ({}, {3: bytes(32)}, "no leaf 3"),  # the place is there, as filling, but is no leaf
        ({}, {-1: bytes(32)}, "no leaf -1"),
        ({1: bytes(31)}, {}, "31 bytes"),
        ({}, {0: b""}, "0 bytes"),
    ],
)
def test_bounds(hashes: dict[int, bytes], of_leaves: dict[int, bytes], fault: str) -> None:
    tree = IncompleteHashTree(3, HashTree(leaves(3)).root)
    with pytest.raises(FormatError, match=fault):
        tree.set_hashes(hashes, of_leaves)
    assert known(tree).keys() == {0}


@pytest.mark.parametrize("leafnum", [-1, 3])
def test_asking_for_a_leaf_that_is_not_there(leafnum: int) -> None:
    tree = IncompleteHashTree(3)
    with pytest.raises(FormatError, match="no leaf"):
        tree.needed_hashes(leafnum)
    with pytest.raises(FormatError, match="no leaf"):
        tree.leaf(leafnum)


def test_a_tree_without_root_settles_on_the_first_that_comes() -> None:
    whole = HashTree(leaves(3))
    tree = IncompleteHashTree(3)
    assert tree.root is None
    with pytest.raises(FormatError, match="missing"):
        tree.set_hashes({1: whole.nodes[1]})
    assert tree.root is None
    batch = {i: whole.nodes[i] for i in whole.needed_for(0)}
    tree.set_hashes(batch, {0: leaves(3)[0]})
    assert tree.root == whole.root
    with pytest.raises(HashMismatchError):
        tree.set_hashes({0: bytes(32)})


def test_a_root_given_with_the_batch() -> None:
    whole = HashTree(leaves(4))
    tree = IncompleteHashTree(4)
    with pytest.raises(HashMismatchError):
        tree.set_hashes({0: bytes(32), 1: whole.nodes[1], 2: whole.nodes[2]})
    assert tree.root is None
    tree.set_hashes({i: whole.nodes[i] for i in (0, 1, 2)})
    assert tree.has(0)
    assert tree.has(2)
    assert not tree.has(3)


def test_filling_is_whatever_the_writer_made_it() -> None:
    """Another client may fill the row differently; its files still verify."""
    a, b, c = leaves(3)
    whole = HashTree([a, b, c, bytes(32)])
    tree = IncompleteHashTree(3, whole.root)
    tree.set_hashes({i: whole.nodes[i] for i in tree.needed_hashes(2)}, {2: c})
    assert tree.leaf(2) == c


def test_one_leaf_is_the_root() -> None:
    tree = IncompleteHashTree(1, bytes(32))
    assert tree.needed_hashes(0, include_leaf=True) == frozenset()
    tree.set_hashes({}, {0: bytes(32)})
    with pytest.raises(HashMismatchError):
        tree.set_hashes({}, {0: bytes([1]) * 32})


def test_a_huge_tree_costs_only_what_is_known() -> None:
    tree = IncompleteHashTree(1 << 60, bytes(32))
    assert len(tree.needed_hashes((1 << 60) - 1)) == 60


def test_no_tree_of_fewer_than_no_leaves() -> None:
    with pytest.raises(ValueError, match="fewer than no leaves"):
        IncompleteHashTree(-1)
