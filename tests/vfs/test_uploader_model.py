"""One program doing random things to a few files while uploads come and go and fail: a plain
dictionary says what must be there at any moment, and on the grid in the end."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field

import pytest
import trio

from lafsfs.errors import LafsError
from lafsfs.vfs.api import SetAttributes
from tests.vfs.conftest import ME, ROOT, open_world

NAMES = [b"a", b"b", b"c"]
SIZES = [0, 10, 1000, 70_000, 3 << 20]
WAITS = [0.0, 0.3, 1.5, 4.0, 15.0, 90.0]
STEPS = 80


@dataclass(eq=False)
class File:
    """A file as it must be."""

    data: bytearray = field(default_factory=bytearray)


class Program:
    """Does one random thing after the other, and looks whether what it sees is right."""

    def __init__(self, world, servers, seed: int) -> None:
        self.world = world
        self.servers = servers
        self.random = random.Random(seed)
        self.files: dict[bytes, File] = {}
        self.handles: list[tuple[int, File]] = []

    async def step(self) -> None:
        things = [
            *[self.write] * 4,
            *[self.write_open] * 3,
            *[self.rest] * 4,
            self.open,
            self.fsync,
            self.close,
            self.truncate,
            self.unlink,
            self.rename,
            self.link,
            self.flush,
            self.weather,
        ]
        await self.random.choice(things)()
        await self.check()

    def some(self) -> bytes:
        return self.random.choice(NAMES)

    def bytes(self) -> bytes:
        return self.random.randbytes(self.random.choice(SIZES))

    async def _opened(self, name: bytes, flags: int) -> tuple[int, File]:
        file = self.files.setdefault(name, File())
        opened, _ = await self.world.fs.create(ROOT, name, 0o644, os.O_RDWR | flags, ME)
        if flags & os.O_TRUNC:
            file.data.clear()
        return opened.handle, file

    async def _close(self, handle: int) -> None:
        await self.world.fs.flush(handle)
        await self.world.fs.release(handle)

    async def _put(self, handle: int, file: File, offset: int, data: bytes) -> None:
        await self.world.fs.write(handle, offset, data)
        if data:
            file.data.extend(bytes(max(0, offset - len(file.data))))
            file.data[offset : offset + len(data)] = data

    async def write(self) -> None:
        flags = self.random.choice([os.O_CREAT, os.O_CREAT | os.O_TRUNC])
        handle, file = await self._opened(self.some(), flags)
        await self._put(handle, file, 0, self.bytes())
        await self._close(handle)

    async def open(self) -> None:
        if len(self.handles) < 3:
            self.handles.append(await self._opened(self.some(), os.O_CREAT))

    async def write_open(self) -> None:
        if self.handles:
            handle, file = self.random.choice(self.handles)
            offset = self.random.randrange(len(file.data) + 100)
            await self._put(handle, file, offset, self.bytes()[:70_000])

    async def fsync(self) -> None:
        if self.handles:
            await self.world.fs.fsync(self.random.choice(self.handles)[0])

    async def close(self) -> None:
        if self.handles:
            handle, _ = self.handles.pop(self.random.randrange(len(self.handles)))
            await self._close(handle)

    async def truncate(self) -> None:
        name, size = self.some(), self.random.choice(SIZES[:4])
        if name in self.files:
            found = await self.world.fs.lookup(ROOT, name)
            await self.world.fs.setattr(found.ino, SetAttributes(size=size), ME)
            data = self.files[name].data
            data[:] = bytes(data[:size]).ljust(size, b"\0")

    async def unlink(self) -> None:
        name = self.some()
        if name in self.files:
            await self.world.fs.unlink(ROOT, name)
            del self.files[name]

    async def rename(self) -> None:
        old, new = self.some(), self.some()
        if old in self.files:
            await self.world.fs.rename(ROOT, old, ROOT, new)
            if self.files.get(new) is not self.files[old]:  # else rename(2) does nothing
                self.files[new] = self.files.pop(old)

    async def link(self) -> None:
        old, new = self.some(), self.some()
        if old in self.files and new not in self.files:
            found = await self.world.fs.lookup(ROOT, old)
            await self.world.fs.link(found.ino, ROOT, new)
            self.files[new] = self.files[old]

    async def rest(self) -> None:
        await trio.sleep(self.random.choice(WAITS))

    async def flush(self) -> None:
        with trio.move_on_after(self.random.choice(WAITS)):
            await self.world.fs.flush_all()

    async def weather(self) -> None:
        """How the grid is for a while."""
        for server in self.servers:
            server.delay = self.random.choice([0.0, 0.0, 0.05, 1.0])
            server.refuse = self.random.choice([set(), set(), {"allocate"}, {"write_share"}])

    async def check(self) -> None:
        """One file is what it should be, be it staged or on the grid."""
        name = self.some()
        if name in self.files:
            assert await self.world.read(name.decode()) == self.files[name].data
        for handle, file in self.handles:
            assert await self.world.fs.read(handle, 0, 100) == file.data[:100]

    async def end(self) -> None:
        """Better weather."""
        for server in self.servers:
            server.delay, server.refuse = 0.0, set()
        while self.handles:
            await self.close()
        with trio.fail_after(1000):
            while not (await self.world.fs.status()).is_settled:  # noqa: ASYNC110 - as users do
                await trio.sleep(1)

    async def contents(self, world) -> dict[bytes, bytes]:
        return {name: await world.read(name.decode()) for name in await world.listdir()}


@pytest.mark.parametrize("seed", range(12))
async def test_random_things_end_on_the_grid(broker, servers, tmp_path, patient_clock, seed):
    async with open_world(
        broker, tmp_path, quiet=1.0, retry_first=1.0, sync=False, max_age=1e6
    ) as world:
        program = Program(world, servers, seed)
        for _ in range(STEPS):
            try:
                await program.step()
            except LafsError as error:
                raise AssertionError("nothing here may fail") from error
        await program.end()
        expected = {name: bytes(file.data) for name, file in program.files.items()}
        assert await program.contents(world) == expected
        assert not any(server.uploads for server in servers)
        root = world.tree.directory_inode(ROOT).cap
        async with open_world(broker, tmp_path / "again", root) as again:
            assert await program.contents(again) == expected
