"""Directories of 50,000 entries, and files that are never held whole."""

from __future__ import annotations

import os
from contextlib import aclosing

import pytest
import trio

from lafsfs.caps import LiteralCap, MutableFormat
from lafsfs.vfs.api import SetAttributes
from tests.vfs.conftest import ME, ROOT, open_maker, open_world

COUNT = 50_000


class Watch(trio.abc.Instrument):
    """Counts what one step of any task does, by the entries that it hands out."""

    def __init__(self) -> None:
        self.steps = 0

    def after_task_step(self, task) -> None:
        self.steps += 1


@pytest.fixture
async def crowd(world, broker, tmp_path):
    """A directory of 50,000 children, made by one set-children."""
    async with open_maker(broker, world.clock) as maker:
        cap = LiteralCap(b"x")
        children = {f"file {number:05}": (cap, {}) for number in range(COUNT)}
        node = await maker.create_directory(MutableFormat.SDMF, children)
    async with open_world(broker, tmp_path, node.cap, max_age=2.0) as crowd:
        yield crowd


async def test_fifty_thousand_entries(crowd):
    handle = await crowd.fs.opendir(ROOT)
    watch = Watch()
    trio.lowlevel.add_instrument(watch)
    numbers = set()
    start = 0
    async with aclosing(crowd.fs.readdir(handle, start)) as entries:
        async for entry in entries:
            numbers.add(entry.attributes.ino)
    trio.lowlevel.remove_instrument(watch)
    await crowd.fs.releasedir(handle)
    assert len(numbers) == COUNT
    assert watch.steps > COUNT // 64  # others had their turn at least as often
    assert len(crowd.tree.table) == 1
    await crowd.write("file 00007", b"changed")
    assert await crowd.read("file 00007") == b"changed"
    found = await crowd.path("file 49999")
    await crowd.fs.setattr(found.ino, SetAttributes(mode=0o600), ME)
    await crowd.unlink("file 12345")
    assert len(await crowd.listdir()) == COUNT - 1
    root = await crowd.fs.getattr(ROOT)
    assert root.mtime_ns > 0


async def test_a_big_file_is_never_held_whole(broker, tmp_path):
    size = 48 << 20
    block = bytes(range(256)) * 4096
    async with open_world(broker, tmp_path) as world:
        opened, made = await world.fs.create(ROOT, b"big", 0o644, os.O_RDWR | os.O_CREAT, ME)
        for offset in range(0, size, len(block)):
            await world.fs.write(opened.handle, offset, block)
            assert world.tree.area.buffered <= 3 << 20
        assert await world.fs.read(opened.handle, size - 10, 100) == block[-10:]
        await world.unlink("big")
        await world.fs.release(opened.handle)
        world.fs.forget([(made.ino, 1)])
        assert world.tree.area.buffered == 0
