"""Open mutable files: what somebody else writes to them is noticed, and the kernel is told."""

from __future__ import annotations

import os

import pytest
import trio

from lafsfs.caps import MutableFormat
from lafsfs.vfs.api import Changed
from tests.vfs.conftest import WallClock, open_maker, open_world


async def with_file(broker, format):
    """A root with a mutable file in it, and the file's capability."""
    async with open_maker(broker, WallClock()) as maker:
        file = await maker.create_mutable(format, b"before")
        root = await maker.create_directory(MutableFormat.SDMF, {"notes": (file.cap, {})})
        return root.cap, file.cap


async def overwrite(broker, cap, contents):
    async with open_maker(broker, WallClock()) as other:
        await other.node(cap).overwrite(contents)


@pytest.mark.parametrize("format", list(MutableFormat))
async def test_what_others_write_shows_in_an_open_file(broker, tmp_path, running_clock, format):
    root, cap = await with_file(broker, format)
    async with open_world(broker, tmp_path, root, max_age=5.0) as world:
        found = await world.path("notes")
        opened = await world.fs.open(found.ino, os.O_RDONLY)
        assert await world.fs.read(opened.handle, 0, 100) == b"before"
        await overwrite(broker, cap, b"afterwards")
        await trio.sleep(6)
        assert Changed(found.ino, contents=True) in world.changes
        assert await world.fs.read(opened.handle, 0, 100) == b"afterwards"
        assert (await world.fs.getattr(found.ino)).size == 10


async def test_closed_files_are_left_alone(broker, tmp_path, running_clock):
    root, _ = await with_file(broker, MutableFormat.SDMF)
    async with open_world(broker, tmp_path, root, max_age=5.0) as world:
        await world.read("notes")
        calls = sum(len(server.calls) for server in broker.servers)
        await trio.sleep(100)
        assert sum(len(server.calls) for server in broker.servers) == calls


async def test_a_grid_that_is_away_is_asked_again(broker, tmp_path, running_clock):
    root, cap = await with_file(broker, MutableFormat.SDMF)
    async with open_world(broker, tmp_path, root, max_age=5.0) as world:
        found = await world.path("notes")
        await world.fs.open(found.ino, os.O_RDONLY)
        for server in broker.servers:
            server.down = True
        await trio.sleep(20)
        for server in broker.servers:
            server.down = False
        await overwrite(broker, cap, b"x")
        await trio.sleep(20)
        assert Changed(found.ino, contents=True) in world.changes
