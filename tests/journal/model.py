"""A journal that random things are done to, beside a model of what must be found afterwards.

What a row says with its contents is one value, and the model is the list of all states that were
ever committed. :meth:`Story.found` opens a (copied, damaged) directory and gives the state in it.
"""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING

from lafsfs.journal import ContentsRef, Entry, Journal, Kind, Put

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lafsfs.journal import ContentsFile

KEY = bytes(range(32))

State = dict[int, tuple[bytes, bytes]]  # row id -> (value, contents)


class Story:
    """What happens to one journal. ``states[at]`` is what is accepted now."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.random = random.Random(seed)
        self.states: list[State] = [{}]
        self.safe = 0  # index of a state that a power failure cannot take back
        self.logs: dict[int, ContentsFile] = {}  # by row

    @property
    def now(self) -> State:
        return self.states[-1]

    async def act(self, journal: Journal) -> None:
        """One random thing."""
        await self.random.choice(
            [self.put, self.put, self.put_small, self.put_large, self.put_large, self.rename,
             self.delete, self.sync, self.checkpoint]
        )(journal)  # fmt: skip

    async def put(self, journal: Journal) -> None:
        row = self.random.randrange(1, 8)
        log = self.logs.pop(row, None)
        self.commit(journal, {row: (self.random.randbytes(20), b"")}, {}, {})
        self.let_go(journal, log)

    async def put_small(self, journal: Journal) -> None:
        row, data = self.random.randrange(1, 8), self.random.randbytes(self.random.randrange(9000))
        log = self.logs.pop(row, None)
        id = journal.new_contents()
        refs = {row: ContentsRef(id)}
        self.commit(journal, {row: (b"small", data)}, refs, {id: data})
        self.let_go(journal, log)

    async def put_large(self, journal: Journal) -> None:
        """Begin a log, or go on with one."""
        row, data = self.random.randrange(1, 8), self.random.randbytes(self.random.randrange(9000))
        if row not in self.logs:
            log = self.logs[row] = journal.hold(journal.new_contents())
            before = b""
        else:
            log, before = self.logs[row], self.now[row][1]
        await journal.append(log, [Entry(Kind.WRITE, len(before), data)])
        refs = {row: ContentsRef(log.number, log.end)}
        self.commit(journal, {row: (b"large", before + data)}, refs, {})

    async def rename(self, journal: Journal) -> None:
        """Two rows at once, one over the other."""
        rows = [row for row in self.now if row not in self.logs and not self.now[row][1]]
        if len(rows) < 2:
            return
        source, target = self.random.sample(rows, 2)
        self.commit(journal, {target: self.now[source]}, {}, {}, [source])

    async def delete(self, journal: Journal) -> None:
        row = self.random.randrange(1, 8)
        log = self.logs.pop(row, None)
        self.commit(journal, {}, {}, {}, [row])
        self.let_go(journal, log)

    async def sync(self, journal: Journal) -> None:
        at = len(self.states) - 1
        await journal.sync()
        self.safe = at

    async def checkpoint(self, journal: Journal) -> None:
        await journal._commit_log.empty()

    def commit(
        self,
        journal: Journal,
        rows: Mapping[int, tuple[bytes, bytes]],
        refs: Mapping[int, ContentsRef],
        blobs: Mapping[int, bytes],
        deletes: list[int] | None = None,
    ) -> None:
        state = {row: said for row, said in self.now.items() if row not in (deletes or [])}
        self.states.append(state | dict(rows))
        journal.commit(
            {row: Put(value, refs.get(row)) for row, (value, _) in rows.items()},
            deletes or [],
            blobs,
        )

    def let_go(self, journal: Journal, log: ContentsFile | None) -> None:
        if log is not None:
            journal.let_go(log.number)

    async def found(self, directory: Path) -> State:
        """What a journal in ``directory`` holds. Whatever it names can be read."""
        state: State = {}
        async with Journal.open(directory, KEY) as journal:
            for row in journal.take_rows():
                state[row.id] = (row.value, contents_of(journal, row.contents))
        return state


def contents_of(journal: Journal, ref: ContentsRef | None) -> bytes:
    if ref is None:
        return b""
    if not ref.end:
        return journal.blob(ref.id)
    log = journal.hold(ref.id)
    parts = [log.read(record) for record in log.records(ref.end)]
    journal.let_go(ref.id)
    return b"".join(parts)


def copied(directory: Path, target: Path) -> Path:
    """The directory as the kernel has it: what survives a killed process."""
    shutil.copytree(directory, target, ignore=shutil.ignore_patterns("*-shm"))
    return target
