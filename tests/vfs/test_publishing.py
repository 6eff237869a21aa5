"""How often directories are published, and what happens when a publish fails."""

from __future__ import annotations

import os

import pytest
import trio
import trio.testing

from lafsfs.errors import GridError, LafsError
from lafsfs.vfs.api import SetAttributes
from lafsfs.vfs.publishing.settling import settle_names
from tests.vfs.conftest import ME, ROOT, eventually, open_world

CREATE = os.O_WRONLY | os.O_CREAT


@pytest.fixture
async def quiet_world(broker, tmp_path, mock_clock):
    """A second without changes comes before a publish; the clock is the test's."""
    async with open_world(broker, tmp_path, quiet=1.0) as world:
        yield world


async def test_create_chmod_utimens_close_is_one_publish(world):
    opened, made = await world.fs.create(ROOT, b"f", 0o644, CREATE, ME)
    await world.fs.write(opened.handle, 0, b"data")
    await world.fs.setattr(made.ino, SetAttributes(mode=0o600), ME)
    await world.fs.setattr(made.ino, SetAttributes(mtime_ns=5), ME, opened.handle)
    await world.fs.setxattr(made.ino, b"user.x", b"y", ME)
    await world.flush(opened.handle)
    await world.flush(opened.handle)
    await world.fs.release(opened.handle)
    assert world.publishes() == 1
    assert (await world.path("f")).mtime_ns == 5


async def test_attributes_wait_for_quiet_and_go_out_together(quiet_world, mock_clock):
    world = quiet_world
    ino = (await world.write("f", b"")).ino
    other = (await world.write("g", b"")).ino
    before = world.publishes()
    for mode in (0o600, 0o640, 0o644):
        await world.fs.setattr(ino, SetAttributes(mode=mode), ME)
        await world.fs.setattr(other, SetAttributes(mode=mode), ME)
        mock_clock.jump(0.9)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert world.publishes() == before
    mock_clock.jump(0.2)
    await eventually_real(lambda: world.publishes() > before)
    assert world.publishes() == before + 1
    listing = await world.on_grid()
    assert [listing[name].metadata["lafsfs"]["mode"] for name in "fg"] == [0o644, 0o644]


async def test_changes_that_never_cease_are_published(quiet_world, mock_clock):
    world = quiet_world
    ino = (await world.write("f", b"")).ino
    before = world.publishes()
    for step in range(16):  # as long as it may take: quiet periods, and programs that are busy
        await world.fs.setattr(ino, SetAttributes(mtime_ns=step), ME)
        mock_clock.jump(0.9)
        await trio.testing.wait_all_tasks_blocked(0.02)
    await eventually_real(lambda: world.publishes() > before)
    assert (await world.on_grid())["f"].metadata["lafsfs"]["mtime"] in range(16)


async def test_attributes_ride_along_with_the_next_publish(world):
    ino = (await world.write("f", b"")).ino
    before = world.publishes()
    await world.fs.setattr(ino, SetAttributes(mode=0o600), ME)
    await world.symlink("l", b"f")
    await world.settled()
    assert world.publishes() == before + 1
    assert (await world.on_grid())["f"].metadata["lafsfs"]["mode"] == 0o600


async def test_with_sync_everything_waits_for_the_grid(broker, tmp_path):
    async with open_world(broker, tmp_path, sync=True) as world:
        made = await world.mkdir("d")
        ino = (await world.write("d/f", b"x")).ino
        assert list(await world.on_grid("d")) == ["f"]
        await world.fs.setattr(ino, SetAttributes(mode=0o600), ME)
        assert (await world.on_grid("d"))["f"].metadata["lafsfs"]["mode"] == 0o600
        await world.rename("d/f", "g")
        assert list(await world.on_grid()) == ["d", "g"]
        assert list(await world.on_grid("d")) == []
        await world.symlink("d/l", b"x" * 1000)
        await world.unlink("g")
        await world.fs.rename(made.ino, b"l", ROOT, b"l")
        await world.fs.rmdir(ROOT, b"d")
        assert await world.listdir() == [b"l"]
        assert list(await world.on_grid()) == ["l"]
        before = world.publishes()
        handle = await world.fs.opendir(ROOT)
        await world.fs.fsyncdir(handle)
        assert world.publishes() == before


async def test_with_sync_errors_come_back_from_the_verb(broker, tmp_path, servers):
    async with open_world(broker, tmp_path, sync=True) as world:
        await world.write("f", b"x")
        await world.mkdir("d")
        for server in servers:
            server.refuse = {"read_test_write"}
        await raises(world.mkdir("new"))
        await raises(world.rename("f", "d/f"))
        await raises(world.symlink("link", b"f"))
        handle = await world.fs.opendir(ROOT)
        await raises(world.fs.fsyncdir(handle))
        for server in servers:
            server.refuse = set()
        await world.fs.fsyncdir(handle)  # what failed was accepted all the same
        assert sorted(await world.on_grid()) == ["d", "link", "new"]
        assert list(await world.on_grid("d")) == ["f"]


async def raises(verb) -> None:
    with pytest.raises(LafsError):
        await verb


async def test_many_closes_at_once_are_a_few_publishes(broker, tmp_path, mock_clock, servers):
    async with open_world(broker, tmp_path, max_age=60.0) as world:
        async with trio.open_nursery() as nursery:
            for server in servers:
                server.hang()
            for number in range(40):
                nursery.start_soon(world.write, f"f{number}", b"x")
            await trio.testing.wait_all_tasks_blocked(0.05)
            for server in servers:
                server.wake()
        assert world.publishes() <= 2  # what the first close took along, and all the others
        assert len(await world.on_grid()) == 40


async def test_a_failing_server_fails_close_and_loses_nothing(broker, tmp_path, servers):
    async with open_world(broker, tmp_path, sync=True) as world:
        opened, made = await world.fs.create(ROOT, b"f", 0o644, CREATE, ME)
        await world.fs.write(opened.handle, 0, bytes(100_000))
        for server in servers[1:]:
            server.down = True
        for _ in range(2):
            with pytest.raises(LafsError):
                await world.flush(opened.handle)
        with pytest.raises(LafsError):
            await world.fs.fsync(opened.handle)
        await world.fs.release(opened.handle)
        world.fs.forget([(made.ino, 1)])
        for server in servers:
            server.down = False
        assert (await world.path("f")).size == 100_000
        assert await world.read("f") == bytes(100_000)
        assert await world.fs.flush_all() == ()
        assert list(await world.on_grid()) == ["f"]


async def test_what_failed_is_tried_again_by_itself(broker, tmp_path, running_clock, servers):
    async with open_world(broker, tmp_path, quiet=1.0, retry_first=1.0) as world:
        for server in servers:
            server.refuse = {"allocate", "read_test_write"}
        with pytest.raises(LafsError):
            await world.write("big", bytes(100_000))
        with pytest.raises(LafsError):
            await world.write("small", b"x")
        assert sorted(await world.listdir()) == [b"big", b"small"]
        await trio.sleep(100)
        for server in servers:
            server.refuse = set()
        await eventually(lambda: not world.tree.directory_inode(ROOT).directory.dirty)
        assert sorted(await world.on_grid()) == ["big", "small"]
        assert await world.read("big") == bytes(100_000)


async def test_what_cannot_be_published_is_kept_with_the_reason(world, servers):
    ino = (await world.write("f", b"x")).ino
    await world.mkdir("d")
    await world.settled()
    for server in servers:
        server.refuse = {"read_test_write"}
    await world.fs.setattr(ino, SetAttributes(mode=0o600), ME)
    await world.rename("f", "d/f")
    await world.symlink("l", b"d")
    await world.mkdir("new")
    root = world.tree.directory_inode(ROOT).directory
    for _ in range(2):
        assert await settle_names(world.tree.outgoing)
    assert sorted(b.name for b in root.dirty if b.error) == ["l"]  # the others wait for it
    assert sorted(await world.listdir()) == [b"d", b"l", b"new"]
    assert (await world.path("d/f")).mode & 0o777 == 0o600
    for server in servers:
        server.refuse = set()
    await world.settled()
    assert sorted(await world.on_grid()) == ["d", "l", "new"]
    assert (await world.on_grid("d"))["f"].metadata["lafsfs"]["mode"] == 0o600
    assert not root.dirty


async def test_drain_says_what_is_not_on_the_grid(broker, tmp_path, running_clock, servers):
    async with open_world(broker, tmp_path, retry_first=1.0) as world:
        for server in servers:
            server.down = True
        with pytest.raises(LafsError):
            await world.write("f", bytes(1000))
        [error] = await world.fs.flush_all()
        assert isinstance(error, GridError)


async def test_across_directories_the_new_name_is_linked_first(world, servers):
    await world.mkdir("d")
    await world.write("f", b"precious")
    await world.settled()
    root = world.tree.directory_inode(ROOT).directory
    index = root.node.cap.storage_index

    def fail(call) -> None:
        if call.verb == "read_test_write" and call.storage_index == index:
            for server in servers:
                server.refuse = {"read_test_write"}

    for server in servers:
        server.before_call = fail
    await world.rename("f", "d/f")
    assert await settle_names(world.tree.outgoing)
    for server in servers:
        server.before_call, server.refuse = None, set()
    assert await world.listdir() == [b"d"]
    assert sorted(await world.on_grid()) == ["d", "f"]  # what others see, should we end here
    assert list(await world.on_grid("d")) == ["f"]
    await world.settled()
    assert list(await world.on_grid()) == ["d"]
    assert await world.read("d/f") == b"precious"


async def test_writing_goes_on_while_a_file_is_uploaded(world, servers):
    opened, _ = await world.fs.create(ROOT, b"f", 0o644, CREATE, ME)
    await world.fs.write(opened.handle, 0, b"1" * 100_000)
    for server in servers:
        server.hang()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.fs.flush, opened.handle)
        await trio.testing.wait_all_tasks_blocked(0.05)
        await world.fs.write(opened.handle, 0, b"2" * 50_000)
        for server in servers:
            server.wake()
    await world.flush(opened.handle)
    await world.fs.release(opened.handle)
    assert await world.read("f") == b"2" * 50_000 + b"1" * 50_000


async def test_a_file_removed_while_it_is_published_stays_removed(world, servers):
    opened, _ = await world.fs.create(ROOT, b"f", 0o644, CREATE, ME)
    for server in servers:
        server.hang()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.fs.flush, opened.handle)
        await trio.testing.wait_all_tasks_blocked(0.05)
        nursery.start_soon(world.fs.unlink, ROOT, b"f")
        await trio.testing.wait_all_tasks_blocked(0.05)
        for server in servers:
            server.wake()
    await world.fs.release(opened.handle)
    assert await world.fs.flush_all() == ()
    assert list(await world.on_grid()) == []
    assert await world.listdir() == []


async def eventually_real(condition) -> None:
    """As ``eventually``, on a clock that stands still."""
    for _ in range(500):
        if condition():
            return
        await trio.testing.wait_all_tasks_blocked(0.01)
    raise AssertionError("it never came about")
