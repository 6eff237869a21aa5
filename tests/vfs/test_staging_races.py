"""Writing, accepting, uploading and reading one file at the same time, against a byte array.

Tasks take turns at every await, threads finish when they like: whatever order comes about, readers
see all of each write, snapshots stand still, and what was accepted is there after a restart.
"""

from __future__ import annotations

import random

import pytest
import trio

from lafsfs.journal import Journal, Put
from lafsfs.vfs.staging.area import StagingArea
from lafsfs.vfs.staging.kept import Kept
from tests.journal.model import KEY, copied


class Base:
    """Contents on the grid."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def read(self, offset: int, size: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.data[offset : offset + size]


class Play:
    """One file, its model, and those who use it."""

    def __init__(self, area: StagingArea, directory, seed: int) -> None:
        self.random = random.Random(seed)
        base = Base(self.random.randbytes(self.random.choice([0, 100, 200_000])))
        self.area = area
        self.directory = directory
        self.model = bytearray(base.data)
        self.contents = area.stage(base, len(base.data))
        self.accepted = None  # (contents, base)
        self.images = []

    async def pause(self) -> None:
        for _ in range(self.random.randrange(3)):
            await trio.lowlevel.checkpoint()

    async def write(self) -> None:
        for _ in range(60):
            await self.pause()
            if self.random.random() < 0.1:
                size = self.random.randrange(len(self.model) + 1000)
                self.contents.truncate(size)
                self.model[:] = self.model[:size].ljust(size, b"\0")
                continue
            offset = self.random.choice([len(self.model), self.random.randrange(300_000)])
            data = self.random.randbytes(self.random.choice([1, 100, 5000, 70_000, 300_000]))
            self.model.extend(bytes(max(0, offset - len(self.model))))
            self.model[offset : offset + len(data)] = data
            await self.contents.write(offset, data)

    async def accept(self) -> None:
        for _ in range(15):
            await self.pause()
            await self.contents.seal()
            busy = self.contents._sealing.locked() or self.contents._waiting
            complete = not busy and self.contents._tail is None  # nobody wrote meanwhile
            kept = self.contents.describe()
            self.area.journal.commit({1: Put(b"", kept.ref)}, blobs=kept.blobs)
            self.contents.accepted(kept)
            if complete:
                self.accepted = (bytes(self.model), kept.base)
                if self.random.random() < 0.2:
                    target = self.directory.parent / f"image{len(self.images)}"
                    self.images.append((copied(self.directory, target), *self.accepted))

    async def change_mode(self) -> None:
        """Another reason to put the row; whatever is known of the contents then."""
        for _ in range(40):
            await self.pause()
            kept = self.contents.describe()
            self.area.journal.commit({1: Put(b"", kept.ref)}, blobs=kept.blobs)
            self.contents.accepted(kept)

    async def upload(self) -> None:
        for _ in range(8):
            await self.pause()
            wanted = bytes(self.model)
            with self.contents.snapshot() as snapshot:
                await self.pause()
                assert await snapshot.read(0, snapshot.size) == wanted
                await self.pause()
                assert await snapshot.read(0, snapshot.size) == wanted

    async def read(self) -> None:
        for _ in range(40):
            await self.pause()
            offset = self.random.randrange(len(self.model) + 1)
            before = bytes(self.model)
            changes = self.contents.changes
            found = await self.contents.read(offset, 50_000)
            if self.contents.changes == changes:
                assert found == before[offset : offset + 50_000]


async def restored(directory, base: Base) -> bytes:
    async with Journal.open(directory, KEY) as journal, StagingArea.over(journal) as area:
        (row,) = journal.take_rows()
        contents = await area.restore(Kept(row.contents, base))
        return await contents.read(0, contents.size)


@pytest.mark.parametrize("seed", range(12))
async def test_everything_at_once(tmp_path, mock_clock, seed):
    budget = [0, 50_000, 1 << 20, 64 << 20][seed % 4]
    directory = tmp_path / "journal"
    async with Journal.open(directory, KEY) as journal:
        async with StagingArea.over(journal, budget) as area:
            play = Play(area, directory, seed)
            async with trio.open_nursery() as nursery:
                for part in (play.write, play.accept, play.change_mode, play.upload, play.read):
                    nursery.start_soon(part)
            assert await play.contents.read(0, play.contents.size) == play.model
            await play.accept()
            play.contents.discard()
            assert area.buffered == journal.room.promised == 0
        await journal.sync()
        assert len(list((directory / "contents").iterdir())) <= 1
    for image, wanted, base in play.images:
        assert await restored(image, base) == wanted
    wanted, base = play.accepted
    assert wanted == play.model
    assert await restored(directory, base) == wanted
