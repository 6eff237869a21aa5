"""A server can answer anything at all, slowly or without end: each gets a clear error."""

from __future__ import annotations

import datetime
import ssl
from contextlib import asynccontextmanager, suppress

import cbor2
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lafsfs.crypto.x509 import server_id_of
from lafsfs.errors import (
    NoSuchUploadError,
    ProtocolError,
    ServerError,
    ServerFullError,
    ServerReadOnlyError,
    ServerUnavailableError,
)
from lafsfs.gbs.dialer import learn_server_id
from lafsfs.gbs.nurl import Nurl
from lafsfs.gbs.server import GBSServer
from lafsfs.grid.api import (
    LeaseSecrets,
    ReadVector,
    ShareKind,
    SlotSecrets,
    TestWriteVectors,
    WriteVector,
)
from tests.gbs.hostile import CBOR, Peer, identity, server_context, serving

SI = bytes(range(16))
SECRET = b"u" * 32
LEASE = LeaseSecrets(b"r" * 32, b"c" * 32)
SLOT = SlotSecrets(b"w" * 32, LEASE)
IMMUTABLE = ShareKind.IMMUTABLE
ID = b"i" * 20
OCTETS = (("Content-Type", "application/octet-stream"),)


@asynccontextmanager
async def client(script, **more):
    """A GBSServer that talks to a scripted server."""
    async with serving(script, **more) as hostile:
        server = GBSServer([hostile.nurl], server_id=ID, name="hostile")
        try:
            yield server, hostile
        finally:
            await server.aclose()


def always(data: bytes):
    """The same bytes to every request, and then the connection goes."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.raw(data)

    return script


def answers(status: int, body: bytes = b"", headers=(), **more):
    """The same well-formed reply to every request."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.reply(status, body, headers, **more)

    return script


def ranged(body: bytes, content_range: str | None = "bytes 0-9/*", status: int = 206):
    more = () if content_range is None else (("Content-Range", content_range),)
    return answers(status, body, (*OCTETS, *more))


async def read(server: GBSServer, offset: int = 0, size: int = 10) -> bytes:
    return await server.read_share(IMMUTABLE, SI, 3, offset, size)


def huge_write(size: int) -> TestWriteVectors:
    return TestWriteVectors(writes=(WriteVector(0, bytes(size)),))


VERSION = cbor2.dumps(
    {
        b"http://allmydata.org/tahoe/protocols/storage/v1": {
            b"maximum-immutable-share-size": 1,
            b"maximum-mutable-share-size": 2,
            b"available-space": 3,
        },
        b"application-version": b"hostile/1",
    }
)


# --- what a request looks like --------------------------------------------------------------------


async def test_a_good_server_is_asked_as_the_specification_has_it():
    async with client(ranged(b"0123456789")) as (server, hostile):
        assert await read(server) == b"0123456789"
        (asked,) = hostile.asked
    assert (asked.method, asked.target) == (
        "GET",
        "/storage/v1/immutable/aaaqeayeaudaocajbifqydiob4/3",
    )
    assert asked.headers["range"] == ["bytes=0-9"]
    assert asked.headers["authorization"] == ["Tahoe-LAFS c3dpc3NudW0="]
    assert asked.headers["host"] == [hostile.nurl.authority]
    assert asked.secrets() == set()


async def test_each_verb_shows_its_secrets_and_no_others():
    async with client(answers(404)) as (server, hostile):
        for verb in (
            lambda: server.add_lease(SI, LEASE),
            lambda: server.allocate(SI, frozenset({1}), 5, SECRET, LEASE),
            lambda: server.write_share(SI, 1, SECRET, 0, b"data"),
            lambda: server.abort_share(SI, 1, SECRET),
            lambda: server.read_test_write(SI, SLOT, {}, ()),
            lambda: server.list_shares(IMMUTABLE, SI),
            lambda: server.advise_corrupt_share(IMMUTABLE, SI, 1, "bad"),
        ):
            with suppress(ServerError):
                await verb()
        secrets = [asked.secrets() for asked in hostile.asked]
    lease = {"lease-renew-secret", "lease-cancel-secret"}
    upload, enabler = {"upload-secret"}, {"write-enabler"}
    assert secrets == [lease, lease | upload, upload, upload, lease | enabler, set(), set()]


async def test_the_id_of_a_bare_address_comes_from_its_certificate():
    async with serving(answers(200)) as hostile:
        assert await learn_server_id(hostile.nurl) == server_id_of(identity())
        assert hostile.asked == []


# --- who answers ----------------------------------------------------------------------------------


async def test_another_key_is_refused_before_anything_is_said():
    async with client(answers(200), pins=identity(1)) as (server, hostile):
        with pytest.raises(ServerUnavailableError, match="another key"):
            await server.version()
        with pytest.raises(ServerUnavailableError, match="another key"):
            await learn_server_id(hostile.nurl)
        assert hostile.asked == []


def certificate(key, issuer_key, issuer: str, *, days: tuple[int, int] = (-1, 1)) -> bytes:
    """A certificate for 127.0.0.1 with its key, as PEM."""
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days[0]))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
        .sign(issuer_key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return made.public_bytes(serialization.Encoding.PEM) + private


async def test_a_certificate_signed_by_an_authority_is_no_excuse_for_another_key():
    key, authority = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    pem = certificate(key, authority, "Trusted Authority")
    async with client(answers(200), pem=pem, pins=identity()) as (server, hostile):
        with pytest.raises(ServerUnavailableError, match="another key"):
            await server.version()
        assert hostile.asked == []


@pytest.mark.parametrize("days", [(-10, -5), (5, 10), (-1, 1)])
async def test_who_signed_a_certificate_and_when_does_not_matter(days):
    key, authority = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    pem = certificate(key, authority, "Nobody", days=days)
    async with client(answers(200, VERSION, CBOR), pem=pem) as (server, _):
        assert (await server.version()).application == "hostile/1"


async def test_old_tls_is_refused():
    context = server_context(identity())
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with client(answers(200), context=context) as (server, hostile):
        with pytest.raises(ServerUnavailableError, match="no TLS handshake"):
            await server.version()
        assert hostile.asked == []


@pytest.mark.parametrize("greeting", [b"", b"220 smtp ready\r\n", b"\0" * 1000])
async def test_what_is_no_tls_is_refused(greeting):
    async def handle(stream):
        if greeting:
            await stream.send_all(greeting)
        await stream.receive_some(1000)
        await stream.aclose()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nurl = Nurl(b"p" * 32, "127.0.0.1", listeners[0].socket.getsockname()[1], b"s")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        with pytest.raises(ServerUnavailableError, match="no TLS handshake"):
            await GBSServer([nurl], server_id=ID).version()
        nursery.cancel_scope.cancel()


async def test_a_wrong_swissnum_is_explained_without_showing_it():
    async with client(answers(401)) as (server, _):
        for verb in (
            lambda: server.version(),
            lambda: server.list_shares(IMMUTABLE, SI),
            lambda: read(server),
            lambda: server.write_share(SI, 0, SECRET, 0, b"data"),
            lambda: server.abort_share(SI, 0, SECRET),
            lambda: server.read_test_write(SI, SLOT, {}, ()),
            lambda: server.add_lease(SI, LEASE),
        ):
            with pytest.raises(ServerUnavailableError, match="swissnum") as caught:
                await verb()
            assert "c3dpc3NudW0" not in str(caught.value)


# --- what is no HTTP, or not enough of it ---------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.0"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/cbor\r\n\r\n" + VERSION, "where it ends"),
        (b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n", "not HTTP"),
        (b"\x00\x01\x02 garbage \xff\r\n\r\n", "not HTTP"),
        (b"A" * 20_000, "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-Filler: 1\r\n" * 6000 + b"\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "more than"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", "not HTTP"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 20, "1xx"),
    ],
)
async def test_what_is_no_reply_is_a_protocol_error(data, why):
    async with client(always(data)) as (server, hostile):
        with pytest.raises(ProtocolError, match=why):
            await server.version()
        assert hostile.connections == 1


@pytest.mark.parametrize(
    "template",
    [
        b"HTTP/1.1 %s\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n%s\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX:\x00 %s\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n",
    ],
)
async def test_what_it_says_instead_is_not_repeated(template):
    """It may be what it was told: messages end up in logs."""
    async with client(always(template % b"our-secret")) as (server, _):
        with pytest.raises(ProtocolError, match=r"its answer is not HTTP: [A-Za-z]") as caught:
            await server.version()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ntoo short",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
)
async def test_a_connection_that_always_breaks_is_given_up(data):
    async with client(always(data)) as (server, hostile):
        with pytest.raises(ServerUnavailableError, match="hostile"):
            await server.version()
        assert hostile.connections == 3
        with pytest.raises(ServerUnavailableError, match="left alone for now"):
            await server.version()
        assert hostile.connections == 3


async def test_a_reply_without_end_is_cut_off():
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await peer.raw(b"4000\r\n" + bytes(0x4000) + b"\r\n")
            sent += 0x4000

    async with client(script) as (server, hostile):
        with pytest.raises(ProtocolError, match="more than"):
            await server.list_shares(IMMUTABLE, SI)
        assert sent < 32 << 20
        assert hostile.connections == 1


async def test_chunk_headers_without_end_are_cut_off():
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;ext="
    async with client(always(head + b"x" * 100_000)) as (server, _):
        with pytest.raises(ProtocolError, match="not HTTP"):
            await server.version()


@pytest.mark.parametrize("junk", [b"x", b"HTTP/1.1 200 OK\r\n\r\n"])
@pytest.mark.parametrize(
    "framed",
    [
        b"Content-Length: %d\r\n\r\n%b" % (len(VERSION), VERSION),
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(VERSION), VERSION),
    ],
)
async def test_a_connection_with_something_behind_an_answer_is_not_used_again(framed, junk):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/cbor\r\n"

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.raw(head + framed + junk)

    async with client(script) as (server, hostile):
        for _ in range(3):
            assert (await server.version()).available_space == 3
        assert hostile.connections == 3


async def test_a_long_answer_may_come_in_the_smallest_of_records():
    data = bytes(range(256)) * 20

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.raw(b"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-5119/*\r\n")
        await peer.raw(b"Transfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(data), 5):
            for piece in (b"5", b"\r", b"\n", data[at : at + 3], data[at + 3 : at + 5], b"\r\n"):
                await peer.raw(piece)
        await peer.raw(b"0\r\n\r\n")
        await trio.sleep_forever()

    async with client(script) as (server, _):
        assert await read(server, 0, len(data)) == data


async def test_a_handshake_that_says_something_at_once_is_no_answer():
    """What comes before the first question makes that fail, or answers it, and no other."""
    early = b"HTTP/1.1 206 OK\r\nContent-Length: 1\r\nContent-Range: bytes 0-0/*\r\n\r\nE"

    async def script(peer: Peer) -> None:
        await peer.raw(early * 2)
        await trio.sleep_forever()

    async with client(script) as (server, hostile):
        for number in range(1, 4):
            with suppress(ProtocolError):  # when it came early enough to be seen
                assert await read(server, 0, 1) == b"E"
            assert hostile.connections == number


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_a_server_that_falls_silent_runs_into_the_deadline(head, patient_clock):
    async def script(peer: Peer) -> None:
        await peer.request()
        if head:
            await peer.raw(head)
        await trio.sleep_forever()

    async with client(script) as (server, _):
        with pytest.raises(ServerUnavailableError, match="did not answer within 30 s"):
            await server.version()


async def test_a_slow_drip_runs_into_the_deadline(patient_clock):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            await peer.raw(b"x")
            await trio.sleep(4)

    async with client(script) as (server, _):
        with pytest.raises(ServerUnavailableError, match="did not answer within 30 s"):
            await server.version()


async def test_a_server_that_reads_nothing_runs_into_the_deadline(patient_clock):
    async def script(peer: Peer) -> None:
        await trio.sleep_forever()

    async with client(script) as (server, _):
        with pytest.raises(ServerUnavailableError, match="did not answer within 158 s"):
            await server.read_test_write(SI, SLOT, {0: huge_write(2 << 20)}, ())


async def test_a_server_that_answers_without_reading_is_not_used_again():
    async def script(peer: Peer) -> None:
        if peer.number == 0:
            body = cbor2.dumps({"success": True, "data": {}})
            head = (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/cbor\r\nContent-Length: %d\r\n\r\n"
            )
            await peer.raw(head % len(body) + body)
            await trio.sleep_forever()
        await peer.request()
        await peer.reply(200, VERSION, CBOR)

    async with client(script) as (server, hostile):
        answer = await server.read_test_write(SI, SLOT, {0: huge_write(16 << 20)}, ())
        assert answer.success  # as it says; what it holds is another question
        await server.version()
        assert hostile.connections == 2


# --- what is said unasked -------------------------------------------------------------------------


async def test_an_answer_to_nothing_does_not_answer_the_next_question():
    said = trio.Event()

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            await peer.request()
            await peer.reply(206, b"first", (("Content-Range", "bytes 0-4/*"),))
            await peer.raw(
                b"HTTP/1.1 206 OK\r\nContent-Length: 5\r\nContent-Range: bytes 5-9/*\r\n\r\nlying"
            )
            said.set()
            await trio.sleep_forever()
        while True:
            await peer.request()
            await peer.reply(206, b"right", (("Content-Range", "bytes 5-9/*"),))

    async with client(script) as (server, hostile):
        assert await read(server, 0, 5) == b"first"
        await said.wait()
        with suppress(ProtocolError):  # when it came together with the first answer
            assert await read(server, 5, 5) == b"right"
        assert await read(server, 5, 5) == b"right"
        assert hostile.connections == 2


async def test_an_answer_before_the_question_answers_at_most_that_one():
    early = b"HTTP/1.1 206 OK\r\nContent-Length: 1\r\nContent-Range: bytes 0-0/*\r\n\r\nE"

    said = trio.Event()

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            await peer.raw(early)
        while True:
            asked = await peer.request()
            start = asked.headers["range"][0].removeprefix("bytes=").split("-")[0]
            await peer.reply(206, b"R", (("Content-Range", f"bytes {start}-{start}/*"),))
            said.set()

    async with client(script) as (server, hostile):
        assert await read(server, 0, 1) == b"E"
        await said.wait()
        with suppress(ProtocolError):  # when it came together with the first answer
            assert await read(server, 7, 1) == b"R"
        assert await read(server, 7, 1) == b"R"
        assert hostile.connections == 2


# --- HTTP that is no storage protocol -------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status):
    headers = (("Location", "https://127.0.0.1:1/elsewhere"),)
    async with client(answers(status, b"", headers)) as (server, hostile):
        with pytest.raises(ProtocolError, match=f"redirects \\({status}\\)"):
            await server.version()
        assert len(hostile.asked) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (200, ProtocolError),
        (400, ProtocolError),
        (416, ProtocolError),
        (418, ProtocolError),
        (500, ProtocolError),
        (403, ServerReadOnlyError),
        (503, ServerUnavailableError),
        (507, ServerFullError),
    ],
)
async def test_statuses_that_a_read_has_no_use_for(status, error):
    async with client(answers(status, b"0123456789", OCTETS)) as (server, _):
        with pytest.raises(error, match="hostile"):
            await read(server)


@pytest.mark.parametrize(
    ("body", "content_range", "why"),
    [
        (b"0123456789", None, "which range"),
        (b"0123456789", "bytes */10", "which range"),
        (b"0123456789", "bytes 0-9", "which range"),
        (b"0123456789", "bytes 0-9/ten", "which range"),
        (b"0123456789", "pages 0-9/*", "which range"),
        (b"0123456789", "bytes 1-10/*", "another range"),
        (b"01234567890", "bytes 0-10/*", "another range"),
        (b"0123456789", "bytes 5-4/*", "another range"),
        (b"01234", "bytes 0-4/1000", "part of the range"),
        (b"01234", "bytes 0-9/*", "another length"),
        (b"0123456789abc", "bytes 0-9/*", "another length"),
        (b"", "bytes 0-9/*", "another length"),
    ],
)
async def test_ranges_that_were_not_asked_for(body, content_range, why):
    async with client(ranged(body, content_range)) as (server, _):
        with pytest.raises(ProtocolError, match=why):
            await read(server)


@pytest.mark.parametrize(
    ("body", "content_range"),
    [(b"0123456789", "bytes 0-9/*"), (b"01234", "bytes 0-4/5"), (b"01234", "bytes 0-4/*")],
)
async def test_ranges_that_end_with_the_share_are_fine(body, content_range):
    async with client(ranged(body, content_range)) as (server, _):
        assert await read(server) == body


async def test_a_share_longer_than_asked_for_is_cut_off():
    async with client(ranged(bytes(1 << 20), "bytes 0-9/*")) as (server, _):
        with pytest.raises(ProtocolError, match="more than"):
            await read(server)


@pytest.mark.parametrize("mime_type", ["text/html", "application/json", ""])
async def test_what_is_not_called_cbor_is_not_read(mime_type):
    headers = (("Content-Type", mime_type),) if mime_type else ()
    async with client(answers(200, VERSION, headers)) as (server, _):
        with pytest.raises(ProtocolError, match="not CBOR"):
            await server.version()


async def test_early_refusal_of_a_long_write_is_understood():
    async def script(peer: Peer) -> None:
        await peer.stream.receive_some(100)
        await peer.raw(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        await trio.sleep_forever()

    async with client(script) as (server, hostile):
        with pytest.raises(NoSuchUploadError):
            await server.write_share(SI, 0, SECRET, 0, bytes(1 << 20))
        with pytest.raises(NoSuchUploadError):
            await server.write_share(SI, 0, SECRET, 0, bytes(1 << 20))
        assert hostile.connections == 2


async def test_read_vectors_beyond_what_servers_take_are_not_sent():
    async with client(answers(200)) as (server, hostile):
        with pytest.raises(ProtocolError, match="30"):
            await server.read_test_write(SI, SLOT, {}, (ReadVector(0, 1),) * 31)
        assert hostile.asked == []
