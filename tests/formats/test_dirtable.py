"""The directory table against directories that stock wrote, and against damage."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.crypto.hashes import netstring, ssk_readkey
from lafsfs.errors import BadNameError, FormatError, HashMismatchError
from lafsfs.formats.dirtable import (
    SEAL_SIZE,
    DirectoryTable,
    Entry,
    UnreadableEntry,
    make_entry,
    open_write_cap,
    pack_table,
    parse_table,
    seal_write_cap,
)
from tests import golden_data
from tests.formats import golden_shares

KEY = bytes(range(16))
MUTABLE = golden_shares.named("DIR2-sdmf", "DIR2-mdmf")


def write_key_of(name: str) -> bytes:
    return golden_data.from_base32(golden_shares.golden(name).cap.split(":")[2])


def contents(name: str) -> bytes:
    """The table of a golden directory."""
    key = write_key_of(name)
    if name == "dir-immutable":
        return golden_shares.immutable_contents(name, key)
    return golden_shares.mutable_contents(name, ssk_readkey(key))


@pytest.mark.parametrize("name", [*MUTABLE, "dir-immutable"])
def test_golden_directories_list_their_children_and_repack(name):
    data = contents(name)
    table = parse_table(data)
    assert set(table.by_name) == set(golden_data.TREES[name].children)
    assert list(table.by_name) == sorted(table.by_name)
    assert table.unreadable == ()
    assert table.pack() == data
    assert table.with_entries(table.by_name) == table
    assert pack_table(reversed(list(table.by_name.values()))) == data


@pytest.mark.parametrize("name", [*MUTABLE, "dir-immutable"])
def test_golden_entries_hold_the_manifests_capabilities(name):
    key = None if name == "dir-immutable" else write_key_of(name)
    table = parse_table(contents(name))
    for child, target in golden_data.TREES[name].children.items():
        entry = table.by_name[child]
        write = b"" if key is None else open_write_cap(key, entry.sealed_write)
        assert (entry.sealed_write == b"") == (key is None)
        if target not in golden_data.OBJECTS:
            continue
        golden = golden_data.OBJECTS[target]
        assert entry.read_cap.decode() == golden.ro
        writable = golden.cap != golden.ro and child != "readonly-mutable"
        assert write.decode() == (golden.cap if writable else "")


@pytest.mark.parametrize("name", [*MUTABLE, "dir-immutable"])
def test_entries_made_anew_are_stocks_byte_for_byte(name):
    key = None if name == "dir-immutable" else write_key_of(name)
    table = parse_table(contents(name))
    for child, entry in table.by_name.items():
        write = open_write_cap(key, entry.sealed_write).decode() if key else ""
        metadata = json.loads(entry.metadata_json)
        made = make_entry(child, write or None, entry.read_cap.decode(), metadata, key)
        assert made == entry
        assert made.raw == entry.raw
        assert (made.name, made.raw_name) == (entry.name, entry.raw_name)
        assert entry.with_metadata(metadata) == entry


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
CAPS = st.none() | st.from_regex(r"URI:[A-Z]{3}:[a-z2-7:]{0,40}", fullmatch=True)
METADATA = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)


@st.composite
def entries(draw, key: bytes | None = KEY) -> Entry:
    write = draw(CAPS) if key else None
    return make_entry(draw(NAMES), write, draw(CAPS), draw(METADATA), key)


@given(NAMES, CAPS, CAPS, METADATA)
def test_an_entry_round_trips(name, write, read, metadata):
    entry = make_entry(name, write, read, metadata, KEY)
    (parsed,) = parse_table(pack_table([entry])).entries
    assert isinstance(parsed, Entry)
    assert parsed == entry
    assert parsed.name == unicodedata.normalize("NFC", name)
    assert parsed.read_cap == (read or "").encode()
    assert open_write_cap(KEY, parsed.sealed_write) == (write or "").encode()
    assert json.loads(parsed.metadata_json) == metadata
    assert parsed.with_metadata({}) == make_entry(name, write, read, {}, KEY)


@given(st.lists(entries(), max_size=8))
def test_tables_round_trip_sorted_and_the_last_of_a_name_wins(made):
    table = DirectoryTable(made)
    again = parse_table(table.pack())
    assert again == table
    assert hash(again) == hash(table)
    assert dict(again.by_name) == {entry.name: entry for entry in made}
    settled = again.with_entries(again.by_name)
    assert list(settled.by_name) == sorted(settled.by_name)
    assert dict(settled.by_name) == dict(again.by_name)
    assert len(settled.entries) == len(settled.by_name)


@given(st.lists(entries(), min_size=1, max_size=4), st.data())
def test_a_cut_table_is_refused_unless_cut_between_entries(made, data):
    packed = DirectoryTable(made).pack()
    cut = data.draw(st.integers(0, len(packed) - 1))
    try:
        table = parse_table(packed[:cut])
    except FormatError:
        return
    assert table.entries == tuple(made[: len(table.entries)])
    assert table.pack() == packed[:cut]


@given(st.lists(entries(), min_size=1, max_size=4), st.data())
def test_a_flipped_bit_is_refused_or_kept(made, data):
    packed = bytearray(DirectoryTable(made).pack())
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    check_total(bytes(packed))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_kept(data):
    check_total(data)
    check_total(netstring(data))
    check_total(netstring(netstring(data) + netstring(b"URI:x") + netstring(b"") + netstring(data)))


def check_total(data: bytes) -> None:
    try:
        table = parse_table(data)
    except FormatError:
        return
    assert table.pack() == data
    for entry in table.by_name.values():
        try:
            open_write_cap(KEY, entry.sealed_write)
        except FormatError:
            continue


def test_entries_that_make_no_sense_are_carried_along():
    good = make_entry("b", None, "URI:LIT:", {}, KEY)
    other = make_entry("a", None, "URI:LIT:", {}, KEY)
    bad_name = b"".join(map(netstring, (b"\xff", b"URI:LIT:", b"", b"{}")))
    for raw in (b"", b"garbage", good.raw[:-1], bad_name, netstring(b"name")):
        data = netstring(raw) + netstring(good.raw)
        table = parse_table(data)
        assert table.unreadable == (UnreadableEntry(raw),)
        assert dict(table.by_name) == {"b": good}
        assert table.pack() == data
        edited = table.with_entries({"b": good, "a": other})
        assert parse_table(edited.pack()).entries == (other, good, UnreadableEntry(raw))
        assert parse_table(table.with_entries({}).pack()).entries == (UnreadableEntry(raw),)


def test_an_entry_keeps_what_stock_tolerates():
    raw = b"".join(map(netstring, ("é".encode(), b"URI:LIT:  ", b"", b"[]"))) + b"trailing"
    (entry,) = parse_table(netstring(raw)).entries
    assert isinstance(entry, Entry)
    assert (entry.name, entry.read_cap, entry.metadata_json) == ("é", b"URI:LIT:  ", b"[]")
    decomposed = unicodedata.normalize("NFD", "é").encode()
    (entry,) = parse_table(netstring(raw.replace(b"2:\xc3\xa9", b"3:" + decomposed))).entries
    assert isinstance(entry, Entry)
    assert (entry.name, entry.raw_name) == ("é", decomposed)
    assert entry.with_metadata({"a": 1}).raw_name == decomposed


def test_prefixes_are_stripped_where_their_place_implies_them():
    def stored(read: str, key: bytes | None) -> bytes:
        return make_entry("a", None, read, {}, key).read_cap

    assert stored("ro.URI:NEW:x", KEY) == b"URI:NEW:x"
    assert stored("imm.URI:NEW:x", KEY) == b"imm.URI:NEW:x"
    assert stored("imm.URI:NEW:x", None) == b"URI:NEW:x"
    assert stored("URI:LIT:", KEY) == b"URI:LIT:"


def test_an_immutable_directory_holds_no_write_capability():
    assert make_entry("a", None, "URI:LIT:", {}, None).sealed_write == b""
    with pytest.raises(ValueError, match="immutable"):
        make_entry("a", "URI:SSK:x", "URI:SSK-RO:x", {}, None)


@pytest.mark.parametrize("name", ["", "\ud800"])
def test_names_that_stock_could_not_read_again_are_refused(name):
    with pytest.raises(BadNameError):
        make_entry(name, None, "URI:LIT:", {}, KEY)


@given(st.binary(max_size=100), st.binary(min_size=16, max_size=16), st.data())
def test_sealing(write_cap, key, data):
    sealed = seal_write_cap(key, write_cap)
    assert len(sealed) == len(write_cap) + SEAL_SIZE
    assert open_write_cap(key, sealed) == write_cap.rstrip(b" ")
    assert seal_write_cap(key, write_cap) == sealed
    broken = bytearray(sealed)
    broken[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(HashMismatchError):
        open_write_cap(key, bytes(broken))
    with pytest.raises(HashMismatchError):
        open_write_cap(bytes(b ^ 1 for b in key), sealed)
    with pytest.raises(FormatError):
        open_write_cap(key, sealed[: data.draw(st.integers(1, len(sealed) - 1))])


def test_nothing_secret_is_shown():
    table = DirectoryTable([make_entry("a", "URI:SSK:hidden", "URI:SSK-RO:hidden", {}, KEY)])
    for shown in (repr(table), repr(table.entries), repr(UnreadableEntry(b"hidden"))):
        assert "hidden" not in shown


def test_a_table_of_fifty_thousand_entries_comes_back():
    raw = make_entry("name", None, "URI:LIT:", {"tahoe": {"linkmotime": 1.5}}, KEY).raw
    packed = b"".join(
        netstring(raw.replace(b"4:name,", b"9:name%05d," % number, 1)) for number in range(50_000)
    )
    table = parse_table(packed)
    assert len(table.by_name) == 50_000
    assert table.pack() == packed
