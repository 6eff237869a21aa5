"""The CHK share layout against shares that stock wrote, and against lies."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.crypto.hashes import block_hash
from lafsfs.crypto.merkle import HashTree, IncompleteHashTree
from lafsfs.errors import FileTooBigError, FormatError
from lafsfs.formats.chk import (
    HEADER_SIZE_V1,
    HEADER_SIZE_V2,
    CHKHeader,
    CHKShareLayout,
    parse_header,
    plan_layout,
)
from lafsfs.formats.geometry import CHKGeometry, Span
from lafsfs.formats.hashstore import (
    pack_hash_tree,
    pack_share_hash_chain,
    parse_hash_tree,
    parse_share_hash_chain,
)
from lafsfs.formats.ueb import UEB, ueb_size
from tests import golden_data
from tests.formats import golden_shares

GOLDEN = golden_shares.named("CHK", "DIR2-CHK")


def cut(share: bytes, span: Span) -> bytes:
    data = share[span.offset : span.end]
    assert len(data) == span.size
    return data


def geometry_of(name: str) -> CHKGeometry:
    return CHKGeometry.plan(int(golden_shares.golden(name).cap.split(":")[-1]), 3, 10)


def rebuilt(share: bytes, layout: CHKShareLayout) -> bytes:
    """The share again, every section read by the offsets it gives and packed anew."""
    header, geometry = parse_header(share), layout.geometry
    header.require(geometry)
    length = header.parse_ueb_length(cut(share, header.ueb_length_span))
    segments = range(geometry.num_segments)
    sections = [
        header.pack(),
        *(cut(share, header.blocks_span(geometry, segment)) for segment in segments),
        bytes(layout.unused_tree.size),
        pack_hash_tree(parse_hash_tree(cut(share, header.crypttext_hash_tree_span(geometry)))),
        pack_hash_tree(parse_hash_tree(cut(share, header.block_hash_tree_span(geometry)))),
        pack_share_hash_chain(parse_share_hash_chain(cut(share, header.share_hash_span))),
        layout.pack_ueb(UEB.unpack(cut(share, header.ueb_span(length))).pack()),
    ]
    return b"".join(sections)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_shares_parse_and_repack_byte_for_byte(name):
    geometry = geometry_of(name)
    layout = plan_layout(geometry, ueb_size(geometry))
    shares = golden_shares.shares(golden_shares.golden(name).storage_index)
    assert sorted(shares) == list(range(10))
    for shnum, share in shares.items():
        assert parse_header(share[:HEADER_SIZE_V2]) == layout.header
        assert layout.share_size == len(share)
        assert rebuilt(share, layout) == share
        chain = parse_share_hash_chain(cut(share, layout.share_hash_chain))
        assert len(chain) == geometry.share_hash_chain_length
        assert 15 + shnum in chain  # its own leaf, in a tree of 16


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_hashes_hold(name):
    geometry = geometry_of(name)
    for shnum, share in golden_shares.shares(golden_shares.golden(name).storage_index).items():
        header = parse_header(share)
        length = header.parse_ueb_length(cut(share, header.ueb_length_span))
        ueb = UEB.unpack(cut(share, header.ueb_span(length)))
        segments = range(geometry.num_segments)
        blocks = [cut(share, header.blocks_span(geometry, segment)) for segment in segments]
        tree = HashTree([block_hash(block) for block in blocks])
        assert pack_hash_tree(tree.nodes) == cut(share, header.block_hash_tree_span(geometry))
        ciphertext_tree = cut(share, header.crypttext_hash_tree_span(geometry))
        assert ciphertext_tree.startswith(ueb.crypttext_root_hash)
        chain = parse_share_hash_chain(cut(share, header.share_hash_span))
        IncompleteHashTree(geometry.n, ueb.share_root_hash).set_hashes(chain, {shnum: tree.root})


@pytest.mark.parametrize("name", golden_shares.named("CHK"))
def test_golden_blocks_decrypt_to_the_contents(name):
    key = golden_data.from_base32(golden_shares.golden(name).cap.split(":")[2])
    assert golden_shares.immutable_contents(name, key) == golden_data.contents(name)


def test_runs_of_blocks_are_the_blocks_one_after_the_other():
    geometry = geometry_of("imm-2100000")
    share = golden_shares.shares(golden_shares.golden("imm-2100000").storage_index)[4]
    header = parse_header(share)
    run = cut(share, header.blocks_span(geometry, 0, 3))
    assert geometry.split_blocks(run, 0) == [
        cut(share, header.blocks_span(geometry, segment)) for segment in range(3)
    ]


@st.composite
def layouts(draw) -> CHKShareLayout:
    k = draw(st.integers(1, 40))
    n = draw(st.integers(k, 256))
    geometry = CHKGeometry.plan(draw(st.integers(1, 1 << 44)), k, n)
    return plan_layout(geometry, ueb_size(geometry))


@given(layouts())
def test_sections_follow_one_another_without_gaps(layout):
    header = layout.header
    assert header.header_size in (HEADER_SIZE_V1, HEADER_SIZE_V2)
    ordered = [
        Span(0, header.header_size),
        Span(header.data, layout.geometry.share_data_size),
        layout.unused_tree,
        layout.crypttext_hash_tree,
        layout.block_hash_tree,
        layout.share_hash_chain,
        header.ueb_length_span,
        header.ueb_span(layout.ueb_size),
    ]
    for before, after in itertools.pairwise(ordered):
        assert before.end == after.offset
    assert layout.share_size == ordered[-1].end
    assert layout.block(0).offset == header.data
    assert parse_header(header.pack()) == header
    header.require(layout.geometry)
    assert header.parse_ueb_length(header.pack_ueb_length(layout.ueb_size)) == layout.ueb_size
    before_ueb = header.uri_extension - header.header_size
    assert (header.version == 2) == (HEADER_SIZE_V1 + before_ueb >= 1 << 32)


def test_version_2_is_written_where_version_1_cannot_hold_the_share():
    def version(size: int) -> int:
        return plan_layout(CHKGeometry.plan(size, 1, 1), 320).header.version

    small = 4_000_000_000
    assert version(small) == 1
    assert version(1 << 32) == 2
    with pytest.raises(FileTooBigError):
        plan_layout(CHKGeometry.plan(1 << 32, 1, 1), 320, version=1)
    assert plan_layout(CHKGeometry.plan(100, 3, 10), 320, version=2).header.data == HEADER_SIZE_V2


def test_the_ueb_must_be_as_long_as_planned():
    layout = plan_layout(CHKGeometry.plan(100, 3, 10), 5)
    assert layout.pack_ueb(b"hello") == b"\x00\x00\x00\x05hello"
    with pytest.raises(ValueError, match="planned"):
        layout.pack_ueb(b"hello!")


@given(st.binary(max_size=100))
def test_arbitrary_headers_are_refused(data):
    with pytest.raises(FormatError):
        parse_header(data)


@given(st.sampled_from([1, 2]), st.lists(st.integers(0, (1 << 64) - 1), min_size=8, max_size=8))
def test_lying_headers_are_refused_or_bounded(version, numbers):
    limit = 1 << (32 if version == 1 else 64)
    raw = CHKHeader(version, *(number % limit for number in numbers)).pack()
    check_bounded(raw)


@given(st.sampled_from([1, 2]), st.data())
def test_a_flipped_or_cut_header_is_refused_or_bounded(version, data):
    raw = bytearray(plan_layout(CHKGeometry.plan(3000, 3, 10), 320, version).header.pack())
    with pytest.raises(FormatError):
        parse_header(bytes(raw[: data.draw(st.integers(0, len(raw) - 1))]))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    check_bounded(bytes(raw) + bytes(HEADER_SIZE_V2))


def check_bounded(raw: bytes) -> None:
    geometry = CHKGeometry.plan(3000, 3, 10)
    try:
        header = parse_header(raw)
        header.require(geometry)
    except FormatError:
        return
    assert 0 <= header.share_hash_span.size <= 9 * 34
    for span in (
        header.blocks_span(geometry, 0),
        header.block_hash_tree_span(geometry),
        header.crypttext_hash_tree_span(geometry),
    ):
        assert header.header_size <= span.offset
        assert span.end < 1 << 63


def test_sections_that_run_into_each_other_are_refused():
    geometry = CHKGeometry.plan(3000, 3, 10)
    header = plan_layout(geometry, 320).header
    header.require(geometry)
    for change in (
        {"crypttext_hash_tree": header.data + 999},
        {"block_hashes": header.share_hashes - 31},
        {"share_hashes": header.block_hashes + 1},
        {"data": header.crypttext_hash_tree - 999},
    ):
        with pytest.raises(FormatError):
            dataclasses.replace(header, **change).require(geometry)


def test_absurd_ueb_lengths_are_refused():
    header = plan_layout(CHKGeometry.plan(3000, 3, 10), 320).header
    for raw in (b"", b"\0\0\0", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\x40\0"):
        with pytest.raises(FormatError):
            header.parse_ueb_length(raw)


@given(st.dictionaries(st.integers(0, 0xFFFF), st.binary(min_size=32, max_size=32), max_size=9))
def test_share_hash_chains_round_trip(chain):
    packed = pack_share_hash_chain(chain)
    assert len(packed) == 34 * len(chain)
    assert parse_share_hash_chain(packed) == chain
    assert list(parse_share_hash_chain(packed)) == sorted(chain)


@given(st.binary(max_size=400))
def test_arbitrary_chains_are_refused_or_come_back(data):
    try:
        chain = parse_share_hash_chain(data)
    except FormatError:
        return
    assert len(chain) == len(data) // 34 <= 9
    assert {data[i : i + 34] for i in range(0, len(data), 34)} == {
        pack_share_hash_chain({index: node}) for index, node in chain.items()
    }


def test_malformed_chains_and_trees_are_refused():
    entry = pack_share_hash_chain({7: bytes(32)})
    for data in (
        entry[:-1],
        entry + entry,
        pack_share_hash_chain({i: entry[2:] for i in range(10)}),
    ):
        with pytest.raises(FormatError):
            parse_share_hash_chain(data)
    with pytest.raises(FormatError):
        parse_hash_tree(bytes(33))
    with pytest.raises(ValueError, match="32 bytes"):
        pack_hash_tree([b"short"])
    with pytest.raises(ValueError, match="32 bytes"):
        pack_share_hash_chain({1: b"short"})
