"""Whether a test-and-set whose answer got lost was made: found out by looking, never by repeating.

Theory. A test-and-set is all or nothing, so its traces tell: where all its writes stand, it was
made; where all its tests would still pass, it was not (not yet: it may be made by what is still on
its way to the server, and then sending it again fails its tests, and its traces are found). Where
neither holds, somebody else has written since, and the caller has lost the race, whichever came
first.

Looking takes one request: the beginnings of all writes, the ranges of all tests, and what the
caller wants to read, of every share. Beginnings suffice: what is written to a slot begins with a
checkstring, which no two versions share.

Pure: plans and judges, and asks nobody.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lafsfs.gbs.messages import MAX_VECTORS
from lafsfs.grid.api import ReadVector, TestWriteResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lafsfs.grid.api import TestWriteVectors

HEAD_SIZE = 4096  # bytes of a write that are compared; a slot's header has 123


class Outcome(enum.Enum):
    """What became of a test-and-set."""

    DONE = "done"
    UNDONE = "not done"
    OVERTAKEN = "overtaken by somebody else's"


@dataclass(frozen=True, slots=True)
class Look:
    """What to read, and how to judge it.

    Attributes:
        reads: of every share of the slot, in this order, the caller's first.
        asked: how many of them the caller asked for.
    """

    vectors: Mapping[int, TestWriteVectors]
    reads: tuple[ReadVector, ...]
    asked: int

    def judge(self, seen: Mapping[int, tuple[bytes, ...]]) -> Outcome:
        """Decide from what :attr:`reads` found: for each share that exists, a bytes per vector."""
        if all(self._stands(shnum, seen) for shnum in self.vectors):
            return Outcome.DONE
        if all(self._would_pass(shnum, seen) for shnum in self.vectors):
            return Outcome.UNDONE
        return Outcome.OVERTAKEN

    def result(self, outcome: Outcome, seen: Mapping[int, tuple[bytes, ...]]) -> TestWriteResult:
        """The answer that got lost, as far as it can be told.

        What the written shares held before is gone: they are left out where the write was made.
        """
        done = outcome is Outcome.DONE
        reads = {
            shnum: found[: self.asked]
            for shnum, found in seen.items()
            if not (done and shnum in self.vectors)
        }
        return TestWriteResult(done, reads)

    def _found(self, shnum: int, seen: Mapping[int, tuple[bytes, ...]], read: ReadVector) -> bytes:
        return seen[shnum][self.reads.index(read)] if shnum in seen else b""

    def _stands(self, shnum: int, seen: Mapping[int, tuple[bytes, ...]]) -> bool:
        """Whether a share looks as the writes leave it."""
        vector = self.vectors[shnum]
        if vector.new_length == 0:
            return shnum not in seen
        traces = _traces(vector)
        visible = [(read, data) for read, data in traces if read in self.reads]
        if traces and not visible:
            return False
        return all(self._found(shnum, seen, read) == data for read, data in visible)

    def _would_pass(self, shnum: int, seen: Mapping[int, tuple[bytes, ...]]) -> bool:
        """Whether a share still passes its tests."""
        for test in self.vectors[shnum].tests:
            read = ReadVector(test.offset, test.size)
            if read in self.reads and self._found(shnum, seen, read) != test.specimen:
                return False
        return True


def plan_look(vectors: Mapping[int, TestWriteVectors], reads: Sequence[ReadVector]) -> Look:
    """Decide what to read to find out about a test-and-set.

    Servers take 30 read vectors. A share none of whose traces is among them is not taken for
    written; tests that are not are left to the server, when it is asked again.
    """
    tests = [ReadVector(t.offset, t.size) for v in vectors.values() for t in v.tests]
    traces = [read for vector in vectors.values() for read, _ in _traces(vector)]
    # By turns, so that neither kind crowds out the other.
    others = [r for r in dict.fromkeys(_alternating(traces, tests)) if r not in reads]
    return Look(vectors, (*reads, *others)[:MAX_VECTORS], len(reads))


def _alternating(first: list[ReadVector], second: list[ReadVector]) -> list[ReadVector]:
    longest = max(len(first), len(second))
    pairs = ((*first[i : i + 1], *second[i : i + 1]) for i in range(longest))
    return [read for pair in pairs for read in pair]


def _traces(vector: TestWriteVectors) -> list[tuple[ReadVector, bytes]]:
    """Where to look, and what is to be found there once the writes have been made.

    That is the beginning of each write, as far as later ones and the cut leave it; and nothing
    where the share was cut. A write that its own cut takes away again leaves no trace.
    """
    traces = []
    for write in vector.writes:
        head = bytearray(write.data[:HEAD_SIZE])
        start, stop = write.offset, write.offset + len(head)
        for other in vector.writes:
            low, high = max(start, other.offset), min(stop, other.offset + len(other.data))
            if low < high:
                head[low - start : high - start] = other.data[
                    low - other.offset : high - other.offset
                ]
        if vector.new_length is not None:
            del head[max(0, vector.new_length - start) :]
        if head:
            traces.append((ReadVector(start, len(head)), bytes(head)))
    if vector.new_length:
        traces.append((ReadVector(vector.new_length, 1), b""))
    return traces
