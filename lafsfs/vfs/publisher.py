"""One publisher for each directory: all that is pending there, in one ``modify()``.

Two kinds of work come in:

- *Pending edges*, which the directory keeps in ``dirty``: new files, new contents, attributes. They
  stay until the grid shows them, through any number of failures.
- *Requests*: edits that somebody waits for (``mkdir``, ``unlink``, ``rename``, ...). A request that
  fails is over, its caller is told. Nothing of it shows before it has landed.

The publisher's task runs while there is work. Each turn it waits for the quiet period or the
back-off (cut short by anybody who waits), collects everything, makes one ``DirectoryNode.edit()``
of it, and settles. Rules:

- Collecting and settling happen without an await: a batch is a consistent view, and whoever
  waited finds edges and inodes already as the grid has them. A request says what it wants by a
  function that is called when the batch is collected, so that it sees the newest bases, and takes
  its consequences in another that is called when it has landed, before the next batch is collected
  and whether or not its caller is still there.
- Edges that a request *claims* (because it moves or removes them) are in no batch from the moment
  it is submitted until it is over, here or in another directory. Nor are edges under a name that
  a request in the batch edits.
- An edge whose inode has nothing on the grid yet (``cap`` is None) is not ready and waits.
- An edge changed again during the publish is simply still pending afterwards.
- A failure is delivered to everybody who waits for one of the edges in the batch, each time.
- Whatever is not one of our own errors is a bug: it is logged, and delivered as one, but the
  publisher and the mount go on.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.errors import LafsError
from lafsfs.nodes.edits import Base, Conflict, SetChild, SetMetadata, same_object
from lafsfs.vfs.api import UnexpectedError
from lafsfs.vfs.attributes import KEY, encode
from lafsfs.vfs.inodes import FileInode, Waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from lafsfs.nodes.dirnode import EditResult
    from lafsfs.nodes.edits import Edit, Outcome
    from lafsfs.nodes.listing import Listing
    from lafsfs.vfs.directories import Directory
    from lafsfs.vfs.inodes import Edge, Inode

log = logging.getLogger(__name__)

MOST_QUIET: Final = 5  # quiet periods that a first change waits while others keep coming


@dataclass(eq=False, slots=True)
class Request:
    """Edits somebody waits for. ``build`` and ``landed`` are called by the publisher, see there."""

    build: Callable[[], Sequence[Edit]]
    landed: Callable[[Listing, tuple[Outcome, ...]], None]
    claims: Collection[Edge] = ()
    waiter: Waiter = field(default_factory=Waiter)


@dataclass(eq=False, slots=True)
class _Batch:
    """What goes into one edit: for every edge its edit and the version that it tells."""

    edges: list[tuple[Edge, int, Edit]] = field(default_factory=list)
    requests: list[tuple[Request, Sequence[Edit]]] = field(default_factory=list)
    waiters: list[Waiter] = field(default_factory=list)
    refused: LafsError | None = None  # why an edge could not be put into words

    @property
    def edits(self) -> list[Edit]:
        return [edit for *_, edit in self.edges] + [
            edit for _, edits in self.requests for edit in edits
        ]


class Publisher:
    """Publishes one directory. ``attach`` it to the directory before anything else."""

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        quiet: float,
        retry_first: float,
        retry_most: float,
    ) -> None:
        self._nursery = nursery
        self._quiet = quiet
        self._retry_first = retry_first
        self._retry_most = retry_most
        self._directory: Directory | None = None
        self._requests: list[Request] = []
        self._running = False
        self._urgent = False
        self._due = float("-inf")
        self._latest = float("inf")  # when to publish, however little quiet there was
        self._changed = trio.Event()
        self._failures = 0
        self.publishes = 0  # edits that were made, for the log and the tests

    def attach(self, directory: Directory) -> None:
        """Say whose publisher this is."""
        self._directory = directory

    @property
    def directory(self) -> Directory:
        assert self._directory is not None
        return self._directory

    # for whoever has changed something

    def kick(self) -> None:
        """Pending edges have changed: publish them after the quiet period."""
        now = trio.current_time()
        if not self._running:
            self._latest = now + MOST_QUIET * self._quiet
        if not self._failures:
            self._due = min(now + self._quiet, self._latest)
        self._wake()

    async def submit(self, request: Request) -> None:
        """Have the request's edits published at once, and wait.

        Raises:
            LafsError: they were not, as far as is known.
        """
        self._requests.append(request)
        for edge in request.claims:
            edge.claims += 1
        self._hurry()
        try:
            await request.waiter.done.wait()
        except trio.Cancelled:
            if request in self._requests:
                self._requests.remove(request)
                self._end(request, None)
            raise
        if request.waiter.error is not None:
            raise request.waiter.error

    async def attempt(self, edge: Edge) -> None:
        """Have a pending edge published at once, and wait for one attempt.

        Raises:
            LafsError: it was not, as far as is known; it stays pending.
        """
        if not edge.is_pending:
            return
        waiter = Waiter()
        edge.waiters.append(waiter)
        self.directory.dirty[edge] = None
        self._hurry()
        await waiter.done.wait()
        if waiter.error is not None:
            raise waiter.error

    # the task

    def _hurry(self) -> None:
        self._urgent = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
        if not self._running:
            self._running = True
            self._nursery.start_soon(self._run)

    @property
    def _has_work(self) -> bool:
        return bool(self._requests) or any(edge.is_ready for edge in self.directory.dirty)

    async def _run(self) -> None:
        try:
            while self._has_work:
                await self._wait_for_turn()
                await self._take_turn()
        finally:
            self._running = False

    async def _wait_for_turn(self) -> None:
        while not self._urgent:
            left = self._due - trio.current_time()
            if left <= 0:
                return
            with trio.move_on_after(left):
                await self._changed.wait()

    async def _take_turn(self) -> None:
        batch = self._collect()
        error = batch.refused
        try:
            await trio.lowlevel.checkpoint()
            if batch.edits:
                self.publishes += 1
                result = await self.directory.node.edit(batch.edits)
                self._settle(batch, result)
        except LafsError as caught:
            error = caught
        except Exception as caught:
            log.exception("publishing directory %s", self.directory.node.cap.digest)
            error = UnexpectedError(f"publishing a directory: {type(caught).__name__}")
        except BaseException:
            self._finish(batch, UnexpectedError("the mount is ending"))
            raise
        self._back_off(error)
        self._finish(batch, error)

    def _collect(self) -> _Batch:
        self._urgent = False
        self._latest = trio.current_time() + MOST_QUIET * self._quiet
        batch = _Batch()
        requests, self._requests = self._requests, []
        for request in requests:
            self._add_request(batch, request)
        named = {edit.name for _, edits in batch.requests for edit in edits}
        for edge in tuple(self.directory.dirty):
            if not edge.is_pending:
                del self.directory.dirty[edge]
                edge.tell_free()
            elif edge.is_ready and edge.name not in named:
                self._add_edge(batch, edge)
        return batch

    def _add_request(self, batch: _Batch, request: Request) -> None:
        try:
            edits = request.build()
        except LafsError as error:
            self._end(request, error)
            return
        batch.requests.append((request, edits))

    def _add_edge(self, batch: _Batch, edge: Edge) -> None:
        waiters, edge.waiters = edge.waiters, []
        try:
            edit = edit_for(edge)
        except LafsError as error:
            batch.refused = error
            for waiter in waiters:
                waiter.finish(error)
            return
        edge.in_flight = batch
        batch.edges.append((edge, edge.inode.version, edit))
        batch.waiters += waiters

    def _settle(self, batch: _Batch, result: EditResult) -> None:
        outcomes = list(result.outcomes)
        for edge, version, edit in batch.edges:
            outcome = outcomes.pop(0)
            if edge.in_flight is not batch:
                continue  # it has been moved to another directory
            edge.in_flight = None
            if isinstance(edit, SetMetadata) and not _is_still_there(edge, result.listing):
                edge.detach()  # what we told of is now told of something else
            else:
                settle_edge(edge, version, outcome, result.listing)
        for request, edits in batch.requests:
            its, outcomes = outcomes[: len(edits)], outcomes[len(edits) :]
            request.landed(result.listing, tuple(its))

    def _back_off(self, error: LafsError | None) -> None:
        if error is None:
            self._failures = 0
            self._due = trio.current_time() + self._quiet
            return
        wait = min(self._retry_most, self._retry_first * 2.0 ** min(self._failures, 30))
        self._failures += 1
        self.directory.is_doubtful = True  # it may have landed in part
        self._due = trio.current_time() + wait
        log.warning("directory %s is not published: %s", self.directory.node.cap.digest, error)

    def _finish(self, batch: _Batch, error: LafsError | None) -> None:
        for edge, *_ in batch.edges:
            if edge.in_flight is batch:
                edge.in_flight = None
            edge.tell_free()  # those who came while it was being published
        for waiter in batch.waiters:
            waiter.finish(error)
        for request, _ in batch.requests:
            self._end(request, error)

    def _end(self, request: Request, error: LafsError | None) -> None:
        request.waiter.finish(error)
        for edge in request.claims:
            edge.claims -= 1
            edge.tell_free()
            edge.directory.publisher.resume(edge)

    def resume(self, edge: Edge) -> None:
        """An edge is not claimed any more: go on with what is pending of it."""
        if edge.is_pending:
            self.directory.dirty[edge] = None
            if edge.waiters:
                self._hurry()
            else:
                self.kick()


async def until_free(edge: Edge) -> None:
    """Wait until no publish, here or in another directory, is about to change ``edge``."""
    while edge.is_busy:
        if edge.freed is None:
            edge.freed = trio.Event()
        await edge.freed.wait()


def edit_for(edge: Edge) -> Edit:
    """What brings the grid's edge up to date."""
    cap = edge.inode.cap
    assert cap is not None
    metadata = metadata_of(edge)
    if edge.base == cap:
        return SetMetadata(edge.name, metadata)
    return SetChild(edge.name, cap, metadata, base=edge.base)


def metadata_of(edge: Edge) -> dict[str, object]:
    """Our part of the edge's metadata."""
    return metadata_for(edge.inode, edge.raw_name)


def metadata_for(inode: Inode, raw_name: bytes | None) -> dict[str, object]:
    """Our part of the metadata of an edge that leads to ``inode``, which is on the grid."""
    cap = inode.cap
    assert cap is not None
    posix = inode.posix
    if isinstance(inode, FileInode):
        mutable = inode.is_mutable
        number = None if mutable else inode.number
        posix = replace(posix, number=number, size=inode.known_size if mutable else None)
    return {KEY: encode(posix, cap.read_cap().digest, raw_name)}


def _is_still_there(edge: Edge, listing: Listing) -> bool:
    """Whether the name leads to what the edge was based on; metadata applies to whatever it is."""
    child = listing.get(edge.name)
    return (
        child is not None and not isinstance(edge.base, Base) and same_object(child.cap, edge.base)
    )


def settle_edge(edge: Edge, version: int, outcome: Outcome, listing: Listing) -> None:
    """Take note of what the grid's edge is now."""
    if not edge.attached:
        return
    if isinstance(outcome, Conflict):
        log.warning("another client took a name first: ours is kept as a conflicting copy")
        move_aside(edge, outcome.name)
    edge.published = version
    remember_grid(edge, listing)
    if not edge.is_pending:
        edge.directory.dirty.pop(edge, None)


def move_aside(edge: Edge, name: str) -> None:
    """Our child is under another name than we wanted."""
    edge.raw_name = None
    edge.move(edge.directory, edge.parent, name)


def remember_grid(edge: Edge, listing: Listing) -> None:
    """Note what the listing has under the edge's name, as what the next edit is based on."""
    child = listing.get(edge.name)
    if child is not None:
        edge.base, edge.entry = child.cap, child.entry
