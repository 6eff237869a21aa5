"""Written ranges against a plain set of offsets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lafsfs.grid.ranges import WrittenRanges

RANGE = st.tuples(st.integers(0, 40), st.integers(0, 40))


@given(st.lists(RANGE, max_size=12), RANGE, st.integers(0, 41))
def test_ranges_know_what_a_set_of_offsets_knows(added, asked, size):
    ranges = WrittenRanges()
    offsets: set[int] = set()
    for start, stop in added:
        ranges.add(start, stop)
        offsets |= set(range(start, stop))
    overlap = ranges.overlap(*asked)
    assert {i for low, high in overlap for i in range(low, high)} == offsets & set(range(*asked))
    assert all(low < high for low, high in overlap)
    assert overlap == sorted(overlap)
    assert ranges.total == len(offsets)
    if max(offsets, default=-1) < size:
        assert ranges.covers(size) is (len(offsets) == size)
    missing = ranges.missing(size)
    inside = {i for i in offsets if i < size}
    if max(offsets, default=-1) < size:
        assert {i for low, high in missing for i in range(low, high)} == set(range(size)) - inside
        assert all(low < high for low, high in missing)
        assert missing == sorted(missing)
