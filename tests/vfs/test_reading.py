"""Reading files: in time or not at all, ahead where it pays, and what is told of their health."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from lafsfs.caps import MutableFormat
from lafsfs.errors import Fault, NoSuchAttributeError
from lafsfs.immutable import BytesSource
from lafsfs.nodes.health import Health
from lafsfs.vfs.api import Caller, UnreadableError
from tests.vfs.conftest import ME, WallClock, open_maker, open_world

CONTENTS = os.urandom(6_000_000)


@pytest.fixture
async def root(broker):
    """A root with a file of six segments."""
    async with open_maker(broker, WallClock()) as maker:
        cap = await maker.upload(BytesSource(CONTENTS))
        return (await maker.create_directory(MutableFormat.SDMF, {"film": (cap, {})})).cap


async def opened(world, name="film"):
    return (await world.fs.open((await world.path(name)).ino, os.O_RDONLY)).handle


def reads(broker):
    return sum(server.counts()["read_share"] for server in broker.servers)


async def test_a_hung_grid_fails_the_read_at_the_deadline(broker, tmp_path, root, running_clock):
    async with open_world(broker, tmp_path, root, max_age=60.0, deadline=20.0) as world:
        handle = await opened(world)
        for server in broker.servers:
            server.hang()
        started = trio.current_time()
        with pytest.raises(UnreadableError) as caught:
            await world.fs.read(handle, 0, 4096)
        assert trio.current_time() - started == 20
        assert caught.value.errno == errno.EIO
        assert "within 20 s" in str(caught.value)
        assert "\n" not in str(caught.value)


async def test_the_kernel_asking_again_does_not_wait_for_the_deadline_again(
    broker, tmp_path, root, running_clock
):
    """It reads ahead, and asks for the page that is wanted once more when that has failed."""
    async with open_world(broker, tmp_path, root, max_age=60.0, deadline=20.0) as world:
        handle = await opened(world)
        await world.fs.read(handle, 0, 4096)
        for server in broker.servers:
            server.hang()
        started = trio.current_time()
        async with trio.open_nursery() as ahead:
            told = []
            for at in (1 << 20, 2 << 20):
                ahead.start_soon(failing, world, handle, at, told)
        await failing(world, handle, 1 << 20, told)
        assert trio.current_time() - started < 21
        assert [error.fault for error in told] == [Fault.GRID, Fault.CALLER, Fault.CALLER]
        assert await world.fs.read(handle, 0, 4096) == CONTENTS[:4096]  # what is there is there
        await trio.sleep(2)
        started = trio.current_time()
        await failing(world, handle, 1 << 20, told)
        assert trio.current_time() - started == 20
        assert told[-1].fault is Fault.GRID


async def failing(world, handle, at, told):
    with pytest.raises(UnreadableError) as caught:
        await world.fs.read(handle, at, 4096)
    told.append(caught.value)


async def test_a_read_works_again_when_servers_are_back(broker, tmp_path, root, running_clock):
    async with open_world(broker, tmp_path, root, max_age=60.0, deadline=20.0) as world:
        handle = await opened(world)
        for server in broker.servers:
            server.hang()
        with pytest.raises(UnreadableError):
            await world.fs.read(handle, 0, 4096)
        for server in broker.servers:
            server.wake()
        assert await world.fs.read(handle, 0, 4096) == CONTENTS[:4096]


async def test_what_is_missing_is_said(broker, tmp_path, root, running_clock):
    async with open_world(broker, tmp_path, root, max_age=60.0) as world:
        film = (await world.path("film")).ino
        index = world.tree.table[film].cap.storage_index
        lost = {n for server in broker.servers[:2] for n in server.held(index)}
        for server in broker.servers[:2]:
            server.lose(index)
        with pytest.raises(UnreadableError) as caught:
            await world.fs.read(await opened(world), 0, 4096)
        assert "2 are needed" in str(caught.value)
        for shnum in lost:
            assert str(shnum) in str(caught.value).partition("not seen: ")[2]


async def test_reading_on_finds_segments_there(broker, tmp_path, root):
    async with open_world(broker, tmp_path, root, max_age=60.0) as world:
        handle = await opened(world)
        await world.fs.read(handle, 0, 128 << 10)
        before = reads(broker)
        await world.fs.read(handle, 128 << 10, 128 << 10)
        with trio.fail_after(10):
            while reads(broker) == before:  # noqa: ASYNC110 - servers do not tell
                await trio.sleep(0.01)
        got = [await world.fs.read(handle, at, 1 << 17) for at in range(1 << 18, 6 << 20, 1 << 17)]
        assert b"".join(got) == CONTENTS[1 << 18 :]
        await world.fs.release(handle)


async def test_looking_here_and_there_fetches_nothing_else(broker, tmp_path, root):
    async with open_world(broker, tmp_path, root, max_age=60.0) as world:
        handle = await opened(world)
        await world.fs.read(handle, 0, 4096)
        await world.fs.read(handle, 5 << 20, 4096)
        before = reads(broker)
        await trio.sleep(0.1)
        assert reads(broker) == before


async def test_without_room_nothing_is_read_ahead(broker, tmp_path, root):
    async with open_world(broker, tmp_path, root, max_age=60.0, read_ahead=0) as world:
        handle = await opened(world)
        for at in (0, 1 << 17, 1 << 18):
            await world.fs.read(handle, at, 1 << 17)
        before = reads(broker)
        await trio.sleep(0.1)
        assert reads(broker) == before


async def test_health(broker, tmp_path, root):
    async with open_world(broker, tmp_path, root, max_age=60.0) as world:
        film = (await world.path("film")).ino
        value = await world.fs.getxattr(film, b"user.lafs.health", ME)
        assert value == b"3 shares of 3 on 3 servers, 2 needed, not verified"
        handle = await opened(world)
        await world.fs.read(handle, 0, 10)
        value = await world.fs.getxattr(film, b"user.lafs.health", Caller(uid=1, gid=1))
        assert b"good shares of 3 on " in value
        assert b"user.lafs.health" not in await world.fs.listxattr(film)
        assert (await world.fs.getxattr(1, b"user.lafs.health", ME)).endswith(b"2 needed")


async def test_what_has_no_shares_has_no_health(world):
    await world.write("note", b"short")
    with pytest.raises(NoSuchAttributeError):
        await world.fs.getxattr((await world.path("note")).ino, b"user.lafs.health", ME)


async def test_health_of_what_nobody_read_and_servers_that_are_away(
    broker, tmp_path, root, running_clock
):
    async with open_world(broker, tmp_path, root, max_age=60.0) as world:
        film = (await world.path("film")).ino
        broker.servers[0].hang()
        broker.servers[1].down = True
        value = await world.fs.getxattr(film, b"user.lafs.health", ME)
        assert value == b"1 share of 3 on 1 server, 2 needed, not verified"


@pytest.mark.parametrize(
    ("health", "text"),
    [
        (Health(3, 10, {"a": frozenset({1, 2}), "b": frozenset({2})}), "2 good shares of 10 on 2"),
        (Health(1, 1, {"a": frozenset({0})}), "1 good share of 1 on 1 server, 1 needed"),
        (Health(1, 2, {"a": frozenset({0})}, {"b": frozenset({1})}), "1 needed, 1 bad"),
        (Health(0, 0, {"a": frozenset()}, verified=False), "0 shares on 0 servers, not verified"),
    ],
)
def test_how_health_is_put(health, text):
    assert text in health.text


def test_what_is_missing():
    assert Health(1, 3, {"a": frozenset({1})}).missing == {0, 2}
    assert Health(1, 0, {"a": frozenset({1})}).missing == frozenset()


async def test_what_was_read_can_be_read_with_every_server_down(
    broker, tmp_path, root, running_clock
):
    async with open_world(broker, tmp_path, root, max_age=1.0) as world:
        assert await world.fs.read(await opened(world), 0, 2_000_000) == CONTENTS[:2_000_000]
        for server in broker.servers:
            server.down = True
        await trio.sleep(100)
        assert await world.listdir() == [b"film"]
        assert await world.fs.read(await opened(world), 0, 2_000_000) == CONTENTS[:2_000_000]


@pytest.mark.parametrize("format", list(MutableFormat))
async def test_mutable_files_too(broker, tmp_path, running_clock, format):
    async with open_maker(broker, WallClock()) as maker:
        file = await maker.create_mutable(format, CONTENTS[:3_000_000])
        root = await maker.create_directory(MutableFormat.SDMF, {"log": (file.cap, {})})
    async with open_world(broker, tmp_path, root.cap, max_age=1.0) as world:
        assert await world.read("log") == CONTENTS[:3_000_000]
        found = await world.path("log")
        for server in broker.servers:
            server.down = True
        await trio.sleep(100)
        assert await world.read_ino(found.ino) == CONTENTS[:3_000_000]


async def test_a_directory_costs_two_round_trips_and_then_one(broker, tmp_path, running_clock):
    async with open_maker(broker, WallClock()) as maker:
        cap = (await maker.create_directory(MutableFormat.SDMF)).cap.read_cap()
    async with open_maker(broker, WallClock()) as maker:
        node = maker.directory(cap)
        for server in broker.servers:
            server.delay = 1.0
        started = trio.current_time()
        await node.table()
        assert trio.current_time() - started == 2
        await node.table(0)
        assert trio.current_time() - started == 3


async def test_a_server_that_hangs_never_hangs_ls(broker, tmp_path, root, running_clock):
    async with open_world(broker, tmp_path, root, max_age=1.0) as world:
        broker.servers[1].hang()
        for _ in range(5):
            await trio.sleep(5)
            started = trio.current_time()
            assert await world.listdir() == [b"film"]
            assert trio.current_time() - started <= 3
