"""What happens between two awaits of one verb, when another verb is at the same things."""

from __future__ import annotations

import errno
import os
import random

import pytest
import trio
import trio.testing

from lafsfs.errors import LafsError
from lafsfs.vfs.api import RENAME_EXCHANGE, SetAttributes
from tests.vfs.conftest import ME, ROOT, open_world
from tests.vfs.racing import blocked, hang, wake

CREATE = os.O_RDWR | os.O_CREAT


@pytest.fixture
async def calm(broker, tmp_path):
    """As for other races, with one file alone."""
    async with open_world(broker, tmp_path, max_age=1e6) as world:
        await world.mkdir("d")
        await world.mkdir("e")
        await world.write("d/f", b"first")
        await world.settled()
        yield world


async def test_changed_while_it_is_moved_to_another_directory(calm, servers):
    ino = (await calm.path("d/f")).ino
    opened = await calm.fs.open(ino, os.O_RDWR)
    hang(servers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(calm.rename, "d/f", "e/f")
        await blocked()
        await calm.fs.setattr(ino, SetAttributes(mode=0o600), ME)
        await calm.fs.write(opened.handle, 0, b"other")
        nursery.start_soon(calm.fs.flush, opened.handle)
        await blocked()
        wake(servers)
    await calm.fs.release(opened.handle)
    assert await calm.fs.flush_all() == ()
    assert list(await calm.on_grid("d")) == []
    child = (await calm.on_grid("e"))["f"]
    assert child.metadata["lafsfs"]["mode"] == 0o600
    assert await calm.read("e/f") == b"other"
    assert (await calm.path("e/f")).ino == ino


async def test_published_in_the_old_directory_while_it_moves_to_another(calm, servers):
    """The old directory's publish is under way when the rename comes."""
    ino = (await calm.path("d/f")).ino
    directory = calm.tree.table[ino].edges[0].binding.directory
    hang(servers)
    async with trio.open_nursery() as nursery:
        await calm.fs.setattr(ino, SetAttributes(mode=0o600), ME)
        nursery.start_soon(calm.tree.settle, calm.tree.table[ino])
        await blocked()
        nursery.start_soon(calm.rename, "d/f", "e/g")
        await blocked()
        await calm.fs.setattr(ino, SetAttributes(mode=0o640), ME)
        wake(servers)
    assert await calm.fs.flush_all() == ()
    assert not directory.dirty
    assert list(await calm.on_grid("d")) == []
    assert (await calm.on_grid("e"))["g"].metadata["lafsfs"]["mode"] == 0o640


async def test_written_while_it_is_removed(calm, servers):
    ino = (await calm.path("d/f")).ino
    opened = await calm.fs.open(ino, os.O_RDWR)
    hang(servers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(calm.unlink, "d/f")
        await blocked()
        await calm.fs.write(opened.handle, 0, b"FIRST")
        nursery.start_soon(calm.fs.flush, opened.handle)
        await blocked()
        wake(servers)
    assert await calm.fs.read(opened.handle, 0, 100) == b"FIRST"
    await calm.fs.release(opened.handle)
    assert await calm.fs.flush_all() == ()
    assert list(await calm.on_grid("d")) == []


async def test_two_renames_of_one_file(calm, servers):
    hang(servers)
    results = []

    async def rename(new: str) -> None:
        try:
            await calm.rename("d/f", new)
            results.append(new)
        except LafsError:
            results.append(None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(rename, "e/one")
        nursery.start_soon(rename, "e/two")
        await blocked()
        wake(servers)
    [winner] = [new for new in results if new]
    assert await calm.read(winner) == b"first"
    assert len(await calm.listdir("e")) == 1


async def test_opposite_renames_do_not_lock_each_other_out(calm):
    await calm.write("e/g", b"second")
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calm.rename, "d/f", "e/f")
            nursery.start_soon(calm.rename, "e/g", "d/g")
    assert (await calm.listdir("d"), await calm.listdir("e")) == ([b"g"], [b"f"])


class Chaos:
    """Several programs doing things to a few names at once; every error must be an honest one."""

    def __init__(self, world, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.errors: list[LafsError] = []

    def name(self) -> str:
        return self.random.choice(["d/", "e/", ""]) + self.random.choice("abc")

    async def step(self) -> None:
        world, name = self.world, self.name()
        verbs = [
            lambda: world.write(name, self.random.randbytes(self.random.choice([3, 300]))),
            lambda: world.rename(name, self.name()),
            lambda: world.rename(name, self.name(), RENAME_EXCHANGE),
            lambda: world.unlink(name),
            lambda: world.read(name),
            lambda: world.mkdir(name),
            lambda: self.change(name),
            lambda: self.link(name),
            lambda: self.rmdir(name),
            lambda: world.listdir("d"),
        ]
        try:
            await self.random.choice(verbs)()
        except LafsError as error:
            self.errors.append(error)

    async def change(self, name: str) -> None:
        found = await self.world.path(name)
        await self.world.fs.setattr(
            found.ino, SetAttributes(mode=self.random.choice([384, 420])), ME
        )

    async def link(self, name: str) -> None:
        found = await self.world.path(name)
        await self.world.fs.link(found.ino, *await self.world.split(self.name()))

    async def rmdir(self, name: str) -> None:
        await self.world.fs.rmdir(*await self.world.split(name))

    async def run(self) -> None:
        for _ in range(25):
            await self.step()

    async def run_honestly(self) -> None:
        await self.run()
        assert not [error for error in self.errors if error.errno in (0, errno.EIO)]


@pytest.mark.parametrize("seed", range(4))
async def test_chaos_ends_in_what_the_grid_has(broker, tmp_path, seed):
    async with open_world(broker, tmp_path, max_age=1e6, quiet=0.0) as world:
        await world.mkdir("d")
        await world.mkdir("e")
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(Chaos(world, 100 * seed + number).run_honestly)
        await assert_settled(world, broker, tmp_path)


@pytest.mark.parametrize("seed", range(4))
async def test_chaos_on_a_grid_that_keeps_failing(broker, tmp_path, servers, seed, patient_clock):
    async with open_world(broker, tmp_path, max_age=1e6, quiet=0.0, retry_first=1.0) as world:
        await world.mkdir("d")
        await world.mkdir("e")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gremlin, servers, random.Random(seed))
            async with trio.open_nursery() as programs:
                for number in range(4):
                    programs.start_soon(Chaos(world, 100 * seed + number).run)
            nursery.cancel_scope.cancel()
        for server in servers:
            server.refuse = set()
        await assert_settled(world, broker, tmp_path)


async def gremlin(servers, choices: random.Random) -> None:
    """Servers refuse this and that for a while."""
    while True:
        for server in servers:
            server.refuse = set(choices.choice([(), (), ("read_test_write",), ("allocate",)]))
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(choices.random())


async def assert_settled(world, broker, tmp_path) -> None:
    """Nothing is pending, and another client sees what we see."""
    assert await world.fs.flush_all() == ()
    for inode in world.tree.table:
        assert not inode.is_dirty
        for edge in inode.edges:
            assert not edge.binding.holds
    assert not world.tree.outgoing.pending
    seen = await tree_of(world)
    root = world.tree.directory_inode(ROOT).cap
    async with open_world(broker, tmp_path / "again", root) as again:
        assert await tree_of(again) == seen


async def tree_of(world, path: str = ""):
    """Everything there is, by path."""
    found = {}
    for entry in await world.entries(path):
        name = f"{path}/{entry.name.decode()}"
        status = await world.path(name)
        if status.is_directory:
            found[name] = status.mode
            found |= await tree_of(world, name)
        else:
            found[name] = (status.mode, status.size, await world.read(name))
    return found
