"""Rows of the journal: nothing is lost on the way, and nothing is guessed."""

from __future__ import annotations

import contextlib

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.caps import DirectoryCap, MutableFormat, MutableWriteCap, UnknownCap
from lafsfs.errors import JournalFormatError
from lafsfs.formats.dirtable import make_entry
from lafsfs.nodes.edits import Base
from lafsfs.vfs.posix.attributes import Kind, Posix
from lafsfs.vfs.recording.records import (
    CURRENT,
    NEW,
    OLDER,
    VERSION,
    BegunRecord,
    EdgeRecord,
    InodeRecord,
    LookRecord,
    NameRecord,
    PlaceRecord,
    What,
    unpack,
)
from tests.caps.strategies import caps, file_caps

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
numbers = st.integers(0, 2**63 - 1)
times = st.integers(-(2**63) + 1, 2**63 - 1)
unknown = st.builds(UnknownCap, st.none() | NAMES, st.none() | NAMES)
any_cap = caps | unknown
entries = st.builds(
    make_entry, NAMES, st.none() | NAMES, st.none() | NAMES, st.just({"a": 1}), st.just(b"k" * 16)
)
posixes = st.builds(
    Posix,
    st.sampled_from(Kind),
    st.integers(0, 0o7777),
    numbers,
    numbers,
    times,
    times,
    times,
    times,
    st.none() | times,
    numbers,
    st.integers(1, 1 << 32),
    st.none() | numbers,
    st.none() | numbers,
    st.dictionaries(st.binary(max_size=9), st.binary(max_size=9), max_size=4),
)
inodes = st.builds(
    InodeRecord,
    numbers,
    st.sampled_from(What),
    posixes,
    st.none() | any_cap,
    st.none() | any_cap,
    st.lists(NAMES, max_size=3).map(tuple),
    st.none() | st.binary(max_size=40),
    st.binary(max_size=20),
)
bases = any_cap | st.just(Base.ABSENT)
edges = st.builds(EdgeRecord, numbers, st.sampled_from([NEW, OLDER, CURRENT]), st.none() | entries)
directories = file_caps.map(DirectoryCap)
names = st.builds(
    NameRecord,
    directories,
    NAMES,
    st.none() | st.binary(max_size=20),
    st.none() | edges,
    bases,
    st.none() | entries,
    st.lists(bases, max_size=2).map(tuple),
    st.lists(numbers, max_size=2).map(tuple),
    st.none() | times,
    times,
)
places = st.builds(PlaceRecord, directories, NAMES, entries)
looks = st.builds(LookRecord, directories, NAMES, st.none() | entries, st.none() | numbers)
begun = st.builds(BegunRecord, caps, numbers)
records = inodes | names | places | looks | begun
SLOT = MutableWriteCap(MutableFormat.SDMF, b"k" * 16, b"f" * 32)


@given(records)
def test_what_is_packed_is_unpacked(record):
    assert unpack(1, record.pack()) == record


@given(st.binary(max_size=200))
def test_noise_is_no_row(data):
    with pytest.raises(JournalFormatError, match="row 7 of the journal"):
        unpack(7, data)


@settings(max_examples=200)
@given(records, st.data())
def test_a_row_that_was_changed_is_another_row_or_none(record, data):
    value = bytearray(record.pack())
    at = data.draw(st.integers(0, len(value) - 1))
    value[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(JournalFormatError):
        assert unpack(1, bytes(value)) != record


@given(records, st.data())
def test_a_row_that_was_cut_is_none(record, data):
    value = record.pack()
    with pytest.raises(JournalFormatError, match="row 3 of the journal"):
        unpack(3, value[: data.draw(st.integers(0, len(value) - 1))])
    with pytest.raises(JournalFormatError):
        unpack(3, value + b"\0")


values = st.recursive(
    st.none() | st.booleans() | numbers | times | NAMES | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=200)
@given(records, st.data())
def test_a_field_that_makes_no_sense_is_refused(record, data):
    """Whatever stands in a field, it is kept as it is or nothing is."""
    fields = cbor2.loads(record.pack())
    fields[data.draw(st.integers(2, len(fields) - 1))] = data.draw(values)
    value = cbor2.dumps(fields)
    with contextlib.suppress(JournalFormatError):
        assert unpack(1, value).pack() == value


@given(inodes | names)
def test_rows_that_an_older_version_knew_are_as_it_left_them(record):
    """So that its journal is read, and it reads ours but for what is new."""
    assert cbor2.loads(record.pack())[0] == 1


@given(places | looks | begun)
def test_rows_that_an_older_version_did_not_know_are_of_a_newer_one(record):
    assert cbor2.loads(record.pack())[0] == 2


def test_a_row_of_a_newer_version_says_what_to_do():
    with pytest.raises(JournalFormatError, match=r"row 5 .* newer lafsfs"):
        unpack(5, cbor2.dumps([VERSION + 1, 1, "whatever comes"]))


def test_a_name_is_not_based_on_anything():
    record = NameRecord(DirectoryCap(SLOT), "name", None, edge=None, base=Base.ANY)
    with pytest.raises(ValueError, match="based on"):
        record.pack()


def test_errors_do_not_tell_capabilities():
    """What a row holds of secrets is in no message and no repr."""
    cap = DirectoryCap(SLOT)
    record = NameRecord(cap, "name", None, edge=None, base=Base.ABSENT)
    fields = cbor2.loads(record.pack())
    fields[2] = cap.danger_text() + "x"
    with pytest.raises(JournalFormatError) as caught:
        unpack(1, cbor2.dumps(fields))
    for text in (str(caught.value), repr(record)):
        assert cap.danger_text().split(":")[2] not in text
