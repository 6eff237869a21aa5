"""Rows of hash trees: every leaf is verified by them, and by little else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.crypto.hashes import block_hash
from lafsfs.crypto.merkle import HashTree, IncompleteHashTree
from lafsfs.immutable.treerows import ROW_LEAVES, ROW_LEVELS, rows_over, rows_to


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_rows_verify_their_leaf(data):
    count = data.draw(st.integers(1, 1500))
    leaf = data.draw(st.integers(0, count - 1))
    leaves = [block_hash(b"%d" % i) for i in range(count)]
    whole = HashTree(leaves)
    tree = IncompleteHashTree(count, whole.root)
    for row in rows_to(leaf, count):
        tree.set_hashes({index: whole.nodes[index] for index in row})
    tree.set_hashes({}, leaves={leaf: leaves[leaf]})
    assert tree.leaf(leaf) == leaves[leaf]
    assert len(tree) == len(whole)


@pytest.mark.parametrize(
    ("leaf", "count", "rows"),
    [
        (0, 1, []),
        (0, 2, [range(1, 3)]),
        (2, 3, [range(3, 7)]),
        (255, 256, [range(255, 511)]),
        (256, 257, [range(1, 3), range(767, 1023)]),
        (0, 65_536, [range(255, 511), range(65_535, 65_791)]),
        (65_535, 65_536, [range(255, 511), range(130_815, 131_071)]),
    ],
)
def test_which_rows(leaf, count, rows):
    assert list(rows_to(leaf, count)) == rows


@given(st.integers(1, 1 << 24), st.data())
@settings(max_examples=50)
def test_rows_are_few_and_short(count, data):
    rows = list(rows_to(data.draw(st.integers(0, count - 1)), count))
    assert len(rows) <= 3
    assert all(len(row) <= 1 << ROW_LEVELS for row in rows)


@pytest.mark.parametrize(("leaf", "count"), [(-1, 5), (5, 5), (0, 0)])
def test_no_rows_to_a_leaf_that_is_not_there(leaf, count):
    with pytest.raises(ValueError, match="leaf"):
        list(rows_to(leaf, count))


@given(st.data())
@settings(max_examples=50)
def test_the_rows_over_a_run_are_those_to_each_of_its_leaves_top_down(data):
    count = data.draw(st.integers(1, 70_000))
    start = data.draw(st.integers(0, count - 1))
    run = range(start, min(count, start + data.draw(st.integers(1, ROW_LEAVES))))
    rows = list(rows_over(run, count))
    assert {row.start for row in rows} == {
        row.start for leaf in (run[0], run[len(run) // 2], run[-1]) for row in rows_to(leaf, count)
    }
    assert rows == sorted(rows, key=lambda row: row.start)


def test_a_run_has_an_end():
    for run in (range(0), range(ROW_LEAVES + 1)):
        with pytest.raises(ValueError, match="a run of"):
            rows_over(run, 1000)
