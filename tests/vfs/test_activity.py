"""What goes to the grid by itself keeps out of the way of programs that are busy."""

from __future__ import annotations

import pytest
import trio

from lafsfs.vfs.publishing.activity import HELD
from tests.vfs.conftest import open_world


@pytest.fixture
async def lazy(broker, tmp_path, patient_clock):
    """A mount as it is used: nothing waits for the grid."""
    settings = {"quiet": 1.0, "retry_first": 1.0, "sync": False, "max_age": 1e6}
    async with open_world(broker, tmp_path, **settings) as world:
        for server in broker.servers:
            server.calls.clear()
        yield world


def uploads(servers) -> int:
    """How many files were begun to be sent."""
    calls = [call for server in servers for call in server.calls if call.verb == "allocate"]
    return len({call.storage_index for call in calls})


async def busy(world, seconds: float) -> None:
    """Write files for so long, every one soon after the last."""
    for number in range(round(2 * seconds)):
        await world.write(f"busy{number}", b"%d" % number)  # in the directory itself
        await trio.sleep(0.5)


async def test_what_is_due_waits_while_programs_are_busy(lazy, servers):
    await lazy.write("f", b"x" * 1000)
    await lazy.mkdir("d")
    await busy(lazy, 4)
    assert lazy.publishes() == 0
    await busy(lazy, HELD - 4)
    assert uploads(servers) == 0
    await trio.sleep(5)
    assert uploads(servers) == 1  # the others are held in their capabilities
    assert (await lazy.fs.status()).is_settled


async def test_new_directories_wait_as_contents_do(lazy):
    """Published while an archive is unpacked into them they would have to be published again."""
    await lazy.mkdir("d")
    node = lazy.tree.directory_inode((await lazy.path("d")).ino).directory.node
    await busy(lazy, HELD - 2)
    assert node.is_new
    await busy(lazy, 5)
    assert not node.is_new


async def test_what_waits_long_goes_all_the_same(lazy, servers):
    await lazy.write("f", b"x" * 1000)
    await busy(lazy, HELD + 2)
    assert uploads(servers) == 1


async def test_who_waits_is_not_held_up(lazy, servers):
    await lazy.write("f", b"x" * 1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(busy, lazy, 4)
        await trio.sleep(1)
        assert uploads(servers) == 0
        assert await lazy.fs.flush_all() == ()
        assert uploads(servers) == 1
        assert lazy.publishes() >= 1
