"""A mutable file: read what is newest, and replace it by ``modify()``.

    map (WRITE) -> retrieve the best version -> modifier -> encode -> publish
        ^                                                         |
        +---------- back off <- somebody else wrote <-------------+

Rules:

- One object per storage index and process; its writes take turns.
- A publish that went well leaves a map as good as a fresh one. A ``modify()`` soon after starts
  from it and costs one call per server; whatever somebody else did meanwhile makes a test-and-set
  fail, and then it maps anew.
- A modifier is pure and recognises its own work: it is called again on what others wrote, and on
  contents where an earlier try of ours half landed.
- "Nothing to do" is believed only of contents just seen on the grid, not of remembered ones, and
  not while a newer version may be there. A publish that failed may have left its version, whole
  even, on a server that does not answer now, and whoever reads when it is back would see that. So
  the contents are published again, by this call or a later one, until a publish has gone well or
  all shares of the version begun last are seen.
- A new version's sequence number is one above the highest that this object or the map ever saw.
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, TypeAlias

import trio

from lafsfs.caps import MutableWriteCap
from lafsfs.crypto.rsa import generate_keypair
from lafsfs.errors import (
    NotEnoughSharesError,
    NotHappyError,
    ReadOnlyCapabilityError,
    UncoordinatedWriteError,
)
from lafsfs.grid.encoding import Encoding
from lafsfs.mutable.contents import ContentsCache
from lafsfs.mutable.encode import SlotKeys, encode_version
from lafsfs.mutable.loading import load_keys
from lafsfs.mutable.publish import CollisionError, map_after, publish, verdict
from lafsfs.mutable.reader import READ_MAX_AGE, SlotReader
from lafsfs.mutable.retrieve import INLINE_SIZE, in_thread_if
from lafsfs.mutable.servermap import Mode, ServerMap

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lafsfs.cache.segments import Prefetch, SegmentCache
    from lafsfs.caps import MutableFormat, MutableReadCap
    from lafsfs.crypto.rsa import SigningKey
    from lafsfs.grid.broker import Broker
    from lafsfs.grid.secrets import ClientSecrets
    from lafsfs.mutable.encode import EncodedVersion
    from lafsfs.mutable.servermap import Version

    _Renew: TypeAlias = Callable[[ServerMap], Awaitable[tuple[ServerMap, bytes, bytes | None]]]

Before: TypeAlias = "Callable[[int], Awaitable[None]]"  # a publish: takes the sequence number

log = logging.getLogger(__name__)

TRIES = 6  # publishes of one modify(), before another writer is let have it
FIRST_BACK_OFF = 0.25  # seconds, on average; doubles with every collision
MAP_MAX_AGE = 60.0  # seconds for which a settled map is good enough to publish from


class MutableFile:
    """One mutable file, SDMF or MDMF, through a write or a read capability."""

    def __init__(
        self,
        cap: MutableWriteCap | MutableReadCap,
        broker: Broker,
        secrets: ClientSecrets,
        *,
        encoding: Encoding | None = None,
        cache: ContentsCache | None = None,
        segments: SegmentCache | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Nothing is asked of the grid before the first method is called.

        Args:
            encoding: happiness, and k and n to expect before the first look; publishes keep the
                encoding that the file has.
            cache: where contents are kept, shared between files.
            segments: where segments of large files are, shared with all other files.
            jitter: gives numbers in [0, 1) that spread the retries of competing writers.
        """
        self._encoding = encoding or Encoding.for_servers(len(broker.servers))
        self._cache = cache or ContentsCache()
        self._jitter = jitter
        self._reader = SlotReader(cap, broker, secrets, self._encoding, self._cache, segments)
        self._keys: SlotKeys | None = None
        self._is_doubtful = False  # a publish failed, and may have landed in part
        self._writing = trio.Lock()

    def __repr__(self) -> str:
        return f"<MutableFile {self.cap!r}>"

    @property
    def cap(self) -> MutableWriteCap | MutableReadCap:
        """The capability this object was made with."""
        return self._reader.cap

    @property
    def storage_index(self) -> bytes:
        """The 16 bytes under which servers keep the slot."""
        return self._reader.storage_index

    @property
    def latest(self) -> Version | None:
        """The newest version known without asking: what was last read or published."""
        return self._reader.latest

    @property
    def latest_map(self) -> ServerMap | None:
        """Where its shares were when we last looked; None while a publish is under way."""
        return self._reader.map

    @property
    def is_lost(self) -> bool:
        """Whether all servers have answered when we last looked, and nothing can be recovered."""
        servermap = self._reader.map
        if servermap is None or servermap.best() is not None:
            return False
        return len(servermap.answered) == len(self._reader.view().servers) > 0

    def explanation(self) -> str:
        """What was found when we last looked, in words; empty if we never did."""
        return "" if self._reader.map is None else self._reader.map.describe()

    # --- reading ----------------------------------------------------------------------------------

    async def servermap(self, mode: Mode) -> ServerMap:
        """Look around the grid now."""
        return await self._reader.look(mode)

    async def version(self, max_age: float = 0.0) -> Version:
        """The newest version, known for at most ``max_age`` seconds.

        Costs one short read per server while the file has not changed. Versions that are equal
        have equal contents.

        Raises:
            NotEnoughSharesError: no version can be recovered.
        """
        return await self._reader.version(max_age)

    async def size(self) -> int:
        """Bytes of the newest version's contents. Raises NotEnoughSharesError."""
        return (await self.version(READ_MAX_AGE)).data_length

    async def download_best(self) -> bytes:
        """The newest version's contents, whole. Raises NotEnoughSharesError."""
        return (await self.download())[1]

    async def download(self, max_age: float = 0.0) -> tuple[Version, bytes]:
        """The newest version (known for at most ``max_age`` seconds) and its contents.

        Raises:
            NotEnoughSharesError: no version can be retrieved.
        """
        return await self._reader.download(max_age)

    async def read(self, offset: int, size: int, max_age: float = READ_MAX_AGE) -> bytes:
        """Up to ``size`` bytes at ``offset``, fewer at the end, all of one version.

        Of a large MDMF file only the segments concerned are fetched. Raises NotEnoughSharesError.
        """
        return await self._reader.read(offset, size, max_age)

    def prefetch(self, offset: int, size: int) -> Prefetch | None:
        """Start to fetch a range that is likely to be read; ``None`` if nothing is to be done.

        Returns at once. The fetch goes on until it is done or ``cancel()`` is called.
        """
        return self._reader.prefetch(offset, size)

    # --- writing ----------------------------------------------------------------------------------

    def begun(self, seqnum: int) -> None:
        """An earlier process began to publish versions up to this one, of which nothing is known:
        they may turn up."""
        self._reader.highest_seen = max(self._reader.highest_seen, seqnum)
        self._is_doubtful = True

    async def modify(
        self, modifier: Callable[[bytes], bytes | None], before: Before | None = None
    ) -> bytes:
        """Replace the contents by what ``modifier`` makes of them; returns what is there then.

        The modifier is pure, may be called several times and from a thread, and returns None (or
        its argument) to change nothing. ``before`` is awaited with a version's sequence number
        before any of it is written: whoever writes that down can tell :meth:`begun` after a crash.

        Raises:
            ReadOnlyCapabilityError: the capability only reads.
            NotEnoughSharesError: no version can be retrieved, or no share has the private key.
            NotHappyError: too few servers take shares.
            UncoordinatedWriteError: others kept writing.
        """

        async def renew(servermap: ServerMap) -> tuple[ServerMap, bytes, bytes | None]:
            servermap, version, old = await self._reader.contents(servermap)
            self._reader.require_promised(version, servermap)
            new = await in_thread_if(len(old) > INLINE_SIZE, lambda: modifier(old))
            return servermap, old, new

        return await self._write(renew, before)

    async def overwrite(self, contents: bytes) -> None:
        """Replace the contents, whatever they are now, even if they cannot be retrieved.

        Raises what :meth:`modify` raises.
        """

        async def renew(servermap: ServerMap) -> tuple[ServerMap, bytes, bytes | None]:
            return servermap, b"", contents

        await self._write(renew, always=True)

    async def publish_first(
        self, keys: SlotKeys, contents: bytes, *, replay: bool, before: Before | None = None
    ) -> None:
        """Publish into a slot that is empty, and meant to be ours alone. See :func:`create`."""
        self._keys = keys
        nothing = ServerMap(Mode.WRITE, failed=self._reader.missing(self._encoding.happy))
        try:
            async with self._writing:
                await self._publish(contents, nothing, before)
        except UncoordinatedWriteError:
            if not replay:
                raise
            servermap = await self._reader.look(Mode.CHECK)
            if servermap.best() is None:
                await self.overwrite(contents)
            elif not servermap.settled():
                await self._write(self._same_again, before, always=True)

    async def upload(self, contents: bytes, servermap: ServerMap) -> None:
        """Publish contents if the grid is still as this map (of mode WRITE or CHECK) shows it.

        Raises:
            UncoordinatedWriteError: it is not; nothing is tried again.
            NotHappyError, NotEnoughSharesError, ReadOnlyCapabilityError: as :meth:`modify`.
        """
        if servermap.mode not in (Mode.WRITE, Mode.CHECK):
            raise ValueError("a map to publish from must be made in mode WRITE or CHECK")
        async with self._writing:
            await self._publish(contents, servermap)

    async def _same_again(self, servermap: ServerMap) -> tuple[ServerMap, bytes, bytes | None]:
        servermap, _, contents = await self._reader.contents(servermap)
        return servermap, contents, contents

    async def _write(
        self, renew: _Renew, before: Before | None = None, *, always: bool = False
    ) -> bytes:
        """Map, renew and publish until nobody interferes. ``always``: even what is the same."""
        self._require_write_cap()
        async with self._writing:
            servermap = self._settled_map()
            seen_now = servermap is None  # or else remembered
            everywhere = False  # look at every server there is
            trouble: UncoordinatedWriteError | None = None
            for attempt in range(TRIES):
                if servermap is None:
                    seen_now = True
                    servermap = await self._reader.look(Mode.CHECK if everywhere else Mode.WRITE)
                try:
                    servermap, old, new = await renew(servermap)
                except NotEnoughSharesError:
                    if everywhere:
                        raise
                    servermap, everywhere = None, True
                    continue
                if not always and new in (None, old) and self._is_all_there_is(servermap):
                    if seen_now or await self._reader.unchanged():
                        return old
                    servermap = None
                    continue
                contents = old if new is None else new
                try:
                    await self._publish(contents, servermap, before)
                except CollisionError as error:
                    log.info("publish: %s", error)
                    trouble = error
                else:
                    return contents
                servermap, everywhere = None, True
                if seen_now or self._is_doubtful:
                    await trio.sleep(FIRST_BACK_OFF * 2**attempt * (0.5 + self._jitter()))
            raise UncoordinatedWriteError(f"others kept writing, through {TRIES} tries: {trouble}")

    async def _publish(
        self, contents: bytes, servermap: ServerMap, before: Before | None = None
    ) -> None:
        """One publish: encode, write, judge, and remember what is where now."""
        self._require_write_cap()
        old = servermap.best() or servermap.newest() or self._reader.latest
        k, n = (self._encoding.k, self._encoding.n) if old is None else (old.k, old.n)
        happy = min(self._encoding.happy, n)
        view = self._reader.view()
        living = sum(server.server_id not in servermap.failed for server in view.servers)
        if living < happy:
            raise NotHappyError(
                f"{living} servers can be reached of the {happy} that a write needs: "
                + "; ".join(servermap.failed.values())
            )
        keys = await self._load_keys(servermap)
        seqnum = max(servermap.highest_seqnum(), self._reader.highest_seen) + 1

        def encode() -> EncodedVersion:
            return encode_version(contents, self.cap.format, k, n, seqnum, keys)

        encoded = await in_thread_if(len(contents) * n > INLINE_SIZE * k, encode)
        if before is not None:
            await before(seqnum)
        self._reader.forget()
        self._reader.highest_seen = max(self._reader.highest_seen, seqnum)
        was_doubtful, self._is_doubtful = self._is_doubtful, True
        try:
            outcome = await publish(view, encoded, servermap, happy)
            self._is_doubtful = was_doubtful or outcome.landed
            verdict(outcome)
            self._is_doubtful = False
        finally:
            self._reader.forget()
        self._cache.put(self.storage_index, encoded.version, contents)
        self._reader.remember(map_after(outcome, encoded, servermap))
        self._reader.promised = seqnum

    def _is_all_there_is(self, servermap: ServerMap) -> bool:
        """Whether no other version than the best of a map may turn up as the newest."""
        if servermap.settled():
            return True
        return not self._is_doubtful and not servermap.unrecoverable_newer()

    def _settled_map(self) -> ServerMap | None:
        """A remembered map that is good enough to publish from, if there is one."""
        servermap = self._reader.recent_map(MAP_MAX_AGE)
        if servermap is None or not servermap.settled():
            return None
        searched = servermap.mode in (Mode.WRITE, Mode.CHECK)
        everyone = len(servermap.answered) == len(self._reader.view().servers)
        return servermap if searched or everyone else None

    def _require_write_cap(self) -> MutableWriteCap:
        if not isinstance(self.cap, MutableWriteCap):
            raise ReadOnlyCapabilityError("the capability of this mutable file only reads")
        return self.cap

    async def _load_keys(self, servermap: ServerMap) -> SlotKeys:
        """The slot's private key, out of the first share that has it right."""
        if self._keys is None:
            cap, seen = self._require_write_cap(), self._reader.alleged_private_key
            self._keys = await load_keys(cap, servermap, seen)
        return self._keys


async def create(
    format_: MutableFormat,
    contents: bytes,
    *,
    broker: Broker,
    secrets: ClientSecrets,
    encoding: Encoding,
    key: SigningKey | None = None,
    cache: ContentsCache | None = None,
    segments: SegmentCache | None = None,
    jitter: Callable[[], float] = random.random,
) -> MutableFile:
    """Make a new mutable file and publish its first version; one call per server.

    Args:
        key: the key pair that becomes its identity; by default a fresh one. With a key given, a
            file that is already there (left by an earlier call with the same key) keeps its
            contents, and is only published anew when it is incomplete or cannot be recovered.

    Raises:
        NotHappyError: too few servers take shares.
        UncoordinatedWriteError: somebody else writes to the same, fresh slot.
    """
    fresh = key is None
    if key is None:
        key = await trio.to_thread.run_sync(generate_keypair)
    keys = SlotKeys(key)
    cap = MutableWriteCap(format_, keys.write_key, keys.fingerprint)
    file = MutableFile(
        cap, broker, secrets, encoding=encoding, cache=cache, segments=segments, jitter=jitter
    )
    await file.publish_first(keys, contents, replay=not fresh)
    return file
