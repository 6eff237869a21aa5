"""The memory of share locations: bounded, sealed, and never in anybody's way."""

from __future__ import annotations

from types import MappingProxyType

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.cache.places import SAVE_INTERVAL, PlaceMemory, Places, pack, parse
from lafsfs.errors import FormatError
from tests.patience import PatientClock

SECRET = b"s" * 32
INDEX = b"i" * 16
SERVER = b"v" * 20

servers = st.dictionaries(
    st.binary(min_size=20, max_size=20), st.frozensets(st.integers(0, 255), max_size=12), max_size=5
)
all_places = st.dictionaries(
    st.binary(min_size=16, max_size=16),
    st.builds(Places, servers.map(MappingProxyType), st.integers(0, 2**32 - 1)),
    max_size=6,
)


def seen(*shnums: int, segment_size: int = 0) -> Places:
    return Places(MappingProxyType({SERVER: frozenset(shnums)}), segment_size)


@given(all_places)
def test_round_trip(places):
    assert parse(pack(places)) == places
    assert list(parse(pack(places))) == list(places)


@st.composite
def damaged(draw):
    """What was packed, with one byte another."""
    packed = bytearray(pack(draw(all_places)))
    packed[draw(st.integers(0, len(packed) - 1))] ^= draw(st.integers(1, 255))
    return bytes(packed)


@given(st.binary(max_size=200) | damaged())
def test_foreign_bytes_are_refused_or_understood(data):
    try:
        found = parse(data)
    except FormatError:
        return
    again = pack(found)
    assert parse(again) == found
    assert len(again) <= len(data)  # nothing was made up


@given(all_places, st.data())
def test_truncations_are_refused_or_shorter(places, data):
    packed = pack(places)
    cut = packed[: data.draw(st.integers(0, len(packed)))]
    try:
        found = parse(cut)
    except FormatError:
        return
    assert list(found.items()) == list(places.items())[: len(found)]


async def test_survives_a_remount(tmp_path):
    path = tmp_path / "places"
    async with PlaceMemory.open(path, SECRET) as memory:
        assert memory.recall(INDEX) is None
        memory.note(INDEX, seen(1, 2, segment_size=131072))
    async with PlaceMemory.open(path, SECRET) as memory:
        assert memory.recall(INDEX) == seen(1, 2, segment_size=131072)
    assert path.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def patient_clock():
    return PatientClock(idle=0.0)


async def test_is_saved_every_so_often(tmp_path, patient_clock):
    path = tmp_path / "places"
    async with PlaceMemory.open(path, SECRET) as memory:
        memory.note(INDEX, seen(1))
        await trio.sleep(SAVE_INTERVAL + 1)
        assert path.exists()
        async with PlaceMemory.open(path, SECRET) as other:
            assert other.recall(INDEX) == seen(1)


async def test_shows_nothing_and_opens_for_nobody_else(tmp_path):
    path = tmp_path / "places"
    async with PlaceMemory.open(path, SECRET) as memory:
        memory.note(INDEX, seen(1))
    assert INDEX not in path.read_bytes()
    assert SERVER not in path.read_bytes()
    async with PlaceMemory.open(path, b"t" * 32) as stranger:
        assert len(stranger) == 0


@pytest.mark.parametrize(
    "damage", [b"", b"x", b"lafsfs places 1\n", b"lafsfs places 1\n" + b"0" * 99]
)
async def test_a_broken_file_is_an_empty_memory(tmp_path, damage):
    path = tmp_path / "places"
    path.write_bytes(damage)
    async with PlaceMemory.open(path, SECRET) as memory:
        assert len(memory) == 0
        memory.note(INDEX, seen(3))
    async with PlaceMemory.open(path, SECRET) as memory:
        assert memory.recall(INDEX) == seen(3)


async def test_forgets_what_was_not_used_for_longest(tmp_path):
    path = tmp_path / "places"
    async with PlaceMemory.open(path, SECRET, max_files=2) as memory:
        for number in (1, 2):
            memory.note(bytes([number]) * 16, seen(number))
        memory.recall(b"\x01" * 16)
        memory.note(b"\x03" * 16, seen(3))
        assert memory.recall(b"\x02" * 16) is None
        assert memory.recall(b"\x01" * 16) == seen(1)
    async with PlaceMemory.open(path, SECRET, max_files=2) as memory:
        assert len(memory) == 2


async def test_two_mounts_keep_each_others_notes(tmp_path):
    path = tmp_path / "places"
    async with PlaceMemory.open(path, SECRET) as one, PlaceMemory.open(path, SECRET) as two:
        one.note(b"1" * 16, seen(1))
        two.note(b"2" * 16, seen(2))
    async with PlaceMemory.open(path, SECRET) as memory:
        assert (memory.recall(b"1" * 16), memory.recall(b"2" * 16)) == (seen(1), seen(2))


async def test_without_a_file_it_only_lasts_as_long_as_the_mount(tmp_path):
    async with PlaceMemory.open(None, SECRET) as memory:
        memory.note(INDEX, seen(1))
        assert memory.recall(INDEX) == seen(1)


async def test_a_directory_that_cannot_be_written_is_only_a_pity(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    async with PlaceMemory.open(blocked / "places", SECRET) as memory:
        memory.note(INDEX, seen(1))
    assert "not saved" in caplog.text
