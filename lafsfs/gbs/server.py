"""A storage server reached over HTTPS (``http-storage-node-protocol.rst``).

Theory. Each verb of :class:`~lafsfs.grid.api.StorageServer` is one request, or a few. Requests
whose connection breaks are sent again (:mod:`lafsfs.gbs.client`). Two verbs care: a test-and-set
that writes, whose outcome is found out first (:mod:`lafsfs.gbs.outcome`), and the last write to a
share, which completes it, so that the repeated one finds no upload.

Rules:

- Statuses mean what the verb says; those that nothing allows are a ProtocolError.
- 401 has three meanings (swissnum, upload secret, write enabler). The swissnum is asked about
  separately before the others are blamed.
- An upload that a crash left is taken up again. A stock server answers its allocation with neither
  "have" nor "allocated" for 30 minutes; since upload secrets are derived and not random, the old
  upload can be aborted, and then allocated.
"""

from __future__ import annotations

import hmac
import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import trio
from cachetools import LRUCache

from lafsfs.errors import (
    BadWriteEnablerError,
    NoSuchShareError,
    NoSuchUploadError,
    ProtocolError,
    ServerError,
)
from lafsfs.gbs import messages, requests
from lafsfs.gbs.body import ConnectionLostError
from lafsfs.gbs.client import MAX_ATTEMPTS, PATIENCE, Client, all_of, maybe_in_thread
from lafsfs.gbs.connection import Reply
from lafsfs.gbs.outcome import Outcome, plan_look
from lafsfs.grid.api import Allocation, ShareKind, TestWriteResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lafsfs.gbs.nurl import Nurl
    from lafsfs.grid.api import (
        LeaseSecrets,
        Pieces,
        ReadVector,
        ServerVersion,
        SlotSecrets,
        TestWriteVectors,
    )

MAX_UPLOADS = 4096  # unfinished uploads remembered

log = logging.getLogger(__name__)


class GBSServer:
    """One storage server. Connects when it is needed; end it with :meth:`aclose`."""

    def __init__(
        self,
        nurls: Sequence[Nurl],
        *,
        server_id: bytes,
        permutation_seed: bytes | None = None,
        name: str | None = None,
        patience: float = PATIENCE,
        certified: bool = False,
    ) -> None:
        """A server whose id is known: from its announcement, or by ``learn_server_id``.

        Args:
            nurls: its addresses, the preferred one first; at least one.
            server_id: its 20-byte tub id.
            permutation_seed: as announced; None for a server that has announced none.
            name: for messages; None for its address.
            patience: seconds that a request which carries nothing may take.
            certified: whether its certificate must prove the id, which it only claims.
        """
        self.name = name or nurls[0].authority
        self.server_id = server_id
        self.permutation_seed = permutation_seed or server_id
        self._client = Client(self.name, nurls, patience, server_id if certified else None)
        # Uploads that this object has begun: (storage index, shnum) -> (secret, size).
        self._uploads: LRUCache[tuple[bytes, int], tuple[bytes, int]] = LRUCache(MAX_UPLOADS)

    def __repr__(self) -> str:
        return f"<GBSServer {self.name}>"

    @property
    def last_failure(self) -> str | None:
        """Why the server could not be reached last time, or None if it could."""
        return self._client.last_failure

    async def move(self, nurls: Sequence[Nurl]) -> None:
        """Go on at other addresses, as announced anew. Requests under way end where they are."""
        await self._client.move(nurls)

    async def aclose(self) -> None:
        """Close the connections. Later requests would open new ones."""
        await self._client.aclose()

    async def _raise_401(self, otherwise: ServerError) -> NoReturn:
        """Find out whether 401 was about the swissnum, and raise ``otherwise`` if it was not."""
        with suppress(ProtocolError):
            await self.version()
        raise otherwise

    # --- the server itself ------------------------------------------------------------------------

    async def version(self) -> ServerVersion:
        """See :class:`lafsfs.grid.api.StorageServer`."""
        reply = await self._client.ask(requests.version(), messages.MAX_VERSION_BODY)
        if reply.status != 200:
            self._client.refuse(reply, "a question for its version")
        return await self._client.parsed(reply, messages.parse_version)

    # --- reading ----------------------------------------------------------------------------------

    async def list_shares(self, kind: ShareKind, storage_index: bytes) -> frozenset[int]:
        """See :class:`lafsfs.grid.api.StorageServer`."""
        request = requests.list_shares(kind, storage_index)
        reply = await self._client.ask(request, messages.MAX_SHARES_BODY)
        if reply.status == 404:
            return frozenset()
        if reply.status == 500 and await self._trips_over_slot(kind, storage_index):
            return frozenset()
        if reply.status != 200:
            self._client.refuse(reply, "a question for shares")
        return await self._client.parsed(reply, messages.parse_shares)

    async def _trips_over_slot(self, kind: ShareKind, storage_index: bytes) -> bool:
        """Whether this is a stock server that was asked for immutable shares where a slot is."""
        if kind is ShareKind.MUTABLE:
            return False
        return bool(await self.list_shares(ShareKind.MUTABLE, storage_index))

    async def read_share(
        self, kind: ShareKind, storage_index: bytes, shnum: int, offset: int, size: int
    ) -> bytes:
        """See :class:`lafsfs.grid.api.StorageServer`."""
        if size <= 0:
            await trio.lowlevel.checkpoint()
            return b""
        request = requests.read_share(kind, storage_index, shnum, offset, size)
        reply = await self._client.ask(request, size, carries=size)
        if reply.status in (204, 404):
            return b""
        if reply.status != 206:
            self._client.refuse(reply, "reading a share")
        try:
            messages.check_range(reply.header(b"content-range"), offset, size, len(reply.body))
        except ProtocolError as error:
            raise ProtocolError(f"{self.name}: {error}") from None
        return reply.body

    # --- immutable shares -------------------------------------------------------------------------

    async def allocate(
        self,
        storage_index: bytes,
        shnums: frozenset[int],
        size: int,
        upload_secret: bytes,
        lease: LeaseSecrets,
    ) -> Allocation:
        """See :class:`lafsfs.grid.api.StorageServer`."""
        allocate = partial(
            self._allocate, storage_index, size=size, upload_secret=upload_secret, lease=lease
        )
        first = await allocate(shnums)
        missing = shnums - first.already_have - first.allocated
        found = {n for n in missing if self._has_begun(storage_index, n, upload_secret, size)}
        left_over = await self._abort_left_over(storage_index, missing - found, upload_secret)
        second = await allocate(left_over) if left_over else Allocation(frozenset(), frozenset())
        allocated = first.allocated | found | second.allocated
        for shnum in allocated:
            self._uploads[storage_index, shnum] = (upload_secret, size)
        return Allocation(first.already_have | second.already_have, allocated)

    def _has_begun(self, storage_index: bytes, shnum: int, secret: bytes, size: int) -> bool:
        """Whether this object is in the middle of that very upload."""
        upload = self._uploads.get((storage_index, shnum))
        return upload is not None and upload[1] == size and hmac.compare_digest(upload[0], secret)

    async def _allocate(
        self,
        storage_index: bytes,
        shnums: frozenset[int],
        *,
        size: int,
        upload_secret: bytes,
        lease: LeaseSecrets,
    ) -> Allocation:
        """One allocation, as the server sees it. Without effect if repeated."""
        request = requests.allocate(storage_index, shnums, size, upload_secret, lease)
        reply = await self._client.ask(request, messages.MAX_SHARES_BODY)
        if reply.status == 507:
            return Allocation(frozenset(), frozenset())
        if reply.status != 200:
            self._client.refuse(reply, "an allocation")
        answer = await self._client.parsed(reply, messages.parse_allocation)
        return Allocation(answer.already_have, answer.allocated & shnums)

    async def _abort_left_over(
        self, storage_index: bytes, shnums: frozenset[int] | set[int], upload_secret: bytes
    ) -> frozenset[int]:
        """Abort what an earlier life of this client has begun; returns what there was of it."""
        aborted: set[int] = set()

        async def abort(shnum: int) -> None:
            reply = await self._abort(storage_index, shnum, upload_secret)
            if reply.status == 200:
                aborted.add(shnum)

        await all_of([partial(abort, shnum) for shnum in sorted(shnums)])
        return frozenset(aborted)

    async def write_share(
        self,
        storage_index: bytes,
        shnum: int,
        upload_secret: bytes,
        offset: int,
        data: bytes | Pieces,
    ) -> bool:
        """See :class:`lafsfs.grid.api.StorageServer`. One request, however much it is."""
        pieces = (data,) if isinstance(data, bytes) else data
        if not any(pieces):
            await trio.lowlevel.checkpoint()
            return False
        complete = await self._patch(storage_index, shnum, upload_secret, offset, pieces)
        if complete:
            self._uploads.pop((storage_index, shnum), None)
        return complete

    async def _patch(
        self, storage_index: bytes, shnum: int, upload_secret: bytes, offset: int, data: Pieces
    ) -> bool:
        request = requests.write_share(storage_index, shnum, upload_secret, offset, data)
        try:
            reply = await self._client.ask(request, messages.MAX_WRITE_BODY, attempts=1)
            repeated = False
        except ConnectionLostError:
            reply = await self._client.ask(request, messages.MAX_WRITE_BODY)
            repeated = True
        if reply.status in (200, 201):
            return reply.status == 201
        if reply.status in (401, 404, 405):
            if repeated and shnum in await self.list_shares(ShareKind.IMMUTABLE, storage_index):
                return True  # it was complete by what got lost on the way back
            self._uploads.pop((storage_index, shnum), None)
            gone = NoSuchUploadError(f"{self.name} has no such upload of share {shnum}")
            if reply.status == 401:
                await self._raise_401(gone)
            raise gone
        if reply.status == 409:
            raise ProtocolError(
                f"{self.name} was sent other bytes for the same range of share {shnum} before "
                "(409): the upload must be aborted and begun again"
            )
        self._client.refuse(reply, "writing a share")

    async def abort_share(self, storage_index: bytes, shnum: int, upload_secret: bytes) -> None:
        """See :class:`lafsfs.grid.api.StorageServer`."""
        reply = await self._abort(storage_index, shnum, upload_secret)
        self._uploads.pop((storage_index, shnum), None)
        if reply.status == 200:
            return
        gone = NoSuchUploadError(f"{self.name} has no such upload of share {shnum}")
        if reply.status == 401:
            await self._raise_401(gone)
        if reply.status in (404, 405):
            raise gone
        self._client.refuse(reply, "aborting an upload")

    async def _abort(self, storage_index: bytes, shnum: int, upload_secret: bytes) -> Reply:
        """An abort's reply. One that was lost on its way back is 404 when repeated."""
        request = requests.abort_share(storage_index, shnum, upload_secret)
        try:
            return await self._client.ask(request, messages.MAX_ERROR_BODY, attempts=1)
        except ConnectionLostError:
            reply = await self._client.ask(request, messages.MAX_ERROR_BODY)
            return Reply(200, (), b"") if reply.status == 404 else reply

    # --- mutable slots ----------------------------------------------------------------------------

    async def read_test_write(
        self,
        storage_index: bytes,
        secrets: SlotSecrets,
        vectors: Mapping[int, TestWriteVectors],
        reads: Sequence[ReadVector],
    ) -> TestWriteResult:
        """See :class:`lafsfs.grid.api.StorageServer`."""
        send = partial(self._read_test_write, storage_index, secrets)
        if not any(vector.writes or vector.new_length is not None for vector in vectors.values()):
            return await send(vectors, reads, attempts=MAX_ATTEMPTS)
        look = plan_look(vectors, reads)
        for attempt in range(MAX_ATTEMPTS):
            try:
                result = await send(vectors, reads, attempts=1)
            except ConnectionLostError as error:
                lost = error
            else:
                if result.success or attempt == 0:
                    return result
            seen = await send({}, look.reads, attempts=MAX_ATTEMPTS)
            outcome = look.judge(seen.reads)
            log.info("%s: an answer was lost; the write is %s", self.name, outcome.value)
            if outcome is not Outcome.UNDONE:
                return look.result(outcome, seen.reads)
        raise lost

    async def _read_test_write(
        self,
        storage_index: bytes,
        secrets: SlotSecrets,
        vectors: Mapping[int, TestWriteVectors],
        reads: Sequence[ReadVector],
        *,
        attempts: int,
    ) -> TestWriteResult:
        size = sum(len(w.data) for vector in vectors.values() for w in vector.writes)
        body = await maybe_in_thread(size, partial(messages.pack_test_write, vectors, reads))
        request = requests.read_test_write(storage_index, secrets, body)
        limit = messages.test_write_limit(reads)
        carries = 10 * sum(read.size for read in reads)  # more shares than that are rare
        reply = await self._client.ask(request, limit, carries=carries, attempts=attempts)
        if reply.status == 401:
            await self._raise_401(
                BadWriteEnablerError(
                    f"{self.name}: the slot was made with another write enabler (401): another "
                    "write key, or the server has another id than it had then"
                )
            )
        if reply.status != 200:
            self._client.refuse(reply, "a test-and-set")
        return await self._client.parsed(reply, partial(messages.parse_test_write, reads=reads))

    # --- leases and complaints --------------------------------------------------------------------

    async def add_lease(self, storage_index: bytes, lease: LeaseSecrets) -> None:
        """See :class:`lafsfs.grid.api.StorageServer`."""
        request = requests.add_lease(storage_index, lease)
        reply = await self._client.ask(request, messages.MAX_ERROR_BODY)
        if reply.status == 404:
            raise NoSuchShareError(f"{self.name} holds nothing under this storage index")
        if reply.status not in (200, 204):
            self._client.refuse(reply, "a lease")

    async def advise_corrupt_share(
        self, kind: ShareKind, storage_index: bytes, shnum: int, reason: str
    ) -> None:
        """See :class:`lafsfs.grid.api.StorageServer`."""
        request = requests.advise_corrupt_share(kind, storage_index, shnum, reason)
        reply = await self._client.ask(request, messages.MAX_ERROR_BODY)
        if reply.status not in (200, 204, 404):
            self._client.refuse(reply, "a complaint")
