"""Sending an upload's shares, each as a stream, to the servers that reserved room for them.

Every share is written from front to back. What is appended waits in memory until it is worth a
request, which stock servers take the longer for the more of them there are. Shares do not become
due at once but by turns, so half as much waits as if they did, and a few requests are on their way
all the time. Pieces of a share may arrive in any order. A server that fails is dropped, and the
upload goes on for as long as the shares that remain make it happy.

Rules:

- A file of one segment is one write per share.
- A server that hangs does not hold up the upload for as long as a line that slow might take: once
  the others have overtaken a write, and are enough, it gets a moment more, or many times what they
  took, and its server is dropped then.
- A share counts once the server says it is complete; one that somebody else completed meanwhile
  (our own other upload of the same contents) counts like one that was there before.
- Shares that we did not write are compared with what we would have written, where the share hash
  chain and the UEB are: under one storage index there may be shares of another encoding, or cut
  ones, and a capability that only they could serve would be a lie.
"""

from __future__ import annotations

import hmac
import logging
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING

import trio

from lafsfs.errors import (
    GridFullError,
    NoSuchUploadError,
    NotHappyError,
    ProtocolError,
    ServerError,
    ServerFullError,
    ServerUnavailableError,
)
from lafsfs.grid.api import ShareKind
from lafsfs.grid.asking import ask
from lafsfs.grid.happiness import happiness
from lafsfs.immutable.placement import abandon

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from lafsfs.grid.api import StorageServer
    from lafsfs.immutable.placement import Job, Places

REQUEST_SIZE = 4 << 20  # bytes of one share per request; each costs a stock server 0.8 ms more
FIRST_REQUEST = 1 << 20  # bytes; the servers shall have something to do soon
MAX_BUFFERED = 32 << 20  # bytes of all shares together: what bounds requests when n is large
MAX_TRAILING = 8 << 20  # bytes still on their way, of all shares, when the next request follows

STRAGGLING = 20.0  # seconds more for a server that is the last; a sleeping disk needs 15
STRAGGLING_FACTOR = 10.0  # times what the others took: such a line is slow, and does not hang

log = logging.getLogger(__name__)


class StaleSharesError(NotHappyError):
    """Shares that were there already are not the ones this upload would have written."""


class ShareWriter:
    """The stream of one share to one server."""

    def __init__(self, server: StorageServer, shnum: int, first: int) -> None:
        """``first``: bytes that are worth the first request."""
        self.server = server
        self.shnum = shnum
        self.complete = False
        self.buffered = 0
        self._worth = first
        self._parts: list[bytes] = []
        self._start = 0  # where in the share the parts begin

    @property
    def wanted(self) -> int:
        """Bytes to append until there is enough for a request."""
        return max(0, self._worth - self.buffered)

    def append(self, data: bytes) -> None:
        """Put data behind everything appended before."""
        self._parts.append(data)
        self.buffered += len(data)

    def take(self, worth: int, started: float) -> Write:
        """What has been appended since the last call. ``worth``: bytes for the next request."""
        write = Write(self, self._start, tuple(self._parts), self.buffered, started)
        self._parts.clear()
        self._start += self.buffered
        self.buffered, self._worth = 0, worth
        return write


@dataclass(eq=False, slots=True)
class Write:
    """``size`` bytes of one share, in pieces. ``started``: together with others, at that time."""

    writer: ShareWriter
    offset: int
    data: tuple[bytes, ...] = field(repr=False)
    size: int
    started: float
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class Shareholders:
    """All servers that take part in one upload."""

    def __init__(self, job: Job, places: Places, got_on: Callable[[], None]) -> None:
        """``got_on``: called whenever a request has ended."""
        self._job = job
        self._got_on = got_on
        self._held = {server: set(shnums) for server, shnums in places.held.items()}
        taken = [(shnum, server) for server, own in places.reserved.items() for shnum in own]
        taken.sort(key=itemgetter(0))  # neighbours on different servers
        self._worth = min(REQUEST_SIZE, MAX_BUFFERED // max(1, len(taken)))
        first = min(FIRST_REQUEST, self._worth)
        self._writers = [
            ShareWriter(server, shnum, first + (self._worth - first) * turn // len(taken))
            for turn, (shnum, server) in enumerate(taken)
        ]
        self._dropped: list[ShareWriter] = []
        self._writes: set[Write] = set()  # on their way
        self._progress = trio.Event()
        self._notes: list[str] = list(places.notes.values())
        self._leased = frozenset(places.leased)
        self._lacks_room = places.lacks_room
        self._stale = False

    @property
    def wanted(self) -> int:
        """Bytes of each share to append until one of them has enough for a request."""
        return min((writer.wanted for writer in self._writers), default=self._worth)

    @property
    def unplaced(self) -> int:
        """Bytes of a share, on average, that are appended and not at their server yet."""
        waiting = sum(writer.buffered for writer in self._writers) + self._on_their_way
        return waiting // max(1, len(self._writers))

    @property
    def is_swollen(self) -> bool:
        """Whether so much waits that it has to be sent, whatever it is worth."""
        return sum(writer.buffered for writer in self._writers) >= MAX_BUFFERED

    @property
    def _on_their_way(self) -> int:
        """Bytes of all shares."""
        return sum(write.size for write in self._writes)

    def append(self, streams: Sequence[bytes]) -> None:
        """Append to every share: ``streams`` has the next bytes of each, by share number."""
        for writer in self._writers:
            writer.append(streams[writer.shnum])

    def append_to(self, shnum: int, data: bytes) -> None:
        """Append to one share."""
        for writer in self._writers:
            if writer.shnum == shnum:
                writer.append(data)

    async def send(self, nursery: trio.Nursery, *, due: bool = False) -> None:
        """Start sending what waits, or what is ``due`` of it, while not too much is on its way.

        What servers do raises nothing. Raises NotHappyError when too few shares are left.
        """
        started = trio.current_time()
        self.require_happiness()
        for writer in tuple(self._writers):
            if not writer.buffered or (due and writer.wanted):
                continue
            while self._on_their_way > MAX_TRAILING:
                self._progress = trio.Event()
                await self._progress.wait()
            self.require_happiness()
            if writer in self._writers:  # still
                write = writer.take(self._worth, started)
                self._writes.add(write)
                nursery.start_soon(self._send, write)

    async def _send(self, write: Write) -> None:
        with write.scope:
            await self._write(write)
        self._writes.discard(write)
        self._progress.set()
        if write.scope.cancelled_caught:
            self._drop_straggler(write.writer)
        else:
            self._press(write)
        self._got_on()

    def _press(self, ended: Write) -> None:
        """Give those that a write has overtaken a moment more, if the others are enough."""
        slower = [write for write in self._writes if write.started <= ended.started]
        without = {write.writer for write in slower}
        if not slower or self._happiness(without) < self._job.encoding.happy:
            return
        now = trio.current_time()
        for write in slower:
            took = (now - ended.started) * max(1.0, write.size / ended.size)
            deadline = now + max(STRAGGLING, STRAGGLING_FACTOR * took)
            write.scope.deadline = min(write.scope.deadline, deadline)

    def _drop_straggler(self, writer: ShareWriter) -> None:
        """Go on without a share whose server the others wait for."""
        if writer not in self._writers:
            return  # it was dropped, and this write with it
        server = writer.server
        log.warning("upload: going on without %s, which others wait for", server.name)
        self._job.broker.note_failure(server)
        self._drop(writer, ServerUnavailableError(f"{server.name} kept the others waiting"))

    async def _write(self, write: Write) -> None:
        job, writer, server = self._job, write.writer, write.writer.server
        try:
            completes = await ask(
                job.broker,
                server,
                lambda: server.write_share(
                    job.storage_index,
                    writer.shnum,
                    job.upload_secret(server),
                    write.offset,
                    write.data,
                ),
                size=self._on_their_way,  # they all share one line
            )
            writer.complete |= completes  # as one does, though perhaps not the last to be sent
        except NoSuchUploadError as error:
            if not await self._found_complete(writer):
                self._drop(writer, error)
        except ServerError as error:
            self._drop(writer, error)

    async def _found_complete(self, writer: ShareWriter) -> bool:
        """Whether the share is there, though not by this upload; then it is one that was held."""
        job, server = self._job, writer.server
        try:
            shnums = await ask(
                job.broker,
                server,
                lambda: server.list_shares(ShareKind.IMMUTABLE, job.storage_index),
            )
        except ServerError:
            return False
        if writer.shnum not in shnums:
            return False
        self._held.setdefault(server, set()).add(writer.shnum)
        self._forget(writer)
        return True

    def _forget(self, writer: ShareWriter) -> None:
        """Write no more of a share."""
        self._writers = [other for other in self._writers if other is not writer]
        for write in self._writes:
            if write.writer is writer:
                write.scope.cancel()

    def _drop(self, writer: ShareWriter, error: ServerError) -> None:
        """Go on without a share."""
        if writer not in self._writers:
            return
        self._forget(writer)
        self._dropped.append(writer)
        self._notes.append(str(error))
        self._lacks_room |= isinstance(error, ServerFullError)

    def require_happiness(self, *, complete: bool = False) -> None:
        """Raise NotHappyError unless the shares that remain are spread widely enough.

        ``complete``: count only shares that are whole.
        """
        unwanted = [writer for writer in self._writers if complete and not writer.complete]
        reached, wanted = self._happiness(without=unwanted), self._job.encoding.happy
        if reached >= wanted:
            return
        text = f"shares lie on {reached} servers, and {wanted} are needed"
        text += "".join(f"; {note}" for note in self._notes[:8])
        if self._stale:
            raise StaleSharesError(text)
        raise GridFullError(text) if self._lacks_room else NotHappyError(text)

    def _happiness(self, without: Collection[ShareWriter]) -> int:
        """How widely the shares are spread that are held, or being written by the others."""
        spread = {server: set(shnums) for server, shnums in self._held.items()}
        for writer in self._writers:
            if writer not in without:
                spread.setdefault(writer.server, set()).add(writer.shnum)
        return happiness(spread)

    async def finish(self, tail_offset: int, tails: Sequence[bytes]) -> None:
        """After the last byte was sent: check that enough servers hold the shares of this file.

        Args:
            tail_offset: where in every share the share hash chain begins.
            tails: by share number, what a share holds from there to its end.

        Raises:
            NotHappyError: not enough of them.
        """
        for writer in self._writers:
            if not writer.complete:
                error = f"{writer.server.name} does not see share {writer.shnum} as complete"
                self._drop(writer, ProtocolError(error))
        async with trio.open_nursery() as nursery:
            for server, shnums in self._held.items():
                for shnum in list(shnums):
                    nursery.start_soon(self._compare, server, shnum, tail_offset, tails[shnum])
        self.require_happiness(complete=True)

    async def _compare(
        self, server: StorageServer, shnum: int, offset: int, expected: bytes
    ) -> None:
        """Stop counting a share that was there before unless it ends as ours would."""
        job = self._job
        try:
            tail = await ask(
                job.broker,
                server,
                lambda: server.read_share(
                    ShareKind.IMMUTABLE, job.storage_index, shnum, offset, len(expected)
                ),
            )
        except ServerError as error:
            self._notes.append(str(error))
        else:
            if hmac.compare_digest(tail, expected):
                return
            self._stale = True
            self._notes.append(f"share {shnum} on {server.name} is damaged or of another encoding")
            log.warning("upload: share %d on %s is not what it should be", shnum, server.name)
        self._held[server].discard(shnum)

    async def renew_leases(self) -> None:
        """Leave our lease on servers whose shares are reused, where reserving has not done so."""
        async with trio.open_nursery() as nursery:
            for server, shnums in self._held.items():
                if shnums and server not in self._leased:
                    nursery.start_soon(self._renew, server)

    async def _renew(self, server: StorageServer) -> None:
        job = self._job
        lease = job.secrets.lease(job.storage_index, server)
        try:
            await ask(job.broker, server, lambda: server.add_lease(job.storage_index, lease))
        except ServerError as error:
            log.warning("upload: no lease on shares reused at %s: %s", server.name, error)

    async def abandon(self) -> None:
        """Give back what is reserved and not complete. Not to be cancelled."""
        unfinished: dict[StorageServer, list[int]] = {}
        for writer in (*self._writers, *self._dropped):
            if not writer.complete:
                unfinished.setdefault(writer.server, []).append(writer.shnum)
        await abandon(self._job, unfinished)
