"""Bodies and ranges: what stock sends is understood, and everything else is a protocol error."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.errors import ProtocolError
from lafsfs.gbs import messages
from lafsfs.grid.api import (
    Allocation,
    ReadVector,
    ServerVersion,
    TestVector,
    TestWriteResult,
    TestWriteVectors,
    WriteVector,
)

LIMITS = {
    b"maximum-immutable-share-size": 2**64 - 1,
    b"maximum-mutable-share-size": 69105000000000000,
    b"available-space": 0,
}
VERSION = {messages.V1: LIMITS, b"application-version": b"tahoe-lafs/1.20.0"}
READS = (ReadVector(0, 4), ReadVector(10, 4))
SHNUMS = frozenset(range(256))
PARSERS = [
    messages.parse_version,
    messages.parse_shares,
    messages.parse_allocation,
    lambda body: messages.parse_test_write(body, READS),
]


# --- what is understood ---------------------------------------------------------------------------


def test_a_version():
    expected = ServerVersion("tahoe-lafs/1.20.0", 0, 2**64 - 1, 69105000000000000)
    assert messages.parse_version(cbor2.dumps(VERSION)) == expected
    more = {**VERSION, b"new": [1, "x", None], messages.V1: {**LIMITS, b"more": True}}
    assert messages.parse_version(cbor2.dumps(more)) == expected


def test_a_version_cannot_play_tricks_with_a_terminal():
    odd = {**VERSION, b"application-version": b"\x1b[2Jevil\n\xff"}
    text = messages.parse_version(cbor2.dumps(odd)).application
    assert text.isprintable()
    assert "evil" in text


@given(st.frozensets(st.integers(0, 255), max_size=256))
def test_shares(shnums):
    assert messages.parse_shares(cbor2.dumps(set(shnums))) == shnums
    assert messages.parse_shares(cbor2.dumps(sorted(shnums))) == shnums


def test_an_allocation():
    body = messages.pack_allocation(frozenset({1, 7}), 48)
    assert cbor2.loads(body) == {"share-numbers": {1, 7}, "allocated-size": 48}
    assert b"\xd9\x01\x02" in body  # tag 258
    answer = cbor2.dumps({"already-have": {1}, "allocated": {7}})
    assert messages.parse_allocation(answer) == Allocation(frozenset({1}), frozenset({7}))


def test_an_allocation_of_everything_fits_what_servers_read():
    assert len(messages.pack_allocation(frozenset(range(256)), 2**64 - 1)) < 8192


def test_a_test_and_set():
    vector = TestWriteVectors((TestVector(3, 5, b"hello"),), (WriteVector(9, b"world"),), 5)
    body = messages.pack_test_write({2: vector, 3: TestWriteVectors()}, (ReadVector(3, 12),))
    assert cbor2.loads(body) == {
        "test-write-vectors": {
            2: {
                "test": [{"offset": 3, "size": 5, "specimen": b"hello"}],
                "write": [{"offset": 9, "data": b"world"}],
                "new-length": 5,
            },
            3: {"test": [], "write": [], "new-length": None},
        },
        "read-vector": [{"offset": 3, "size": 12}],
    }


@given(
    st.booleans(),
    st.dictionaries(st.integers(0, 255), st.tuples(*[st.binary(max_size=4)] * 2), max_size=20),
)
def test_its_result(success, reads):
    body = cbor2.dumps({"success": success, "data": {n: list(d) for n, d in reads.items()}})
    assert messages.parse_test_write(body, READS) == TestWriteResult(success, reads)


def test_the_largest_result_is_allowed():
    reads = [ReadVector(0, 100)] * 30
    body = cbor2.dumps({"success": True, "data": {n: [bytes(100)] * 30 for n in range(256)}})
    assert len(body) <= messages.test_write_limit(reads)
    assert len(messages.parse_test_write(body, reads).reads) == 256


@given(st.text(max_size=200) | st.just("ü" * 40_000))
def test_a_reason_fits_what_servers_read(reason):
    body = messages.pack_reason(reason)
    packed = cbor2.loads(body)["reason"]
    assert 1 <= len(packed.encode()) <= 32765
    assert len(body) <= 32768 + 16
    assert reason.startswith(packed) or not reason.encode("utf-8", "ignore").strip()


# --- what is refused ------------------------------------------------------------------------------


def version_with(key: bytes, value: object) -> bytes:
    return cbor2.dumps({**VERSION, messages.V1: {**LIMITS, key: value}})


@pytest.mark.parametrize(
    ("parse", "message"),
    [
        *[(messages.parse_version, m) for m in ({}, [], 7, None, {messages.V1: LIMITS})],
        (messages.parse_version, {**VERSION, b"application-version": "text"}),
        (messages.parse_version, {**VERSION, messages.V1: []}),
        (messages.parse_version, {b"application-version": b"x"}),
        *[(messages.parse_shares, m) for m in ({}, 7, None, b"1", "1", ["1"], [1.5], [None])],
        *[(messages.parse_shares, m) for m in ([-1], [256], [2**70], [True], [[1]])],
        (messages.parse_shares, list(range(256)) * 3),
        (messages.parse_allocation, {"already-have": {1}}),
        (messages.parse_allocation, {"already-have": {1}, "allocated": 1}),
        (messages.parse_allocation, {b"already-have": {1}, b"allocated": {2}}),
        (messages.parse_allocation, [{1}, {2}]),
    ],
)
def test_other_shapes_are_refused(parse, message):
    with pytest.raises(ProtocolError, match="its answer"):
        parse(cbor2.dumps(message))


@pytest.mark.parametrize("value", [-1, 2**64, 1.5, True, None, "1", [1]])
@pytest.mark.parametrize("key", LIMITS)
def test_sizes_are_sizes(key, value):
    with pytest.raises(ProtocolError):
        messages.parse_version(version_with(key, value))


@pytest.mark.parametrize(
    "message",
    [
        {"success": True},
        {"data": {}},
        {"success": 1, "data": {}},
        {"success": None, "data": {}},
        {"success": True, "data": []},
        {"success": True, "data": {0: b"bytes"}},
        {"success": True, "data": {0: [b"one"]}},
        {"success": True, "data": {0: [b"one", b"two", b"3"]}},
        {"success": True, "data": {0: [b"one", "two"]}},
        {"success": True, "data": {0: [b"one", b"too long"]}},
        {"success": True, "data": {256: [b"one", b"two"]}},
        {"success": True, "data": {"0": [b"one", b"two"]}},
        {"success": True, "data": {-1: [b"one", b"two"]}},
    ],
)
def test_other_results_are_refused(message):
    with pytest.raises(ProtocolError, match="shape"):
        messages.parse_test_write(cbor2.dumps(message), READS)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x01\x02",  # two items
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",  # a list of 2**64 items
        b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",  # as many bytes
        b"\x9f\x01\xff",  # a list of unknown length
        b"\x81" * 100 + b"\x01",  # a list in a list in ...
        b"\xc2\x58\x20" + b"\xff" * 32,  # a big number
        b"\xc5\x82\x1a\x05\xf5\xe1\x00\x03",  # 3 * 2**100000000
        b"\xd8\x1c\x81\xd8\x1d\x00",  # a list that holds itself
        b"\xd9\x01\x02\x01",  # a set that is no list
        b"\xd9\x01\x02\x81\xd9\x01\x02\x80",  # a set in a set
        b"\xd9\x01\x02\x81\xa0",  # a map in a set
        b"\xa1\x80\x01",  # a list for a key
        b"\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00",  # 1.0
        b"\x62\xff\xfe",  # a text that is none
        b"\x1c",
        b"\xff",
        b"<html>",
    ],
)
@pytest.mark.parametrize("parse", PARSERS)
def test_cbor_that_is_not_plain_is_refused(parse, body):
    with pytest.raises(ProtocolError, match="its answer"):
        parse(body)


def test_too_many_vectors_are_refused():
    with pytest.raises(ProtocolError, match="30"):
        messages.pack_test_write({}, [ReadVector(0, 1)] * 31)
    tests = TestWriteVectors(tests=(TestVector(0, 1, b""),) * 31)
    with pytest.raises(ProtocolError, match="30"):
        messages.pack_test_write({0: tests}, ())


plain = st.recursive(
    st.integers(-(2**65), 2**65)
    | st.booleans()
    | st.none()
    | st.binary()
    | st.text()
    | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.integers() | st.binary() | st.text(), inner, max_size=4)
        | st.frozensets(st.integers(), max_size=4)
    ),
    max_leaves=10,
)


def assert_refused_or_sensible(parse, body):
    """What is understood is within its bounds, and is what a server can say."""
    try:
        said = parse(body)
    except ProtocolError:
        return
    match said:
        case ServerVersion(application, available, immutable, mutable):
            assert application.isprintable()
            assert all(0 <= size < 2**64 for size in (available, immutable, mutable))
            limits = dict(zip(sorted(LIMITS), (available, immutable, mutable), strict=True))
            message = {messages.V1: limits, b"application-version": application.encode()}
        case frozenset():
            assert said <= SHNUMS
            message = set(said)
        case Allocation(present, allocated):
            assert present | allocated <= SHNUMS
            message = {"already-have": set(present), "allocated": set(allocated)}
        case TestWriteResult(success, reads):
            assert reads.keys() <= SHNUMS
            for data in reads.values():
                assert [len(d) <= r.size for d, r in zip(data, READS, strict=True)] == [True] * 2
            message = {"success": success, "data": {n: list(d) for n, d in reads.items()}}
    assert parse(cbor2.dumps(message)) == said


@settings(max_examples=200)
@given(plain.map(cbor2.dumps) | st.binary(max_size=60), st.sampled_from(PARSERS))
def test_anything_else_is_a_protocol_error(body, parse):
    assert_refused_or_sensible(parse, body)


@settings(max_examples=200)
@given(st.data(), st.sampled_from(range(4)))
def test_damaged_answers_are_read_or_refused(data, which):
    good = [
        VERSION,
        {1, 2, 200},
        {"already-have": {1}, "allocated": {7}},
        {"success": True, "data": {0: [b"four", b"x"], 7: [b"", b""]}},
    ][which]
    body = bytearray(cbor2.dumps(good))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] ^= data.draw(st.integers(1, 255))
    del body[data.draw(st.integers(1, len(body))) :]
    assert_refused_or_sensible(PARSERS[which], bytes(body))


# --- ranges ---------------------------------------------------------------------------------------


def test_ranges_are_inclusive_in_headers():
    assert messages.range_header(10, 5) == "bytes=10-14"
    assert messages.content_range_header(0, 1) == "bytes 0-0/*"


@given(st.integers(0, 30), st.integers(1, 30), st.integers(0, 60), st.integers(0, 60))
def test_a_range_within_what_was_asked_for_is_taken(offset, size, first, length):
    wanted = first == offset and 1 <= length <= size
    header = f"bytes {first}-{first + length - 1}/*"
    if wanted:
        messages.check_range(header, offset, size, length)
    else:
        with pytest.raises(ProtocolError):
            messages.check_range(header, offset, size, length)


@given(st.text("bytes 0123456789-/*", max_size=20))
def test_odd_headers_are_protocol_errors(header):
    with pytest.raises(ProtocolError):
        messages.check_range(header, 10**30, 5, 5)
