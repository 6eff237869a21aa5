"""Clients that are slow, silent, greedy, confused or hostile: one costs little, and ends alone."""

from __future__ import annotations

import logging
import os
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from lafsfs.gbs.service import Limits, running_service
from tests.gbs.service.client import (
    ALLOCATE,
    IMMUTABLE,
    MUTABLE,
    UPLOAD,
    WRITE,
    becomes,
    connected,
    number,
)
from tests.grid import contract

SHORT = 0.05  # seconds of real time; whoever is waited for here never comes
LIMITS = Limits()
VERSION = "/storage/v1/version"
CHUNKED = ("Transfer-Encoding", "chunked")
TLS_ALERT = b"\x15"  # the type of the record that says what is wrong: RFC 8446, 5.1


@asynccontextmanager
async def limited(storage, **limits):
    """A service with limits of its own, and the check that it still works when all is over."""
    async with running_service(storage, limits=Limits(drain=SHORT, **limits)) as service:
        yield service
        async with connected(service) as client:
            assert (await client.ask("GET", VERSION)).status == 200


async def received_until_closed(stream):
    """Everything that comes."""
    data = b""
    try:
        while piece := await stream.receive_some():
            data += piece
    except trio.BrokenResourceError:
        pass
    return data


# --- silence and slowness -------------------------------------------------------------------------


async def test_who_never_begins_tls_is_let_go(storage, patient_clock):
    async with limited(storage) as service:
        stream = await trio.open_tcp_stream("127.0.0.1", service.port)
        started = trio.current_time()
        async with stream:
            assert await received_until_closed(stream) == b""
        assert trio.current_time() - started == pytest.approx(LIMITS.handshake)


async def test_who_speaks_no_tls_is_let_go(storage, patient_clock):
    async with limited(storage) as service:
        stream = await trio.open_tcp_stream("127.0.0.1", service.port)
        started = trio.current_time()
        async with stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await received_until_closed(stream))[:1] in (b"", TLS_ALERT)
        assert trio.current_time() - started < LIMITS.handshake
        await becomes(service, "connections", 0)


@pytest.mark.parametrize("sent", [b"", b"GET ", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_who_never_ends_a_head_is_let_go(storage, patient_clock, sent):
    async with limited(storage) as service, connected(service) as client:
        started = trio.current_time()
        await client.stream.send_all(sent)
        assert await client.is_closed()
        assert trio.current_time() - started == pytest.approx(LIMITS.idle)


async def test_who_asks_nothing_more_is_let_go(storage, patient_clock):
    async with limited(storage) as service, connected(service) as client:
        assert (await client.ask("GET", VERSION)).status == 200
        started = trio.current_time()
        assert await client.is_closed()
        assert trio.current_time() - started == pytest.approx(LIMITS.idle)


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", IMMUTABLE, ALLOCATE),
        ("POST", f"{MUTABLE}/read-test-write", WRITE),
        ("PATCH", f"{IMMUTABLE}/0", (UPLOAD, ("Content-Range", "bytes 0-99/*"))),
    ],
)
async def test_a_body_that_never_ends_is_408(storage, patient_clock, method, path, headers):
    await storage.allocate(contract.SI, frozenset({0}), 100, contract.SECRET, contract.LEASE)
    async with limited(storage) as service, connected(service) as client:
        head = client.head(method, path, *headers, ("Content-Length", "100"))
        started = trio.current_time()
        await client.stream.send_all(head + b"x" * 50)
        assert (await client.reply()).status == 408
        assert trio.current_time() - started < LIMITS.grace + 1 + LIMITS.drain
        assert await client.is_closed()
        await becomes(service, "requests_underway", 0)


async def test_who_takes_no_answer_is_let_go(storage, patient_clock):
    await contract.store(storage, bytes(30 << 20))
    async with limited(storage) as service:
        async with connected(service) as client:
            await client.stream.send_all(client.head("GET", f"{IMMUTABLE}/0"))
            await becomes(service, "requests_underway", 1, every=10)
            await becomes(service, "requests_underway", 0, every=10)
            assert len(await received_until_closed(client.stream)) < 30 << 20
        await becomes(service, "connections", 0)


async def test_nobody_holds_up_the_end(storage, patient_clock):
    """Not who takes no answer, sends no request, or waits for one that hangs."""
    await contract.store(storage, bytes(30 << 20))
    async with running_service(storage) as service:
        stalled = await trio.open_tcp_stream("127.0.0.1", service.port)
        async with connected(service) as reader, connected(service) as writer:
            await reader.stream.send_all(reader.head("GET", f"{IMMUTABLE}/0"))
            await writer.stream.send_all(
                writer.head("POST", IMMUTABLE, *ALLOCATE, ("Content-Length", "100"))
            )
            async with connected(service) as idle:
                await idle.ask("GET", VERSION)
                await becomes(service, "requests_underway", 2, every=1)
                ending = trio.current_time()
    assert trio.current_time() - ending <= LIMITS.shutdown
    await stalled.aclose()
    assert number(service, "connections") == 0


# --- too much -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authorization", "method", "path", "headers", "status"),
    [
        ("wrong", "POST", IMMUTABLE, ALLOCATE, 401),
        (None, "POST", IMMUTABLE, ALLOCATE, 413),
        (None, "POST", f"{MUTABLE}/read-test-write", WRITE, 413),
        (None, "GET", VERSION, (), 413),
        (None, "PUT", "/nowhere", (), 404),
        (None, "PATCH", f"{IMMUTABLE}/0", (UPLOAD, ("Content-Range", "bytes 0-9/*")), 404),
    ],
)
async def test_a_body_without_end_is_answered_and_cut_off(
    storage, authorization, method, path, headers, status
):
    async def send():
        given = () if authorization is None else (("Authorization", authorization),)
        head = client.head(method, path, *given, *headers, CHUNKED)
        await client.stream.send_all(head)
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):  # noqa: PT012
            while True:
                await client.stream.send_all(b"10000\r\n" + bytes(1 << 16) + b"\r\n")

    async with limited(storage, slot_body=1 << 20) as service, connected(service) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            answer = await received_until_closed(client.stream)
            assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        await becomes(service, "requests_underway", 0)
        await becomes(service, "connections", 0)


async def test_a_head_without_end_is_431(service):
    async with connected(service) as client:
        await client.stream.send_all(client.head("GET", VERSION, ("X", "y" * 40_000)))
        assert (await received_until_closed(client.stream)).startswith(b"HTTP/1.1 431 ")


async def test_more_to_read_than_is_good_is_413(storage):
    await contract.store_slot(storage, s0=bytes(2000), s1=bytes(2000))
    body = {"test-write-vectors": {}, "read-vector": [{"offset": 0, "size": 2000}]}
    async with limited(storage, slot_reply=3000) as service, connected(service) as client:
        path = f"{MUTABLE}/read-test-write"
        assert (await client.ask("POST", path, *WRITE, body=body)).status == 413
        body["read-vector"][0]["size"] = 1500
        assert (await client.ask("POST", path, *WRITE, body=body)).status == 200


async def test_the_most_silent_connection_makes_room(storage):
    async with (
        limited(storage, connections=3, silent=0.0) as service,
        connected(service) as first,
        connected(service) as second,
    ):
        await first.ask("GET", VERSION)
        await second.ask("GET", VERSION)
        await first.ask("GET", VERSION)
        async with connected(service) as third, connected(service) as fourth:
            assert (await fourth.ask("GET", VERSION)).status == 200
            assert (await third.ask("GET", VERSION)).status == 200
            assert await second.is_closed()
            assert (await first.ask("GET", VERSION)).status == 200
            assert number(service, "connections") == 3


async def test_with_no_room_to_make_newcomers_wait(storage):
    async with (
        limited(storage, connections=1, silent=1e9) as service,
        trio.open_nursery() as nursery,
        connected(service) as first,
    ):
        await first.ask("GET", VERSION)
        nursery.start_soon(ask_once, service)
        await trio.testing.wait_all_tasks_blocked(SHORT)
        assert number(service, "connections") == 1
        await first.ask("GET", VERSION)


async def ask_once(service):
    async with connected(service) as client:
        assert (await client.ask("GET", VERSION)).status == 200


async def test_many_at_once(storage):
    await contract.store(storage, b"0123456789" * 100)

    async def ask_often():
        async with connected(service) as client:
            for _ in range(10):
                reply = await client.ask("GET", f"{IMMUTABLE}/0", ("Range", "bytes=990-2000"))
                assert reply.body == b"0123456789"

    async with limited(storage, connections=20) as service:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask_often)
        await becomes(service, "connections", 0)
        await becomes(service, "requests_underway", 0)


# --- other tongues --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"\x00\x01\x02\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET / HTTP/9.9\r\n\r\n", b"HTTP/1.1 "),
        (b"GET /storage/v1/version HTTP/1.0\r\n\r\n", b"HTTP/1.1 401 "),
        (b"GET \xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 400 "),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.1 "),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            b"HTTP/1.1 401 ",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            b"HTTP/1.1 ",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            b"HTTP/1.1 401 ",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked"
            b"\r\n\r\nabcde",
            b"HTTP/1.1 ",
        ),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"HTTP/1.1 400 "),
    ],
)
async def test_other_tongues(storage, patient_clock, sent, answer):
    async with limited(storage) as service, connected(service) as client:
        await client.stream.send_all(sent)
        assert (await received_until_closed(client.stream)).startswith(answer)


async def test_requests_may_be_sent_ahead(client):
    await client.stream.send_all(client.head("GET", VERSION) + client.head("GET", "/nowhere"))
    answers = b""
    while b" 404 " not in answers:
        answers += await client.stream.receive_some()
    assert answers.startswith(b"HTTP/1.1 200 ")


async def test_who_asks_before_sending_is_told_to_go_on(client):
    expect = ("Expect", "100-continue")
    head = client.head("POST", IMMUTABLE, *ALLOCATE, expect, ("Content-Length", "1"))
    await client.stream.send_all(head)
    assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 100 ")
    await client.stream.send_all(b"\xff")
    assert (await client.reply()).status == 400


# --- clients that go ------------------------------------------------------------------------------


async def test_who_goes_while_sending_leaves_the_upload_as_it_is(service, storage):
    await storage.allocate(contract.SI, frozenset({0}), 1 << 20, contract.SECRET, contract.LEASE)
    piece = ("Content-Range", f"bytes 0-{(1 << 20) - 1}/*")
    async with connected(service) as client:
        head = client.head(
            "PATCH", f"{IMMUTABLE}/0", UPLOAD, piece, ("Content-Length", str(1 << 20))
        )
        await client.stream.send_all(head + bytes(600_000))
        await becomes(service, "requests_underway", 1)
    await becomes(service, "requests_underway", 0)
    assert await storage.write_share(contract.SI, 0, contract.SECRET, 0, bytes(1 << 20))


async def test_who_goes_while_reading_is_no_longer_read_for(service, storage):
    await contract.store(storage, bytes(30 << 20))
    async with connected(service) as client:
        await client.stream.send_all(client.head("GET", f"{IMMUTABLE}/0"))
        assert await client.stream.receive_some()
    await becomes(service, "requests_underway", 0)
    await becomes(service, "connections", 0)
    assert number(service, "sent_bytes_total") < 30 << 20


async def test_an_answer_that_cannot_be_ended_is_cut_off(service, storage, caplog):
    size = 30 << 20
    await contract.store(storage, bytes(size))
    (path,) = storage._directory.path.glob("shares/??/*/0")
    async with connected(service) as client:
        await client.stream.send_all(client.head("GET", f"{IMMUTABLE}/0"))
        assert await client.stream.receive_some()
        os.truncate(path, size // 2)  # a disk that loses what it had
        assert len(await received_until_closed(client.stream)) < size
    await becomes(service, "requests_underway", 0)
    assert [record.message for record in caplog.records] == [
        "an answer was cut off: a share became shorter while it was read"
    ]


async def test_nothing_of_this_is_worth_a_traceback(storage, caplog):
    """Clients that break off at any point leave one quiet line at most."""
    caplog.set_level(logging.INFO)
    async with limited(storage) as service:
        async with connected(service) as client:
            head = client.head("POST", IMMUTABLE, *ALLOCATE, ("Content-Length", "1")) + b"\xa0"
        for cut in range(0, len(head), 23):
            async with connected(service) as client:
                await client.stream.send_all(head[:cut])
        await becomes(service, "connections", 0)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
