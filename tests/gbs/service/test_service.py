"""The service as a whole: its identity and what it publishes, its addresses, its end."""

from __future__ import annotations

import socket
import stat
import urllib.request

import pytest
import trio
import yaml

from lafsfs.crypto import base32, x509
from lafsfs.errors import ConfigError, LafsError, LocalError, UsageError
from lafsfs.gbs.nurl import parse_nurl
from lafsfs.gbs.service import open_identity, running_service
from lafsfs.gbs.service.run import TIDY_SECONDS
from lafsfs.grid.identity import Identity
from lafsfs.grid.local import LocalServer
from lafsfs.grid.uploads import IDLE_SECONDS
from tests.gbs.service.client import ALLOCATE, IMMUTABLE, UPLOAD, becomes, connected
from tests.grid import contract

VERSION = "/storage/v1/version"


def has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "grid"


# --- identity -------------------------------------------------------------------------------------


async def test_an_identity_is_made_once_and_kept_private(storage, directory):
    first = open_identity(storage, directory)
    assert open_identity(storage, directory) == first
    assert first.pem == directory / "node.pem"
    assert first.certified
    assert first.pin == x509.spki_hash(first.pem.read_bytes())
    for name in ("node.pem", "swissnum"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600
    assert first.swissnum.decode() not in repr(first)


async def test_what_is_published_is_private_and_leads_here(service, directory):
    service.identity.publish(service.nurls, "Bob")
    for name in ("nurl", "announcement.yaml"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600
    (line,) = (directory / "nurl").read_text().splitlines()
    assert parse_nurl(line) == service.nurls[0]
    name = base32.encode(service.identity.server_id)
    (entry,) = yaml.safe_load((directory / "announcement.yaml").read_text())["storage"].items()
    assert entry[0] == name
    announcement = entry[1]["ann"]
    assert announcement["nickname"] == "Bob"
    assert announcement["anonymous-storage-NURLs"] == [line]
    assert announcement["permutation-seed-base32"] == name
    swissnum = service.identity.swissnum.decode()
    place = f"tcp:127.0.0.1:{service.port}"
    assert announcement["anonymous-storage-FURL"] == f"pb://{name}@{place}/{swissnum}"
    assert swissnum not in repr(service)


async def test_an_id_without_a_certificate_gets_one_beside_it(directory):
    (directory / "shares").mkdir(parents=True)
    (directory / "server-id").write_text(base32.encode(b"i" * 20) + "\n")
    server = await LocalServer.open(directory, create=False)
    identity = open_identity(server, directory)
    assert (identity.pem.name, identity.certified) == ("https.pem", False)
    assert identity.server_id == b"i" * 20
    assert identity == open_identity(server, directory)
    assert (await LocalServer.open(directory, create=False)).server_id == b"i" * 20
    async with running_service(server) as service, connected(service) as client:
        assert (await client.ask("GET", VERSION)).status == 200
    announcement = identity.announcement(service.nurls, "")["storage"]
    assert list(announcement) == [base32.encode(b"i" * 20)]


async def test_the_storage_of_a_tahoe_node_is_served_with_its_certificate(tmp_path):
    pem = x509.make_node_certificate()
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "node.pem").write_bytes(pem)
    (tmp_path / "storage" / "shares").mkdir(parents=True)
    server = await LocalServer.open(tmp_path / "storage", create=False)
    identity = open_identity(server, tmp_path / "storage")
    assert (identity.pin, identity.certified) == (x509.spki_hash(pem), True)


@pytest.mark.parametrize("swissnum", ["", "two words", "a/b", "x" * 300])
async def test_a_broken_swissnum_is_named(storage, directory, swissnum):
    (directory / "swissnum").write_text(swissnum)
    with pytest.raises(ConfigError, match="swissnum does not hold"):
        open_identity(storage, directory)


async def test_a_certificate_without_its_key_is_named(storage, directory):
    pem = (directory / "node.pem").read_text()
    (directory / "node.pem").write_text(pem[: pem.index("-----BEGIN PRIVATE")])
    with pytest.raises(ConfigError, match=r"node\.pem does not hold"):
        async with running_service(storage):
            pytest.fail("served without a key")


async def test_a_directory_whose_id_is_not_its_certificates(directory):
    """As tests have it, and golden directories: the id given counts, not the file beside it."""
    await LocalServer.open(directory, create=True)
    server = LocalServer(directory, Identity.of(b"j" * 20))
    assert not open_identity(server, directory).certified


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
async def test_it_listens_where_it_is_told_and_says_so(storage):
    listen = [("127.0.0.1", 0), ("::1", 0)]
    async with running_service(storage, listen=listen) as service:
        assert [nurl.host for nurl in service.nurls] == ["127.0.0.1", "::1"]
        for nurl in service.nurls:
            stream = await trio.open_tcp_stream(nurl.host, nurl.port)
            await stream.aclose()


async def test_it_says_what_the_operator_wants_said(storage):
    advertise = [("storage.example.org", 443), ("192.0.2.7", None)]
    async with running_service(storage, advertise=advertise) as service:
        first, second = service.nurls
        assert (first.host, first.port) == ("storage.example.org", 443)
        assert second.host == "192.0.2.7"
        stream = await trio.open_tcp_stream("127.0.0.1", second.port)
        await stream.aclose()


async def test_all_addresses_are_not_an_address(storage):
    async with running_service(storage, listen=[(None, 0)]) as service:
        assert not {nurl.host for nurl in service.nurls} & {"0.0.0.0", "::"}


async def test_a_taken_port_is_an_error_of_one_line(storage, service):
    with pytest.raises(LocalError, match=f"port {service.port}"):
        async with running_service(storage, listen=[("127.0.0.1", service.port)]):
            pytest.fail("two services on one port")


# --- metrics --------------------------------------------------------------------------------------


async def test_metrics_are_told_on_this_machine(storage):
    async with running_service(storage, metrics_at=("127.0.0.1", 0)) as service:
        async with connected(service) as client:
            await client.ask("GET", VERSION)
            await client.ask("GET", f"{IMMUTABLE}/0")
        url = f"http://127.0.0.1:{service.metrics_port}/metrics"
        text = await trio.to_thread.run_sync(lambda: urllib.request.urlopen(url).read().decode())
    assert 'lafsfs_storage_requests_total{endpoint="version",status="200"} 1.0' in text
    assert 'lafsfs_storage_requests_total{endpoint="read_share",status="404"} 1.0' in text
    assert "lafsfs_storage_available_bytes" in text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", None])
async def test_metrics_are_not_told_to_others(storage, host):
    with pytest.raises(UsageError, match="loopback"):
        async with running_service(storage, metrics_at=(host, 0)):
            pytest.fail("told")


# --- in the course of time ------------------------------------------------------------------------


class Clock:
    now = 1_700_000_000.0

    def __call__(self):
        return self.now


async def test_idle_uploads_are_discarded(directory, patient_clock):
    clock = Clock()
    server = await LocalServer.open(directory, create=True, clock=clock)
    body = {"share-numbers": {0, 1}, "allocated-size": 10}
    async with running_service(server) as service, connected(service) as client:
        await client.ask("POST", IMMUTABLE, *ALLOCATE, body=body)
        assert server.uploads_in_progress == 2
        clock.now += IDLE_SECONDS - 1
        piece = ("Content-Range", "bytes 0-0/*")
        await client.ask("PATCH", f"{IMMUTABLE}/1", UPLOAD, piece, body=b"x")
        await trio.sleep(TIDY_SECONDS + 1)
        assert server.uploads_in_progress == 2
        clock.now += 2
        await trio.sleep(TIDY_SECONDS + 1)
        assert server.uploads_in_progress == 1
    await server.aclose()


async def test_a_disk_that_goes_is_503_and_comes_back(service, directory, patient_clock, caplog):
    async with connected(service) as client:
        directory.rename(directory.with_name("elsewhere"))
        assert (await client.ask("GET", VERSION)).status == 503
        assert (await client.ask("GET", f"{IMMUTABLE}/shares")).status == 503
        await trio.sleep(TIDY_SECONDS + 1)
        assert "has gone" in caplog.text
        directory.with_name("elsewhere").rename(directory)
        assert (await client.ask("GET", VERSION)).status == 200


async def test_a_read_only_service_reads(directory):
    writer = await LocalServer.open(directory, create=True)
    await contract.store(writer, b"data", 3)
    server = await LocalServer.open(directory, create=False, read_only=True)
    async with running_service(server) as service, connected(service) as client:
        body = {"share-numbers": {0, 3}, "allocated-size": 10}
        reply = await client.ask("POST", IMMUTABLE, *ALLOCATE, body=body)
        assert reply.message == {"already-have": {3}, "allocated": set()}
        piece = ("Content-Range", "bytes 0-0/*")
        reply = await client.ask("PATCH", f"{IMMUTABLE}/0", UPLOAD, piece, body=b"x")
        assert reply.status == 403
        assert (await client.ask("GET", f"{IMMUTABLE}/3")).body == b"data"


async def test_requests_under_way_are_answered_before_the_end(storage):
    answers = []

    async def upload(client):
        head = client.head("POST", IMMUTABLE, *ALLOCATE, ("Content-Length", "1"))
        await client.stream.send_all(head)
        begun.set()
        await ending.wait()
        await client.stream.send_all(b"\xff")
        answers.append((await client.reply()).status)
        assert await client.is_closed()

    begun, ending = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:
        async with running_service(storage) as service:
            client = await nursery.start(hold_connection, service)
            nursery.start_soon(upload, client)
            await begun.wait()
            await becomes(service, "requests_underway", 1)
            ending.set()
        nursery.cancel_scope.cancel()
    assert answers == [400]


async def hold_connection(service, task_status):
    async with connected(service) as client:
        task_status.started(client)
        await trio.sleep_forever()


async def test_an_error_in_the_block_comes_out(storage):
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012
        async with running_service(storage) as service, connected(service) as client:
            await client.ask("GET", VERSION)
            raise LafsError("of the caller")
    assert caught.group_contains(LafsError, match="of the caller")
