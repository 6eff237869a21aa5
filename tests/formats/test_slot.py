"""The mutable share layouts against shares that stock wrote, and against lies."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.caps import MutableFormat
from lafsfs.crypto.aes import ctr
from lafsfs.crypto.hashes import block_hash, ssk_fingerprint, ssk_readkey, ssk_writekey
from lafsfs.crypto.merkle import HashTree, IncompleteHashTree
from lafsfs.crypto.rsa import VerifyingKey
from lafsfs.errors import FormatError, HashMismatchError
from lafsfs.formats import mdmf, sdmf
from lafsfs.formats.geometry import MDMFGeometry, SDMFGeometry
from lafsfs.formats.slot import (
    HEADER_SIZE,
    MAX_SEQNUM,
    SlotPrefix,
    SlotShare,
    parse_prefix,
    parse_share,
    parse_slot_header,
    share_format,
)
from tests import golden_data
from tests.formats import golden_shares

SDMF, MDMF = MutableFormat.SDMF, MutableFormat.MDMF
GOLDEN = golden_shares.named("SDMF", "MDMF", "DIR2-sdmf", "DIR2-mdmf")
HASHES = st.binary(min_size=32, max_size=32)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_shares_parse_and_repack_byte_for_byte(name):
    golden = golden_shares.golden(name)
    shares = golden_shares.shares(golden.storage_index)
    assert sorted(shares) == list(range(10))
    for data in shares.values():
        share = parse_share(data)
        assert share.prefix.format is (MDMF if "mdmf" in golden.kind.lower() else SDMF)
        header = parse_slot_header(data[:HEADER_SIZE])
        assert header == share.header()
        packed = share.pack()
        assert packed == data[: header.sections.eof]
        assert data.startswith(share.prefix.checkstring)
        assert parse_prefix(data) == share.prefix
        assert len(share.share_hash_chain) == share.prefix.geometry.share_hash_chain_length
        kind = SDMFGeometry if share.prefix.format is SDMF else MDMFGeometry
        assert share.prefix.geometry == kind.plan(share.prefix.data_length, 3, 10)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_keys_are_those_of_the_capability(name):
    golden = golden_shares.golden(name)
    _, _, write_key, fingerprint = golden.cap.split(":")
    for data in golden_shares.shares(golden.storage_index).values():
        share = parse_share(data)
        assert ssk_fingerprint(share.verification_key) == golden_data.from_base32(fingerprint)
        key = golden_data.from_base32(write_key)
        assert ssk_writekey(ctr(key, share.enc_privkey)) == key


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_signatures_and_hashes_hold(name):
    for shnum, data in golden_shares.shares(golden_shares.golden(name).storage_index).items():
        share = parse_share(data)
        key = VerifyingKey.from_der(share.verification_key)
        key.verify(share.signature, share.prefix.pack())
        stored = share.prefix.geometry.split_blocks(share.share_data, 0)
        tree = HashTree([block_hash(block) for block in stored])
        assert list(tree.nodes) == list(share.block_hashes)
        shares_tree = IncompleteHashTree(share.prefix.n, share.prefix.root_hash)
        shares_tree.set_hashes(share.share_hash_chain, {shnum: tree.root})
    with pytest.raises(HashMismatchError):
        key.verify(share.signature, share.prefix.pack()[:-1] + b"\xff")


@pytest.mark.parametrize("name", golden_shares.named("SDMF", "MDMF"))
def test_golden_blocks_decrypt_to_the_contents(name):
    key = golden_data.from_base32(golden_shares.golden(name).cap.split(":")[2])
    found = golden_shares.mutable_contents(name, ssk_readkey(key))
    assert found == golden_data.contents(name)


@pytest.mark.parametrize("name", ["sdmf-1000", "mdmf-131073", "history-v3", "patched"])
def test_blocks_and_hashes_are_found_by_the_header(name):
    golden = golden_shares.golden(name)
    data = golden_shares.shares(golden.storage_index)[3]
    header, share = parse_slot_header(data), parse_share(data)
    assert header.geometry.size == golden.size
    segments = range(header.geometry.num_segments)
    spans = [header.blocks_span(segment) for segment in segments]
    assert b"".join(data[span.offset : span.end] for span in spans) == share.share_data
    everything = header.blocks_span(0, len(segments))
    assert data[everything.offset : everything.end] == share.share_data
    tree = header.sections.block_hash_tree
    assert data[tree.offset : tree.end] == b"".join(share.block_hashes)


def test_what_a_longer_version_left_behind_is_not_part_of_the_share():
    data = golden_shares.shares(golden_shares.golden("history-v3").storage_index)[0]
    eof = parse_slot_header(data).sections.eof
    assert eof < len(data)
    assert parse_share(data) == parse_share(data[:eof])


def test_sizes_of_the_fixed_parts():
    assert (sdmf.PREFIX.size, sdmf.HEADER_SIZE, sdmf.CHECKSTRING_SIZE) == (75, 107, 57)
    assert (mdmf.PREFIX.size, mdmf.HEADER_SIZE, mdmf.CHECKSTRING_SIZE) == (59, 123, 41)
    assert mdmf.SHARE_DATA_OFFSET == 2167
    assert mdmf.split_salt(bytes(range(20))) == (bytes(range(16)), bytes(range(16, 20)))


@st.composite
def prefixes(draw, max_size: int = 1 << 40) -> SlotPrefix:
    format_ = draw(st.sampled_from(MutableFormat))
    k = draw(st.integers(1, 200))
    n = draw(st.integers(k, 255))
    size = draw(st.integers(0, max_size if format_ is MDMF else min(max_size, 1 << 30)))
    geometry = (SDMFGeometry if format_ is SDMF else MDMFGeometry).plan(size, k, n)
    iv = draw(st.binary(min_size=16, max_size=16)) if format_ is SDMF else None
    seqnum = draw(st.integers(0, MAX_SEQNUM))
    return SlotPrefix(format_, seqnum, draw(HASHES), iv, k, n, geometry.segment_size, size)


@st.composite
def shares(draw) -> SlotShare:
    prefix = draw(prefixes(max_size=200))
    geometry = prefix.geometry
    indices = st.integers(0, 510)
    fill = draw(HASHES)
    return SlotShare(
        prefix=prefix,
        verification_key=draw(st.binary(max_size=292)),
        signature=draw(st.binary(max_size=260)),
        share_hash_chain=draw(st.dictionaries(indices, HASHES, max_size=8)),
        block_hashes=[fill] * geometry.tree_nodes,
        share_data=(fill * geometry.share_data_size)[: geometry.share_data_size],
        enc_privkey=draw(st.binary(max_size=1220)),
    )


@given(prefixes())
def test_prefixes_round_trip(prefix):
    packed = prefix.pack()
    assert parse_prefix(packed) == prefix
    assert parse_prefix(packed + b"offsets") == prefix
    assert packed.startswith(prefix.checkstring)
    assert share_format(packed) is prefix.format
    with pytest.raises(FormatError):
        parse_prefix(packed[:-1])


@given(prefixes(max_size=5000), prefixes(max_size=5000))
def test_checkstrings_tell_versions_apart(one, other):
    same = (one.format, one.seqnum, one.root_hash, one.iv) == (
        other.format,
        other.seqnum,
        other.root_hash,
        other.iv,
    )
    assert (one.checkstring == other.checkstring) == same


@settings(max_examples=60)
@given(shares(), st.binary(max_size=50))
def test_shares_round_trip_whatever_follows_them(share, leftover):
    packed = share.pack()
    assert parse_share(packed) == share
    assert parse_share(packed + leftover) == share
    assert parse_slot_header(packed) == share.header()
    assert parse_slot_header(packed).pack() == packed[: share.prefix.header_size]


@settings(max_examples=60)
@given(shares(), st.data())
def test_a_cut_share_is_refused(share, data):
    packed = share.pack()
    with pytest.raises(FormatError):
        parse_share(packed[: data.draw(st.integers(0, len(packed) - 1))])


@settings(max_examples=150)
@given(shares(), st.data())
def test_a_flipped_header_is_refused_or_bounded(share, data):
    packed = bytearray(share.pack())
    position = data.draw(st.integers(0, share.prefix.header_size - 1))
    packed[position] ^= 1 << data.draw(st.integers(0, 7))
    check_bounded(bytes(packed))


@given(st.sampled_from([0, 1]), st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_bounded(version, data):
    check_bounded(data)
    check_bounded(bytes([version]) + data)


@given(prefixes(), st.lists(st.integers(0, (1 << 64) - 1), min_size=8, max_size=8))
def test_lying_offsets_are_refused_or_bounded(prefix, numbers):
    check_bounded(prefix.pack() + b"".join(n.to_bytes(8, "big") for n in numbers))


def check_bounded(data: bytes) -> None:
    try:
        header = parse_slot_header(data)
    except FormatError:
        return
    sections = header.sections
    assert sections.share_data.size == header.geometry.share_data_size
    assert sections.block_hash_tree.size == header.geometry.hash_tree_size
    small = (
        sections.verification_key,
        sections.signature,
        sections.share_hash_chain,
        sections.enc_privkey,
    )
    assert sum(span.size for span in small) < 8000
    for span in (*small, sections.share_data, sections.block_hash_tree):
        assert header.prefix.header_size <= span.offset <= span.end <= sections.eof


PREFIX = SlotPrefix(SDMF, 1, bytes(32), bytes(16), 3, 10, 102, 100)


@pytest.mark.parametrize(
    "change",
    [
        {"seqnum": -1},
        {"seqnum": MAX_SEQNUM + 1},
        {"root_hash": bytes(31)},
        {"iv": bytes(15)},
        {"iv": None},
        {"format": MDMF},
        {"k": 0},
        {"n": 2},
        {"n": 256},
        {"segment_size": 51},
        {"segment_size": 0},
        {"data_length": 103},
    ],
)
def test_impossible_prefixes_are_refused(change):
    with pytest.raises(FormatError):
        dataclasses.replace(PREFIX, **change)


def test_unknown_versions_are_refused():
    for data in (b"", b"\x02" + PREFIX.pack()[1:], b"\xff" * 200):
        with pytest.raises(FormatError):
            share_format(data)


def test_parts_that_contradict_the_prefix_are_not_packed():
    share = SlotShare(PREFIX, b"key", b"signature", {}, [bytes(32)], bytes(34), b"privkey")
    assert parse_share(share.pack()) == share
    for change in (
        {"share_data": bytes(33)},
        {"block_hashes": []},
        {"block_hashes": [b"short"]},
        {"share_hash_chain": {1: b"short"}},
    ):
        with pytest.raises(ValueError, match=r"size|32 bytes"):
            dataclasses.replace(share, **change).pack()


def test_mdmf_sections_that_run_into_the_data_are_not_packed():
    prefix = SlotPrefix(MDMF, 1, bytes(32), None, 1, 1, 131072, 0)
    share = SlotShare(prefix, bytes(294), bytes(256), {}, [bytes(32)], b"", bytes(1600))
    with pytest.raises(ValueError, match="2167"):
        share.pack()
