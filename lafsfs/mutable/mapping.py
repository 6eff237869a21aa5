"""Ask the servers what they hold of a slot, and draw the servermap.

Servers are asked in permuted order, several at once, each for the first bytes of all its shares:
enough for header, keys and signature, and often for the whole share. A mode says when the map is
good enough (:class:`~lafsfs.mutable.servermap.Mode`); then nobody else is waited for.

Rules:

- Who holds the write key reads all shares of a slot in one call (a test-and-set without tests or
  writes, which changes nothing); otherwise, and where a slot has another write enabler, it takes a
  listing and a read per share.
- A server that does not answer in time is passed over. Its silence is recorded in the map.
- Once a newest version can be read, stragglers get a moment more, not their whole time.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import trio

from lafsfs.errors import (
    BadWriteEnablerError,
    FormatError,
    ReadOnlyCapabilityError,
    ServerError,
    ServerReadOnlyError,
    ServerUnavailableError,
)
from lafsfs.formats.slot import HEADER_SIZE
from lafsfs.grid.api import ReadVector, ShareKind
from lafsfs.mutable.servermap import BadShare, MappedShare, Mode, ServerMap

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from lafsfs.grid.api import SlotSecrets, StorageServer
    from lafsfs.grid.broker import Broker
    from lafsfs.grid.encoding import Encoding
    from lafsfs.mutable.servermap import Place, ServerId
    from lafsfs.mutable.verify import SlotVerifier

log = logging.getLogger(__name__)

MIN_HEAD = 4096  # bytes that hold every section but the data and, in SDMF, the private key
DEFAULT_HEAD = 32 << 10  # bytes; a directory of a hundred children in one read
MAX_HEAD = 1 << 20  # bytes; how far a map reads ahead of the retrieve that follows it
MAX_SHNUM = 255  # a slot has no more shares; a server that says so is not believed
QUERY_TIMEOUT = 10.0  # seconds; then a server counts as not there
RETRY_TIMEOUT = 2.0  # seconds, for a server that did not answer last time either
GRACE = 1.0  # seconds; for those still out once the map would be good enough without them
MIN_IN_FLIGHT = 5  # servers asked at once while the map is not good enough


@dataclass(frozen=True, slots=True)
class SlotView:
    """A slot as a reader or writer sees it.

    ``servers`` are in permuted order. ``secrets`` is None for those who only read. ``advised`` says
    which bad shares have been reported, and why.
    """

    storage_index: bytes
    servers: Sequence[StorageServer]
    broker: Broker
    verifier: SlotVerifier
    advised: set[tuple[Place, str]]
    secrets: Callable[[StorageServer], SlotSecrets] | None = field(repr=False)

    def secrets_for(self, server: StorageServer) -> SlotSecrets:
        """What a write shows that server. ReadOnlyCapabilityError for those who only read."""
        if self.secrets is None:
            raise ReadOnlyCapabilityError("the capability of this mutable file only reads")
        return self.secrets(server)


async def map_slot(
    view: SlotView,
    mode: Mode,
    *,
    encoding: Encoding,
    highest_seen: int = 0,
    head_size: int = 0,
) -> ServerMap:
    """Look around and return what there is. Never raises for what servers do.

    Args:
        encoding: what to expect, for how many servers to ask at first; a writer that could not
            write to ``happy`` of them has nobody skipped.
        highest_seen: a sequence number known to have existed; READ looks on for it.
        head_size: bytes to read of each share, within MIN_HEAD and MAX_HEAD; 0 for the default.
    """
    size = min(MAX_HEAD, max(MIN_HEAD, head_size or DEFAULT_HEAD))
    return await _Look(view, mode, encoding, highest_seen, size).run()


class _Look:
    """One look around: who has been asked, who has answered, and what."""

    def __init__(
        self, view: SlotView, mode: Mode, encoding: Encoding, highest_seen: int, size: int
    ) -> None:
        self._view = view
        self._mode = mode
        self._k = encoding.k
        self._happy = encoding.happy
        self._highest_seen = highest_seen
        self._size = size
        self._first = {
            Mode.CHECK: len(view.servers),
            Mode.WRITE: encoding.n + encoding.k,
            Mode.READ: 2 * encoding.k,
            Mode.ANYTHING: 2 * encoding.k,
        }[mode]
        away = [s for s in view.servers if mode is not Mode.CHECK and view.broker.is_backing_off(s)]
        self._order = [s for s in view.servers if s not in away] + away
        self._limit = len(view.servers) - len(away)  # the rest only when these do not suffice
        self._asked = 0
        self._shares: dict[Place, MappedShare] = {}
        self._bad: dict[Place, BadShare] = {}
        self._answered: dict[ServerId, StorageServer] = {}
        self._failed: dict[ServerId, str] = {}
        self._holders: set[ServerId] = set()

    async def run(self) -> ServerMap:
        """Ask until enough is known or nobody is left."""
        send, receive = trio.open_memory_channel[None](0)
        async with send, receive, trio.open_nursery() as nursery:
            with trio.CancelScope() as patience:
                while self._ask_more(nursery, send):
                    await receive.receive()
                    if self._enough(everyone=False):
                        break
                    if self._enough(everyone=True):
                        patience.deadline = min(patience.deadline, trio.current_time() + GRACE)
            nursery.cancel_scope.cancel()
        if self._mode is Mode.WRITE:
            for server in self._order[self._asked :]:
                if self._view.broker.is_backing_off(server):
                    self._failed[server.server_id] = f"{server.name} did not answer lately"
        async with trio.open_nursery() as nursery:
            for bad in self._bad.values():
                nursery.start_soon(advise, self._view, bad)
        return self._map()

    def _done(self) -> int:
        return len(self._answered) + len(self._failed)

    def _ask_more(self, nursery: trio.Nursery, send: trio.MemorySendChannel[None]) -> bool:
        """Keep enough questions in flight; false when nobody is left to ask or to wait for."""
        if self._done() == self._limit and not self._suffices():
            self._limit = len(self._order)
        goal = max(self._first, self._done() + MIN_IN_FLIGHT if self._done() else 0)
        while self._asked < min(goal, self._limit):
            nursery.start_soon(self._ask, self._order[self._asked], send)
            self._asked += 1
        return self._done() < self._asked

    def _suffices(self) -> bool:
        """Whether servers that did not answer lately may stay out of it."""
        if self._map().best() is None:
            return False
        return self._mode is not Mode.WRITE or len(self._answered) >= self._happy

    async def _ask(self, server: StorageServer, send: trio.MemorySendChannel[None]) -> None:
        """Ask one server and take in its answer."""
        view = self._view
        started = trio.current_time()
        try:
            heads = None
            patience = RETRY_TIMEOUT if view.broker.health(server).failures else QUERY_TIMEOUT
            with trio.move_on_after(patience):
                heads = await read_heads(view, server, self._size)
            if heads is None:
                raise ServerUnavailableError(f"{server.name} did not answer in {patience:.0f} s")
        except ServerError as error:
            view.broker.note_failure(server)
            self._failed[server.server_id] = str(error)
        else:
            view.broker.note_success(server, trio.current_time() - started)
            self._answered[server.server_id] = server
            for shnum, head in heads.items():
                self._take(server, shnum, head)
        await send.send(None)

    def _take(self, server: StorageServer, shnum: int, head: bytes) -> None:
        """Admit a share whose signature is good; note one that is bad."""
        self._holders.add(server.server_id)
        try:
            header = self._view.verifier.header(head)
            if shnum >= header.prefix.n:
                raise FormatError(f"there is no share {shnum} of {header.prefix.n}")
        except FormatError as error:
            bad = BadShare(server, shnum, head[:HEADER_SIZE], str(error))
            self._bad[bad.place] = bad
            return
        whole = len(head) < self._size
        share = MappedShare(server, shnum, header, head, whole)
        self._shares[share.place] = share
        self._k = max(self._k, header.prefix.k)

    def _map(self) -> ServerMap:
        return ServerMap(
            mode=self._mode,
            shares=MappingProxyType(dict(self._shares)),
            bad=MappingProxyType(dict(self._bad)),
            answered=tuple(s for s in self._view.servers if s.server_id in self._answered),
            failed=MappingProxyType(dict(self._failed)),
            highest_seen=self._highest_seen,
        )

    def _enough(self, *, everyone: bool) -> bool:
        """Whether the map satisfies its mode; with ``everyone``, once those asked now are in."""
        found = self._map()
        best = found.best()
        if self._mode is Mode.CHECK or best is None:
            return False
        if self._mode is Mode.ANYTHING:
            return True
        if self._mode is Mode.READ:
            known = self._asked if everyone else self._done()
            hidden = found.unrecoverable_newer() or best.seqnum < self._highest_seen
            return not hidden and known >= min(self._first, self._limit)
        if self._limit < len(self._order) and not self._suffices():
            return False
        return not everyone and self._found_boundary()

    def _found_boundary(self) -> bool:
        """Whether k servers in a row after the last holder have nothing, and all before answered.

        A server that failed counts neither way.
        """
        empty = 0
        for server in self._view.servers:
            if server.server_id in self._holders:
                empty = 0
            elif server.server_id in self._answered:
                empty += bool(self._holders)
                if empty >= self._k:
                    return True
            elif server.server_id not in self._failed and server in self._order[: self._limit]:
                return False
        return True


async def read_heads(view: SlotView, server: StorageServer, size: int) -> Mapping[int, bytes]:
    """The first ``size`` bytes of every share that one server holds of the slot."""
    if view.secrets is not None:
        try:
            result = await server.read_test_write(
                view.storage_index, view.secrets(server), {}, (ReadVector(0, size),)
            )
        except (BadWriteEnablerError, ServerReadOnlyError) as error:
            log.info("map: %s; reading it share by share", error)
        else:
            return {
                shnum: reads[0]
                for shnum, reads in result.reads.items()
                if reads and 0 <= shnum <= MAX_SHNUM
            }
    shnums = await server.list_shares(ShareKind.MUTABLE, view.storage_index)
    heads: dict[int, bytes] = {}

    async def read(shnum: int) -> None:
        head = await server.read_share(ShareKind.MUTABLE, view.storage_index, shnum, 0, size)
        if head:
            heads[shnum] = head

    await all_of([partial(read, n) for n in sorted(shnums) if 0 <= n <= MAX_SHNUM])
    return heads


async def all_of(tasks: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Run tasks side by side; the first server error ends them all and is raised as itself."""
    if len(tasks) == 1:
        await tasks[0]()
        return
    failure: ServerError | None = None

    async def guard(task: Callable[[], Awaitable[None]]) -> None:
        nonlocal failure
        try:
            await task()
        except ServerError as error:
            failure = failure or error
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(guard, task)
    if failure is not None:
        raise failure


async def advise(view: SlotView, bad: BadShare) -> None:
    """Tell a server once that its share is bad, as far as it listens."""
    server, index = bad.server, view.storage_index
    if (bad.place, bad.reason) in view.advised:
        return
    view.advised.add((bad.place, bad.reason))
    log.warning("share %d on %s is bad: %s", bad.shnum, server.name, bad.reason)
    try:
        with trio.move_on_after(RETRY_TIMEOUT):
            await server.advise_corrupt_share(ShareKind.MUTABLE, index, bad.shnum, bad.reason)
    except ServerError as error:
        log.info("%s does not want to know: %s", server.name, error)
