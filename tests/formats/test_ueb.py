"""The UEB: what stock wrote comes back byte for byte, and nothing else passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.crypto.hashes import ueb_hash
from lafsfs.errors import FormatError
from lafsfs.formats.chk import parse_header
from lafsfs.formats.geometry import CHKGeometry
from lafsfs.formats.ueb import MAX_UEB_SIZE, UEB, ueb_size
from tests import golden_data
from tests.formats import golden_shares

HASHES = st.binary(min_size=32, max_size=32)


@st.composite
def uebs(draw) -> UEB:
    k = draw(st.integers(1, 200))
    n = draw(st.integers(k, 256))
    geometry = CHKGeometry.plan(draw(st.integers(1, 1 << 40)), k, n)
    return UEB(geometry, draw(HASHES), draw(HASHES), draw(HASHES))


def golden_ueb(name: str) -> bytes:
    share = golden_shares.shares(golden_shares.golden(name).storage_index)[0]
    header = parse_header(share)
    return share[header.uri_extension + 4 :]


@pytest.mark.parametrize("name", golden_shares.named("CHK", "DIR2-CHK"))
def test_golden_uebs_come_back_as_they_were(name):
    raw = golden_ueb(name)
    ueb = UEB.unpack(raw)
    assert ueb.pack() == raw
    assert ueb_size(ueb.geometry) == len(raw)
    size = int(golden_shares.golden(name).cap.split(":")[-1])
    ueb.require(size, 3, 10)
    assert ueb.geometry == CHKGeometry.plan(size, 3, 10)


@pytest.mark.parametrize("name", golden_shares.named("CHK", "DIR2-CHK"))
def test_golden_uebs_are_those_the_capabilities_vouch_for(name):
    vouched = golden_data.from_base32(golden_shares.golden(name).cap.split(":")[3])
    assert ueb_hash(golden_ueb(name)) == vouched


@given(uebs())
def test_round_trip(ueb):
    packed = ueb.pack()
    assert UEB.unpack(packed) == ueb
    assert len(packed) == ueb_size(ueb.geometry) < MAX_UEB_SIZE


def test_the_obsolete_plaintext_hashes_are_tolerated_and_dropped():
    ueb = UEB(CHKGeometry.plan(100, 3, 10), b"a" * 32, b"b" * 32, b"c" * 32)
    packed = ueb.pack()
    obsolete = b"plaintext_hash:32:" + b"p" * 32 + b",plaintext_root_hash:32:" + b"q" * 32 + b","
    at = packed.index(b"segment_size:")
    assert UEB.unpack(packed[:at] + obsolete + packed[at:]) == ueb


def test_each_field_is_needed_and_must_agree():
    packed = UEB(CHKGeometry.plan(100, 3, 10), b"a" * 32, b"b" * 32, b"c" * 32).pack()
    for old, new in [
        (b"codec_name:3:crs,", b""),
        (b"codec_name:3:crs,", b"codec_name:3:xyz,"),
        (b"codec_params:8:102-3-10,", b"codec_params:8:105-3-10,"),
        (b"num_segments:1:1,", b"num_segments:1:2,"),
        (b"num_segments:1:1,", b"num_segments:2:01,"),
        (b"num_segments:1:1,", b"num_segments:1:1,oddity:0:,"),
        (b"num_segments:1:1,", b"num_segments:1:1,num_segments:1:1,"),
        (b"needed_shares:1:3,", b"needed_shares:2:+3,"),
        (b"size:3:100,", b"size:3:104,"),  # two segments
        (b"segment_size:3:102,", b"segment_size:3:103,"),
        (b"tail_codec_params:8:102-3-10,", b"tail_codec_params:8:102-3-11,"),
        (b"total_shares:2:10,", b"total_shares:2:11,"),
        (b"total_shares:2:10,", b"total_shares:2:10;"),
        (b"crypttext_hash:32:" + b"a" * 32, b"crypttext_hash:31:" + b"a" * 31),
    ]:
        assert old in packed
        with pytest.raises(FormatError):
            UEB.unpack(packed.replace(old, new, 1))


def test_require_refuses_the_ueb_of_another_file():
    ueb = UEB(CHKGeometry.plan(100, 3, 10), b"a" * 32, b"b" * 32, b"c" * 32)
    ueb.require(100, 3, 10)
    for size, k, n in [(101, 3, 10), (100, 2, 10), (100, 3, 11)]:
        with pytest.raises(FormatError):
            ueb.require(size, k, n)


@given(st.binary(max_size=600))
def test_arbitrary_bytes_are_a_format_error(data):
    with pytest.raises(FormatError):
        UEB.unpack(data)


@given(uebs(), st.data())
def test_a_cut_or_changed_ueb_is_refused_or_consistent(ueb, data):
    packed = ueb.pack()
    with pytest.raises(FormatError):
        UEB.unpack(packed[: data.draw(st.integers(0, len(packed) - 1))])
    changed = bytearray(packed)
    changed[data.draw(st.integers(0, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        other = UEB.unpack(bytes(changed))
    except FormatError:
        return
    assert other.pack() == changed  # a flip inside a hash, which is for the capability to notice
