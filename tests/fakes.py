"""A grid in memory: :class:`FakeServer` keeps the rules of the contract suite until told not to.

Knobs are plain attributes, to be set at any time, and every one of them works on Trio's virtual
clock (the ``autojump_clock`` fixture). ``calls`` records each verb with its time, so that round
trips and races can be counted exactly.

    server.delay = 3.0             every verb takes 3 s before it has an effect
    server.answer_delay = 3.0      ... and 3 s after it: a cancelled write has happened
    server.hang() / .wake()        verbs wait; those that wait go on after wake()
    server.down = True             ServerUnavailableError
    server.fail_after = 5          five more calls are answered, then the server is down
    server.refuse = {"allocate"}   these verbs raise ProtocolError
    server.full = True             no room: nothing allocated, ServerFullError for slots
    server.read_only = True        ServerReadOnlyError for everything that writes
    server.capacity = 10_000       bytes in all
    server.lie = function          (kind, storage_index, shnum, offset, data) -> other data
    server.before_call = function  sync or async, called with the Call: races by the book
    server.corrupt(si, shnum, offset)  flips stored bits;  server.lose(si, shnum=None) forgets
"""

from __future__ import annotations

import hashlib
import hmac
import inspect
import math
import shutil
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from lafsfs.errors import (
    BadWriteEnablerError,
    NoSuchShareError,
    NoSuchUploadError,
    ProtocolError,
    ServerFullError,
    ServerReadOnlyError,
    ServerUnavailableError,
)
from lafsfs.grid.api import (
    Allocation,
    LeaseSecrets,
    Pieces,
    ReadVector,
    ServerVersion,
    ShareKind,
    SlotSecrets,
    TestWriteResult,
    TestWriteVectors,
)
from lafsfs.grid.broker import Broker
from lafsfs.grid.identity import Identity
from lafsfs.grid.local import LocalServer
from lafsfs.grid.ranges import WrittenRanges
from tests.golden_data import SERVERS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

LEASE_SECONDS = 31 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Call:
    """One verb as it arrived."""

    verb: str
    storage_index: bytes | None
    time: float


@dataclass(slots=True)
class FakeShare:
    """What the server holds of one share. ``leases``: renew secret -> time of expiry."""

    kind: ShareKind
    data: bytearray
    write_enabler: bytes | None = field(default=None, repr=False)
    leases: dict[bytes, float] = field(default_factory=dict, repr=False)


@dataclass(slots=True)
class FakeUpload:
    """An immutable share that is not complete."""

    secret: bytes = field(repr=False)
    size: int
    lease: LeaseSecrets
    data: bytearray = field(init=False, repr=False)
    written: WrittenRanges = field(init=False, default_factory=WrittenRanges)

    def __post_init__(self) -> None:
        self.data = bytearray(self.size)


class FakeServer:
    """A storage server in memory. Passes ``tests/grid/contract.py`` when no knob is turned."""

    def __init__(
        self,
        name: str,
        *,
        server_id: bytes | None = None,
        permutation_seed: bytes | None = None,
        capacity: int = 2**40,
    ) -> None:
        self.name = name
        self.server_id = server_id or hashlib.sha1(name.encode()).digest()
        self.permutation_seed = permutation_seed or self.server_id
        self.capacity = capacity
        self.shares: dict[tuple[bytes, int], FakeShare] = {}
        self.uploads: dict[tuple[bytes, int], FakeUpload] = {}
        self.advisories: list[tuple[ShareKind, bytes, int, str]] = []
        self.calls: list[Call] = []
        self.delay = 0.0
        self.answer_delay = 0.0
        self.down = False
        self.fail_after: int | None = None
        self.refuse: set[str] = set()
        self.full = False
        self.read_only = False
        self.lie: Callable[[ShareKind, bytes, int, int, bytes], bytes] | None = None
        self.before_call: Callable[[Call], Awaitable[None] | None] | None = None
        self._awake = trio.Event()
        self._awake.set()

    def __repr__(self) -> str:
        return f"<FakeServer {self.name}>"

    # --- knobs ------------------------------------------------------------------------------------

    def hang(self) -> None:
        """From now on, no verb gets anywhere until :meth:`wake`."""
        if self._awake.is_set():
            self._awake = trio.Event()

    def wake(self) -> None:
        """Let everything go on that hangs."""
        self._awake.set()

    def corrupt(self, storage_index: bytes, shnum: int, offset: int, flip: int = 1) -> None:
        """Flip bits of one stored byte. A negative offset counts from the end."""
        self.shares[storage_index, shnum].data[offset] ^= flip

    def truncate(self, storage_index: bytes, shnum: int, length: int) -> None:
        """Cut a stored share."""
        del self.shares[storage_index, shnum].data[length:]

    def lose(self, storage_index: bytes, shnum: int | None = None) -> None:
        """Forget one share, or all under a storage index."""
        for key in [k for k in self.shares if k[0] == storage_index and shnum in (None, k[1])]:
            del self.shares[key]

    def held(self, storage_index: bytes) -> dict[int, FakeShare]:
        """The complete shares under a storage index, by number."""
        return {n: share for (si, n), share in sorted(self.shares.items()) if si == storage_index}

    def put(self, kind: ShareKind, storage_index: bytes, shnum: int, data: bytes, **more) -> None:
        """Hold a share without asking. ``more``: further fields of :class:`FakeShare`."""
        self.shares[storage_index, shnum] = FakeShare(kind, bytearray(data), **more)

    def count(self, verb: str | None = None) -> int:
        """How many calls there were, of one verb or in all."""
        return len(self.calls) if verb is None else self.counts()[verb]

    def counts(self) -> Counter[str]:
        """How many calls there were of each verb."""
        return Counter(call.verb for call in self.calls)

    # --- what every verb goes through -------------------------------------------------------------

    async def _arrive(self, verb: str, storage_index: bytes | None, *, writes: bool) -> None:
        call = Call(verb, storage_index, trio.current_time())
        self.calls.append(call)
        await trio.lowlevel.checkpoint()
        if self.before_call is not None:
            waiting = self.before_call(call)
            if inspect.isawaitable(waiting):
                await waiting
        if self.delay:
            await trio.sleep(self.delay)
        await self._awake.wait()
        if self.fail_after is not None:
            self.fail_after -= 1
            if self.fail_after < 0:
                self.down = True
        if self.down:
            raise ServerUnavailableError(f"{self.name} is down")
        if verb in self.refuse:
            raise ProtocolError(f"{self.name} refuses {verb}")
        if writes and self.read_only:
            raise ServerReadOnlyError(f"{self.name} is read-only")

    async def _answer(self) -> None:
        if self.answer_delay:
            await trio.sleep(self.answer_delay)

    def _used(self) -> int:
        return sum(len(share.data) for share in self.shares.values()) + sum(
            upload.size for upload in self.uploads.values()
        )

    def _available(self) -> int:
        return 0 if self.full or self.read_only else max(0, self.capacity - self._used())

    @staticmethod
    def _lease(share: FakeShare, lease: LeaseSecrets) -> None:
        expires = trio.current_time() + LEASE_SECONDS
        share.leases[lease.renew] = max(share.leases.get(lease.renew, -math.inf), expires)

    # --- the verbs --------------------------------------------------------------------------------

    async def version(self) -> ServerVersion:
        await self._arrive("version", None, writes=False)
        free = self._available()
        await self._answer()
        return ServerVersion("fake", free, free, 2**50, total_space=self.capacity)

    async def list_shares(self, kind: ShareKind, storage_index: bytes) -> frozenset[int]:
        await self._arrive("list_shares", storage_index, writes=False)
        held = self.held(storage_index)
        await self._answer()
        return frozenset(shnum for shnum, share in held.items() if share.kind is kind)

    async def read_share(
        self, kind: ShareKind, storage_index: bytes, shnum: int, offset: int, size: int
    ) -> bytes:
        await self._arrive("read_share", storage_index, writes=False)
        share = self.shares.get((storage_index, shnum))
        data = b""
        if share is not None and share.kind is kind:
            data = bytes(share.data[offset : offset + size])
        if self.lie is not None:
            data = self.lie(kind, storage_index, shnum, offset, data)
        await self._answer()
        return data

    async def allocate(
        self,
        storage_index: bytes,
        shnums: frozenset[int],
        size: int,
        upload_secret: bytes,
        lease: LeaseSecrets,
    ) -> Allocation:
        await self._arrive("allocate", storage_index, writes=True)
        if size <= 0:
            raise ProtocolError("an immutable share has at least one byte")
        held = self.held(storage_index)
        for share in held.values():
            self._lease(share, lease)
        allocated: set[int] = set()
        if all(share.kind is ShareKind.IMMUTABLE for share in held.values()):
            for shnum in sorted(shnums - held.keys()):
                if self._begin(storage_index, shnum, size, upload_secret, lease):
                    allocated.add(shnum)
        have = (n for n, share in held.items() if share.kind is ShareKind.IMMUTABLE)
        answer = Allocation(frozenset(have), frozenset(allocated))
        await self._answer()
        return answer

    def _begin(
        self, storage_index: bytes, shnum: int, size: int, secret: bytes, lease: LeaseSecrets
    ) -> bool:
        upload = self.uploads.get((storage_index, shnum))
        if upload is not None and not hmac.compare_digest(upload.secret, secret):
            return False
        if upload is not None and upload.size == size:
            return True
        if size > self._available() + (0 if upload is None else upload.size):
            return False
        self.uploads[storage_index, shnum] = FakeUpload(secret, size, lease)
        return True

    def _upload(self, storage_index: bytes, shnum: int, secret: bytes) -> FakeUpload:
        upload = self.uploads.get((storage_index, shnum))
        if upload is None or not hmac.compare_digest(upload.secret, secret):
            raise NoSuchUploadError(f"{self.name} has no such upload of share {shnum}")
        return upload

    async def write_share(
        self,
        storage_index: bytes,
        shnum: int,
        upload_secret: bytes,
        offset: int,
        data: bytes | Pieces,
    ) -> bool:
        data = data if isinstance(data, bytes) else b"".join(data)
        await self._arrive("write_share", storage_index, writes=True)
        upload = self._upload(storage_index, shnum, upload_secret)
        stop = offset + len(data)
        if offset < 0 or stop > upload.size:
            raise ProtocolError("written past the end of what was allocated")
        if self.full:
            raise ServerFullError(f"{self.name} is full")
        for low, high in upload.written.overlap(offset, stop):
            if upload.data[low:high] != data[low - offset : high - offset]:
                raise ProtocolError("a range was written again with other bytes")
        upload.data[offset:stop] = data
        upload.written.add(offset, stop)
        complete = upload.written.covers(upload.size)
        if complete:
            del self.uploads[storage_index, shnum]
            share = FakeShare(ShareKind.IMMUTABLE, upload.data)
            self._lease(share, upload.lease)
            self.shares[storage_index, shnum] = share
        await self._answer()
        return complete

    async def abort_share(self, storage_index: bytes, shnum: int, upload_secret: bytes) -> None:
        await self._arrive("abort_share", storage_index, writes=True)
        self._upload(storage_index, shnum, upload_secret)
        del self.uploads[storage_index, shnum]
        await self._answer()

    async def read_test_write(
        self,
        storage_index: bytes,
        secrets: SlotSecrets,
        vectors: Mapping[int, TestWriteVectors],
        reads: Sequence[ReadVector],
    ) -> TestWriteResult:
        writes = any(vector.writes or vector.new_length is not None for vector in vectors.values())
        await self._arrive("read_test_write", storage_index, writes=writes)
        held = self.held(storage_index)
        for share in held.values():
            if share.write_enabler is None:
                raise ProtocolError("immutable shares have no slots")
            if not hmac.compare_digest(share.write_enabler, secrets.write_enabler):
                raise BadWriteEnablerError(f"{self.name}: the slot has another write enabler")
        answers = {
            shnum: tuple(
                self._read_slot(storage_index, shnum, share, vector.offset, vector.size)
                for vector in reads
            )
            for shnum, share in held.items()
        }
        success = all(
            bytes(held[shnum].data[test.offset : test.offset + test.size] if shnum in held else b"")
            == test.specimen
            for shnum, vector in vectors.items()
            for test in vector.tests
        )
        if success:
            self._write_slot(storage_index, secrets, vectors)
        await self._answer()
        return TestWriteResult(success, answers)

    def _read_slot(
        self, storage_index: bytes, shnum: int, share: FakeShare, offset: int, size: int
    ) -> bytes:
        data = bytes(share.data[offset : offset + size])
        if self.lie is not None:
            data = self.lie(share.kind, storage_index, shnum, offset, data)
        return data

    def _write_slot(
        self, storage_index: bytes, secrets: SlotSecrets, vectors: Mapping[int, TestWriteVectors]
    ) -> None:
        after: dict[int, bytearray | None] = {}
        for shnum, vector in vectors.items():
            share = self.shares.get((storage_index, shnum))
            if share is None and not vector.writes:
                continue
            after[shnum] = _written(bytearray() if share is None else share.data[:], vector)
        grown = sum(
            len(data) - len(self.shares[storage_index, shnum].data)
            if (storage_index, shnum) in self.shares
            else len(data)
            for shnum, data in after.items()
            if data is not None
        )
        if grown > 0 and grown > self._available():
            raise ServerFullError(f"{self.name} is full")
        for shnum, data in after.items():
            if data is None:
                self.shares.pop((storage_index, shnum), None)
                continue
            share = self.shares.setdefault(
                (storage_index, shnum),
                FakeShare(ShareKind.MUTABLE, bytearray(), secrets.write_enabler),
            )
            share.data = data
            self._lease(share, secrets.lease)

    async def add_lease(self, storage_index: bytes, lease: LeaseSecrets) -> None:
        await self._arrive("add_lease", storage_index, writes=True)
        held = self.held(storage_index)
        if not held:
            raise NoSuchShareError(f"{self.name} holds nothing under this storage index")
        for share in held.values():
            self._lease(share, lease)
        await self._answer()

    async def advise_corrupt_share(
        self, kind: ShareKind, storage_index: bytes, shnum: int, reason: str
    ) -> None:
        await self._arrive("advise_corrupt_share", storage_index, writes=False)
        self.advisories.append((kind, storage_index, shnum, reason))
        await self._answer()


def _written(data: bytearray, vector: TestWriteVectors) -> bytearray | None:
    """A share's data after a vector's writes; None when that deletes it."""
    for write in vector.writes:
        if write.offset > len(data):
            data.extend(bytes(write.offset - len(data)))
        data[write.offset : write.offset + len(write.data)] = write.data
    if vector.new_length is not None:
        del data[vector.new_length :]
    return None if vector.new_length == 0 else data


def fake_servers(count: int) -> list[FakeServer]:
    """``count`` servers named fake0, fake1, ..."""
    return [FakeServer(f"fake{i}") for i in range(count)]


def fake_grid(count: int) -> Broker:
    """A broker of ``count`` FakeServers (``grid.servers`` are they)."""
    return Broker(fake_servers(count))


def golden_grid(copy_to: Path, *, read_only: bool = False) -> Broker:
    """The stock servers of ``tests/golden`` as LocalServers over a copy below ``copy_to``.

    They have the identities that stock gave them, so that slots can be written. The copies may be
    changed and broken at will.
    """
    servers = []
    for golden in SERVERS.values():
        directory = copy_to / golden.name
        shutil.copytree(golden.directory, directory)
        identity = Identity(golden.server_id, golden.permutation_seed)
        servers.append(LocalServer(directory, identity, read_only=read_only))
    return Broker(servers)
