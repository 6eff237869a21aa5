"""Share containers against stock's files, round trips, and bytes that lie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.crypto import hashes
from lafsfs.errors import FormatError
from lafsfs.formats import containers
from lafsfs.formats.containers import (
    IMMUTABLE_HEADER_SIZE,
    IMMUTABLE_LEASE_SIZE,
    LEASE_SECONDS,
    MUTABLE_DATA_OFFSET,
    Lease,
    MutableContainer,
)
from tests import golden_data
from tests.golden_data import LEASE_SECRET, OBJECTS, SERVERS, TREES, from_base32

FILES = sorted(
    (server.name, path)
    for server in SERVERS.values()
    for path in (server.directory / "shares").glob("??/*/*")
)
SECRET = st.binary(min_size=32, max_size=32)
SERVER_ID = b"s" * 20
LEASES = st.lists(
    st.builds(Lease.shown, st.integers(1, 9), SECRET, SECRET, st.integers(0, 2**32 - 1)),
    max_size=7,
).map(tuple)


def lease(number: int, expires: float = 1000) -> Lease:
    secret = bytes([number]) * 32
    return Lease.shown(1, secret, secret[::-1], expires, SERVER_ID)


def slot_file(data: bytes, leases: tuple[Lease, ...]) -> bytes:
    head = containers.pack_mutable_head(SERVER_ID, b"w" * 32, len(data), leases)
    return head + data + containers.pack_mutable_tail(leases)


def immutable_file(data: bytes, leases: tuple[Lease, ...]) -> bytes:
    header = containers.pack_immutable_header(len(data), len(leases))
    return header + data + b"".join(each.hashed().pack_immutable() for each in leases)


# --- what stock wrote -----------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS.values(), ids=lambda server: server.name)
def test_every_golden_container_parses_with_our_lease_on_it(server):
    files = [path for name, path in FILES if name == server.name]
    assert files
    for path in files:
        data = path.read_bytes()
        renew, cancel = hashes.lease_secrets(
            LEASE_SECRET, from_base32(path.parent.name), server.server_id
        )
        if containers.is_mutable(data):
            slot = containers.parse_mutable_head(data, len(data))
            leases = containers.parse_mutable_tail(slot, data[slot.extra_lease_offset :])
            assert slot.server_id == server.server_id == leases[0].server_id
            assert slot.data_length == slot.recorded_length
            assert leases[0].owner == 1
        else:
            share = containers.parse_immutable_header(data, len(data))
            leases = containers.parse_immutable_leases(share, data[share.lease_offset :])
            assert len(leases) == share.lease_count
            assert leases[0].owner == 0
        assert leases[0].is_renewed_by(renew)
        assert leases[0].cancel == containers.hash_lease_secret(cancel)


@pytest.mark.parametrize(
    "golden",
    [o for o in [*OBJECTS.values(), *TREES.values()] if o.cap.split(":")[1] in ("SSK", "MDMF")],
    ids=lambda golden: golden.name,
)
def test_golden_write_enablers_are_those_we_derive(golden):
    write_key = from_base32(golden.cap.split(":")[2])
    for (name, _), path in golden_data.shares_of(golden.storage_index).items():
        data = path.read_bytes()
        slot = containers.parse_mutable_head(data, len(data))
        enabler = hashes.ssk_write_enabler(write_key, SERVERS[name].server_id)
        assert slot.accepts(enabler)
        assert not slot.accepts(hashes.ssk_write_enabler(write_key, b"x" * 20))


def test_golden_containers_come_out_as_they_were():
    """All of the fixed part: stock leaves room between data and extra leases, we do not."""
    for _, path in FILES:
        data = path.read_bytes()
        if containers.is_mutable(data):
            slot = containers.parse_mutable_head(data, len(data))
            leases = containers.parse_mutable_tail(slot, data[slot.extra_lease_offset :])
            again = containers.pack_mutable_head(
                slot.server_id, slot.write_enabler, slot.data_length, leases
            )
            assert again[:92] == data[:92]
            assert again[100:] == data[100:MUTABLE_DATA_OFFSET]
        else:
            share = containers.parse_immutable_header(data, len(data))
            again = containers.pack_immutable_header(share.data_length, share.lease_count)
            assert again == data[:IMMUTABLE_HEADER_SIZE]
            packed = containers.parse_immutable_leases(share, data[share.lease_offset :])
            assert b"".join(each.pack_immutable() for each in packed) == data[share.lease_offset :]


# --- round trips ----------------------------------------------------------------------------------


@given(st.binary(max_size=200), LEASES)
def test_immutable_round_trip(data, leases):
    raw = immutable_file(data, leases)
    share = containers.parse_immutable_header(raw[:50], len(raw))
    assert raw[share.data_offset : share.lease_offset] == data
    found = containers.parse_immutable_leases(share, raw[share.lease_offset :])
    assert [(f.renew, f.expires) for f in found] == [
        (each.hashed().renew, each.expires) for each in leases
    ]


@given(st.binary(max_size=200), LEASES)
def test_mutable_round_trip(data, leases):
    raw = slot_file(data, leases)
    slot = containers.parse_mutable_head(raw[: containers.PREFIX_SIZE], len(raw))
    assert raw[slot.data_offset : slot.data_offset + slot.data_length] == data
    assert slot.server_id == SERVER_ID
    found = containers.parse_mutable_tail(slot, raw[slot.extra_lease_offset :])
    assert found == tuple(each.hashed() for each in leases)


def test_version_1_keeps_secrets_in_clear_and_is_rewritten_hashed():
    clear = lease(1)
    raw = bytearray(slot_file(b"data", ()))
    raw[:32] = containers._MAGICS[1]
    raw[100:192] = clear.pack_mutable()
    slot = containers.parse_mutable_head(bytes(raw), len(raw))
    assert slot.leases == (clear,)
    assert slot.leases[0].is_renewed_by(clear.renew)
    assert slot_file(b"data", slot.leases) == slot_file(b"data", (clear.hashed(),))
    header = b"\0\0\0\1" + containers.pack_immutable_header(4, 1)[4:]
    raw = header + b"data" + clear.pack_immutable()
    share = containers.parse_immutable_header(raw, len(raw))
    (found,) = containers.parse_immutable_leases(share, raw[share.lease_offset :])
    assert not found.is_hashed
    assert found.is_renewed_by(clear.renew)


def test_an_empty_place_is_no_lease():
    raw = bytearray(slot_file(b"", (lease(1), lease(2), lease(3))))
    raw[192 : 192 + 4] = bytes(4)
    slot = containers.parse_mutable_head(bytes(raw), len(raw))
    assert slot.leases == (lease(1).hashed(), lease(3).hashed())


def test_a_share_of_more_than_4_gib_keeps_its_length():
    size = 5 << 30
    header = containers.pack_immutable_header(size, 1)
    assert header[4:8] == b"\xff\xff\xff\xff"
    share = containers.parse_immutable_header(header, 12 + size + IMMUTABLE_LEASE_SIZE)
    assert share.data_length == size
    old = header[:4] + (size % 2**32).to_bytes(4, "big") + header[8:]
    assert containers.parse_immutable_header(old, 12 + size + 72).data_length == size


# --- leases ---------------------------------------------------------------------------------------


def test_a_known_lease_is_renewed_and_a_new_one_added():
    leases = containers.with_lease((), lease(1, 1000))
    leases = containers.with_lease(leases, lease(2, 1000))
    leases = containers.with_lease(tuple(each.hashed() for each in leases), lease(1, 2000))
    assert [(each.expires, each.is_hashed) for each in leases] == [(2000, True), (1000, True)]


def test_a_clock_that_went_backwards_shortens_no_lease():
    leases = containers.with_lease((lease(1, 5000),), lease(1, 10))
    assert leases == (lease(1, 5000),)


@pytest.mark.parametrize(
    ("now", "expected"), [(-1e9, 0), (2.0**40, 2**32 - 1), (1.9, 1 + LEASE_SECONDS)]
)
def test_an_expiry_always_fits_its_field(now, expected):
    assert lease(1, now + LEASE_SECONDS).expires == expected


def test_no_secret_is_shown():
    shown = repr((lease(1), MutableContainer.new(SERVER_ID, b"EnablerEnabler" * 2 + b"1234")))
    assert "Enabler" not in shown
    assert "\\x01" not in shown


# --- bytes that lie -------------------------------------------------------------------------------


def test_a_cut_off_immutable_container_is_none_unless_only_leases_are_missing():
    raw = immutable_file(b"0123456789", (lease(1), lease(2)))
    for length in range(len(raw)):
        if length < IMMUTABLE_HEADER_SIZE + 10:
            with pytest.raises(FormatError):
                containers.parse_immutable_header(raw[:length], length)
            continue
        share = containers.parse_immutable_header(raw[:length], length)
        assert share.data_length == 10
        assert share.lease_count == (length - 22) // IMMUTABLE_LEASE_SIZE


def test_a_lease_behind_the_counted_ones_hides_no_data():
    """A crash between writing a lease and counting it."""
    raw = immutable_file(b"0123456789", (lease(1),)) + lease(2).hashed().pack_immutable()
    share = containers.parse_immutable_header(raw, len(raw))
    assert raw[share.data_offset : share.lease_offset].startswith(b"0123456789")


def test_a_cut_off_slot_is_read_as_far_as_it_goes():
    raw = slot_file(b"0123456789", tuple(map(lease, range(1, 7))))
    for length in range(MUTABLE_DATA_OFFSET):
        with pytest.raises(FormatError):
            containers.parse_mutable_head(raw[:length], length)
    for length in range(MUTABLE_DATA_OFFSET, len(raw)):
        slot = containers.parse_mutable_head(raw[:length], length)
        assert slot.data_length == min(10, length - MUTABLE_DATA_OFFSET)
        found = containers.parse_mutable_tail(slot, raw[slot.extra_lease_offset : length])
        whole = max(0, length - 482) // 92
        assert found == tuple(lease(number).hashed() for number in range(1, 5 + whole))


@given(st.binary(max_size=600), st.integers(0, 2**63))
def test_arbitrary_bytes_give_nothing_but_format_errors(data, size):
    for parse in (containers.parse_immutable_header, containers.parse_mutable_head):
        try:
            parsed = parse(data, size)
        except FormatError:
            continue
        assert 0 <= parsed.data_length <= size


@given(
    st.sampled_from(
        [immutable_file(b"data" * 20, (lease(1),)), slot_file(b"data" * 20, (lease(1),))]
    ),
    st.data(),
)
def test_any_byte_may_be_flipped(raw, data):
    """Whatever comes out lies within the file."""
    broken = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    raw = bytes(broken)
    try:
        if containers.is_mutable(raw):
            slot = containers.parse_mutable_head(raw, len(raw))
            assert slot.data_offset + slot.data_length <= len(raw)
            leases = containers.parse_mutable_tail(slot, raw[slot.extra_lease_offset :])
        else:
            share = containers.parse_immutable_header(raw, len(raw))
            assert share.lease_offset + share.leases_size <= len(raw)
            leases = containers.parse_immutable_leases(share, raw[share.lease_offset :])
    except FormatError:
        return
    assert len(leases) <= 6


def test_a_claimed_number_of_leases_allocates_nothing():
    raw = slot_file(b"", ())[:-4] + b"\xff\xff\xff\xff"
    slot = containers.parse_mutable_head(raw, len(raw))
    assert containers.parse_mutable_tail(slot, raw[slot.extra_lease_offset :]) == ()
    header = containers.pack_immutable_header(0, 2**32 - 1)
    assert containers.parse_immutable_header(header, 12).lease_count == 0
