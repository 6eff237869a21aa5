"""Edge metadata to attributes and back; foreign metadata never raises."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.vfs.api import AttributeSpaceError, InvalidRequestError
from lafsfs.vfs.posix import acl, attributes, numbers
from lafsfs.vfs.posix.attributes import Defaults, Facts, Kind, Posix

FILE = Facts(digest="abcdefgh", is_directory=False, may_be_special=True)
DIRECTORY = Facts(digest="abcdefgh", is_directory=True, may_be_special=False)
DEFAULTS = Defaults(uid=1000, gid=1001)
STOCK = {"tahoe": {"linkcrtime": 1000.25, "linkmotime": 2000.5}}

times = st.integers(-(2**63) + 1, 2**63 - 1)
ids = st.integers(0, 2**32 - 2)
posixes = st.builds(
    Posix,
    kind=st.sampled_from([kind for kind in Kind if kind is not Kind.DIRECTORY]),
    mode=st.integers(0, 0o7777),
    uid=ids,
    gid=ids,
    atime=times,
    mtime=times,
    ctime=times,
    btime=times,
    rdev=st.just(0),
    nlink=st.integers(1, 100),
    size=st.none() | st.integers(0, 2**63 - 1),
    number=st.none() | st.integers(numbers.LOWEST, numbers.HIGHEST),
    xattrs=st.dictionaries(
        st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name),
        st.binary(max_size=50),
        max_size=4,
    ),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
fields = st.sampled_from(
    [
        "v",
        "cap",
        "type",
        "mode",
        "uid",
        "gid",
        "rdev",
        "mtime",
        "atime",
        "ctime",
        "btime",
        "mset",
        "size",
        "nlink",
        "id",
        "xattrs",
        "raw",
    ]
)


@given(posixes)
def test_round_trip_through_json(posix):
    metadata = {attributes.KEY: attributes.encode(posix, FILE.digest)}
    again = json.loads(json.dumps(metadata))
    assert attributes.decode(again, FILE, DEFAULTS) == posix


@pytest.mark.parametrize("kind", [Kind.CHARACTER, Kind.BLOCK])
def test_device_numbers_come_back(kind):
    posix = Posix(kind, 0o600, 0, 0, 1, 2, 3, 4, rdev=0x0501)
    metadata = {attributes.KEY: attributes.encode(posix, FILE.digest)}
    assert attributes.decode(metadata, FILE, DEFAULTS) == posix


def test_a_child_of_a_stock_client():
    posix = attributes.decode(STOCK, FILE, DEFAULTS)
    assert (posix.kind, posix.mode, posix.uid, posix.gid) == (Kind.FILE, 0o644, 1000, 1001)
    assert (posix.btime, posix.mtime, posix.ctime) == (1000250000000, 2000500000000, 2000500000000)
    assert attributes.decode({}, DIRECTORY, DEFAULTS).mode == 0o755


def test_what_clients_before_1_4_left():
    posix = attributes.decode({"ctime": 5.5, "mtime": 7}, FILE, DEFAULTS)
    assert (posix.btime, posix.mtime) == (5500000000, 7000000000)


def test_a_child_that_stock_replaced_keeps_its_owner_but_not_its_times():
    before = Posix(Kind.SYMLINK, 0o640, 1, 2, 3, 4, 5, 6, size=99, number=numbers.LOWEST + 7)
    metadata = {attributes.KEY: attributes.encode(before, "otherone"), **STOCK}
    posix = attributes.decode(metadata, FILE, DEFAULTS)
    assert (posix.kind, posix.mode, posix.uid, posix.size) == (Kind.FILE, 0o640, 1, None)
    assert (posix.mtime, posix.btime, posix.number) == (2000500000000, 6, before.number)


def test_a_type_only_counts_for_what_cannot_change():
    posix = Posix(Kind.SYMLINK, 0o777, 1, 2, 3, 4, 5, 6)
    metadata = {attributes.KEY: attributes.encode(posix, FILE.digest)}
    mutable = replace(FILE, may_be_special=False)
    assert attributes.decode(metadata, mutable, DEFAULTS).kind is Kind.FILE
    assert attributes.decode(metadata, DIRECTORY, DEFAULTS).kind is Kind.DIRECTORY


@given(st.dictionaries(fields, json_values), json_values, json_values)
@settings(max_examples=200)
def test_hostile_metadata_is_read_as_something_sane(record, system, other):
    for metadata in ({"lafsfs": record, "tahoe": system}, {"lafsfs": other, "ctime": system}):
        for facts in (FILE, DIRECTORY):
            posix = attributes.decode(metadata, facts, DEFAULTS)
            assert 0 <= posix.mode <= 0o7777
            assert 0 <= posix.uid < 2**32 - 1
            assert -(2**63) < posix.mtime < 2**63
            assert posix.nlink >= 1
            json.dumps(attributes.encode(posix, facts.digest))
        attributes.raw_name_of(metadata)


@pytest.mark.parametrize(
    "record",
    [
        {"mode": -1},
        {"mode": True},
        {"mode": 0o10000},
        {"uid": 2**32 - 1},
        {"id": "1"},
        {"id": "zz"},
        {"xattrs": {"user.a": "not base64!", "user.\u0416": "", "": ""}},
        {"xattrs": {"user.a": "A" * 100_000 + "===="}},
        {"xattrs": {"system.posix_acl_access": "AAAA"}},
    ],
)
def test_fields_out_of_range_are_as_good_as_absent(record):
    metadata = {"lafsfs": {"v": 1, "cap": FILE.digest, **record}}
    assert attributes.decode(metadata, FILE, DEFAULTS) == attributes.decode({}, FILE, DEFAULTS)


@pytest.mark.parametrize("seconds", [None, True, "5", float("nan"), float("inf"), [1]])
def test_what_is_no_time(seconds):
    assert attributes.nanoseconds(seconds) is None


def test_times_are_clamped():
    assert attributes.nanoseconds(1e300) == 2**63 - 1
    assert attributes.nanoseconds(-(10**30)) == -(2**63) + 1


PLAIN = Posix(Kind.FILE, 0o644, 1, 2, 3, 4, 5, 6)
LIST = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 6, 2**32 - 1), (2, 7, 5), (4, 4, 2**32 - 1), (16, 6, 2**32 - 1), (32, 0, 0))
)


def test_an_access_list_and_the_mode_stay_in_step():
    posix = PLAIN.with_xattr(acl.ACCESS, LIST)
    assert posix.mode == 0o660
    assert posix.xattrs[acl.ACCESS] == LIST
    after = posix.with_mode(0o4600)
    assert after.mode == 0o4600
    assert acl.Acl.parse(after.xattrs[acl.ACCESS]).mode == 0o600
    assert after.without_xattr(acl.ACCESS).mode == 0o4600


def test_a_list_that_says_no_more_than_a_mode_is_only_a_mode():
    minimal = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, bits, 2**32 - 1) for tag, bits in ((1, 7), (4, 5), (32, 5))
    )
    posix = PLAIN.with_xattr(acl.ACCESS, LIST).with_xattr(acl.ACCESS, minimal)
    assert (posix.mode, dict(posix.xattrs)) == (0o755, {})


def test_malformed_and_excessive_attributes_are_refused():
    with pytest.raises(InvalidRequestError):
        PLAIN.with_xattr(acl.ACCESS, b"nonsense")
    with pytest.raises(AttributeSpaceError):
        PLAIN.with_xattr(b"user.a", bytes(40_000)).with_xattr(b"user.b", bytes(40_000))


def test_raw_names():
    record = attributes.encode(PLAIN, FILE.digest, b"e\xcc\x81")
    assert attributes.raw_name_of({"lafsfs": record}) == b"e\xcc\x81"
    assert attributes.raw_name_of({"lafsfs": {"raw": 7}}) is None
    assert attributes.raw_name_of({}) is None
