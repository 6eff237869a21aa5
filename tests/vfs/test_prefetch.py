"""Tables fetched ahead: a walk waits for the grid a few times, not once for each directory."""

from __future__ import annotations

import trio

from lafsfs.caps import LiteralCap, MutableFormat
from lafsfs.vfs.tree.inodes import DirectoryInode
from lafsfs.vfs.tree.prefetch import PARALLEL, WINDOW
from tests.vfs.conftest import ROOT, WallClock, open_maker, open_world


async def planted(broker, count, depth=1):
    """A root with ``count`` directories, each the first of a chain of ``depth``."""
    async with open_maker(broker, WallClock()) as maker:
        children = {}
        for number in range(count):
            file = LiteralCap(b"%d" % number)
            contents = {f"a file that takes more than a literal {number}": (file, {})}
            for _ in range(depth):
                cap = (await maker.create_immutable_directory(contents)).cap
                contents = {"in": (cap, {})}
            children[f"d{number:03}"] = (cap, {})
        return (await maker.create_directory(MutableFormat.SDMF, children)).cap


def set_delay(broker, seconds):
    for server in broker.servers:
        server.delay = seconds


async def list_as_kernel(world, ino):
    """What readdirplus does: every entry that is handed out is remembered."""
    handle = await world.fs.opendir(ino)
    entries = []
    async for entry in world.fs.readdir(handle, 0):
        world.fs.remember(entry.attributes.ino)
        entries.append(entry.attributes)
    await world.fs.releasedir(handle)
    return entries


async def walk(world, ino=ROOT):
    found = 1
    for child in await list_as_kernel(world, ino):
        found += await walk(world, child.ino) if child.is_directory else 0
    return found


def tables(world):
    """The directories in use, and how many of their tables are here."""
    used = [one for one in world.tree.table if isinstance(one, DirectoryInode)]
    return len(used), sum(one.directory.node.latest is not None for one in used)


async def test_a_walk_waits_seldom(broker, tmp_path, running_clock):
    root = await planted(broker, 100)
    async with open_world(broker, tmp_path, root, max_age=60.0) as world:
        set_delay(broker, 1.0)
        started = trio.current_time()
        assert await walk(world) == 101
        assert trio.current_time() - started <= 2 * (100 / PARALLEL + 2)  # two round trips each


async def test_looking_at_one_directory_fetches_a_bounded_number(broker, tmp_path, running_clock):
    root = await planted(broker, 2 * WINDOW)
    async with open_world(broker, tmp_path, root, max_age=60.0) as world:
        await list_as_kernel(world, ROOT)
        await trio.sleep(60)
        assert tables(world) == (2 * WINDOW + 1, WINDOW + 1)


async def test_never_more_than_a_few_at_once(broker, tmp_path, running_clock):
    root = await planted(broker, 3 * PARALLEL)
    async with open_world(broker, tmp_path, root, max_age=60.0) as world:
        under_way: set[bytes | None] = set()
        most = 0

        async def count(call):
            nonlocal most
            under_way.add(call.storage_index)
            most = max(most, len(under_way))
            await trio.sleep(1)
            under_way.discard(call.storage_index)

        for server in broker.servers:
            server.before_call = count
        await list_as_kernel(world, ROOT)
        await trio.sleep(60)
        assert most == PARALLEL


async def test_follows_a_walker_down_before_on(broker, tmp_path, running_clock):
    root = await planted(broker, 20, depth=3)
    async with open_world(broker, tmp_path, root, max_age=60.0) as world:
        set_delay(broker, 1.0)
        started = trio.current_time()
        assert await walk(world) == 61
        assert trio.current_time() - started < 2 * 20 * 3


async def test_what_cannot_be_fetched_is_the_walkers_to_meet(broker, tmp_path, running_clock):
    root = await planted(broker, 3)
    async with open_world(broker, tmp_path, root, max_age=60.0) as world:
        for server in broker.servers:
            server.down = True
        entries = await list_as_kernel(world, ROOT)
        await trio.sleep(60)
        for server in broker.servers:
            server.down = False
        await trio.sleep(60)
        assert len(await list_as_kernel(world, entries[0].ino)) == 1


async def test_nobody_is_asked_for_what_the_kernel_forgot(broker, tmp_path, running_clock):
    root = await planted(broker, 2 * WINDOW)
    async with open_world(broker, tmp_path, root, max_age=60.0) as world:
        entries = await list_as_kernel(world, ROOT)
        await trio.sleep(60)
        world.fs.forget([(entry.ino, 1) for entry in entries[WINDOW:]])
        await list_as_kernel(world, entries[0].ino)
        await trio.sleep(60)
        assert tables(world) == (WINDOW + 1, WINDOW + 1)


async def test_without_patience_for_old_tables_nothing_is_fetched(broker, tmp_path, running_clock):
    root = await planted(broker, 4)
    async with open_world(broker, tmp_path, root, max_age=0.0) as world:
        await list_as_kernel(world, ROOT)
        await trio.sleep(60)
        assert tables(world) == (5, 1)
