"""What other clients do meanwhile, and clocks that cannot be trusted."""

from __future__ import annotations

import os
from contextlib import aclosing

import pytest
import trio

from lafsfs.caps import LiteralCap, MutableFormat
from lafsfs.errors import (
    LafsError,
    NoSuchChildError,
    NotPermittedError,
)
from lafsfs.nodes.edits import SetChild, SetMetadata, Unlink
from lafsfs.vfs.api import Changed, SetAttributes
from tests.vfs.conftest import ME, ROOT, open_maker, open_world

CREATE = os.O_WRONLY | os.O_CREAT


@pytest.fixture
async def other(world, broker):
    """Another client's view of the root."""
    async with open_maker(broker, world.clock, host="laptop") as maker:
        yield maker.directory(world.tree.directory_inode(ROOT).cap)


async def test_contents_replaced_by_a_stock_client(world, other):
    made = await world.write("f", b"ours")
    await world.fs.setattr(made.ino, SetAttributes(mode=0o600, mtime_ns=5), ME)
    await world.fs.flush_all()
    opened = await world.fs.open(made.ino, os.O_RDONLY)
    assert await world.fs.read(opened.handle, 0, 100) == b"ours"
    await other.edit([SetChild("f", LiteralCap(b"theirs"))])
    found = await world.path("f")
    assert (found.ino, found.size, found.mode & 0o777) == (made.ino, 6, 0o600)
    assert found.mtime_ns > 5
    assert Changed(made.ino, contents=True) in world.changes
    assert await world.fs.read(opened.handle, 0, 100) == b"theirs"
    again = await world.fs.open(made.ino, os.O_RDONLY)
    assert not again.keep_cache
    assert (await world.fs.open(made.ino, os.O_RDONLY)).keep_cache


async def test_attributes_changed_elsewhere(world, other):
    made = await world.write("f", b"x")
    await other.edit([SetMetadata("f", {"lafsfs": {"v": 1, "mode": 0o640, "uid": 77}})])
    found = await world.fs.getattr(made.ino)
    assert (found.mode & 0o777, found.uid) == (0o640, 77)


async def test_nobody_else_can_have_a_capability_listed(world, other):
    """A listed name is copied with the file: here it would be ours, to wherever it is copied."""
    made = await world.write("f", b"x")
    planted = {"user.lafs.cap": "YQ==", "user.other": "YQ=="}
    await other.edit([SetMetadata("f", {"lafsfs": {"v": 1, "xattrs": planted}})])
    await world.path("f")
    assert await world.fs.listxattr(made.ino) == (b"user.other",)
    with pytest.raises(NotPermittedError):
        await world.fs.removexattr(made.ino, b"user.lafs.cap", ME)


async def test_removed_elsewhere(world, other):
    made = await world.write("f", b"x")
    directory = await world.mkdir("d")
    await world.settled()
    await other.edit([Unlink("f"), Unlink("d")])
    for name in ("f", "d"):
        with pytest.raises(NoSuchChildError):
            await world.path(name)
    assert (await world.fs.getattr(made.ino)).nlink == 0
    assert (await world.fs.getattr(directory.ino)).nlink == 0
    with pytest.raises(NoSuchChildError):
        await world.fs.mkdir(directory.ino, b"x", 0o755, ME)


async def test_two_writers_of_one_name_both_keep_their_bytes(world, other):
    opened, made = await world.fs.create(ROOT, b"f", 0o644, CREATE, ME)
    await world.fs.write(opened.handle, 0, b"ours")
    await other.edit([SetChild("f", LiteralCap(b"theirs"))])
    await world.flush(opened.handle)
    await world.fs.release(opened.handle)
    assert await world.read("f") == b"theirs"
    [conflicted] = [name for name in await world.listdir() if name != b"f"]
    assert conflicted.startswith(b"f.conflicted-")
    assert conflicted.endswith(b"-desk")
    assert await world.read(conflicted.decode()) == b"ours"
    assert (await world.path(conflicted.decode())).ino == made.ino


async def test_a_file_we_write_while_another_replaces_it(world, other):
    await world.write("f", b"base")
    opened = await world.fs.open((await world.path("f")).ino, os.O_RDWR)
    await world.fs.write(opened.handle, 0, b"OURS")
    await other.edit([SetChild("f", LiteralCap(b"theirs"))])
    assert await world.fs.read(opened.handle, 0, 100) == b"OURS"
    await world.flush(opened.handle)
    await world.fs.release(opened.handle)
    contents = {await world.read(name.decode()) for name in await world.listdir()}
    assert contents == {b"theirs", b"OURS"}


async def test_a_file_we_write_while_another_removes_it(world, other):
    await world.write("f", b"base")
    opened = await world.fs.open((await world.path("f")).ino, os.O_RDWR)
    await world.fs.write(opened.handle, 0, b"OURS")
    await other.edit([Unlink("f")])
    await world.flush(opened.handle)
    await world.fs.release(opened.handle)
    [name] = await world.listdir()
    assert await world.read(name.decode()) == b"OURS"


async def test_an_attribute_of_what_is_gone(world, other):
    made = await world.write("f", b"x")
    await world.fs.setattr(made.ino, SetAttributes(mode=0o600), ME)
    await other.edit([Unlink("f")])
    assert await world.fs.flush_all() == ()
    with pytest.raises(NoSuchChildError):
        await world.path("f")


async def test_removing_what_somebody_has_just_changed(broker, tmp_path, world):
    root = world.tree.directory_inode(ROOT).cap
    async with (
        open_world(broker, tmp_path / "slow", root, max_age=1e9) as slow,
        open_maker(broker, world.clock) as maker,
    ):
        await slow.write("f", b"x")
        await maker.directory(root).edit([SetChild("f", LiteralCap(b"theirs"))])
        await slow.unlink("f")
        assert await slow.listdir() == []
        await slow.settled()
        assert await slow.read("f") == b"theirs"
        await slow.unlink("f")
        await maker.directory(root).edit([SetChild("taken", LiteralCap(b"theirs"))])
        await slow.mkdir("taken")
        await slow.settled()
        assert await slow.read("taken") == b"theirs"
        [ours] = [name for name in await slow.listdir() if name != b"taken"]
        assert ours.startswith(b"taken.conflicted-")
        assert (await slow.path(ours.decode())).is_directory


async def test_a_listing_is_believed_for_a_while(broker, tmp_path, mock_clock, other, world):
    root = world.tree.directory_inode(ROOT).cap
    async with open_world(broker, tmp_path / "b", root, max_age=2.0) as world2:
        assert await world2.listdir() == []
        await other.edit([SetChild("f", LiteralCap(b"x"))])
        mock_clock.jump(1.0)
        assert await world2.listdir() == []
        mock_clock.jump(1.5)
        assert await world2.listdir() == [b"f"]


async def test_names_seen_once_stay_visible_while_servers_are_away(world, servers):
    await world.write("f", bytes(1000))
    await world.mkdir("seen")
    await world.mkdir("unseen")
    await world.listdir("seen")
    for server in servers:
        server.down = True
    assert sorted(await world.listdir()) == [b"f", b"seen", b"unseen"]
    assert await world.listdir("seen") == []
    with pytest.raises(LafsError):
        await world.read("f")
    for server in servers:
        server.down = False
    assert await world.read("f") == bytes(1000)


async def test_a_folder_whose_shares_are_gone(world, broker, tmp_path, servers):
    made = await world.mkdir("lost")
    await world.mkdir("fine")
    await world.settled()
    index = world.tree.table[made.ino].cap.storage_index
    for server in servers:
        server.lose(index)
    root = world.tree.directory_inode(ROOT).cap
    async with open_world(broker, tmp_path / "again", root) as again:
        entries = {entry.name: entry.attributes for entry in await again.entries()}
        assert entries[b"lost"].is_directory
        assert (await again.path("lost")).is_directory
        with pytest.raises(LafsError) as caught:
            await again.listdir("lost")
        assert caught.value.errno == 5
        assert await again.listdir("fine") == []


async def some_entries(world, handle: int, start: int, most: int):
    """What one request of the kernel gets."""
    entries = []
    async with aclosing(world.fs.readdir(handle, start)) as stream:
        async for entry in stream:
            entries.append(entry)
            if len(entries) == most:
                break
    return entries


async def test_removal_while_a_directory_is_read(world):
    for number in range(10):
        await world.write(f"f{number}", b"")
    handle = await world.fs.opendir(ROOT)
    first = await some_entries(world, handle, 0, 3)
    seen = [entry.name for entry in first]
    start = first[-1].next_id
    for number in (0, 1, 5, 9):
        await world.unlink(f"f{number}")
    await world.write("new", b"")
    seen += [entry.name async for entry in world.fs.readdir(handle, start)]
    assert seen == [b"f0", b"f1", b"f2", b"f3", b"f4", b"f6", b"f7", b"f8"]
    assert len([entry async for entry in world.fs.readdir(handle, 0)]) == 7
    await world.fs.releasedir(handle)


async def test_rm_r_in_one_pass(world):
    """Reads a few, removes them, goes on: as rm does."""
    for number in range(30):
        await world.write(f"f{number}", b"")
    handle = await world.fs.opendir(ROOT)
    start, removed = 0, 0
    while True:
        batch = await some_entries(world, handle, start, 4)
        if not batch:
            break
        start = batch[-1].next_id
        for entry in batch:
            await world.fs.unlink(ROOT, entry.name)
            removed += 1
    assert removed == 30
    assert await world.listdir() == []


async def test_a_clock_that_went_backwards(world, broker, tmp_path):
    made = await world.mkdir("d")
    await world.write("d/a", b"")
    first = await world.fs.getattr(made.ino)
    world.clock.ns -= 10**18
    await world.write("d/b", b"")
    second = await world.fs.getattr(made.ino)
    assert second.mtime_ns != first.mtime_ns
    await world.fs.setattr(made.ino, SetAttributes(mtime_ns=42), ME)
    assert (await world.fs.getattr(made.ino)).mtime_ns == 42
    assert await world.fs.flush_all() == ()
    root = world.tree.directory_inode(ROOT).cap
    async with open_world(broker, tmp_path, root, clock=world.clock) as again:
        assert (await again.path("d")).ino == made.ino
        assert (await again.fs.getattr(made.ino)).mtime_ns == 42
        assert sorted(await again.listdir("d")) == [b"a", b"b"]


async def test_times_of_directories_come_back(world, broker, tmp_path):
    made = await world.mkdir("d")
    await world.write("d/f", b"")
    await world.symlink("d/l", b"x")
    await world.fs.setattr((await world.path("d/l")).ino, SetAttributes(mtime_ns=7), ME)
    await world.fs.setattr(made.ino, SetAttributes(mtime_ns=1234), ME)
    assert await world.fs.flush_all() == ()
    root = world.tree.directory_inode(ROOT).cap
    async with open_world(broker, tmp_path, root, clock=world.clock) as again:
        found = await again.fs.getattr((await again.path("d")).ino)
        assert found.mtime_ns == 1234
        await again.write("d/later", b"")
        assert (await again.fs.getattr(found.ino)).mtime_ns > 1234
        assert (await again.path("d/l")).mtime_ns == 7


class TestMutableFiles:
    @pytest.fixture(params=[MutableFormat.SDMF, MutableFormat.MDMF])
    async def node(self, request, world, other):
        node = await world.maker.create_mutable(request.param, b"0123456789")
        await other.edit([SetChild("m", node.cap)])
        return node

    async def test_reading_and_writing_in_place(self, world, node):
        found = await world.fs.getattr((await world.path("m")).ino)
        assert found.size == 10
        before = world.publishes()
        opened = await world.fs.open(found.ino, os.O_RDWR)
        assert not opened.keep_cache
        assert await world.fs.read(opened.handle, 2, 3) == b"234"
        await world.fs.write(opened.handle, 8, b"abcd")
        await world.flush(opened.handle)
        await world.fs.release(opened.handle)
        assert await world.read("m") == b"01234567abcd"
        assert (await node.contents())[1] == b"01234567abcd"
        assert world.tree.table[found.ino].cap == node.cap
        assert world.publishes() == before + 1  # for the times
        assert (await world.fs.setattr(found.ino, SetAttributes(size=2), ME)).size == 2
        await world.bring(found.ino)
        assert (await node.contents())[1] == b"01"

    async def test_what_others_wrote_meanwhile_is_kept(self, world, node):
        ino = (await world.path("m")).ino
        opened = await world.fs.open(ino, os.O_RDWR)
        await world.fs.write(opened.handle, 0, b"AB")
        await node.overwrite(b"0123456789 and more")
        await world.flush(opened.handle)
        await world.fs.release(opened.handle)
        assert await world.read("m") == b"AB23456789 and more"

    async def test_changed_elsewhere(self, world, node):
        ino = (await world.path("m")).ino
        assert (await world.fs.getattr(ino)).size == 10
        await node.overwrite(b"x" * 500)
        assert (await world.fs.getattr(ino)).size == 500
        assert await world.read("m") == b"x" * 500

    async def test_too_few_shares(self, world, node, servers):
        for server in servers:
            server.lose(node.cap.storage_index)
        ino = (await world.path("m")).ino
        await world.fs.getattr(ino)
        with pytest.raises(LafsError):
            await world.fs.open(ino, os.O_RDONLY)
        assert await world.listdir() == [b"m"]


async def test_writing_to_one_file_from_many_handles(world):
    made = await world.write("f", bytes(4000))

    async def writer(number: int) -> None:
        opened = await world.fs.open(made.ino, os.O_WRONLY)
        for offset in range(number * 100, 4000, 1000):
            await world.fs.write(opened.handle, offset, bytes([number + 1]) * 100)
        await world.flush(opened.handle)
        await world.fs.release(opened.handle)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(writer, number)
    wanted = b"".join(bytes([number + 1]) * 100 for number in range(10)) * 4
    assert await world.read("f") == wanted
