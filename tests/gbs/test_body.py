"""Bodies as servers may send them: in chunks of any kind, in pieces of any size, right or wrong."""

from __future__ import annotations

from contextlib import suppress

import h11
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.errors import ProtocolError
from lafsfs.gbs.body import MAX_LINE, MAX_PIECES, MAX_TRAILERS, Body, ConnectionLostError

LIMIT = 10_000


class Arrivals:
    """A stream on which pieces of given sizes come, and then the end."""

    def __init__(self, data: bytes, sizes: list[int], breaks: bool = False) -> None:
        self.left = data
        self.sizes = sizes or [1 << 20]
        self.breaks = breaks
        self.turns = 0
        self.here = b""

    def receive_nowait(self, max_bytes: int) -> bytes:
        data, self.here = self.here[:max_bytes], self.here[max_bytes:]
        return data

    async def receive_some(self, max_bytes: int, due: int) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self.here:
            size = self.sizes[self.turns % len(self.sizes)]
            self.turns += 1
            self.here, self.left = self.left[:size], self.left[size:]
        if not self.here and self.breaks:
            raise trio.BrokenResourceError
        return self.receive_nowait(max_bytes)


def chunked(parts: list[bytes], extension: bytes = b"", trailers: bytes = b"") -> bytes:
    chunks = [b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts if part]
    return b"".join(chunks) + b"0\r\n" + trailers + b"\r\n"


def read(data: bytes, start: int = 0, sizes: list[int] | None = None, limit: int = LIMIT) -> bytes:
    """Read chunks, of which ``start`` bytes came with the head."""
    body = Body(Arrivals(data[start:], sizes or []), data[:start], limit)
    return trio.run(body.read_chunks)


PIECES = st.lists(st.integers(1, 700), max_size=5)


@given(st.lists(st.binary(max_size=600), max_size=8), st.integers(0, 900), PIECES)
def test_chunks_are_put_together_however_they_come(parts, start, sizes):
    assert read(chunked(parts), start, sizes) == b"".join(parts)


def test_extensions_and_trailers_mean_nothing():
    assert read(chunked([b"abc", b"de"], b' ; a="b"', b"X-Sum: 5\r\nY: 6\r\n")) == b"abcde"


def test_what_comes_byte_by_byte_is_not_kept_so():
    data = bytes(range(256)) * 8
    body = Body(Arrivals(chunked([bytes([byte]) for byte in data]), [1]), b"", LIMIT)
    assert trio.run(body.read_chunks) == data
    assert len(body._pieces) < MAX_PIECES


@given(st.binary(max_size=3000), st.integers(0, 100), PIECES)
def test_a_body_of_known_length(data, start, sizes):
    body = Body(Arrivals(data[start:], sizes), data[:start], LIMIT)
    assert trio.run(body.read_by_length, len(data)) == data
    assert not body.has_more


def test_what_stands_behind_the_end_is_noticed():
    body = Body(Arrivals(b"", []), b"abcHTTP/1.1", LIMIT)
    assert trio.run(body.read_by_length, 3) == b"abc"
    assert body.has_more
    body = Body(Arrivals(b"", []), chunked([b"abc"]) + b"H", LIMIT)
    assert trio.run(body.read_chunks) == b"abc"
    assert body.has_more


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\nA\r\n0\r\n\r\n",
        b"0x1\r\nA\r\n0\r\n\r\n",
        b" 1\r\nA\r\n0\r\n\r\n",
        b"1_0\r\n",
        b"1\nA\r\n0\r\n\r\n",
        b"1\r\nAB\r\n0\r\n\r\n",
        b"2\r\nA\r\n0\r\n\r\n",
        b"1" * 17 + b"\r\n",
        b"1;" + b"x" * MAX_LINE + b"\r\nA\r\n0\r\n\r\n",
        b"0\r\n" + b"X: y\r\n" * MAX_TRAILERS + b"\r\n",
        b"0\r\n" + b"x" * MAX_LINE + b"\r\n\r\n",
    ],
)
def test_what_are_no_chunks(data):
    with pytest.raises(ProtocolError, match="not HTTP"):
        read(data)


def test_no_more_than_the_limit_is_read():
    assert len(read(chunked([bytes(500), bytes(500)]), limit=1000)) == 1000
    for wrong in (chunked([bytes(500), bytes(501)]), b"f" * 16 + b"\r\n"):
        with pytest.raises(ProtocolError, match="more than 1000 bytes"):
            read(wrong, limit=1000)


@pytest.mark.parametrize("breaks", [False, True])
@given(st.lists(st.binary(max_size=60), max_size=4), PIECES, st.data())
def test_what_is_cut_short_is_a_lost_connection(breaks, parts, sizes, data):
    whole = chunked(parts)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    body = Body(Arrivals(cut, sizes, breaks), b"", LIMIT)
    with pytest.raises(ConnectionLostError):
        trio.run(body.read_chunks)


@given(st.binary(max_size=200), PIECES)
def test_anything_else_gives_an_error_or_a_body_that_fits(data, sizes):
    with suppress(ProtocolError, ConnectionLostError):
        assert len(read(data, sizes=sizes, limit=100)) <= 100


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=3), st.data())
def test_what_is_taken_is_what_h11_takes(parts, data):
    """One byte of a good body is changed: whatever we make of it, h11 makes the same."""
    wrong = bytearray(chunked(parts))
    wrong[data.draw(st.integers(0, len(wrong) - 1))] = data.draw(st.integers(0, 255))
    try:
        ours = read(bytes(wrong))
    except (ProtocolError, ConnectionLostError):
        return
    with suppress(h11.RemoteProtocolError):  # a trailer that is no header; to us it means nothing
        assert ours == _by_h11(bytes(wrong))


def _by_h11(data: bytes) -> bytes:
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    http.send(h11.EndOfMessage())
    http.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    body = b""
    while not isinstance(event := http.next_event(), h11.EndOfMessage):
        body += event.data if isinstance(event, h11.Data) else b""
    return body
