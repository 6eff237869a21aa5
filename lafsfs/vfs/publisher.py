"""One publisher for each directory: all that is pending there, in one ``modify()``.

A directory keeps its pending bindings in ``dirty``. They stay until the grid shows them, through
any number of failures. The publisher's task runs while there is something that it can do: it waits
for the quiet period or the back-off, and while programs are busy (:mod:`lafsfs.vfs.activity`), all
cut short by whoever waits, collects what is ready, makes one ``DirectoryNode.edit()`` of it, which
makes the directory's slot if it is new, and settles. Rules:

- Collecting and settling happen without an await: a batch is a consistent view. What a batch puts
  under a name is settled with the binding it was made for. Whatever was wanted there meanwhile is
  still pending, now based on what the batch has put there.
- After a failure it may have landed all the same: what it was to put there is remembered as
  something of ours that the next edit may find (``Binding.maybe``).
- A binding waits until what it leads to is on the grid: contents uploaded, the slot of a directory
  made. It also waits until what it takes away or replaces has its new name there, unless both are
  in one directory and go out together, or wait for each other. Publishers that have nothing but
  such bindings stop, and are woken when another publisher has published something.
- A new directory is made after the new directories in it, unless that fails: so with all its
  children, in one publish.
- A directory that is taken away must still be empty, just before: if another client put something
  into it meanwhile, it stays.
- Where another client was first, theirs keeps the name. Ours goes on under the name that the edit
  gave it, or is taken away there if it has been moved or removed meanwhile.
- A failure is remembered with every binding in the batch, delivered to everybody who waits, and
  tried again with back-off for ever.
- Whatever is not one of our own errors is a bug: it is logged, and delivered as one, but the
  publisher and the mount go on.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.caps import UnknownCap
from lafsfs.errors import LafsError, LocalError
from lafsfs.nodes.edits import Base, Conflict, Gone, Kept, SetChild, SetMetadata, Unlink, is_base
from lafsfs.nodes.listing import decoded_metadata
from lafsfs.vfs.api import UnexpectedError
from lafsfs.vfs.attributes import KEY, encode
from lafsfs.vfs.inodes import DirectoryInode, FileInode, LoopInode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lafsfs.nodes.dirnode import EditResult
    from lafsfs.nodes.edits import BaseCap, Edit, Outcome
    from lafsfs.nodes.listing import Child, Listing
    from lafsfs.vfs.activity import Activity
    from lafsfs.vfs.bindings import Binding, Edge
    from lafsfs.vfs.directories import Directory
    from lafsfs.vfs.inodes import Inode
    from lafsfs.vfs.recorder import Recorder

log = logging.getLogger(__name__)

MOST_QUIET: Final = 5  # quiet periods that a first change waits while others keep coming
LOOKS: Final = 8  # removed directories looked into at a time


@dataclass(eq=False, slots=True)
class Outgoing:
    """What the publishers of one mount share.

    Attributes:
        pending: the directories with something that the grid has yet to hear of.
        waiting: the publishers that can do nothing before another has published something.
    """

    nursery: trio.Nursery
    recorder: Recorder
    quiet: float  # seconds
    retry_first: float
    retry_most: float
    activity: Activity
    pending: dict[Directory, None] = field(default_factory=dict)
    waiting: set[Publisher] = field(default_factory=set)

    def moved_on(self) -> None:
        """Let those look again who waited for another directory."""
        waiting, self.waiting = self.waiting, set()
        for publisher in waiting:
            publisher.wake()


@dataclass(eq=False, slots=True)
class Waiter:
    """Somebody who waits for the end of a publisher's turn."""

    done: trio.Event = field(default_factory=trio.Event)
    error: LafsError | None = None
    taken: bool = False


@dataclass(frozen=True, slots=True)
class Flight:
    """One binding on its way: its edit, and the version that it tells of each of its edges."""

    binding: Binding
    edit: Edit
    told: tuple[tuple[Edge, int], ...]

    @property
    def puts(self) -> BaseCap:
        """What is under the name afterwards, if it lands."""
        if isinstance(self.edit, SetChild):
            return self.edit.cap
        return self.binding.base if isinstance(self.edit, SetMetadata) else Base.ABSENT


class Publisher:
    """Publishes one directory."""

    def __init__(self, directory: Directory, outgoing: Outgoing) -> None:
        self._directory = directory
        self._outgoing = outgoing
        self._waiters: list[Waiter] = []
        self._running = False
        self._urgent = False
        self._due = float("-inf")
        self._latest = float("inf")  # when to publish, however little quiet there was
        self._changed = trio.Event()
        self._failures = 0
        self.publishes = 0  # edits that were made, for the log and the tests

    @property
    def is_failing(self) -> bool:
        """Whether the last try failed."""
        return self._failures > 0

    # for whoever has changed something

    def kick(self) -> None:
        """Something has changed: publish it after the quiet period."""
        now = trio.current_time()
        if not self._running:
            self._latest = now + MOST_QUIET * self._outgoing.quiet
        if not self._failures:
            self._due = min(now + self._outgoing.quiet, self._latest)
        self.wake()

    async def attempt(self) -> bool:
        """Have all that is ready published at once; False if nothing was.

        Raises:
            LafsError: something was not, as far as is known; it stays pending.
        """
        if not self._running and not self._directory.has_work:
            return False
        waiter = Waiter()
        self._waiters.append(waiter)
        self._urgent = True
        self.wake()
        await waiter.done.wait()
        if waiter.error is not None:
            raise waiter.error
        return waiter.taken

    def wake(self) -> None:
        """Look again at what can be done."""
        self._changed.set()
        self._changed = trio.Event()
        if not self._running:
            self._running = True
            self._outgoing.nursery.start_soon(self._run)

    # the task

    async def _run(self) -> None:
        try:
            while self._directory.has_work:
                await self._wait_for_turn()
                if not await self._take_turn():
                    self._outgoing.waiting.add(self)
                    return
        finally:
            self._running = False
            self._tell(None, taken=False)

    async def _wait_for_turn(self) -> None:
        while not self._urgent:
            left = self._outgoing.activity.start_of(self._due) - trio.current_time()
            if left <= 0:
                return
            with trio.move_on_after(left):
                await self._changed.wait()

    async def _take_turn(self) -> bool:
        """Publish what is ready; False if nothing is."""
        self._urgent = False
        self._latest = trio.current_time() + MOST_QUIET * self._outgoing.quiet
        batch: list[Flight] = []
        try:
            await trio.lowlevel.checkpoint()
            if self._directory.first_to_make is not self._directory:
                return False
            unseen, error = await self._look_into_removed()
            batch, refused = self._collect(unseen)
            error = error or refused
            if batch or self._directory.node.is_new:
                self.publishes += 1
                await self._write_ahead()
                result = await self._directory.node.edit([flight.edit for flight in batch])
                self._settle(batch, result)
            elif error is None:
                return False
        except LafsError as caught:
            error = caught
            self._failed(batch, error)
        except Exception as caught:
            log.exception("publishing directory %s", self._directory.node.cap.digest)
            error = UnexpectedError(f"publishing a directory: {type(caught).__name__}")
            self._failed(batch, error)
        except BaseException:
            error = UnexpectedError("the mount is ending")
            self._failed(batch, error)
            self._tell(error, taken=True)
            raise
        self._back_off(error)
        self._tell(error, taken=True)
        return True

    async def _write_ahead(self) -> None:
        """Have all that goes out on the local disk first, so that the grid is never ahead of it.

        Where that disk is full or broken, the grid is the better place all the same.
        """
        try:
            await self._outgoing.recorder.sync()
        except LocalError as error:
            log.warning("published without being in the journal: %s", error)

    def _tell(self, error: LafsError | None, *, taken: bool) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.error, waiter.taken = error, taken
            waiter.done.set()

    def _back_off(self, error: LafsError | None) -> None:
        outgoing = self._outgoing
        outgoing.moved_on()
        if error is None:
            self._failures = 0
            self._due = trio.current_time() + outgoing.quiet
            return
        wait = min(outgoing.retry_most, outgoing.retry_first * 2.0 ** min(self._failures, 30))
        self._failures += 1
        self._due = trio.current_time() + wait
        log.warning("directory %s is not published: %s", self._directory.node.cap.digest, error)

    # collecting

    def _collect(self, unseen: Iterable[Binding]) -> tuple[list[Flight], LafsError | None]:
        batch: list[Flight] = []
        error: LafsError | None = None
        ready = self._ready()
        for binding in unseen:
            ready.pop(binding, None)
        for binding in ready:
            try:
                edit = edit_for(binding)
            except LafsError as refused:
                error = refused
                binding.failed(refused, trio.current_time())
                continue
            told = tuple((edge, edge.inode.version) for edge in binding.edges)
            flight = binding.in_flight = Flight(binding, edit, told)
            self._outgoing.recorder.changed_name(binding)
            batch.append(flight)
        return batch, error

    def _ready(self) -> dict[Binding, None]:
        """What can go out together now."""
        ready = {binding: None for binding in self._directory.dirty if binding.is_ready}
        while waiting := [one for one in ready if _must_wait(one, ready)]:
            for binding in waiting:
                del ready[binding]
        return ready

    async def _look_into_removed(self) -> tuple[set[Binding], LafsError | None]:
        """Keep directories that are to be taken away and are not empty any more.

        Returns the bindings that cannot go out, since nobody knows, and why.
        """
        unseen: set[Binding] = set()
        errors: list[LafsError] = []
        limiter = trio.CapacityLimiter(LOOKS)

        async def look(binding: Binding, inode: DirectoryInode) -> None:
            try:
                async with limiter:
                    listing = await inode.directory.node.table(0)
            except LafsError as error:
                binding.failed(error, trio.current_time())
                unseen.add(binding)
                errors.append(error)
                return
            if not inode.directory.is_empty(listing):
                _keep(binding, inode)

        async with trio.open_nursery() as nursery:
            for binding in self._ready():
                for inode in binding.left:
                    if isinstance(inode, DirectoryInode) and inode.directory.is_removed:
                        nursery.start_soon(look, binding, inode)
        return unseen, errors[0] if errors else None

    # settling

    def _settle(self, batch: list[Flight], result: EditResult) -> None:
        for flight, outcome in zip(batch, result.outcomes, strict=True):
            flight.binding.in_flight = None
            flight.binding.error = None
            settle(flight, outcome, result.listing)
        self._directory.note_work()

    def _failed(self, batch: list[Flight], error: LafsError) -> None:
        self._directory.is_doubtful = True  # it may have landed in part
        for flight in batch:
            binding = flight.binding
            if binding.in_flight is not flight:
                continue  # it is settled
            binding.in_flight = None
            binding.failed(error, trio.current_time())
            if flight.puts not in binding.expected:
                binding.maybe = (*binding.maybe, flight.puts)
            self._directory.note(binding)


def _must_wait(binding: Binding, going: dict[Binding, None]) -> bool:
    """Whether a binding must wait for others than those that go out with it."""
    for edge in binding.awaited():
        if edge.binding.directory is binding.directory:
            if edge.binding not in going:
                return True
        elif not edge.binding.waits_for(binding):
            return True
    return False


def _keep(binding: Binding, inode: DirectoryInode) -> None:
    """Another client has put something into a directory that we took away: it stays."""
    log.warning("a directory that was removed stays: another client has put something into it")
    inode.directory.mark_removed(False)
    if binding.is_removal:
        binding.directory.drop(binding)
    else:  # what took its place becomes a conflicting copy
        binding.base, binding.entry, binding.maybe, binding.left = Base.ABSENT, None, (), ()


def edit_for(binding: Binding) -> Edit:
    """What brings the grid's edge up to date."""
    if binding.is_removal:
        return Unlink(binding.name, binding.expected)
    edge = next(edge for edge in binding.edges if edge.is_pending)
    cap = edge.inode.cap
    assert cap is not None
    moved = edge.is_new and edge.origin is not None
    if binding.expected == (cap,) and not moved:
        return SetMetadata(binding.name, metadata_for(edge.inode, binding.raw_name))
    metadata = {} if edge.origin is None else decoded_metadata(edge.origin.metadata_json)
    if not isinstance(edge.inode, LoopInode) and not isinstance(cap, UnknownCap):
        metadata.update(metadata_for(edge.inode, binding.raw_name))
    made = None if binding.made is None else binding.made / 1e9
    base = binding.expected
    return SetChild(binding.name, cap, metadata, base=base, replace=moved, made=made)


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


def settle(flight: Flight, outcome: Outcome, listing: Listing) -> None:
    """Take note of what the grid has under a name now, and what that means for what is wanted."""
    binding = flight.binding
    child = listing.get(binding.name)
    told_of_another = isinstance(flight.edit, SetMetadata) and not is_base(child, binding.base)
    if isinstance(outcome, Conflict):
        _move_aside(flight, outcome.name, listing)
    elif isinstance(outcome, Kept) and binding.is_removal:
        log.warning("a child that was removed stays: another client has changed it")
        binding.directory.drop(binding)
    elif isinstance(outcome, Gone) or told_of_another:
        _lose(flight)
    elif not isinstance(outcome, Kept):  # else what is wanted now will be a conflict
        _landed(flight, child)
    if binding.directory.names.get(binding.name) is binding:
        binding.directory.note(binding)


def _landed(flight: Flight, child: Child | None) -> None:
    binding, left = flight.binding, flight.binding.left
    binding.base = Base.ABSENT if child is None else child.cap
    binding.entry = None if child is None else child.entry
    binding.maybe = ()
    binding.left = tuple(edge.inode for edge, _ in flight.told if edge not in binding.edges)
    for edge, version in flight.told:
        if edge in binding.edges:
            edge.published, edge.origin = version, None
    for inode in left:
        if isinstance(inode, DirectoryInode) and inode not in binding.left:
            inode.directory.abandon()


def _lose(flight: Flight) -> None:
    """What we told something of is not under the name any more."""
    for edge, version in flight.told:
        if edge in flight.binding.edges:
            edge.published = version
            if not edge.inode.is_dirty:  # whose new contents will be a conflicting copy
                edge.forget()


def _move_aside(flight: Flight, name: str, listing: Listing) -> None:
    """Another client took the name first: what we put there is under ``name`` instead."""
    log.warning("another client took a name first: ours is kept as a conflicting copy")
    binding = flight.binding
    directory = binding.directory
    aside = directory.bind(name)
    if aside.is_removal:
        child = listing[name]
        aside.base, aside.entry, aside.maybe = child.cap, child.entry, ()
        aside.left = tuple(edge.inode for edge, _ in flight.told)
        for edge, version in flight.told:
            if edge in binding.edges:
                edge.leave()
                edge.enter(edge.parent, name)
                edge.published, edge.origin = version, None
                aside.left = ()
        directory.note(aside)
    if binding.is_removal:
        directory.drop(binding)
