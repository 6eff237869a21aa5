"""Putting an immutable file on the grid.

    key -> storage index -> places -> (read, encrypt, encode | send) by parts -> trees, UEB -> cap

Rules:

- Up to 55 bytes, the contents are the capability, and the grid is not asked.
- With a convergence secret the key is a hash of the contents, so that equal files are stored once
  among those who share the secret; that takes a second pass over the contents, but for what a
  steady source has hashed while it was written. Without, the key is random, drawn here or by the
  caller, and nothing converges.
- Memory: a few megabytes or segments, and what :mod:`lafsfs.immutable.shareholders` lets wait,
  however large the file. Some of it is on its way while more is encoded. Hash trees grow by 32
  bytes for each block.
- When an upload fails or is cancelled, no server is left with a reservation it could have been told
  about. Shares complete by then stay; they do no harm, and a later upload of the same finds them.
"""

from __future__ import annotations

import hmac
import logging
import os
from typing import TYPE_CHECKING

import trio

from lafsfs.caps import CHKCap, LiteralCap
from lafsfs.crypto.hashes import KEY_SIZE, chk_storage_index, convergence_key_hasher
from lafsfs.formats.geometry import CHKGeometry, div_ceil
from lafsfs.grid.asking import plain_errors
from lafsfs.grid.cpu import work_on
from lafsfs.immutable.encoder import Encoder, Endings
from lafsfs.immutable.placement import Job, find_places
from lafsfs.immutable.shareholders import Shareholders, StaleSharesError
from lafsfs.immutable.source import (
    BytesSource,
    Source,
    SourceChangedError,
    SteadySource,
    read_exactly,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from lafsfs.crypto.hashes import TaggedHasher
    from lafsfs.grid.broker import Broker
    from lafsfs.grid.encoding import Encoding
    from lafsfs.grid.secrets import ClientSecrets

PASS_SIZE = 4 << 20  # bytes read at once, and hashed at once, to find the key
LITERAL_LIMIT = 55  # bytes; what stock puts into the capability itself

log = logging.getLogger(__name__)


async def upload(
    source: Source,
    *,
    broker: Broker,
    secrets: ClientSecrets,
    encoding: Encoding,
    convergence: bytes | None,
    key: bytes | None = None,
    placed: Callable[[int], None] = lambda size: None,
) -> CHKCap | LiteralCap:
    """Store the contents of ``source``; the capability that reads them back.

    Args:
        convergence: the convergence secret, or None for a random key.
        key: 16 random bytes, used for these contents and no others, instead of drawing some; to
            be able to repeat an upload. Not with ``convergence``.
        placed: told, again and again, how many bytes from the beginning are on servers.

    Raises:
        NotHappyError: too few servers took shares (GridFullError: for want of room).
        SourceChangedError: the contents changed while they were being read.
        FileTooBigError: no share can hold this much.
    """
    if source.size <= LITERAL_LIMIT:
        return LiteralCap(await read_exactly(source, 0, source.size))
    geometry = CHKGeometry.plan(source.size, encoding.k, encoding.n, encoding.max_segment_size)
    if geometry.num_segments == 1:  # then one pass is enough: it is held in memory in any case
        source = BytesSource(await read_exactly(source, 0, source.size))
    check = None  # that the contents stay the same between two readings
    if convergence is not None:
        key = await _convergent_key(source, geometry, convergence)
        check = None if isinstance(source, SteadySource) else convergence
    if key is not None:
        upload = _Upload(source, key, geometry, broker, secrets, encoding, placed)
        try:
            return await upload.run(check)
        except StaleSharesError as error:
            log.warning("upload: another random key is used: %s", error)
    key = os.urandom(KEY_SIZE)
    return await _Upload(source, key, geometry, broker, secrets, encoding, placed).run(None)


def _key_hasher(geometry: CHKGeometry, convergence: bytes) -> TaggedHasher:
    return convergence_key_hasher(geometry.k, geometry.n, geometry.segment_size, convergence)


async def _convergent_key(source: Source, geometry: CHKGeometry, convergence: bytes) -> bytes:
    """The first pass: hash what was not hashed when written, each piece as the next is read."""
    hasher, at = _key_hasher(geometry, convergence), 0
    hashed = source.hashed if isinstance(source, SteadySource) else None
    parameters = (geometry.k, geometry.n, geometry.segment_size, convergence)
    if hashed is not None and hashed.parameters == parameters and hashed.length <= source.size:
        hasher, at = hashed.hasher.copy(), hashed.length
    data = b""

    async def hash_what_is_read(data: bytes) -> None:
        await work_on(len(data), hasher.update, data)

    for offset in range(at, source.size, PASS_SIZE):
        with plain_errors():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hash_what_is_read, data)
                size = min(PASS_SIZE, source.size - offset)
                data = await read_exactly(source, offset, size)
    await hash_what_is_read(data)
    return hasher.digest()


class _Upload:
    """One upload under one key."""

    def __init__(
        self,
        source: Source,
        key: bytes,
        geometry: CHKGeometry,
        broker: Broker,
        secrets: ClientSecrets,
        encoding: Encoding,
        placed: Callable[[int], None],
    ) -> None:
        self._source = source
        self._placed = placed
        self._key = key
        self._geometry = geometry
        self._encoder = Encoder(key, geometry)
        share_size = self._encoder.layout.share_size
        self._job = Job(broker, secrets, encoding, chk_storage_index(key), share_size)
        self._next_segment = 0
        self._told = 0  # bytes of the source that are on servers
        self._again: TaggedHasher | None = None

    async def run(self, convergence: bytes | None) -> CHKCap:
        """Do it. ``convergence``: what the key was made with, to notice contents that change."""
        if convergence is not None:
            self._again = _key_hasher(self._geometry, convergence)
        places = await find_places(self._job)
        holders = Shareholders(self._job, places, lambda: self._tell(holders))
        try:
            ueb_hash = await self._send_everything(holders)
        finally:
            await holders.abandon()
        geometry = self._geometry
        return CHKCap(self._key, ueb_hash, geometry.k, geometry.n, geometry.size)

    async def _send_everything(self, holders: Shareholders) -> bytes:
        holders.append([self._encoder.header()] * self._geometry.n)
        with plain_errors():
            async with trio.open_nursery() as nursery:
                while self._next_segment < self._geometry.num_segments:
                    await self._encode_next(holders)
                    if self._next_segment < self._geometry.num_segments:
                        await holders.send(nursery, due=True)
                endings = await self._end(holders, nursery)
                await holders.send(nursery)
        holders.require_happiness()
        tail_offset = self._encoder.layout.share_hash_chain.offset
        with plain_errors():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(holders.renew_leases)
                await holders.finish(tail_offset, endings.endings)
        self._placed(self._geometry.size)
        return endings.ueb_hash

    def _tell(self, holders: Shareholders) -> None:
        """Say how much is on servers, as if all shares were as far as they are on average."""
        geometry = self._geometry
        encoded = min(self._next_segment * geometry.segment_size, geometry.size)
        self._told = max(self._told, encoded - geometry.k * holders.unplaced)
        self._placed(self._told)

    async def _encode_next(self, holders: Shareholders) -> None:
        """Read and encode segments until some share has enough for a request or none are left."""
        geometry = self._geometry
        start = geometry.segment_offset(self._next_segment)
        count = max(1, div_ceil(holders.wanted, geometry.block_size))
        self._next_segment += count
        end = min(geometry.size, start + count * geometry.segment_size)
        plaintext = await read_exactly(self._source, start, end - start)
        expansion = geometry.n * (end - start) // geometry.k
        holders.append(await work_on(expansion, self._encode, plaintext))

    def _encode(self, plaintext: bytes) -> list[bytes]:
        if self._again is not None:
            self._again.update(plaintext)
        return self._encoder.encode(plaintext)

    async def _end(self, holders: Shareholders, nursery: trio.Nursery) -> Endings:
        """Append trees, chains and UEB, once the contents proved to be the same in both passes."""
        if self._again is not None and not hmac.compare_digest(self._again.digest(), self._key):
            raise SourceChangedError("what is being uploaded changed between its two readings")
        tree_size = self._geometry.hash_tree_size
        for shnum in range(self._geometry.n):
            holders.append_to(shnum, await work_on(64 * tree_size, self._encoder.trees, shnum))
            if holders.is_swollen:  # trees of many segments; small ones go with the last blocks
                await holders.send(nursery)
        endings = await work_on(0, self._encoder.finish)
        holders.append(endings.endings)
        return endings
