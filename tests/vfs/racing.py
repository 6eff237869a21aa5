"""What tests of races share: servers that hang, and what is on the grid in the end."""

from __future__ import annotations

import stat

import trio
import trio.testing

from lafsfs.vfs.publishing.settling import settle_names
from tests.vfs.conftest import ROOT, open_world

UNCHANGED = {"d/f": b"first", "d/g": b"other"}  # what the files of ``calm`` have in them


async def blocked() -> None:
    """Everything waits, and for no thread."""
    while True:
        await trio.testing.wait_all_tasks_blocked(0.03)
        if not trio.testing.active_thread_count():
            return
        await trio.sleep(0.01)


def hang(servers) -> None:
    for server in servers:
        server.hang()


def wake(servers) -> None:
    for server in servers:
        server.wake()


def refuse(servers, *verbs: str) -> None:
    for server in servers:
        server.refuse = set(verbs)


async def contents(world, path: str = ""):
    """What is in every file, by path, as another client sees it."""
    root = world.tree.directory_inode(ROOT).cap
    broker = world.maker.grid.broker
    async with open_world(broker, world.directory / "again", root) as again:
        return await contents_of(again, path)


async def contents_of(world, path: str = ""):
    found = {}
    for entry in await world.entries(path):
        name = f"{path}/{entry.name.decode()}".lstrip("/")
        if entry.attributes.is_directory:
            found |= await contents_of(world, name)
        elif stat.S_ISREG(entry.attributes.mode):  # not a loop
            found[name] = await world.read(name)
    return found


async def during_publish(world, servers, outcome, change) -> None:
    """Have ``change`` happen while what is pending is on its way, and then everything settled."""
    hang(servers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(settle_names, world.tree.outgoing)
        await blocked()
        await change()
        if outcome == "fails":
            refuse(servers, "read_test_write")
        elif outcome == "half":
            refuse(servers[1:], "read_test_write")
        wake(servers)
    refuse(servers)
    await world.settled()
    assert not world.tree.directory_inode((await world.path("d")).ino).directory.dirty
