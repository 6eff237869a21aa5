"""Immutable uploads over HTTPS: in pieces, through lost answers, and after a crash."""

from __future__ import annotations

import cbor2
import pytest
import trio

from lafsfs.errors import (
    NoSuchShareError,
    NoSuchUploadError,
    ProtocolError,
    ServerUnavailableError,
)
from lafsfs.gbs.messages import MIME_TYPE
from lafsfs.grid.api import Allocation, ShareKind
from tests.gbs.hostile import CBOR, Asked, Peer, serving
from tests.grid.contract import LEASE, SECRET, SI

IMMUTABLE, MUTABLE = ShareKind.IMMUTABLE, ShareKind.MUTABLE
PATH = "/storage/v1/immutable/aaaqeayeaudaocajbifqydiob4"
MORE = cbor2.dumps({"required": [{"begin": 0, "end": 1}]})
DONE = cbor2.dumps({"required": []})


def table(answers):
    """Answers by method and the end of the target, each used until one is left.

    An answer is a status, a status and a body, or None to drop the connection. Every answer after
    the last is the last again.
    """
    left = {key: list(value) for key, value in answers.items()}

    async def script(peer: Peer) -> None:
        while True:
            asked = await peer.request()
            answer = next(
                value.pop(0) if len(value) > 1 else value[0]
                for (method, end), value in left.items()
                if method == asked.method and asked.target.endswith(end)
            )
            if answer is None:
                return
            status, body = answer if isinstance(answer, tuple) else (answer, b"")
            await peer.reply(status, body, CBOR)

    return script


def told(asked: list[Asked]) -> list[str]:
    return [f"{a.method} {a.target.removeprefix(PATH)}".strip() for a in asked]


def allocation(have: set[int], allocated: set[int]) -> tuple[int, bytes]:
    return 200, cbor2.dumps({"already-have": have, "allocated": allocated})


# --- allocating -----------------------------------------------------------------------------------


async def test_an_allocation_is_one_request(reach):
    async with serving(table({("POST", ""): [allocation({1}, {2, 3})]})) as hostile:
        got = await reach(hostile.nurl).allocate(SI, frozenset({1, 2, 3}), 10, SECRET, LEASE)
        (asked,) = hostile.asked
    assert got == Allocation(frozenset({1}), frozenset({2, 3}))
    assert asked.target == PATH
    assert asked.headers["content-type"] == asked.headers["accept"] == [MIME_TYPE]
    assert cbor2.loads(asked.body) == {"share-numbers": {1, 2, 3}, "allocated-size": 10}


async def test_an_upload_that_a_crash_left_is_aborted_and_begun_again(reach):
    script = table(
        {
            ("PUT", "/1/abort"): [200],  # ours, from before
            ("PUT", "/2/abort"): [401],  # somebody else's
            ("PUT", "/3/abort"): [404],  # nothing there: the server is full
            ("POST", ""): [allocation({5}, {0}), allocation({5}, {1})],
        }
    )
    async with serving(script) as hostile:
        got = await reach(hostile.nurl).allocate(SI, frozenset(range(4)), 10, SECRET, LEASE)
        first, *aborts, second = hostile.asked
    assert got == Allocation(frozenset({5}), frozenset({0, 1}))
    assert sorted(told(aborts)) == ["PUT /1/abort", "PUT /2/abort", "PUT /3/abort"]
    assert cbor2.loads(first.body)["share-numbers"] == {0, 1, 2, 3}
    assert cbor2.loads(second.body)["share-numbers"] == {1}


async def test_an_upload_of_this_life_is_found_and_not_aborted(reach):
    script = table({("POST", ""): [allocation(set(), {0}), allocation(set(), set())]})
    async with serving(script) as hostile:
        server = reach(hostile.nurl)
        for _ in range(2):
            got = await server.allocate(SI, frozenset({0}), 10, SECRET, LEASE)
            assert got.allocated == {0}
        assert told(hostile.asked) == ["POST", "POST"]


@pytest.mark.parametrize(("size", "secret"), [(11, SECRET), (10, b"v" * 32)])
async def test_an_upload_of_another_size_or_secret_is_not_the_same(reach, size, secret):
    script = table(
        {
            ("PUT", "/0/abort"): [404],
            ("POST", ""): [allocation(set(), {0}), allocation(set(), set())],
        }
    )
    async with serving(script) as hostile:
        server = reach(hostile.nurl)
        await server.allocate(SI, frozenset({0}), 10, SECRET, LEASE)
        got = await server.allocate(SI, frozenset({0}), size, secret, LEASE)
        assert got.allocated == frozenset()
        assert told(hostile.asked)[-1] == "PUT /0/abort"


async def test_a_lost_allocation_is_repeated(reach):
    script = table(
        {
            ("PUT", "/0/abort"): [200],
            ("POST", ""): [None, allocation(set(), set()), allocation(set(), {0})],
        }
    )
    async with serving(script) as hostile:
        got = await reach(hostile.nurl).allocate(SI, frozenset({0}), 10, SECRET, LEASE)
    assert got.allocated == {0}


async def test_shares_that_were_not_asked_for_are_not_allocated(reach):
    async with serving(table({("POST", ""): [allocation({9}, {0, 8})]})) as hostile:
        got = await reach(hostile.nurl).allocate(SI, frozenset({0}), 10, SECRET, LEASE)
    assert got == Allocation(frozenset({9}), frozenset({0}))


async def test_no_room_is_no_error(reach):
    script = table({("POST", ""): [507], ("PUT", "/abort"): [404]})
    async with serving(script) as hostile:
        got = await reach(hostile.nurl).allocate(SI, frozenset({0}), 10, SECRET, LEASE)
    assert got == Allocation(frozenset(), frozenset())


# --- writing --------------------------------------------------------------------------------------


async def test_a_write_is_one_patch_with_its_range(reach):
    async with serving(table({("PATCH", "/7"): [(200, MORE), (201, DONE)]})) as hostile:
        server = reach(hostile.nurl)
        assert not await server.write_share(SI, 7, SECRET, 100, b"0123456789")
        assert await server.write_share(SI, 7, SECRET, 110, b"x" * 100_000)
        assert [a.headers["content-range"] for a in hostile.asked] == [
            ["bytes 100-109/*"],
            ["bytes 110-100109/*"],
        ]
        assert [len(a.body) for a in hostile.asked] == [10, 100_000]
        assert hostile.connections == 1


async def test_pieces_of_any_size_go_out_as_one(reach):
    pieces = (b"head", b"", bytes(range(256)) * (12 << 10), b"tail")  # with 3 MiB in the middle
    async with serving(table({("PATCH", "/0"): [None, (201, DONE)]})) as hostile:
        assert await reach(hostile.nurl).write_share(SI, 0, SECRET, 1000, pieces)
        assert [asked.body for asked in hostile.asked] == [
            b"".join(pieces)
        ] * 2  # the first is lost
        ranges = [asked.headers["content-range"] for asked in hostile.asked]
        assert ranges == [[f"bytes 1000-{1000 + (3 << 20) + 7}/*"]] * 2


async def test_writing_nothing_asks_nobody(reach):
    async with serving(table({})) as hostile:
        assert not await reach(hostile.nurl).write_share(SI, 0, SECRET, 0, b"")
        assert not await reach(hostile.nurl).write_share(SI, 0, SECRET, 0, (b"", b""))
        assert hostile.asked == []


async def test_a_lost_write_is_repeated(reach):
    async with serving(table({("PATCH", "/0"): [None, (200, MORE)]})) as hostile:
        assert not await reach(hostile.nurl).write_share(SI, 0, SECRET, 0, b"data")
        assert len(hostile.asked) == 2


async def test_a_lost_answer_to_the_last_write_is_found_out(reach):
    script = table({("PATCH", "/0"): [None, 404], ("GET", "/shares"): [(200, cbor2.dumps({0}))]})
    async with serving(script) as hostile:
        assert await reach(hostile.nurl).write_share(SI, 0, SECRET, 0, b"data")
        assert told(hostile.asked) == ["PATCH /0", "PATCH /0", "GET /shares"]


async def test_a_lost_write_to_an_upload_that_is_gone(reach):
    script = table({("PATCH", "/0"): [None, 404], ("GET", "/shares"): [(200, cbor2.dumps({1}))]})
    async with serving(script) as hostile:
        with pytest.raises(NoSuchUploadError, match="Alice"):
            await reach(hostile.nurl).write_share(SI, 0, SECRET, 0, b"data")


async def test_a_finished_share_is_not_written_again(reach):
    async with serving(table({("PATCH", "/0"): [404]})) as hostile:
        with pytest.raises(NoSuchUploadError):
            await reach(hostile.nurl).write_share(SI, 0, SECRET, 0, b"data")
        assert len(hostile.asked) == 1


async def test_other_bytes_for_the_same_range_are_explained(reach):
    async with serving(table({("PATCH", "/0"): [409]})) as hostile:
        with pytest.raises(ProtocolError, match=r"other bytes.*409.*aborted"):
            await reach(hostile.nurl).write_share(SI, 0, SECRET, 0, b"data")


async def test_another_secret_is_told_from_a_wrong_swissnum(reach):
    script = table({("PATCH", "/0"): [401], ("PUT", "/abort"): [401], ("GET", "/version"): [500]})
    async with serving(script) as hostile:
        server = reach(hostile.nurl)
        with pytest.raises(NoSuchUploadError):
            await server.write_share(SI, 0, SECRET, 0, b"data")
        with pytest.raises(NoSuchUploadError):
            await server.abort_share(SI, 0, SECRET)


# --- aborting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 405])
async def test_there_may_be_nothing_to_abort(reach, status):
    async with serving(table({("PUT", "/0/abort"): [status]})) as hostile:
        with pytest.raises(NoSuchUploadError):
            await reach(hostile.nurl).abort_share(SI, 0, SECRET)


async def test_a_lost_abort_has_happened_if_nothing_is_there(reach):
    async with serving(table({("PUT", "/0/abort"): [None, 404]})) as hostile:
        await reach(hostile.nurl).abort_share(SI, 0, SECRET)
        assert len(hostile.asked) == 2


async def test_a_lost_abort_of_a_finished_share_has_not(reach):
    async with serving(table({("PUT", "/0/abort"): [None, 405]})) as hostile:
        with pytest.raises(NoSuchUploadError):
            await reach(hostile.nurl).abort_share(SI, 0, SECRET)


# --- the rest -------------------------------------------------------------------------------------


async def test_a_stock_server_trips_over_a_slot_when_asked_for_immutable_shares(reach):
    script = table(
        {
            ("GET", "immutable/aaaqeayeaudaocajbifqydiob4/shares"): [500],
            ("GET", "mutable/aaaqeayeaudaocajbifqydiob4/shares"): [(200, cbor2.dumps({0, 1}))],
        }
    )
    async with serving(script) as hostile:
        server = reach(hostile.nurl)
        assert await server.list_shares(IMMUTABLE, SI) == frozenset()
        assert await server.list_shares(MUTABLE, SI) == {0, 1}


async def test_an_error_is_an_error_where_there_is_no_slot(reach):
    script = table(
        {
            ("GET", "immutable/aaaqeayeaudaocajbifqydiob4/shares"): [500],
            ("GET", "mutable/aaaqeayeaudaocajbifqydiob4/shares"): [(200, cbor2.dumps(set()))],
        }
    )
    async with serving(script) as hostile:
        with pytest.raises(ProtocolError, match="500"):
            await reach(hostile.nurl).list_shares(IMMUTABLE, SI)


async def test_leases(reach):
    async with serving(table({("PUT", ""): [204, 404, None, 204]})) as hostile:
        server = reach(hostile.nurl)
        await server.add_lease(SI, LEASE)
        with pytest.raises(NoSuchShareError):
            await server.add_lease(SI, LEASE)
        await server.add_lease(SI, LEASE)
        assert {a.target for a in hostile.asked} == {PATH.replace("immutable", "lease")}


@pytest.mark.parametrize("status", [200, 404])
async def test_complaints_are_sent_and_taken_or_not(reach, status):
    async with serving(table({("POST", "/corrupt"): [status]})) as hostile:
        await reach(hostile.nurl).advise_corrupt_share(MUTABLE, SI, 3, "it is bad")
        (asked,) = hostile.asked
    assert asked.target == f"{PATH.replace('immutable', 'mutable')}/3/corrupt"
    assert cbor2.loads(asked.body) == {"reason": "it is bad"}


async def test_every_read_survives_two_broken_connections(reach):
    async with serving(table({("GET", "/shares"): [None, None, (200, cbor2.dumps({1}))]})) as h:
        assert await reach(h.nurl).list_shares(IMMUTABLE, SI) == {1}
        assert h.connections == 3


async def test_a_server_that_dies_between_two_tries_is_reported(reach):
    async with serving(table({("GET", "/shares"): [None]})) as hostile:
        with pytest.raises(ServerUnavailableError, match="Alice"):
            await reach(hostile.nurl).list_shares(IMMUTABLE, SI)
        await trio.lowlevel.checkpoint()
        assert len(hostile.asked) == 3
