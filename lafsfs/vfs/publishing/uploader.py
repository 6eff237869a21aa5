"""Which staged files go to the grid when.

Whoever changes a file's contents says so (:meth:`Uploader.changed`); from then on the file is
*queued*, until what it holds is on the grid or it has no name any more. A queued file is due

- once nobody has it open for writing: ``quiet`` seconds after its last change, so that a file that
  is renamed over or removed soon after it was written never leaves the machine, and after
  ``LONGEST`` seconds of being changed again and again;
- while somebody has: ``OPEN_QUIET`` seconds after its last change if some of it was accepted
  (``flush``, ``fsync``) since it was last brought to the grid, after ``LONGEST`` seconds at most;
  never accepted, after ``LONGEST_OPEN`` seconds. A big file being copied is not sent in parts;
- at once when somebody waits for it (:meth:`Uploader.bring`, :meth:`Uploader.hurry`);
- after a failure: with back-off, for ever.

What is due goes in the order in which the files were first changed, in two lanes, so that a big
file holds no small ones up: ``SMALL_AT_ONCE`` files of up to ``SMALL`` bytes, which are held in
memory whole, and ``BIG_AT_ONCE`` others, of which a few segments are. That bounds the memory.

Renaming a file changes nothing here. An upload under way is cancelled when its file has no name any
more, and when the file is changed before half of it is placed, unless somebody waits for it or it
began because of ``LONGEST``: then the next upload brings the change. Uploads of mutable files
and of small ones are never cut short.

While programs are busy (:mod:`lafsfs.vfs.publishing.activity`), what is due waits, and what has
waited long enough goes in fewer uploads at once. While room in the journal is scarce, neither
quiet nor busy programs are waited for.

While the grid does not take anything, one upload at a time tries whether it does again.

Everything here but the uploads themselves happens without an await. One task runs
(:meth:`Uploader.run`), and one for each upload under way.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.errors import GridError, LafsError, ServerError
from lafsfs.vfs.api import UnexpectedError
from lafsfs.vfs.publishing.backoff import back_off
from lafsfs.vfs.publishing.queued import FIRST, Queued
from lafsfs.vfs.publishing.rate import Rate
from lafsfs.vfs.publishing.storing import store
from lafsfs.vfs.tree.inodes import FileInode
from lafsfs.vfs.tree.paths import shown_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lafsfs.vfs.tree.tree import Tree

log = logging.getLogger(__name__)

SMALL: Final = 1 << 20  # bytes: one segment
SMALL_AT_ONCE: Final = 16  # enough to keep servers busy that take 10 ms for each request
BIG_AT_ONCE: Final = 3  # each of them fills the line to the servers by itself
BUSY_AT_ONCE: Final = 2  # of each kind, while programs are busy
LONGEST: Final = 60.0  # seconds of being changed all the time
OPEN_QUIET: Final = 10.0  # seconds; a program that has fsynced a file is likely to go on with it
LONGEST_OPEN: Final = 600.0  # seconds; a log that is never flushed, or a very long copy
AT_ONCE: Final = 500  # files looked at before other tasks get their turn, about a millisecond


@dataclass(eq=False, slots=True)
class _Lane:
    """Uploads of one kind: those that may start, by their order, and how many are under way."""

    limit: int
    running: int = 0
    ready: list[tuple[int, int, Queued]] = field(default_factory=list)


class Uploader:
    """Brings staged files to the grid. Start :meth:`run` in a nursery."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.rate = Rate()
        self._queue: dict[FileInode, Queued] = {}
        self._heap: list[tuple[float, int, int, Queued]] = []
        self._small = _Lane(SMALL_AT_ONCE)
        self._big = _Lane(BIG_AT_ONCE)
        self._running: dict[Queued, None] = {}
        self._orders = itertools.count()
        self._ticks = itertools.count()  # so that no two entries of a heap are equal
        self._woken = trio.Event()
        self._is_scarce = False  # room in the journal, which has yet to be seen to
        self._failures = 0  # of the grid, in a row
        self._resting_until = FIRST
        tree.area.journal.room.when_scarce(self._make_room)

    # for whoever has changed something

    def changed(self, inode: FileInode) -> None:
        """The contents of ``inode`` were changed."""
        queued = self._queue.get(inode)
        if queued is None:
            self._add(inode)
            return
        queued.changed = trio.current_time()
        if queued.scope is not None and queued.may_restart and 2 * queued.placed < queued.size:
            queued.scope.cancel()

    def notice(self, inode: FileInode) -> None:
        """``inode`` has contents that are not on the grid: one that has just been made, say."""
        self._tree.activity.note()
        if inode not in self._queue:
            self._add(inode)

    def resume(self) -> None:
        """Take up all that an earlier mount has left."""
        for inode in self._tree.table:
            if isinstance(inode, FileInode) and inode.is_dirty:
                self._add(inode).accepted = True

    def _add(self, inode: FileInode) -> Queued:
        now = trio.current_time()
        queued = self._queue[inode] = Queued(inode, next(self._orders), now, now)
        self._enter(queued)
        return queued

    def accepted(self, inode: FileInode) -> None:
        """What was written to ``inode`` is accepted."""
        queued = self._queue.get(inode)
        if queued is not None and not queued.accepted:
            queued.accepted = True
            self._enter(queued)

    def closed(self, inode: FileInode) -> None:
        """Nobody writes to ``inode`` any more."""
        queued = self._queue.get(inode)
        if queued is not None:
            self._enter(queued)

    def names_changed(self) -> None:
        """Names were removed: an upload of a file that has none left is for nothing."""
        for queued in self._running:
            if queued.scope is not None and not queued.inode.edges and not queued.inode.is_mutable:
                queued.scope.cancel()

    # for whoever waits

    async def bring(self, inode: FileInode) -> None:
        """Have the contents on the grid as they are now, at once.

        Raises:
            LafsError: they are not; they stay queued.
        """
        staged = inode.staged
        if staged is None:
            return
        wanted = staged.changes
        while inode.staged is staged and inode.edges:
            queued = self._queue.get(inode) or self._add(inode)
            if queued.brought >= wanted:
                return
            if queued.scope is not None:
                queued.may_restart = False  # now that somebody waits for it
            if queued.covers < wanted or queued.scope is None:
                self._hurry(queued)
            await queued.attempted.wait()
            if queued.error is not None:
                raise queued.error

    def hurry(self) -> None:
        """Everything is due now, whatever failed before."""
        for queued in tuple(self._queue.values()):
            self._hurry(queued)

    # for whoever looks

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Queued]:
        return iter(tuple(self._queue.values()))

    def get(self, inode: FileInode) -> Queued | None:
        """What is known of a file on its way."""
        return self._queue.get(inode)

    # the task

    async def run(self) -> None:
        """Upload what is due, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._look_at_all()
                self._sort()
                self._start(self._small, nursery)
                self._start(self._big, nursery)
                woken = self._woken
                with trio.move_on_at(self._next_look()):
                    await woken.wait()

    def _wake(self) -> None:
        self._woken.set()
        self._woken = trio.Event()

    def _make_room(self) -> None:
        """Room in the journal has become scarce: what waited for quiet is due."""
        self._is_scarce = True
        self._wake()

    async def _look_at_all(self) -> None:
        """See what is due earlier since room has become scarce."""
        if self._is_scarce:
            self._is_scarce = False
            for number, queued in enumerate(self, 1):
                self._enter(queued)
                if not number % AT_ONCE:
                    await trio.lowlevel.checkpoint()

    def _enter(self, queued: Queued) -> None:
        """Look at a file again when it is due, and not at what was said before."""
        if queued.is_uploading:
            return
        due = self._due(queued)
        if queued.slot is None or due < queued.slot:
            queued.slot = due
            heapq.heappush(self._heap, (due, queued.order, next(self._ticks), queued))
            if self._heap[0][-1] is queued:
                self._wake()

    def _hurry(self, queued: Queued) -> None:
        queued.hurried = True
        self._resting_until = FIRST
        self._enter(queued)

    def _due(self, queued: Queued) -> float:
        quiet = self._tree.settings.quiet
        if queued.hurried:
            return FIRST
        if self._tree.area.journal.room.is_scarce:
            quiet = 0.0  # what is uploaded makes room
        if not queued.inode.writers:
            due, longest = queued.changed + quiet, LONGEST
        elif queued.accepted:
            due, longest = queued.changed + max(quiet, OPEN_QUIET), LONGEST
        else:
            due, longest = float("inf"), LONGEST_OPEN
        return max(queued.not_before, min(due, queued.since + max(quiet, longest)))

    def _start_of(self, due: float) -> float:
        """When what is due may begin: later, while programs are busy."""
        if self._tree.area.journal.room.is_scarce:
            return due
        return self._tree.activity.start_of(due)

    def _next_look(self) -> float:
        """When something may be due next, if nobody wakes us."""
        soonest = self._start_of(self._heap[0][0]) if self._heap else float("inf")
        if trio.current_time() < self._resting_until and (self._small.ready or self._big.ready):
            soonest = min(soonest, self._resting_until)
        return soonest  # lanes that are full wake us when they are not

    def _sort(self) -> None:
        """Put what is due into its lane."""
        now = trio.current_time()
        while self._heap and self._start_of(self._heap[0][0]) <= now:
            slot, *_, queued = heapq.heappop(self._heap)
            if queued.slot != slot or self._forgotten(queued):
                continue
            queued.slot = None
            if self._due(queued) > now:
                self._enter(queued)
                continue
            lane = self._small if queued.inode.size <= SMALL else self._big
            heapq.heappush(lane.ready, (queued.order, next(self._ticks), queued))
            queued.slot = FIRST  # nothing is earlier: it is not entered again

    def _forgotten(self, queued: Queued) -> bool:
        """Drop what needs no upload (any more)."""
        inode = queued.inode
        if inode.staged is not None and inode.edges:
            return False
        if self._queue.get(inode) is queued:
            del self._queue[inode]
        queued.error = None
        queued.attempted.set()
        return True

    def _start(self, lane: _Lane, nursery: trio.Nursery) -> None:
        now = trio.current_time()
        while lane.ready and lane.running < self._limit(lane):
            if self._failures and (lane.running or now < self._resting_until):
                return  # one of them tries whether the grid is back
            *_, queued = heapq.heappop(lane.ready)
            queued.slot = None
            if self._forgotten(queued):
                continue
            if self._due(queued) > now:
                self._enter(queued)
                continue
            lane.running += 1
            self._begin(queued, now)
            nursery.start_soon(self._upload, queued, lane)

    def _limit(self, lane: _Lane) -> int:
        """How many uploads of a lane may be under way, with the one that is next."""
        *_, queued = lane.ready[0]
        if queued.hurried or not self._tree.activity.is_going_on:
            return lane.limit
        return lane.limit if self._tree.area.journal.room.is_scarce else BUSY_AT_ONCE

    def _begin(self, queued: Queued, now: float) -> None:
        inode = queued.inode
        assert inode.staged is not None
        is_late = now - queued.since >= max(LONGEST, self._tree.settings.quiet)
        queued.size, queued.placed, queued.covers = inode.size, 0, inode.staged.changes
        queued.may_restart = not (
            queued.hurried or is_late or inode.is_mutable or queued.size <= SMALL
        )
        queued.hurried = False
        queued.scope = trio.CancelScope()
        self._running[queued] = None

    async def _upload(self, queued: Queued, lane: _Lane) -> None:
        inode, scope = queued.inode, queued.scope
        assert scope is not None
        began = trio.current_time()
        error: LafsError | None = None
        try:
            with scope, inode.pinned():
                queued.covers = -1 if inode.staged is None else inode.staged.changes
                await store(self._tree, inode, lambda size: self._note(queued, size))
        except LafsError as caught:
            error = caught
        except Exception as caught:  # a bug must not end the mount
            log.exception("uploading a file")
            error = UnexpectedError(f"uploading a file: {type(caught).__name__}")
        finally:
            queued.scope = None
            lane.running -= 1
            del self._running[queued]
        if error is not None:
            self._failed(queued, error)
        elif not scope.cancelled_caught:
            self._succeeded(queued, began)
        self._ended(queued)

    def _note(self, queued: Queued, size: int) -> None:
        """So many bytes of an upload are placed."""
        self._tree.area.journal.room.progress()
        self.rate.note(max(0, size - queued.placed))
        queued.placed = size

    def _succeeded(self, queued: Queued, began: float) -> None:
        self._note(queued, queued.size)
        self._failures = queued.failures = 0
        queued.error, queued.not_before = None, FIRST
        queued.inode.is_retrying = False
        queued.brought = queued.covers
        queued.since = began  # of what came while it was under way
        queued.accepted = False

    def _failed(self, queued: Queued, error: LafsError) -> None:
        now, settings = trio.current_time(), self._tree.settings
        first, most = settings.retry_first, settings.retry_most
        queued.failures += 1
        queued.error = error
        queued.inode.is_retrying = True
        queued.not_before = now + back_off(queued.failures, first, most)
        if isinstance(error, GridError | ServerError):
            self._failures += 1
            self._resting_until = now + back_off(self._failures, first, most)
        log.warning("%s is not on the grid: %s", shown_path(queued.inode), error)

    def _ended(self, queued: Queued) -> None:
        """An attempt is over, however it went: tell who waits, and see what is next."""
        attempted, queued.attempted = queued.attempted, trio.Event()
        if not self._forgotten(queued):
            self._enter(queued)
        attempted.set()
        self._tree.table.drop_if_idle(queued.inode)
        self._wake()
