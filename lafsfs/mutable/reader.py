"""The reading half of a mutable file: what is the newest version, and what does it hold.

The reader remembers the last map, which version was best there and, where the map read that far,
its contents and the encrypted private key. Asking whether that still holds takes one short read per
server; only when it does not is the slot mapped again. Contents are kept in a
:class:`~lafsfs.mutable.contents.ContentsCache`, which several files share.

Rules:

- Two looks at the grid may overlap; the one that began before the last publish is not remembered.
- What is returned was on the grid, verified, at some time after the call (less ``max_age``).
- A version that cannot be retrieved after all gives way to the next best, with a line in the log.
- A file of more than :data:`WHOLE_SIZE` bytes is read by segments, through the segment cache.
- When nobody can be asked for the version, what was read last is still readable as far as it is
  here.
- What we have published well is on the grid. Where only an older version is to be had while servers
  are away, that is neither shown nor built upon: what came after it would be lost. Where all
  servers have answered, the grid was rolled back, and goes on from there.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio

from lafsfs.caps import MutableWriteCap
from lafsfs.errors import NotEnoughSharesError
from lafsfs.grid.cpu import work_on
from lafsfs.grid.encoding import Encoding
from lafsfs.mutable.mapping import SlotView, map_slot
from lafsfs.mutable.retrieve import RetrieveFailedError, retrieve, retrieve_blocks
from lafsfs.mutable.revalidation import is_still_there
from lafsfs.mutable.segments import VersionSource
from lafsfs.mutable.servermap import Mode
from lafsfs.mutable.verify import SlotVerifier, cut, decrypted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lafsfs.cache.segments import Prefetch, Segment, SegmentCache
    from lafsfs.caps import MutableReadCap
    from lafsfs.grid.broker import Broker
    from lafsfs.grid.secrets import ClientSecrets
    from lafsfs.mutable.contents import ContentsCache
    from lafsfs.mutable.servermap import Place, ServerMap, Version
    from lafsfs.mutable.verify import VerifiedTrees

log = logging.getLogger(__name__)

WHOLE_SIZE = 1 << 20  # bytes of files that are fetched and kept whole: most directories
DECRYPTING_IS_FASTER = 8  # times than what the limit for working inline was measured with
READ_MAX_AGE = 1.0  # seconds for which consecutive reads of a part trust one look at the grid


class SlotReader:
    """Reads one slot. ``encoding`` says what to expect of it before the first look."""

    def __init__(
        self,
        cap: MutableWriteCap | MutableReadCap,
        broker: Broker,
        secrets: ClientSecrets,
        encoding: Encoding,
        cache: ContentsCache,
        segments: SegmentCache | None = None,
    ) -> None:
        self.cap = cap
        self.storage_index = cap.storage_index
        self.latest: Version | None = None
        self.highest_seen = 0
        self.promised = 0  # sequence number of our last good publish, while it is there
        self.generation = 0  # counts our publishes: before and after each
        self.alleged_private_key: bytes | None = None  # encrypted, as some share had it
        self._read_key = cap.read_key
        self._verifier = SlotVerifier(cap.fingerprint)
        self._advised: set[tuple[Place, str]] = set()
        self._broker = broker
        self._secrets = secrets
        self._encoding = encoding
        self._cache = cache
        self._segments = segments
        self._told_of: tuple[int, int] | None = None  # what is to be had, what was seen
        self._shown: Version | None = None  # what was read last
        self._source: VersionSource | None = None  # of what is read by segments
        self._map: ServerMap | None = None
        self._seen_at = float("-inf")
        self._fetching = trio.Lock()

    def view(self) -> SlotView:
        """The slot with the servers as they are now."""
        cap, slot, index = self.cap, self._secrets.slot, self.storage_index
        secrets = partial(slot, cap.write_key, index) if isinstance(cap, MutableWriteCap) else None
        return SlotView(
            storage_index=index,
            servers=self._broker.servers_for(index),
            broker=self._broker,
            verifier=self._verifier,
            advised=self._advised,
            secrets=secrets,
        )

    # --- maps -------------------------------------------------------------------------------------

    async def look(self, mode: Mode) -> ServerMap:
        """Map the slot, and remember what there is."""
        generation = self.generation
        servermap = await map_slot(
            self.view(),
            mode,
            encoding=self._expected(),
            highest_seen=self.highest_seen,
            head_size=self._head_size(),
        )
        self.highest_seen = max(self.highest_seen, servermap.highest_seqnum())
        best = servermap.best()
        if best is not None and best.seqnum < self.highest_seen:
            self._tell_of_newer(best.seqnum)
        if generation == self.generation:
            self.remember(servermap)
            if best is not None and len(servermap.answered) == len(self.view().servers):
                self.promised = min(self.promised, best.seqnum)
        if best is not None and _in_heads(servermap, best):
            with suppress(NotEnoughSharesError):  # whoever needs the contents will look harder
                await self.contents(servermap)
        return servermap

    def _tell_of_newer(self, seqnum: int) -> None:
        """Say, once, that something newer than the newest version to be had may be somewhere."""
        newer = (seqnum, self.highest_seen)
        if newer != self._told_of:
            self._told_of = newer
            log.warning(
                "version %d is the newest to be had, but %d was seen, or begun before a crash:"
                " servers that hold it may be away",
                *newer,
            )

    def remember(self, servermap: ServerMap) -> None:
        """Take a map for the present state of things."""
        best = servermap.best()
        if self.latest is not None and best != self.latest:
            self._cache.drop(self.storage_index, self.latest)
        self.latest = best
        self.highest_seen = max(self.highest_seen, servermap.highest_seqnum())
        self.alleged_private_key = self.alleged_private_key or private_key_in_heads(servermap)
        self._map = servermap.lighter()
        self._seen_at = trio.current_time()

    def forget(self) -> None:
        """Nothing is known any more: a publish is under way, or did not go well."""
        self.generation += 1
        self._map = None
        self._seen_at = float("-inf")

    @property
    def map(self) -> ServerMap | None:
        """The last map, however old."""
        return self._map

    def recent_map(self, max_age: float) -> ServerMap | None:
        """The last map, if it is younger than that many seconds."""
        return self._map if trio.current_time() - self._seen_at < max_age else None

    def missing(self, happy: int) -> dict[bytes, str]:
        """Servers that did not answer lately and can be done without, and that they did not."""
        servers = self._broker.servers_for(self.storage_index)
        away = [server for server in servers if self._broker.is_backing_off(server)]
        if len(servers) - len(away) < happy:
            return {}
        return {server.server_id: f"{server.name} did not answer lately" for server in away}

    def _expected(self) -> Encoding:
        if self.latest is None:
            return self._encoding
        k, n = self.latest.k, self.latest.n
        return Encoding(k, min(self._encoding.happy, n), n)

    def _head_size(self) -> int:
        """How much of each share a map should read, so that a retrieve finds it there."""
        if self._map is None or self.latest is None:
            return 0
        return max((s.header.sections.eof for s in self._map.shares_of(self.latest)), default=0)

    # --- versions ---------------------------------------------------------------------------------

    async def version(self, max_age: float = 0.0) -> Version:
        """The newest version, as of at most ``max_age`` seconds ago.

        Raises:
            NotEnoughSharesError: no version can be recovered.
        """
        if self.latest is not None and self.recent_map(max_age) is not None:
            return self.latest
        if self.latest is not None and await self.unchanged():
            return self.latest
        promised = self.promised  # what is promised while we look need not be seen
        servermap = await self.look(Mode.READ)
        best = servermap.best()
        if best is not None and best.seqnum < promised:
            servermap = await self.look(Mode.CHECK)
            best = servermap.best()
        if best is None:
            raise NotEnoughSharesError(f"no version can be read: {servermap.describe()}")
        self.require_promised(best, servermap, promised)
        return best

    def require_promised(
        self, version: Version, servermap: ServerMap, promised: int | None = None
    ) -> None:
        """See that a version is not older than what was promised, by default as of now.

        Raises:
            NotEnoughSharesError: it is, and there are servers that did not answer.
        """
        promised = self.promised if promised is None else min(promised, self.promised)
        if version.seqnum < promised:
            raise NotEnoughSharesError(
                f"version {promised}, which we published, cannot be recovered now: "
                + servermap.describe()
            )

    async def unchanged(self) -> bool:
        """Whether the servers that had the newest version all still have just that."""
        generation, servermap, latest = self.generation, self._map, self.latest
        if servermap is None or latest is None or latest.seqnum < self.highest_seen:
            return False
        if not await is_still_there(self.storage_index, servermap, latest, self._broker):
            return False
        if generation != self.generation:
            return False
        self._seen_at = trio.current_time()
        return True

    # --- contents ---------------------------------------------------------------------------------

    async def contents(self, servermap: ServerMap) -> tuple[ServerMap, Version, bytes]:
        """The best version of a map that can indeed be retrieved, whole.

        Returns the map without the shares that turned out bad, the version and its contents.

        Raises:
            NotEnoughSharesError: there is none.
        """
        while True:
            best = servermap.best()
            if best is None:
                raise NotEnoughSharesError(f"no version can be read: {servermap.describe()}")
            cached = self._cache.get(self.storage_index, best)
            if cached is not None:
                return servermap, best, cached
            try:
                found = await retrieve(self.view(), servermap, best, self._read_key)
            except RetrieveFailedError as error:
                if not error.bad:
                    raise
                log.warning("version %d cannot be retrieved: %s", best.seqnum, error)
                servermap = servermap.without(error.bad)
                continue
            self._cache.put(self.storage_index, best, found.plaintext)
            return servermap.without(found.bad), best, found.plaintext

    async def download(self, max_age: float = 0.0) -> tuple[Version, bytes]:
        """The newest version and its contents, whole.

        Raises:
            NotEnoughSharesError: no version can be retrieved.
        """
        async with self._fetching:
            version = await self.version(max_age)
            cached = self._cache.get(self.storage_index, version)
            if cached is not None:
                return version, cached
            servermap, promised = self._map, self.promised
            if servermap is not None:
                try:
                    return await self._newest_contents(servermap, promised)
                except NotEnoughSharesError as error:
                    log.info("looking again, everywhere: %s", error)
            return await self._newest_contents(await self.look(Mode.CHECK), promised)

    async def _newest_contents(self, servermap: ServerMap, promised: int) -> tuple[Version, bytes]:
        servermap, version, contents = await self.contents(servermap)
        self.require_promised(version, servermap, promised)
        return version, contents

    async def read(self, offset: int, size: int, max_age: float = READ_MAX_AGE) -> bytes:
        """Up to ``size`` bytes at ``offset`` of the newest version; fewer at its end.

        Bytes of one call are of one version.

        Raises:
            NotEnoughSharesError: no version can be retrieved.
        """
        version = await self._version_to_read(max_age)
        cached = self._cache.get(self.storage_index, version)
        if cached is None and version.data_length <= WHOLE_SIZE:
            _, cached = await self.download(max_age)
        if cached is not None:
            return cached[offset : offset + size]
        try:
            return await self._read_segments(version, offset, size)
        except NotEnoughSharesError as error:
            log.info("looking again, everywhere: %s", error)
        best = (await self.look(Mode.CHECK)).best()
        if best is not None:
            with suppress(NotEnoughSharesError):
                return await self._read_segments(best, offset, size)
        _, whole = await self.download()  # knows what to do about versions that are broken
        return whole[offset : offset + size]

    async def _version_to_read(self, max_age: float) -> Version:
        try:
            self._shown = await self.version(max_age)
        except NotEnoughSharesError as error:
            if self._shown is None:
                raise
            log.info("reading what was newest when it could be seen: %s", error)
        return self._shown

    def prefetch(self, offset: int, size: int) -> Prefetch | None:
        """Start to fetch a range that is likely to be read, if that is by segments. No waiting."""
        version, segments = self.latest, self._segments
        if segments is None or version is None or version.data_length <= WHOLE_SIZE:
            return None
        numbers = [piece.segment for piece in version.geometry.locate(offset, size)]
        if not numbers or self._cache.get(self.storage_index, version) is not None:
            return None
        return segments.prefetch(self._source_of(version), range(numbers[0], numbers[-1] + 1))

    async def _read_segments(self, version: Version, offset: int, size: int) -> bytes:
        source = self._source_of(version)
        parts: list[bytes] = []
        for piece in version.geometry.locate(offset, size):
            segment = await self._segment(source, piece.segment)
            parts.append(
                await work_on(
                    piece.length // DECRYPTING_IS_FASTER,
                    decrypted,
                    segment.ciphertext,
                    self._read_key,
                    piece.skip,
                    piece.length,
                )
            )
        return b"".join(parts)

    async def _segment(self, source: VersionSource, number: int) -> Segment:
        if self._segments is not None:
            return await self._segments.get(source, number)
        fetched: list[Segment] = []
        await source.fetch(source.geometry, range(number, number + 1), fetched.append)
        return fetched[0]

    def _source_of(self, version: Version) -> VersionSource:
        if self._source is None or self._source.version != version:
            self._source = VersionSource(self.storage_index, version, self._blocks)
        return self._source

    async def _blocks(
        self, version: Version, first: int, count: int, trees: VerifiedTrees
    ) -> Mapping[int, Sequence[bytes]]:
        """Verified blocks of a version, from the servers that had it when they were last asked."""
        if self._map is None:
            raise NotEnoughSharesError("the file is being written")
        servermap = self._map
        found = await retrieve_blocks(self.view(), servermap, version, first, count, trees)
        if found.bad and self._map is not None:
            self._map = self._map.without(found.bad)
        return found.blocks


def private_key_in_heads(servermap: ServerMap) -> bytes | None:
    """The encrypted private key, unverified, if the map read that far into any share."""
    for share in servermap.shares.values():
        span = share.header.sections.enc_privkey
        if span.end <= len(share.head):
            return cut(share.head, span)
    return None


def _in_heads(servermap: ServerMap, version: Version) -> bool:
    """Whether the map read enough of the version's shares to decode it without asking again."""
    whole = {share.shnum for share in servermap.shares_of(version) if share.whole}
    return len(whole) >= version.k
