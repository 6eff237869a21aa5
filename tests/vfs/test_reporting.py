"""What a mount tells of what is pending: all of it, in bounded time, and what matters most."""

from __future__ import annotations

import os

import trio

from lafsfs.vfs.api import SetAttributes
from lafsfs.vfs.publishing.reporting import AT_ONCE
from lafsfs.vfs.status import MAX_NAMED, State
from tests.vfs.conftest import ME, NEVER, ROOT, WallClock, open_world
from tests.vfs.crashes import copied_directory

MANY = MAX_NAMED + 100


async def test_removals_are_named_among_files_by_age(broker, tmp_path, patient_clock):
    async with open_world(broker, tmp_path, sync=False, max_age=1e6) as world:
        await world.write("gone", b"x")
        await world.settled()
        await world.unlink("gone")
        world.clock.ns += 10**10
        await trio.sleep(10)
        for number in range(MANY):
            await world.write(f"f{number}", b"x" * 100)
        status = await world.fs.status()
    assert (status.files, status.names) == (MANY, 1)
    assert status.pending[0].path == "gone (removed)"
    assert len(status.pending) == MAX_NAMED
    assert status.unnamed == MANY + 1 - MAX_NAMED
    assert status.now - 20 < status.settled <= status.now - 10


async def test_what_failed_and_what_is_on_its_way_is_always_named(
    broker, servers, tmp_path, patient_clock
):
    async with open_world(
        broker, tmp_path, quiet=1.0, retry_first=NEVER, retry_most=NEVER, sync=False, max_age=1e6
    ) as world:
        opened = []
        for number in range(MANY):
            handle, _ = await world.fs.create(ROOT, b"%d" % number, 0o600, os.O_WRONLY, ME)
            await world.fs.write(handle.handle, 0, b"x" * 100)
            opened.append(handle.handle)
        for server in servers:
            server.refuse = {"allocate"}
        await world.write("fails", b"x" * 100)
        await trio.sleep(5)
        for server in servers:
            server.refuse = set()
            server.delay = 5.0
        await world.write("goes", b"y" * 100)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.bring, (await world.path("goes")).ino)
            await trio.sleep(1)
            status = await world.fs.status()
        states = {one.path: one.state for one in status.pending}
        assert status.pending[0].path == "fails"
        assert states["fails"] is State.FAILED
        assert states["goes"] is State.UPLOADING
        assert status.failed == 1
        for handle in opened:
            await world.fs.release(handle)


async def test_others_get_their_turn_while_a_status_is_put_together(
    broker, tmp_path, patient_clock
):
    async with open_world(broker, tmp_path, sync=False, max_age=1e6) as world:
        await world.mkdir("d")
        for number in range(3 * AT_ONCE):
            await world.fs.mknod((await world.path("d")).ino, b"%d" % number, 0o100600, 0, ME)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async def turns_of_a_status() -> int:
            nonlocal turns
            async with trio.open_nursery() as nursery:
                nursery.start_soon(count)
                await trio.lowlevel.checkpoint()
                turns = 0
                await world.fs.status()
                nursery.cancel_scope.cancel()
            return turns

        assert await turns_of_a_status() >= 3
        await world.settled()
        assert (await world.fs.status()).is_settled
        assert await turns_of_a_status() >= 3  # nothing is pending of many
        for number in range(3 * AT_ONCE):
            await world.unlink(f"d/{number}")
        assert await turns_of_a_status() >= 3


async def test_paths_and_ages_are_told_behind_a_crash(broker, servers, tmp_path, patient_clock):
    mount = tmp_path / "mount"
    async with open_world(broker, mount, sync=False, max_age=1e6) as world:
        await world.mkdir("d")
        await world.mkdir("d/e")
        await world.mkdir("d/other")
        for name in ("written", "changed", "renamed", "other/removed"):
            await world.write(f"d/{name}" if "/" in name else f"d/e/{name}", b"x" * 1000)
        await world.settled()
        root = world.tree.directory_inode(ROOT).cap
        await world.write("d/e/written", b"new" * 1000)
        changed = (await world.path("d/e/changed")).ino
        await world.fs.setattr(changed, SetAttributes(mode=0o600), ME)
        await world.rename("d/e/renamed", "d/e/other")
        await world.unlink("d/other/removed")
        copied_directory(mount, tmp_path / "copy")
    later = WallClock(world.clock.ns + 3600 * 10**9)
    async with open_world(
        broker, tmp_path / "copy", root, clock=later, sync=False, max_age=1e6
    ) as world:
        status = await world.fs.status()
        assert {one.path for one in status.pending} == {
            "d/e/written",
            "d/e/changed",
            "d/e/other",
            "d/e/renamed (removed)",
            ".../removed (removed)",
        }
        assert all(one.since <= status.now - 3600 for one in status.pending)
        assert status.settled <= status.now - 3600
        await world.path("d/other")
        paths = {one.path for one in (await world.fs.status()).pending}
        assert "d/other/removed (removed)" in paths
