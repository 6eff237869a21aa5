"""What each method on each path does (``http-storage-node-protocol.rst``, "Server Details").

Theory. An endpoint reads a request's body, asks the storage directory, and gives a reply. Who calls
has shown the swissnum and exactly the secrets that the endpoint wants.

Rules, where the specification is silent or stock 1.20 does otherwise than it says:

- An abort of an upload that is unknown is 404, of a finished share 405, with a wrong secret 401.
- A range is clipped at the share's end; one that begins past it is 204.
- Listing shares of the kind that is not there gives none.
- An allocation that finds no room, or a read-only directory, allocates nothing.
- Bodies where none is wanted are refused.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import trio

from lafsfs.errors import NoSuchUploadError, ServerReadOnlyError
from lafsfs.gbs.service import bodies
from lafsfs.gbs.service.exchange import Reply, Source
from lafsfs.gbs.service.headers import (
    CBOR,
    Secret,
    accepts_cbor,
    is_cbor,
    parse_content_range,
    parse_range,
)
from lafsfs.gbs.service.limits import (
    MAX_ALLOCATE_BODY,
    MAX_REASON_BODY,
    MAX_SHARES,
    PIECE,
    THREAD_SIZE,
)
from lafsfs.gbs.service.refusal import Refusal
from lafsfs.gbs.service.spool import Spool
from lafsfs.grid.api import Allocation, LeaseSecrets, ShareKind, SlotSecrets
from lafsfs.grid.uploads import WrongUploadSecretError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from lafsfs.gbs.service.bodies import TestWriteRequest
    from lafsfs.gbs.service.budget import Budget
    from lafsfs.gbs.service.exchange import Exchange
    from lafsfs.gbs.service.limits import Limits
    from lafsfs.grid.local import LocalServer

T = TypeVar("T")

_WRONG_LENGTH = "the body is not as long as Content-Range says"
OCTETS = ("Content-Type", "application/octet-stream")


@dataclass(frozen=True, slots=True)
class Storage:
    """What endpoints work on."""

    server: LocalServer
    directory: Path  # where large requests and answers wait
    limits: Limits
    requests: Budget  # memory of test-and-writes that are carried out,
    replies: Budget  # and of their answers


@dataclass(frozen=True, slots=True)
class Call:
    """One request whose sender is authorized. Which of the fields mean something depends on the
    path."""

    exchange: Exchange
    secrets: Mapping[Secret, bytes] = field(repr=False)
    kind: ShareKind
    storage_index: bytes
    shnum: int

    @property
    def lease(self) -> LeaseSecrets:
        """The lease secrets."""
        return LeaseSecrets(self.secrets[Secret.LEASE_RENEW], self.secrets[Secret.LEASE_CANCEL])


# --- what endpoints share -------------------------------------------------------------------------


def _encoded(body: bytes, status: int = 200) -> Reply:
    return Reply(status, (("Content-Type", CBOR),), body)


def _check_accepts(call: Call) -> None:
    if not accepts_cbor(call.exchange.headers(b"accept")):
        raise Refusal(406, f"only {CBOR} is spoken here")


def _check_encoding(call: Call) -> None:
    if not is_cbor(call.exchange.header(b"content-type")):
        raise Refusal(415, f"only {CBOR} is understood here")


async def _check_empty(call: Call) -> None:
    await call.exchange.body(limit=0)


async def _in_thread_if(size: int, work: Callable[[], T]) -> T:
    """Run pure work, in a thread if there is much of it."""
    if size < THREAD_SIZE:
        return work()
    return await trio.to_thread.run_sync(work)


# --- the server itself ----------------------------------------------------------------------------


async def version(storage: Storage, call: Call) -> Reply:
    """``GET version``."""
    _check_accepts(call)
    await _check_empty(call)
    return _encoded(bodies.pack_version(await storage.server.version()))


async def lease(storage: Storage, call: Call) -> Reply:
    """``PUT lease/:storage_index``."""
    await _check_empty(call)
    await storage.server.add_lease(call.storage_index, call.lease)
    return Reply(204)


# --- shares of either kind ------------------------------------------------------------------------


async def list_shares(storage: Storage, call: Call) -> Reply:
    """``GET {kind}/:storage_index/shares``."""
    _check_accepts(call)
    await _check_empty(call)
    shnums = await storage.server.list_shares(call.kind, call.storage_index)
    return _encoded(bodies.pack_shares(sorted(shnums)[:MAX_SHARES]))


async def read_share(storage: Storage, call: Call) -> Reply:
    """``GET {kind}/:storage_index/:share_number``: one closed range, or all of it."""
    wanted = call.exchange.headers(b"range")
    asked = parse_range(call.exchange.header(b"range")) if wanted else None
    await _check_empty(call)
    share = await storage.server.open_share(call.kind, call.storage_index, call.shnum)
    if share is None:
        raise Refusal(404, "no such share")
    start, stop = asked or (0, share.size)
    stop = min(stop, share.size)
    if asked is None:
        return Reply(200, (OCTETS,), source=Source(share.read, start, stop - start))
    if start >= stop:
        return Reply(204, (OCTETS,))
    content_range = ("Content-Range", f"bytes {start}-{stop - 1}/{share.size}")
    return Reply(206, (OCTETS, content_range), source=Source(share.read, start, stop - start))


async def corrupt(storage: Storage, call: Call) -> Reply:
    """``POST {kind}/:storage_index/:share_number/corrupt``."""
    _check_encoding(call)
    reason = bodies.parse_reason(await call.exchange.body(MAX_REASON_BODY))
    if call.shnum not in await storage.server.list_shares(call.kind, call.storage_index):
        raise Refusal(404, "no such share")
    await storage.server.advise_corrupt_share(call.kind, call.storage_index, call.shnum, reason)
    return Reply(200)


# --- immutable shares -----------------------------------------------------------------------------


async def allocate(storage: Storage, call: Call) -> Reply:
    """``POST immutable/:storage_index``."""
    _check_accepts(call)
    _check_encoding(call)
    wanted = bodies.parse_allocate(await call.exchange.body(MAX_ALLOCATE_BODY))
    server, index = storage.server, call.storage_index
    try:
        allocation = await server.allocate(
            index, wanted.shnums, wanted.size, call.secrets[Secret.UPLOAD], call.lease
        )
    except ServerReadOnlyError:
        held = await server.list_shares(ShareKind.IMMUTABLE, index)
        allocation = Allocation(held, frozenset())
    return _encoded(bodies.pack_allocation(allocation))


async def write_share(storage: Storage, call: Call) -> Reply:
    """``PATCH immutable/:storage_index/:share_number``: written as it arrives, piece by piece."""
    _check_accepts(call)
    start, stop = parse_content_range(call.exchange.header(b"content-range"))
    _check_length(call, stop - start)
    missing: list[tuple[int, int]] = []
    for at in range(start, stop, PIECE):
        size = min(PIECE, stop - at)
        data = await call.exchange.read(size)
        if len(data) < size:
            raise Refusal(400, _WRONG_LENGTH)
        missing = await storage.server.write_range(
            call.storage_index, call.shnum, call.secrets[Secret.UPLOAD], at, data
        )
    return _encoded(bodies.pack_required(missing), 200 if missing else 201)


def _check_length(call: Call, size: int) -> None:
    """A body of a declared length must be as long as the range; one in chunks may end later."""
    length = call.exchange.header(b"content-length")
    if length and int(length) != size:
        raise Refusal(400, _WRONG_LENGTH)


async def abort(storage: Storage, call: Call) -> Reply:
    """``PUT immutable/:storage_index/:share_number/abort``."""
    await _check_empty(call)
    server, index, shnum = storage.server, call.storage_index, call.shnum
    try:
        await server.abort_share(index, shnum, call.secrets[Secret.UPLOAD])
    except WrongUploadSecretError:
        raise
    except NoSuchUploadError:
        if shnum in await server.list_shares(ShareKind.IMMUTABLE, index):
            raise Refusal(405, "the share is complete") from None
        raise
    return Reply(200)


# --- mutable slots --------------------------------------------------------------------------------


async def read_test_write(storage: Storage, call: Call) -> Reply:
    """``POST mutable/:storage_index/read-test-write``."""
    _check_accepts(call)
    _check_encoding(call)
    request = Spool(storage.directory)
    while piece := await call.exchange.read(PIECE):
        await request.write(piece)
        if request.size > storage.limits.slot_body:
            raise Refusal(413, f"at most {storage.limits.slot_body} bytes are taken here")
    async with storage.requests.reserved(2 * request.size):
        body = await request.contents()
        asked = await _in_thread_if(len(body), functools.partial(bodies.parse_test_write, body))
        most = MAX_SHARES * sum(read.size for read in asked.reads)
        most = min(most, storage.limits.slot_reply)
        async with storage.replies.reserved(2 * most):
            return await _carry_out(storage, call, asked, most)


async def _carry_out(storage: Storage, call: Call, asked: TestWriteRequest, max_read: int) -> Reply:
    secrets = SlotSecrets(call.secrets[Secret.WRITE_ENABLER], call.lease)
    result = await storage.server.read_test_write(
        call.storage_index, secrets, asked.vectors, asked.reads, max_read=max_read
    )
    size = sum(len(data) for share in result.reads.values() for data in share)
    body = await _in_thread_if(size, functools.partial(bodies.pack_test_write, result))
    if len(body) <= PIECE:
        return _encoded(body)
    answer = Spool(storage.directory)
    await answer.write(body)
    return Reply(200, (("Content-Type", CBOR),), source=Source(answer.read, 0, answer.size))
