"""Whoever waits for a publish that is under way already is told when it is over."""

from __future__ import annotations

import os

import trio
import trio.testing

from lafsfs.caps import MutableFormat
from lafsfs.vfs.api import ROOT_INODE, Caller, SetAttributes, VfsSettings
from lafsfs.vfs.filesystem import open_filesystem
from tests.fakes import fake_grid
from tests.nodes.conftest import open_maker


async def test_an_edge_in_flight_is_waited_for(tmp_path):
    broker = fake_grid(3)
    settings = VfsSettings(staging_directory=tmp_path, quiet=0)
    async with open_maker(broker) as maker:
        root = await maker.create_directory(MutableFormat.SDMF)
        async with open_filesystem(root, maker, broker, settings) as fs:
            opened, made = await fs.create(ROOT_INODE, b"file", 0o600, os.O_WRONLY, Caller())
            await fs.flush(opened.handle)
            for server in broker.servers:
                server.hang()
            await fs.setattr(made.ino, SetAttributes(mode=0o640), Caller())
            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    await trio.testing.wait_all_tasks_blocked(0.05)  # the publish hangs
                    nursery.start_soon(fs.fsync, opened.handle)
                    nursery.start_soon(fs.flush_all)
                    await trio.testing.wait_all_tasks_blocked(0.05)
                    for server in broker.servers:
                        server.wake()
            await fs.release(opened.handle)
        assert (await root.table(0))["file"].metadata["lafsfs"]["mode"] & 0o777 == 0o640
