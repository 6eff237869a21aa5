"""Other processes that use a journal: ``python -m tests.journal.actors ACTOR DIRECTORY [SEED]``."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import trio

from lafsfs.errors import JournalFullError
from lafsfs.journal import Journal, Limits, Put
from lafsfs.vfs.staging.area import StagingArea
from lafsfs.vfs.staging.kept import Kept
from tests.journal.model import KEY, State, Story


def digest(state: State) -> str:
    """One line for a state."""
    return hashlib.sha256(repr(sorted(state.items())).encode()).hexdigest()


class Announcing(Story):
    """Says what is going to be accepted, and then that it is."""

    def commit(self, journal, rows, refs, blobs, deletes=None) -> None:
        after = {row: said for row, said in self.now.items() if row not in (deletes or [])}
        print(digest(after | dict(rows)), flush=True)
        super().commit(journal, rows, refs, blobs, deletes)
        print("accepted", flush=True)


async def story(directory: Path, seed: int) -> None:
    """Random things, until killed or done."""
    told = Announcing(directory, seed)
    for _ in range(2):
        async with Journal.open(directory, KEY) as journal:
            told.logs.clear()
            for _ in range(20):
                await told.act(journal)


async def hold(directory: Path) -> None:
    """Have the journal open until standard input ends."""
    async with Journal.open(directory, KEY):
        print("open", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


async def fill(directory: Path) -> None:
    """On a small disk: writers are refused, and nobody else is."""
    limits = Limits(staged=1 << 40, margin=3 << 20, patience=0)
    sizes: dict[int, int] = {}
    async with Journal.open(directory, KEY, limits) as journal, StagingArea.over(journal) as area:
        files = {}
        try:
            for row in range(1, 10_000):
                files[row] = area.stage(None, 0)
                for offset in range(0, (40_000 if row % 2 else 700_000), 40_000):
                    await files[row].write(offset, bytes([row % 251]) * 40_000)
        except JournalFullError:
            assert len(files) > 10
        for row, contents in files.items():  # closing, after all have been written
            await contents.seal()
            kept = contents.describe()
            await journal.ready()
            journal.commit({row: Put(b"file", kept.ref)}, blobs=kept.blobs)
            contents.accepted(kept)
            sizes[row] = contents.size
        for row in range(10_001, 10_200):  # renaming and the like
            await journal.ready()
            journal.commit({row: Put(bytes(200))}, [row - 1] if row > 10_001 else [])
        await journal.sync()
    async with Journal.open(directory, KEY, limits) as journal, StagingArea.over(journal) as area:
        for row in journal.take_rows():
            if row.value == b"file":
                contents = await area.restore(Kept(row.contents, None))
                data = await contents.read(0, 1 << 20)
                assert data == bytes([row.id % 251]) * sizes.pop(row.id)
                contents.discard()
        assert not sizes
        journal.commit({}, list(files))
        await journal.sync()
        again = area.stage(None, 0)
        await again.write(0, bytes(2_000_000))
    print("full", flush=True)


async def overfill(directory: Path) -> None:
    """Without a margin: a commit that finds the disk full changes nothing."""
    limits = Limits(staged=1 << 40, margin=0, patience=0)
    async with Journal.open(directory, KEY, limits) as journal:
        ballast = directory.parent / "ballast"
        journal.commit({1: Put(b"one"), 2: Put(b"two")})
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        try:
            for _ in range(10_000):
                journal.commit({1: Put(b"uno"), 3: Put(bytes(3000))}, [2])
                journal.commit({1: Put(b"one"), 2: Put(b"two")}, [3])
        except JournalFullError:
            pass
        else:
            raise AssertionError("the disk was not full")
        os.truncate(ballast, 0)
        journal.commit({4: Put(b"four")})
    async with Journal.open(directory, KEY, limits) as journal:
        rows = {row.id: row.value for row in journal.take_rows()}
        assert rows in (
            {1: b"one", 2: b"two", 4: b"four"},
            {1: b"uno", 3: bytes(3000), 4: b"four"},
        )
    print("full", flush=True)


def main(name: str, directory: str, *seed: str) -> None:
    actor = {"story": story, "hold": hold, "fill": fill, "overfill": overfill}[name]
    trio.run(actor, Path(directory), *map(int, seed))


if __name__ == "__main__":
    main(*sys.argv[1:])
