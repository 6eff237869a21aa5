"""One publisher for each directory: all that is pending there, in one ``modify()``.

A directory keeps its pending bindings in ``dirty``. They stay until the grid shows them, through
any number of failures. The publisher's task runs while there is something that it can do: it waits
for the quiet period or the back-off, and while programs are busy
(:mod:`lafsfs.vfs.publishing.activity`), all cut short by whoever waits, collects what is ready,
makes one ``DirectoryNode.edit()`` of it, which makes the directory's slot if it is new, and
settles. Rules:

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
- A failure is remembered with every binding in the batch, delivered to everybody who waits, and
  tried again with back-off for ever.
- Whatever is not one of our own errors is a bug: it is logged, and delivered as one, but the
  publisher and the mount go on.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.errors import LafsError
from lafsfs.journal.faultpoints import reached
from lafsfs.vfs.api import UnexpectedError
from lafsfs.vfs.publishing.backoff import back_off
from lafsfs.vfs.publishing.flights import Flight, edit_for, settle
from lafsfs.vfs.publishing.removals import Removals
from lafsfs.vfs.recording.recorder import write_ahead

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lafsfs.nodes.dirnode import EditResult
    from lafsfs.nodes.edits import SetChild
    from lafsfs.vfs.publishing.activity import Activity
    from lafsfs.vfs.recording.recorder import Recorder
    from lafsfs.vfs.tree.bindings import Binding
    from lafsfs.vfs.tree.directories import Directory

log = logging.getLogger(__name__)

MOST_QUIET: Final = 5  # quiet periods that a first change waits while others keep coming


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


class Publisher:
    """Publishes one directory."""

    def __init__(self, directory: Directory, outgoing: Outgoing) -> None:
        self._directory = directory
        self._outgoing = outgoing
        self._waiters: list[Waiter] = []
        self.removals = Removals(directory, outgoing.recorder)
        self._running = False
        self._urgent = False
        self._due = float("-inf")
        self._latest = float("inf")  # when to publish, however little quiet there was
        self._changed = trio.Event()
        self._failures = 0
        self.error: LafsError | None = None  # of the last turn
        self.publishes = 0  # edits that were made, for the log and the tests

    @property
    def is_unfinished(self) -> bool:
        """Whether there is more to be done than what is pending."""
        return self.removals.is_unfinished

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
        if not self._running:  # else it looks when it was due before
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
                if not self._directory.has_work:  # any more: it may have been removed
                    return
                if not await self._take_turn():
                    self._outgoing.waiting.add(self)
                    return
        finally:
            self._running = False
            self._tell(None, taken=False)

    async def _wait_for_turn(self) -> None:
        while not self._urgent:
            start = self._outgoing.activity.start_of(self._due)
            if not self._directory.node.is_new:  # which nobody else can have heard of
                start = min(start, max(self._due, self._latest))
            left = start - trio.current_time()
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
            done, error = await self._publish_ready(batch)
            if not done and error is None:
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
        self._directory.note_work()
        self._back_off(error)
        self._tell(error, taken=True)
        return True

    async def _publish_ready(self, batch: list[Flight]) -> tuple[bool, LafsError | None]:
        """Look, publish, look again: whether anything was done, and what could not be.

        What goes out is in ``batch`` before it does. Raises LafsError if it did not get there.
        """
        removals, dirty = self.removals, self._directory.dirty
        looked, pending = removals.is_unfinished, len(dirty)
        trouble = await removals.look_after()  # what could not be seen before
        unseen, error = await removals.look_before(self._ready())
        refused = self._collect(unseen, batch)
        revivals = removals.revivals
        if batch or revivals or self._directory.node.is_new:
            await self._edit(batch, revivals)
            trouble = await removals.look_after()
            reached("publisher.looked")
            return True, error or refused or trouble
        return looked or len(dirty) != pending, error or refused or trouble

    async def _edit(self, batch: list[Flight], revivals: tuple[SetChild, ...]) -> None:
        """One modification of the directory."""
        node, removals = self._directory.node, self.removals
        was_new = node.is_new
        self.publishes += 1
        reached("publisher.before")
        edits = [*(flight.edit for flight in batch), *revivals]
        result = await node.edit(edits, self._write_ahead)
        reached("publisher.landed")
        self._outgoing.recorder.begun(node.cap, None)
        removals.revived(revivals)
        self._settle(batch, result)
        if not was_new:
            removals.filled(batch)
        reached("publisher.settled")
        self._directory.note_work()  # whoever waits for everything waits for this, too

    async def _write_ahead(self, seqnum: int) -> None:
        await write_ahead(self._outgoing.recorder, self._directory.node.cap, seqnum)

    def _tell(self, error: LafsError | None, *, taken: bool) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.error, waiter.taken = error, taken
            waiter.done.set()

    def _back_off(self, error: LafsError | None) -> None:
        outgoing = self._outgoing
        outgoing.moved_on()
        self.error = error
        if error is None:
            self._failures = 0
            self._due = trio.current_time() + outgoing.quiet
            return
        self._failures += 1
        wait = back_off(self._failures, outgoing.retry_first, outgoing.retry_most)
        self._due = trio.current_time() + wait
        log.warning("changes of %s are not on the grid: %s", self._directory.shown, error)

    # collecting

    def _collect(self, unseen: Iterable[Binding], batch: list[Flight]) -> LafsError | None:
        """Put what is ready into a batch; why what is not put there cannot be published."""
        error: LafsError | None = None
        ready = self._ready()
        for binding in unseen:
            ready.pop(binding, None)
        for binding in ready:
            try:
                edit = edit_for(binding)
            except LafsError as refused:
                error = refused
                binding.failed(refused)
                continue
            told = tuple((edge, edge.inode.version) for edge in binding.edges)
            flight = binding.in_flight = Flight(binding, edit, told)
            batch.append(flight)
        return error

    def _ready(self) -> dict[Binding, None]:
        """What can go out together now."""
        ready = {binding: None for binding in self._directory.dirty if binding.is_ready}
        while waiting := [one for one in ready if _must_wait(one, ready)]:
            for binding in waiting:
                del ready[binding]
        return ready

    # settling

    def _settle(self, batch: list[Flight], result: EditResult) -> None:
        for flight, outcome in zip(batch, result.outcomes, strict=False):
            binding = flight.binding
            entry, left = binding.entry, binding.left
            binding.in_flight = None
            binding.error = None
            settle(flight, outcome, result.listing)
            self.removals.landed(binding, entry, left, outcome)

    def _failed(self, batch: list[Flight], error: LafsError) -> None:
        self._directory.is_doubtful = True  # it may have landed in part
        for flight in batch:
            binding = flight.binding
            if binding.in_flight is not flight:
                continue  # it is settled
            binding.in_flight = None
            binding.failed(error)
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
