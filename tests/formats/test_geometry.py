"""Geometry against the plainest possible model: cut the bytes and look."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.errors import FileTooBigError, FormatError
from lafsfs.formats import geometry as g

SIZES = st.integers(0, 5000)
ENCODINGS = st.tuples(st.integers(1, 20), st.integers(0, 20)).map(lambda t: (t[0], t[0] + t[1]))


@st.composite
def geometries(draw) -> g.Geometry:
    k, n = draw(ENCODINGS)
    size = draw(SIZES)
    kind = draw(st.sampled_from(["chk", "sdmf", "mdmf"]))
    segment = draw(st.integers(1, 700))
    if kind == "chk":
        return g.CHKGeometry.plan(size + 1, k, n, segment)
    if kind == "sdmf":
        return g.SDMFGeometry.plan(size, k, n)
    return g.MDMFGeometry.plan(size, k, n, segment)


def segments_of(geometry: g.Geometry) -> list[bytes]:
    data = bytes(i % 251 for i in range(geometry.size))
    step = geometry.segment_size or 1
    return [data[i : i + step] for i in range(0, len(data), step)]


@given(geometries())
def test_segments_blocks_and_share_data_match_a_file_cut_by_hand(geometry):
    segments = segments_of(geometry)
    assert geometry.num_segments == len(segments)
    stored = b""
    for number, segment in enumerate(segments):
        padded = segment + bytes(-len(segment) % geometry.k)
        block = padded[: len(padded) // geometry.k]
        assert geometry.segment_length(number) == len(segment)
        assert geometry.padded_length(number) == len(padded)
        assert geometry.block_length(number) == len(block)
        assert geometry.segment_offset(number) == sum(map(len, segments[:number]))
        assert geometry.stored_block(number).offset == len(stored)
        stored += bytes(geometry.salt_size) + block
        assert geometry.stored_block(number).end == len(stored)
    assert geometry.share_data_size == len(stored)
    last = segments[-1] if segments else b""
    assert geometry.tail_size == len(last)
    assert geometry.tail_padded_size == g.round_up(len(last), geometry.k)
    assert geometry.tail_block_size * geometry.k == geometry.tail_padded_size


@given(geometries(), st.integers(0, 6000), st.integers(0, 6000))
def test_locate_yields_exactly_the_bytes_of_the_range(geometry, offset, size):
    segments = segments_of(geometry)
    data = b"".join(segments)
    pieces = list(geometry.locate(offset, size))
    assert all(piece.length > 0 for piece in pieces)
    found = b"".join(segments[s][skip : skip + length] for s, skip, length in pieces)
    assert found == data[offset : offset + size]


@given(geometries(), st.data())
def test_a_run_of_blocks_splits_into_its_blocks(geometry, data):
    if not geometry.num_segments:
        return
    first = data.draw(st.integers(0, geometry.num_segments - 1))
    count = data.draw(st.integers(1, geometry.num_segments - first))
    share = bytes(i % 249 for i in range(geometry.share_data_size))
    span = geometry.stored_blocks(first, count)
    assert span.offset == geometry.stored_block(first).offset
    run = share[span.offset : span.end]
    blocks = geometry.split_blocks(run, first)
    spans = [geometry.stored_block(first + i) for i in range(count)]
    assert blocks == [share[s.offset : s.end] for s in spans]
    assert len(geometry.split_blocks(run[:-1], first)) == count - 1


@given(st.integers(0, 300))
def test_a_tree_has_the_next_power_of_two_leaves(leaves):
    padded = g.padded_leaves(leaves)
    assert padded >= max(leaves, 1)
    assert padded & (padded - 1) == 0
    assert padded == 1 or padded // 2 < leaves
    assert g.tree_nodes(leaves) == 2 * padded - 1
    assert g.hash_tree_size(leaves) == 32 * (2 * padded - 1)
    assert 1 << g.chain_length(leaves) == padded


def test_an_empty_mutable_file_still_has_a_tree_of_one_hash():
    for geometry in (g.SDMFGeometry.plan(0, 3, 10), g.MDMFGeometry.plan(0, 3, 10)):
        assert geometry.num_segments == 0
        assert geometry.share_data_size == 0
        assert geometry.hash_tree_size == 32
        assert list(geometry.locate(0, 10)) == []


def test_planned_segments_are_stocks():
    assert g.CHKGeometry.plan(56, 3, 10).segment_size == 57
    assert g.CHKGeometry.plan(1 << 20, 3, 10).segment_size == (1 << 20) + 2
    assert g.CHKGeometry.plan(5 << 20, 3, 10).segment_size == (1 << 20) + 2
    assert g.CHKGeometry.plan(5 << 20, 3, 10, 128 << 10).segment_size == 131073
    assert g.SDMFGeometry.plan(1000, 3, 10).segment_size == 1002
    assert g.MDMFGeometry.plan(1, 3, 10).segment_size == 131073


def test_share_hash_chain_lengths():
    # CHK stores its own leaf; a mutable share does not, and has nothing at all when it is alone.
    assert g.CHKGeometry.plan(100, 3, 10).share_hash_chain_length == 5
    assert g.CHKGeometry.plan(100, 1, 1).share_hash_chain_length == 1
    assert g.SDMFGeometry.plan(100, 3, 10).share_hash_chain_length == 4
    assert g.MDMFGeometry.plan(100, 1, 1).share_hash_chain_length == 0


@pytest.mark.parametrize(
    "arguments",
    [
        (100, 0, 10, 100),
        (100, 4, 3, 100),
        (100, 3, 257, 102),
        (0, 3, 10, 3),
        (-1, 3, 10, 3),
        (1 << 63, 3, 10, 3),
        (100, 3, 10, 100),
        (100, 3, 10, 0),
        (100, 3, 10, -3),
        (100, 1, 10, (128 << 20) + 2),
        ((1 << 24) + 1, 1, 1, 1),
    ],
)
def test_impossible_chk_encodings_are_refused(arguments):
    with pytest.raises(FormatError):
        g.CHKGeometry(*arguments)


def test_impossible_mutable_encodings_are_refused():
    with pytest.raises(FormatError):
        g.SDMFGeometry(100, 3, 10, 51)  # two segments
    with pytest.raises(FormatError):
        g.SDMFGeometry(100, 3, 256, 102)  # n is one byte
    with pytest.raises(FormatError):
        g.MDMFGeometry(100, 3, 10, 100)
    with pytest.raises(FormatError):
        g.MDMFGeometry.plan(100, 0, 10)


@given(*(st.integers(-10, 1 << 70) for _ in range(4)))
def test_any_numbers_make_a_geometry_or_a_format_error(size, k, n, segment_size):
    for kind in (g.CHKGeometry, g.SDMFGeometry, g.MDMFGeometry):
        try:
            geometry = kind(size, k, n, segment_size)
        except FormatError:
            continue
        assert geometry.num_segments <= g.MAX_SEGMENTS
        assert geometry.share_data_size <= 2 * (1 << 63)


def test_what_is_too_big_to_write_is_the_callers_fault():
    with pytest.raises(FileTooBigError):
        g.CHKGeometry.plan(1 << 62, 3, 10)
    with pytest.raises(FileTooBigError):
        g.SDMFGeometry.plan(g.MAX_SDMF_SIZE + 1, 3, 10)
    with pytest.raises(FileTooBigError):
        g.MDMFGeometry.plan(1 << 62, 3, 10)


def test_questions_about_segments_that_are_not_there_are_bugs():
    geometry = g.CHKGeometry.plan(100, 3, 10, 30)
    for segment in (-1, geometry.num_segments):
        with pytest.raises(ValueError, match="segment"):
            geometry.segment_length(segment)
    with pytest.raises(ValueError, match="run"):
        geometry.stored_blocks(0, 0)
    with pytest.raises(ValueError, match="range"):
        list(geometry.locate(-1, 5))
