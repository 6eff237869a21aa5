"""Fetching a run of segments: a race of share readers for k good blocks of each.

Theory. Any k different shares do. The fetcher starts as many readers as it still needs, each at
another server if it can. When one fails, or has a bad block, another takes its place; when one is
overdue another is started beside it, and whichever comes first counts. As soon as a segment has its
k blocks it is decoded, checked and delivered; when all have, everybody else is cancelled. When the
check fails, bad blocks are told from good ones, and those that are missing now are raced for again.

Rules:

- The nursery, the blocks and the decisions are those of one fetch; what is remembered from one
  fetch to the next is in the finder, in the readers, and in the broker's record of the servers.
- Overdue is not failed. A server that is overdue is in doubt until it answers again, so that it
  costs other fetches nothing; a fetch that could use it has it probed.
- Duplicate work is bounded: a spare for each share that is overdue, and each spare is given twice
  as long as what it is a spare for. So waiting ``t`` intervals costs at most ``log2(t + 1)`` spares
  for each of the k blocks, and in a grid that answers none.
- No share that was wrong about anything, and no server in doubt, is asked while others may do.
- Any k good shares anywhere make the fetch succeed: it fails only when every server has been asked,
  every share that could help has been tried, and nothing is under way any more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import trio

from lafsfs.cache.segments import Segment
from lafsfs.errors import (
    CorruptShareError,
    LafsError,
    NoSuchShareError,
    ServerError,
)
from lafsfs.grid.asking import plain_errors
from lafsfs.grid.broker import SMALL
from lafsfs.grid.cpu import work_on
from lafsfs.immutable.choosing import best_reader, is_last_resort
from lafsfs.immutable.decoding import Task, decode_all, lowest
from lafsfs.immutable.explaining import not_enough
from lafsfs.immutable.share import Answer, Run
from lafsfs.immutable.treefetch import TreeFetch
from lafsfs.immutable.verified import ContradictionError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from lafsfs.errors import NotEnoughSharesError
    from lafsfs.immutable.decoding import Decoded
    from lafsfs.immutable.download import Download
    from lafsfs.immutable.share import ShareReader

_SOME_ROW = range(0)


@dataclass(eq=False, slots=True)
class _Attempt:
    """One reader at work.

    ``indexes``: positions in the run. ``load``: bytes on their way, its own included, if these are
    enough to be a matter of the line and not of the server. ``generation``: spare of a spare.
    """

    reader: ShareReader
    indexes: range
    load: int
    started_at: float
    generation: int
    is_overdue: bool = False


class SegmentFetcher:
    """One fetch of a run of segments."""

    def __init__(self, download: Download, run: Run, deliver: Callable[[Segment], None]) -> None:
        self._download = download
        self._verified = download.verified
        self._finder = download.finder
        self._broker = download.broker
        self._trees = download.trees
        self._tree = TreeFetch(download, self._note, self._news)
        self._run = run
        self._deliver = deliver
        self._k = download.verified.cap.k
        self._blocks: list[dict[int, memoryview]] = [{} for _ in range(run.count)]
        self._sources: list[dict[int, ShareReader]] = [{} for _ in range(run.count)]
        self._open = set(range(run.count))  # neither delivered nor given up
        self._active: set[_Attempt] = set()
        self._asked: defaultdict[ShareReader, set[int]] = defaultdict(set)
        self._notes: list[str] = []
        self._error: LafsError | None = None
        self._changed = trio.Event()

    async def run(self) -> None:
        """Fetch, verify, decode and deliver.

        Raises:
            NotEnoughSharesError: fewer than k good shares; says who answered what.
            ContradictionError: the file was stored wrongly.
        """
        self._finder.listeners.add(self._poke)
        try:
            with plain_errors():
                async with trio.open_nursery() as nursery:
                    await self._race(nursery)
                    nursery.cancel_scope.cancel()
        finally:
            self._finder.listeners.discard(self._poke)
            for attempt in self._active:
                self._trees.release(attempt)
        if self._error is not None:
            raise self._error

    def _poke(self) -> None:
        self._changed.set()

    async def _news(self) -> None:
        await self._changed.wait()

    # --- the race ---------------------------------------------------------------------------------

    async def _race(self, nursery: trio.Nursery) -> None:
        """Keep enough readers going until all segments are delivered or given up."""
        self._probe_doubtful()
        while self._open:
            self._changed = trio.Event()
            self._look_for_late()
            self._start_readers(nursery)
            if not self._active and self._finder.is_exhausted:
                self._give_up()
            if self._open:
                with trio.move_on_at(self._next_overdue()):
                    await self._changed.wait()

    def _give_up(self) -> None:
        """Nothing is under way: those that lack blocks will not get them."""
        hopeless = {index for index in self._open if len(self._blocks[index]) < self._k}
        if hopeless:
            self._open -= hopeless
            self._error = self._error or self._not_enough(min(hopeless))

    def _start_readers(self, nursery: trio.Nursery) -> None:
        while lacking := self._lacking():
            choice = self._best_candidate(lacking)
            if choice is None:
                self._finder.ask_more()
                return
            attempt = self._attempt(*choice)
            self._active.add(attempt)
            self._asked[attempt.reader].update(attempt.indexes)
            nursery.start_soon(self._read, attempt)

    def _lacking(self) -> list[int]:
        """The segments that need one more reader, if those that are not overdue succeed."""
        return [i for i in sorted(self._open) if len(self._coming(i)) < self._k]

    def _coming(self, index: int) -> set[int]:
        """Share numbers of which that segment has, or is about to have, a block."""
        coming = set(self._blocks[index])
        coming.update(
            attempt.reader.shnum
            for attempt in self._active
            if index in attempt.indexes and not attempt.is_overdue
        )
        return coming

    def _attempt(self, reader: ShareReader, indexes: Collection[int]) -> _Attempt:
        span = range(min(indexes), max(indexes) + 1)
        geometry = self._verified.likely_geometry
        segments = self._run.part(span, geometry).segments(geometry)
        return _Attempt(
            reader,
            span,
            load=self._load(geometry.stored_blocks(segments.start, len(segments)).size),
            started_at=trio.current_time(),
            generation=max((a.generation + 1 for a in self._active if a.is_overdue), default=0),
        )

    def _load(self, size: int) -> int:
        return size if size <= SMALL else self._broker.carried + size

    # --- choosing ---------------------------------------------------------------------------------

    def _best_candidate(self, lacking: list[int]) -> tuple[ShareReader, list[int]] | None:
        """The share to try next, and for which segments; None to wait for more to be found."""
        coming = {index: self._coming(index) for index in lacking}
        useful: dict[ShareReader, list[int]] = {}
        for reader in self._finder.readers:
            asked = self._asked.get(reader, ())
            indexes = [
                index
                for index in lacking
                if index not in asked
                and reader.shnum not in coming[index]
                and reader.is_good_for(self._run, index)
            ]
            if indexes:
                useful[reader] = indexes
        if not useful:
            return None
        load = Counter(reader.server for reader in self._asked)
        size = self._verified.likely_geometry.block_size * self._run.count
        best = best_reader(useful, self._broker, load, size)
        if is_last_resort(best, self._broker):
            self._finder.ask_more()
        elif not load[best.server]:
            return best, useful[best]
        return None if self._finder.expected else (best, useful[best])

    # --- what is late -----------------------------------------------------------------------------

    def _overdue_at(self, attempt: _Attempt) -> float:
        if attempt.load > SMALL:  # what was asked for since shares the line
            attempt.load = max(attempt.load, self._broker.carried)
        interval = self._broker.overdue_after(attempt.reader.server, attempt.load)
        return attempt.started_at + interval * 2.0**attempt.generation

    def _next_overdue(self) -> float:
        waiting = (self._overdue_at(a) for a in self._active if not a.is_overdue)
        return min(waiting, default=inf)

    def _look_for_late(self) -> None:
        """Let spares start for those that are overdue by now; these go on themselves."""
        now = trio.current_time()
        for attempt in self._active:
            if not attempt.is_overdue and self._overdue_at(attempt) <= now:
                attempt.is_overdue = True
                self._broker.note_late(attempt.reader.server)
                self._trees.release(attempt)

    def _probe_doubtful(self) -> None:
        """See in passing whether servers that this file could use are well again."""
        for reader in self._finder.readers:
            if not reader.is_corrupt and self._broker.take_probe(reader.server):
                self._download.start(reader.probe)

    # --- one share --------------------------------------------------------------------------------

    async def _read(self, attempt: _Attempt) -> None:
        reader = attempt.reader
        geometry = self._verified.likely_geometry
        part = self._run.part(attempt.indexes, geometry)
        rows = self._verified.ciphertext_rows(part.segments(geometry), geometry.num_segments)
        if self._verified.geometry is None and self._verified.checks_segments:
            rows.append(_SOME_ROW)  # those above may not be the rows there are
        with_tree = not reader.has_bad_tree and self._trees.claim(rows, attempt)
        answer = Answer({})
        failed = True
        try:
            answer = await reader.blocks(part, with_tree=with_tree)
            failed = answer.error is not None
        except ContradictionError as error:
            self._error = error
            self._open.clear()
        except (CorruptShareError, ServerError) as error:
            self._note(reader, error)
        complete = self._take(reader, answer)
        self._active.discard(attempt)
        self._trees.release(attempt)
        if failed or (not self._active and len(complete) < len(self._open)):
            self._poke()
        if complete:
            await self._finish(complete)

    def _note(self, reader: ShareReader, error: LafsError) -> None:
        self._notes.append(str(error))
        if isinstance(error, CorruptShareError):
            self._download.report(reader, error)
        elif isinstance(error, NoSuchShareError):
            self._finder.forget(reader)

    def _take(self, reader: ShareReader, answer: Answer) -> list[int]:
        """Take in blocks; which segments have all that they need now."""
        if answer.error is not None:
            self._note(reader, answer.error)
        complete = []
        for segment, block in answer.blocks.items():
            index = segment - self._segments.start
            blocks = self._blocks[index]
            if index in self._open and reader.shnum not in blocks:
                blocks[reader.shnum] = block
                self._sources[index][reader.shnum] = reader
                if len(blocks) == self._k:
                    complete.append(index)
        return complete

    # --- whole segments ---------------------------------------------------------------------------

    @property
    def _segments(self) -> range:
        """Their numbers, once it is known how the file is cut."""
        assert self._verified.geometry is not None
        return self._run.segments(self._verified.geometry)

    async def _finish(self, indexes: list[int]) -> None:
        """Decode, check and deliver; or find out that not all k blocks were good."""
        while indexes:
            ready = [index for index in indexes if await self._has_tree(index)]
            if not ready:
                break
            decoded = await self._decoded(ready)
            wrong = [i for i, segment in decoded.items() if not self._accept(i, segment)]
            indexes = [index for index in wrong if await self._has_others(index)]
        self._poke()

    def _close(self, index: int, error: LafsError | None = None) -> None:
        """Have done with a segment."""
        self._error = self._error or error
        self._open.discard(index)
        self._blocks[index].clear()

    def _accept(self, index: int, decoded: Decoded) -> bool:
        """Deliver a segment if it is right."""
        geometry, number = self._verified.geometry, self._segments[index]
        assert geometry is not None
        if decoded.digest and not self._verified.is_segment(number, decoded.digest):
            return False
        self._deliver(Segment(number, geometry, decoded.ciphertext))
        self._close(index)
        return True

    async def _has_others(self, index: int) -> bool:
        """Drop the blocks that made a segment wrong; whether there are enough others already."""
        found = False
        number = self._segments[index]
        for shnum, block in lowest(self._blocks[index], self._k).items():
            reader = self._sources[index][shnum]
            try:
                await reader.check(number, block)
            except CorruptShareError as error:
                found = True
                self._note(reader, error)
                del self._blocks[index][shnum]
                self._poke()
        if not found:
            text = f"the file was stored wrongly: good blocks make a bad segment {number}"
            self._close(index, ContradictionError(text))
        return found and len(self._blocks[index]) >= self._k

    async def _has_tree(self, index: int) -> bool:
        """Have what verifies a segment, which usually came with the blocks; or give it up."""
        geometry = self._verified.geometry
        assert geometry is not None
        run = Run(geometry.segment_offset(self._segments[index]))
        if await self._tree.complete(run, self._sources[index].values()):
            return True
        reason = "no share has a good ciphertext hash tree"
        self._close(index, self._not_enough(index, reason))
        return False

    async def _decoded(self, indexes: list[int]) -> dict[int, Decoded]:
        """What the blocks of some segments make: all of them with one hop to a thread."""
        geometry, first = self._verified.geometry, self._segments.start
        assert geometry is not None
        hashed = self._verified.checks_segments
        tasks = [
            Task(lowest(self._blocks[i], self._k), geometry.segment_length(first + i), hashed)
            for i in indexes
        ]
        work = sum(geometry.padded_length(first + index) for index in indexes)
        if not hashed:
            work //= 16  # a copy at most, which is quick
        results = await work_on(work, decode_all, tasks, self._k, self._verified.cap.n)
        return dict(zip(indexes, results, strict=True))

    # --- when it cannot be ------------------------------------------------------------------------

    def explain(self) -> str:
        """How things stand: what is missing, and who is to blame."""
        return str(self._not_enough(min(self._open, default=0)))

    def _not_enough(self, index: int, reason: str = "") -> NotEnoughSharesError:
        waiting = [
            f"share {a.reader.shnum} on {a.reader.server.name} is being waited for"
            for a in self._active
        ]
        waiting += [f"{server.name} does not answer" for server in self._finder.silent]
        notes = [*filter(None, [reason]), *self._notes, *waiting, *self._finder.notes.values()]
        found = {reader.shnum for reader in self._finder.readers}
        return not_enough(len(self._blocks[index]), self._k, len(found), notes)
