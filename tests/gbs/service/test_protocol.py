"""Statuses, headers and bodies of every endpoint, as the specification has them and stock does.

What verbs mean is in the contract suite; this is about how they are asked for and refused.
"""

from __future__ import annotations

import cbor2
import pytest

from lafsfs.grid.api import ShareKind
from tests.gbs.service.client import (
    ALLOCATE,
    CBOR,
    ENABLER,
    IMMUTABLE,
    INDEX,
    LEASES,
    MUTABLE,
    UPLOAD,
    WRITE,
    secret,
)
from tests.grid import contract
from tests.grid.contract import OTHER_SECRET, SI

V1 = b"http://allmydata.org/tahoe/protocols/storage/v1"
LEASE_PATH = f"/storage/v1/lease/{INDEX}"
OTHER_UPLOAD = secret("upload-secret", OTHER_SECRET)


def allocation(*shnums, size=10):
    return {"share-numbers": set(shnums), "allocated-size": size}


def piece(start, stop, total="*"):
    return "Content-Range", f"bytes {start}-{stop - 1}/{total}"


def writing(data, offset=0, tests=(), new_length=None):
    return {
        "test": [{"offset": o, "size": s, "specimen": x} for o, s, x in tests],
        "write": [{"offset": offset, "data": data}] if data else [],
        "new-length": new_length,
    }


def slot(vectors, *reads):
    return {
        "test-write-vectors": vectors,
        "read-vector": [{"offset": offset, "size": size} for offset, size in reads],
    }


# --- who may ask ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization", ["", "Tahoe-LAFS", "Tahoe-LAFS AAAA", "Basic AAAA", "tahoe-lafs {}", "{} "]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/storage/v1/version"), ("PATCH", f"{IMMUTABLE}/0"), ("GET", "/nowhere")],
)
async def test_without_the_swissnum_everything_is_401(client, authorization, method, path):
    wrong = authorization.replace("{}", client.authorization.split()[1])
    reply = await client.ask(method, path, ("Authorization", wrong), body=b"x" * 5000)
    assert (reply.status, reply.body) == (401, b"")
    assert (await client.ask("GET", "/storage/v1/version")).status == 200


async def test_two_authorizations_are_none(client):
    reply = await client.ask(
        "GET",
        "/storage/v1/version",
        ("Authorization", client.authorization),
        ("Authorization", client.authorization),
    )
    assert reply.status == 400


@pytest.mark.parametrize(
    "headers",
    [
        (),
        LEASES[:1],
        (UPLOAD, *LEASES),
        (*LEASES, ENABLER),
        (*LEASES, LEASES[0]),
        (LEASES[0], secret("lease-cancel-secret", b"c" * 31)),
        (LEASES[0], secret("lease-cancel-secret", b"c" * 33)),
        (LEASES[0], secret("lease-cancel-secret", b"")),
        (LEASES[0], ("X-Tahoe-Authorization", "lease-cancel-secret")),
        (LEASES[0], ("X-Tahoe-Authorization", "lease-cancel-secret !!!!")),
        (LEASES[0], secret("lease-destroy-secret", b"c" * 32)),
    ],
)
async def test_secrets_are_exactly_those_wanted(client, headers):
    assert (await client.ask("PUT", LEASE_PATH, *headers)).status == 400


async def test_secrets_are_wanted_by_those_who_use_them_and_nobody_else(client):
    assert (await client.ask("GET", "/storage/v1/version", UPLOAD)).status == 400
    assert (await client.ask("GET", f"{IMMUTABLE}/shares", UPLOAD)).status == 400
    body = allocation(1)
    assert (await client.ask("POST", IMMUTABLE, CBOR, *LEASES, body=body)).status == 400
    assert (await client.ask("PATCH", f"{IMMUTABLE}/1", piece(0, 1), body=b"x")).status == 400
    assert (await client.ask("PUT", f"{IMMUTABLE}/1/abort")).status == 400
    path = f"{MUTABLE}/read-test-write"
    assert (await client.ask("POST", path, CBOR, *LEASES, body=slot({}))).status == 400
    short = secret("write-enabler", b"w" * 31)
    assert (await client.ask("POST", path, CBOR, short, *LEASES, body=slot({}))).status == 400


# --- where ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/storage/v1",
        "/storage/v1/",
        "/storage/v1/version/",
        "/storage/v1/versions",
        "/storage/v2/version",
        "//storage/v1/version",
        "/storage/v1/../v1/version",
        "/storage/v1/%76ersion",
        f"/storage/v1/immutable/{INDEX[:-1]}/shares",
        f"/storage/v1/immutable/{INDEX}a/shares",
        f"/storage/v1/immutable/{INDEX[:-1]}b/shares",  # bits behind the last byte
        f"/storage/v1/immutable/{INDEX.upper()}/shares",
        "/storage/v1/immutable/../../../../node.pem/shares",
        f"{IMMUTABLE}/-1",
        f"{IMMUTABLE}/256",
        f"{IMMUTABLE}/9999999",
        f"{IMMUTABLE}/0x1",
        f"{IMMUTABLE}/1/",
        f"{MUTABLE}/1/abort",
        f"/storage/v1/other/{INDEX}/shares",
    ],
)
async def test_what_does_not_exist_is_404(client, path):
    assert (await client.ask("GET", path)).status in (404, 405)
    if not path.endswith("abort"):
        assert (await client.ask("GET", path)).status == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/storage/v1/version", "GET"),
        ("HEAD", "/storage/v1/version", "GET"),
        ("PUT", f"{IMMUTABLE}/0", "GET, PATCH"),
        ("DELETE", f"{MUTABLE}/0", "GET"),
        ("GET", LEASE_PATH, "PUT"),
        ("GET", IMMUTABLE, "POST"),
    ],
)
async def test_another_method_is_405_and_says_which_would_do(client, method, path, allowed):
    if method == "HEAD":
        await client.stream.send_all(client.head(method, path))
        assert b" 405 " in await client.stream.receive_some()
        return
    reply = await client.ask(method, path)
    assert (reply.status, reply.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        (None, 200),
        ("application/cbor", 200),
        ("*/*", 200),
        ("application/json, application/cbor;q=0.5", 200),
        ("application/*", 200),
        ("application/json", 406),
        ("application/cbor;q=0", 406),
        ("", 406),
    ],
)
async def test_replies_are_cbor_for_those_who_take_it(client, accept, status):
    headers = () if accept is None else (("Accept", accept),)
    assert (await client.ask("GET", "/storage/v1/version", *headers)).status == status


@pytest.mark.parametrize(
    ("mime_type", "status"),
    [("application/cbor", 200), ("Application/CBOR; x=y", 200), ("application/json", 415)],
)
async def test_bodies_are_cbor(client, mime_type, status):
    headers = (("Content-Type", mime_type), UPLOAD, *LEASES)
    reply = await client.ask("POST", IMMUTABLE, *headers, body=allocation(1))
    assert reply.status == status


async def test_no_content_type_means_cbor(client):
    assert (await client.ask("POST", IMMUTABLE, UPLOAD, *LEASES, body=allocation(1))).status == 200


async def test_the_version_has_keys_of_bytes(client):
    message = (await client.ask("GET", "/storage/v1/version")).message
    assert message[b"application-version"].startswith(b"lafsfs/")
    assert set(message[V1]) == {
        b"maximum-immutable-share-size",
        b"maximum-mutable-share-size",
        b"available-space",
    }


async def test_where_no_body_is_wanted_none_is_taken(client):
    assert (await client.ask("GET", "/storage/v1/version", body=b"x")).status == 413
    assert (await client.ask("GET", "/storage/v1/version")).status == 200


# --- uploads --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        cbor2.dumps(allocation(1)) + b"\x00",
        cbor2.dumps(allocation(1))[:-1],
        [],
        {},
        {"share-numbers": {1}},
        {"share-numbers": {1}, "allocated-size": 1, "more": 2},
        {"share-numbers": [1], "allocated-size": 1},
        {"share-numbers": {-1}, "allocated-size": 1},
        {"share-numbers": {256}, "allocated-size": 1},
        {"share-numbers": {True}, "allocated-size": 1},
        {"share-numbers": {"1"}, "allocated-size": 1},
        {"share-numbers": {1}, "allocated-size": -1},
        {"share-numbers": {1}, "allocated-size": 0},
        {"share-numbers": {1}, "allocated-size": 1.0},
        {"share-numbers": {1}, "allocated-size": 1 << 64},
        {b"share-numbers": {1}, b"allocated-size": 1},
    ],
)
async def test_an_allocation_of_another_shape_is_400(client, body):
    assert (await client.ask("POST", IMMUTABLE, *ALLOCATE, body=body)).status == 400


async def test_an_allocation_of_more_than_there_is_allocates_nothing(client):
    reply = await client.ask("POST", IMMUTABLE, *ALLOCATE, body=allocation(1, size=1 << 62))
    assert reply.message == {"already-have": set(), "allocated": set()}


async def test_a_body_too_large_is_413_and_the_connection_lives(client):
    reply = await client.ask("POST", IMMUTABLE, *ALLOCATE, body=b"\x00" * 100_000)
    assert reply.status == 413
    assert (await client.ask("GET", "/storage/v1/version")).status == 200


async def test_pieces_and_what_is_missing(client):
    await client.ask("POST", IMMUTABLE, *ALLOCATE, body=allocation(1))
    path = f"{IMMUTABLE}/1"
    reply = await client.ask("PATCH", path, UPLOAD, piece(2, 4), body=b"23")
    assert reply.status == 200
    assert reply.message == {"required": [{"begin": 0, "end": 2}, {"begin": 4, "end": 10}]}
    reply = await client.ask("PATCH", path, UPLOAD, piece(4, 10, total=10), body=b"456789")
    assert reply.message == {"required": [{"begin": 0, "end": 2}]}
    assert (await client.ask("PATCH", path, UPLOAD, piece(0, 3), body=b"01X")).status == 409
    reply = await client.ask("PATCH", path, UPLOAD, piece(0, 3), body=b"012")
    assert (reply.status, reply.message) == (201, {"required": []})
    assert (await client.ask("PATCH", path, UPLOAD, piece(0, 1), body=b"0")).status == 404


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ((UPLOAD,), b"x", 416),
        ((UPLOAD, ("Content-Range", "bytes */10")), b"x", 416),
        ((UPLOAD, ("Content-Range", "items 0-0/*")), b"x", 416),
        ((UPLOAD, ("Content-Range", "bytes 5-4/*")), b"", 416),
        ((UPLOAD, piece(0, 2)), b"x", 400),
        ((UPLOAD, piece(0, 2)), b"xyz", 400),
        ((UPLOAD, piece(5, 11)), b"5" * 6, 416),
        ((UPLOAD, piece(1 << 60, (1 << 60) + 1)), b"5", 416),
        ((OTHER_UPLOAD, piece(0, 1)), b"x", 401),
        ((UPLOAD, piece(0, 1), ("Accept", "text/html")), b"x", 406),
    ],
)
async def test_pieces_that_are_refused(client, headers, body, status):
    await client.ask("POST", IMMUTABLE, *ALLOCATE, body=allocation(1))
    reply = await client.ask("PATCH", f"{IMMUTABLE}/1", *headers, body=body)
    assert reply.status == status
    reply = await client.ask("PATCH", f"{IMMUTABLE}/1", UPLOAD, piece(0, 10), body=b"0123456789")
    assert reply.status == 201


async def test_a_piece_may_come_in_chunks(client):
    await client.ask("POST", IMMUTABLE, *ALLOCATE, body=allocation(1))
    head = client.head(
        "PATCH", f"{IMMUTABLE}/1", UPLOAD, piece(0, 10), ("Transfer-Encoding", "chunked")
    )
    await client.stream.send_all(head + b"4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n")
    assert (await client.reply()).status == 201


async def test_large_pieces_are_written_as_they_come(client, storage):
    data = bytes(range(256)) * 4096 * 3
    await client.ask("POST", IMMUTABLE, *ALLOCATE, body=allocation(1, size=len(data)))
    reply = await client.ask("PATCH", f"{IMMUTABLE}/1", UPLOAD, piece(0, len(data)), body=data)
    assert reply.status == 201
    assert await storage.read_share(ShareKind.IMMUTABLE, SI, 1, 0, len(data)) == data
    reply = await client.ask("GET", f"{IMMUTABLE}/1")
    assert reply.body == data


async def test_aborts(client, storage):
    path = f"{IMMUTABLE}/1/abort"
    assert (await client.ask("PUT", path, UPLOAD)).status == 404
    await client.ask("POST", IMMUTABLE, *ALLOCATE, body=allocation(1))
    assert (await client.ask("PUT", path, OTHER_UPLOAD)).status == 401
    assert (await client.ask("PUT", path, UPLOAD)).status == 200
    assert (await client.ask("PUT", path, UPLOAD)).status == 404
    await contract.store(storage, b"data", 1)
    assert (await client.ask("PUT", path, UPLOAD)).status == 405


# --- reading --------------------------------------------------------------------------------------


@pytest.fixture(params=["immutable", "mutable"])
async def path(request, storage):
    """The path of share 2, which holds ten digits, of either kind."""
    if request.param == "immutable":
        await contract.store(storage, b"0123456789", 2)
        return f"{IMMUTABLE}/2"
    await contract.store_slot(storage, s2=b"0123456789")
    return f"{MUTABLE}/2"


@pytest.mark.parametrize(
    ("wanted", "status", "body", "content_range"),
    [
        (None, 200, b"0123456789", None),
        ("bytes=0-9", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=3-3", 206, b"3", "bytes 3-3/10"),
        ("bytes=8-100", 206, b"89", "bytes 8-9/10"),
        ("bytes=0-9223372036854775806", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=10-12", 204, b"", None),
        ("bytes=100-112", 204, b"", None),
    ],
)
async def test_ranges(client, path, wanted, status, body, content_range):
    headers = () if wanted is None else (("Range", wanted),)
    reply = await client.ask("GET", path, *headers)
    assert (reply.status, reply.body) == (status, body)
    assert reply.headers.get("content-range") == content_range
    assert reply.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    "wanted",
    [
        "bytes=5-",
        "bytes=-5",
        "bytes=0-1,3-4",
        "bytes=5-4",
        "items=0-1",
        "bytes 0-1",
        "0-1",
        "",
        "bytes=a-b",
        "bytes=0-99999999999999999999",
        "bytes=\xb2-\xb3",
    ],
)
async def test_other_ranges_are_416(client, path, wanted):
    reply = await client.ask("GET", path, ("Range", wanted))
    assert reply.status == 416
    assert reply.headers["content-type"] == "application/octet-stream"


async def test_an_absent_share_is_404_in_the_type_of_shares(client, path):
    other_kind = f"{MUTABLE if 'immutable' in path else IMMUTABLE}/2"
    for absent in (path[:-1] + "3", other_kind):
        reply = await client.ask("GET", absent)
        assert reply.status == 404
        assert reply.headers["content-type"] == "application/octet-stream"


async def test_lists_are_sets(client, path):
    reply = await client.ask("GET", path[:-1] + "shares")
    assert reply.body == cbor2.dumps({2})
    other = MUTABLE if "immutable" in path else IMMUTABLE
    assert (await client.ask("GET", f"{other}/shares")).message == set()


async def test_leases(client, path):
    reply = await client.ask("PUT", LEASE_PATH, *LEASES)
    assert (reply.status, reply.body) == (204, b"")
    absent = f"/storage/v1/lease/{'b' * 25}a"
    assert (await client.ask("PUT", absent, *LEASES)).status == 404


async def test_complaints(client, path, storage):
    reason = {"reason": "the hash\nis wrong: \x1b[31mred"}
    assert (await client.ask("POST", f"{path}/corrupt", CBOR, body=reason)).status == 200
    assert (await client.ask("POST", f"{path[:-1]}3/corrupt", CBOR, body=reason)).status == 404
    (note,) = (storage._directory.path / "corruption-advisories").iterdir()
    assert "the hash?is wrong: ?[31mred" in note.read_text()
    for wrong in ({"reason": ""}, {"reason": b"x"}, {}, {"reason": "x" * 40_000}, "x"):
        reply = await client.ask("POST", f"{path}/corrupt", CBOR, body=wrong)
        assert reply.status in (400, 413)


# --- slots ----------------------------------------------------------------------------------------

SLOT_PATH = f"{MUTABLE}/read-test-write"


async def test_a_slot_is_written_tested_and_read(client):
    body = slot({0: writing(b"zero"), 1: writing(b"one", tests=[(0, 1, b"")])}, (0, 10))
    reply = await client.ask("POST", SLOT_PATH, *WRITE, body=body)
    assert reply.message == {"success": True, "data": {}}
    body = slot({0: writing(b"ZERO", tests=[(0, 4, b"nope")])}, (0, 10), (1, 2), (9, 9))
    reply = await client.ask("POST", SLOT_PATH, *WRITE, body=body)
    assert reply.message == {
        "success": False,
        "data": {0: [b"zero", b"er", b""], 1: [b"one", b"ne", b""]},
    }
    wrong = (CBOR, secret("write-enabler", b"x" * 32), *LEASES)
    reply = await client.ask("POST", SLOT_PATH, *wrong, body=slot({}))
    assert (reply.status, reply.body) == (401, b"")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"test-write-vectors": {}},
        slot({}) | {"more": 1},
        slot([]),
        slot({-1: writing(b"x")}),
        slot({256: writing(b"x")}),
        slot({"0": writing(b"x")}),
        slot({0: writing(b"x", offset=-1)}),
        slot({0: writing(b"x", offset=1 << 63)}),
        slot({0: writing(b"x", new_length=-1)}),
        slot({0: writing("text")}),
        slot({0: writing(b"x", tests=[(0, 1, b"")] * 31)}),
        slot({0: writing(b"x", tests=[(0, 1, "")])}),
        slot({0: {"test": [], "write": []}}),
        slot({}, *[(0, 1)] * 31),
        slot({}, (0, -1)),
        slot({0: writing(b"x", offset=69105 * 10**12)}),
    ],
)
async def test_a_slot_request_of_another_shape_is_400(client, storage, body):
    assert (await client.ask("POST", SLOT_PATH, *WRITE, body=body)).status == 400
    assert await storage.list_shares(ShareKind.MUTABLE, SI) == frozenset()


async def test_a_hole_that_no_disk_holds_is_507(client, storage):
    body = slot({0: writing(b"x", offset=10**15)})
    assert (await client.ask("POST", SLOT_PATH, *WRITE, body=body)).status == 507
    assert await storage.list_shares(ShareKind.MUTABLE, SI) == frozenset()


async def test_a_large_slot_waits_on_disk_on_its_way_in_and_out(client, storage, tmp_path):
    data = bytes(range(251)) * 8000
    vectors = {n: writing(data) for n in range(3)}
    reply = await client.ask("POST", SLOT_PATH, *WRITE, body=slot(vectors))
    assert reply.message == {"success": True, "data": {}}
    reply = await client.ask("POST", SLOT_PATH, *WRITE, body=slot({}, (0, 1 << 40)))
    assert reply.message["data"] == {n: [data] for n in range(3)}
    assert not [p for p in (tmp_path / "grid").iterdir() if p.name.startswith("tmp")]


async def test_an_immutable_file_is_no_slot(client, storage):
    await contract.store(storage, b"data")
    assert (await client.ask("POST", SLOT_PATH, *WRITE, body=slot({}))).status == 400
