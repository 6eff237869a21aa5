"""Headers and bodies of requests: what is understood, and that nothing else gets through."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.errors import FormatError
from lafsfs.formats import cbor
from lafsfs.gbs.service import bodies, headers
from lafsfs.gbs.service.headers import Secret
from lafsfs.gbs.service.limits import MAX_WRITES
from lafsfs.gbs.service.refusal import Refusal
from lafsfs.grid.api import ReadVector, TestVector, TestWriteVectors, WriteVector

PARSERS = (bodies.parse_allocate, bodies.parse_reason, bodies.parse_test_write)

uints = st.integers(0, bodies.MAX_UINT)
shnums = st.integers(0, 255)
vectors = st.builds(
    TestWriteVectors,
    st.lists(st.builds(TestVector, uints, uints, st.binary(max_size=9)), max_size=3).map(tuple),
    st.lists(st.builds(WriteVector, uints, st.binary(max_size=9)), max_size=3).map(tuple),
    st.none() | uints,
)
keys = st.integers(-9, 1 << 60) | st.text()
plain = st.recursive(
    st.integers(-(1 << 64), (1 << 64) - 1) | st.binary() | st.text() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


def read_test_write_message(shares, reads):
    return {
        "test-write-vectors": {
            shnum: {
                "test": [
                    {"offset": t.offset, "size": t.size, "specimen": t.specimen} for t in v.tests
                ],
                "write": [{"offset": w.offset, "data": w.data} for w in v.writes],
                "new-length": v.new_length,
            }
            for shnum, v in shares.items()
        },
        "read-vector": [{"offset": r.offset, "size": r.size} for r in reads],
    }


@given(
    st.dictionaries(shnums, vectors, max_size=4),
    st.lists(st.builds(ReadVector, uints, uints), max_size=4),
)
def test_test_writes_are_read_as_they_were_meant(shares, reads):
    request = bodies.parse_test_write(cbor2.dumps(read_test_write_message(shares, reads)))
    assert request == bodies.TestWriteRequest(shares, tuple(reads))


@given(st.frozensets(shnums), uints)
def test_allocations_are_read_as_they_were_meant(wanted, size):
    message = {"share-numbers": wanted, "allocated-size": size}
    assert bodies.parse_allocate(cbor2.dumps(message)) == bodies.AllocateRequest(wanted, size)


@given(st.text(min_size=1, max_size=50))
def test_reasons_are_one_printable_line(reason):
    read = bodies.parse_reason(cbor2.dumps({"reason": reason}))
    assert read.isprintable()
    assert len(read) == len(reason)


def test_the_largest_request_that_stock_sends_is_read():
    writes = tuple(WriteVector(n, b"x") for n in range(MAX_WRITES))
    shares = {0: TestWriteVectors(writes=writes)}
    assert (
        bodies.parse_test_write(cbor2.dumps(read_test_write_message(shares, ()))).vectors == shares
    )
    shares[0] = TestWriteVectors(writes=(*writes, writes[0]))
    with pytest.raises(FormatError):
        bodies.parse_test_write(cbor2.dumps(read_test_write_message(shares, ())))


@pytest.mark.parametrize("parse", PARSERS)
@given(body=st.binary(max_size=60) | plain.map(cbor2.dumps))
def test_bodies_of_another_shape_are_format_errors(parse, body):
    with pytest.raises(FormatError):
        parse(body)


@given(st.data())
def test_damaged_bodies_are_read_as_something_valid_or_refused(data):
    whole = bytearray(
        cbor2.dumps(
            read_test_write_message(
                {3: TestWriteVectors((TestVector(0, 1, b""),))}, [ReadVector(1, 2)]
            )
        )
    )
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    body = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        request = bodies.parse_test_write(body)
    except FormatError:
        return
    assert isinstance(request, bodies.TestWriteRequest)


# --- CBOR -----------------------------------------------------------------------------------------


def decode(body):
    return cbor.decode(body, max_depth=20, max_items=1000)


@given(plain)
def test_plain_cbor_is_decoded(value):
    body = cbor2.dumps(value)
    assert decode(body) == cbor2.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\x00",  # two items
        b"\x81" * 21 + b"\x00",  # too deep
        b"\x9b" + b"\xff" * 8,  # a list of 2**64 - 1
        b"\xbb\x80" + bytes(7),  # a map of 2**63, whose doubled length must not wrap
        b"\x5b\x7f" + b"\xff" * 7,  # bytes of 2**63 - 1
        b"\x9f\xff",  # without a length
        b"\x5f\x41a\xff",
        b"\xc2\x41\x01",  # a bignum
        b"\xd8\x23\x61(",  # a regular expression
        b"\xc0\x60",  # a date
        b"\xd8\x1c\x80",  # a shared value
        b"\xd9\x01\x02\x00",  # a set that is no list
        b"\xd9\x01\x02\x81\x80",  # a set of what can be in none
        b"\xf9\x00\x00",  # a fraction
        b"\xfb" + bytes(8),
        b"\xf8\x20",
        b"\x61\xff",  # text that is not UTF-8
        b"\xa1\x80",  # half a map
        b"\x18",
    ],
)
def test_other_cbor_is_refused_before_it_can_cost_anything(body):
    if body == b"\xd9\x01\x02\x81\x80":
        assert decode(body) == {()}  # hashable to the library, and of no shape that is asked for
        return
    with pytest.raises(FormatError):
        decode(body)


@given(st.binary(max_size=100))
def test_any_bytes_are_decoded_or_refused(body):
    try:
        value = decode(body)
    except FormatError:
        return
    assert cbor2.loads(body) == value


# --- headers --------------------------------------------------------------------------------------

LEASE = frozenset({Secret.LEASE_RENEW, Secret.LEASE_CANCEL})


def read(parse, *given):
    """What a parser makes of a header, or the refusal."""
    try:
        return parse(*given)
    except Refusal as refusal:
        return refusal


@given(st.lists(st.binary(max_size=80), max_size=4))
def test_secrets_are_read_or_refused_with_400(values):
    secrets = read(headers.parse_secrets, values, LEASE)
    if isinstance(secrets, Refusal):
        assert secrets.status == 400
        assert not any(len(v) > 8 and v.decode("latin-1") in secrets.reason for v in values)
    else:
        assert secrets.keys() == LEASE


ends = st.integers(0, 1 << 70)
ranges = st.builds("{}-{}".format, ends, ends)


@given(st.binary(max_size=40) | ranges.map(lambda r: f"bytes={r}".encode()))
def test_ranges_are_read_or_refused_with_416(value):
    wanted = read(headers.parse_range, value)
    if isinstance(wanted, Refusal):
        assert wanted.status == 416
    else:
        start, stop = wanted
        assert 0 <= start < stop
        assert value == b"bytes=%d-%d" % (start, stop - 1)


@given(st.binary(max_size=40) | ranges.map(lambda r: f"bytes {r}/*".encode()))
def test_content_ranges_are_read_or_refused_with_416(value):
    wanted = read(headers.parse_content_range, value)
    if isinstance(wanted, Refusal):
        assert wanted.status == 416
    else:
        start, stop = wanted
        assert 0 <= start < stop
        assert value == b"bytes %d-%d/*" % (start, stop - 1)


@given(st.lists(st.binary(max_size=40), max_size=3), st.binary(max_size=40))
def test_no_header_is_too_strange_to_be_looked_at(accept, content_type):
    assert headers.accepts_cbor(accept) in (True, False)
    assert headers.is_cbor(content_type) in (True, False)
    assert not headers.is_authorized(content_type, headers.authorization_of(b"swissnum"))
