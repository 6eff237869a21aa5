"""Every verb, as the kernel would use it, on a healthy grid."""

from __future__ import annotations

import os
import stat

import pytest

from lafsfs.errors import (
    BadNameError,
    ChildExistsError,
    DirectoryNotEmptyError,
    FileTooBigError,
    IsADirectoryNodeError,
    LafsError,
    NameTooLongError,
    NoSuchAttributeError,
    NoSuchChildError,
    NotADirectoryNodeError,
    NotPermittedError,
)
from lafsfs.vfs.api import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    BadHandleError,
    Caller,
    InvalidRequestError,
    SetAttributes,
    StaleInodeError,
)
from tests.vfs.conftest import ME, ROOT, open_world

BIG = bytes(range(256)) * 10_000


async def test_files_are_what_was_written(world):
    made = await world.write("hello", b"hello, world")
    assert stat.S_ISREG(made.mode)
    assert made.mode & 0o7777 == 0o644
    assert await world.read("hello") == b"hello, world"
    await world.write("big", BIG)
    assert await world.read("big") == BIG
    assert (await world.path("big")).size == len(BIG)
    assert sorted(await world.on_grid()) == ["big", "hello"]


async def test_a_file_can_be_read_before_it_is_on_the_grid(world):
    opened, made = await world.fs.create(ROOT, b"new", 0o600, os.O_RDWR | os.O_CREAT, ME)
    assert await world.fs.write(opened.handle, 10, b"abc") == 3
    assert await world.fs.read(opened.handle, 0, 100) == bytes(10) + b"abc"
    assert (await world.fs.getattr(made.ino)).size == 13
    assert await world.listdir() == [b"new"]
    assert (await world.fs.lookup(ROOT, b"new")).ino == made.ino
    assert list(await world.on_grid()) == []
    await world.flush(opened.handle)
    assert list(await world.on_grid()) == ["new"]
    await world.fs.release(opened.handle)
    with pytest.raises(BadHandleError):
        await world.fs.read(opened.handle, 0, 1)


async def test_rewriting_and_appending(world):
    await world.write("f", BIG)
    ino = (await world.path("f")).ino
    opened = await world.fs.open(ino, os.O_WRONLY)
    await world.fs.write(opened.handle, 5, b"HELLO")
    await world.flush(opened.handle)
    await world.fs.release(opened.handle)
    assert await world.read("f") == BIG[:5] + b"HELLO" + BIG[10:]
    opened = await world.fs.open(ino, os.O_WRONLY | os.O_APPEND)
    await world.fs.write(opened.handle, 0, b"end")
    await world.flush(opened.handle)
    await world.fs.release(opened.handle)
    assert (await world.read("f"))[-3:] == b"end"
    opened = await world.fs.open(ino, os.O_WRONLY | os.O_TRUNC)
    await world.flush(opened.handle)
    await world.fs.release(opened.handle)
    assert await world.read("f") == b""
    assert (await world.path("f")).ino == ino


async def test_truncating(world):
    await world.write("f", b"0123456789")
    ino = (await world.path("f")).ino
    assert (await world.fs.setattr(ino, SetAttributes(size=4), ME)).size == 4
    assert await world.read("f") == b"0123"
    await world.fs.setattr(ino, SetAttributes(size=8), ME)
    assert await world.read("f") == b"0123\0\0\0\0"
    opened = await world.fs.open(ino, os.O_RDWR)
    await world.fs.setattr(ino, SetAttributes(size=2), ME, opened.handle)
    assert await world.fs.read(opened.handle, 0, 100) == b"01"
    await world.flush(opened.handle)
    await world.fs.release(opened.handle)
    assert await world.read("f") == b"01"
    with pytest.raises(FileTooBigError):
        await world.fs.setattr(ino, SetAttributes(size=2**63), ME)
    with pytest.raises(IsADirectoryNodeError):
        await world.fs.setattr(ROOT, SetAttributes(size=2), ME)


async def test_directories(world):
    made = await world.mkdir("d")
    assert made.is_directory
    await world.mkdir("d/sub")
    await world.write("d/f", b"x")
    assert sorted(await world.listdir("d")) == [b"f", b"sub"]
    assert (await world.fs.lookup((await world.path("d/sub")).ino, b"..")).ino == made.ino
    assert (await world.fs.lookup(made.ino, b".")).ino == made.ino
    assert (await world.fs.lookup(ROOT, b"..")).ino == ROOT
    with pytest.raises(DirectoryNotEmptyError):
        await world.fs.rmdir(ROOT, b"d")
    with pytest.raises(NotADirectoryNodeError):
        await world.fs.rmdir(made.ino, b"f")
    with pytest.raises(IsADirectoryNodeError):
        await world.fs.unlink(made.ino, b"sub")
    with pytest.raises(ChildExistsError):
        await world.mkdir("d/sub")
    await world.fs.rmdir(made.ino, b"sub")
    await world.fs.unlink(made.ino, b"f")
    await world.fs.rmdir(ROOT, b"d")
    assert await world.listdir() == []
    with pytest.raises(NoSuchChildError):
        await world.fs.create(made.ino, b"late", 0o644, os.O_WRONLY, ME)


async def test_a_directory_with_an_unsaved_file_is_not_empty(world):
    made = await world.mkdir("d")
    opened, _ = await world.fs.create(made.ino, b"f", 0o644, os.O_WRONLY, ME)
    with pytest.raises(DirectoryNotEmptyError):
        await world.fs.rmdir(ROOT, b"d")
    await world.fs.unlink(made.ino, b"f")
    await world.flush(opened.handle)
    await world.fs.release(opened.handle)
    await world.fs.rmdir(ROOT, b"d")


async def test_links_fifos_and_devices(world):
    made = await world.symlink("link", b"some/where")
    assert stat.S_ISLNK(made.mode)
    assert made.size == len(b"some/where")
    assert await world.fs.readlink(made.ino) == b"some/where"
    long = b"x" * 4000
    assert await world.fs.readlink((await world.symlink("long", long)).ino) == long
    with pytest.raises(NameTooLongError):
        await world.symlink("longer", b"x" * 5000)
    fifo = await world.fs.mknod(ROOT, b"fifo", stat.S_IFIFO | 0o640, 0, ME)
    assert stat.S_ISFIFO(fifo.mode)
    device = await world.fs.mknod(ROOT, b"null", stat.S_IFCHR | 0o666, os.makedev(1, 3), ME)
    assert (stat.S_ISCHR(device.mode), device.rdev) == (True, os.makedev(1, 3))
    plain = await world.fs.mknod(ROOT, b"plain", stat.S_IFREG | 0o644, 0, ME)
    assert await world.read_ino(plain.ino) == b""
    with pytest.raises(InvalidRequestError):
        await world.fs.readlink(plain.ino)
    with pytest.raises(InvalidRequestError):
        await world.fs.open(fifo.ino, os.O_RDONLY)
    with pytest.raises(InvalidRequestError):
        await world.fs.mknod(ROOT, b"dir", stat.S_IFDIR | 0o755, 0, ME)


async def test_names(world):
    with pytest.raises(BadNameError):
        await world.fs.mkdir(ROOT, b"\xff", 0o755, ME)
    with pytest.raises(NameTooLongError):
        await world.fs.lookup(ROOT, b"x" * 256)
    decomposed = "e\u0301".encode()
    await world.fs.mkdir(ROOT, decomposed, 0o755, ME)
    assert await world.listdir() == [decomposed]
    await world.settled()
    assert list(await world.on_grid()) == ["\u00e9"]
    await world.fs.lookup(ROOT, "\u00e9".encode())
    await world.fs.rename(ROOT, decomposed, ROOT, "\u00e9".encode())
    assert await world.listdir() == ["\u00e9".encode()]


async def test_attributes_change_and_stay(world, broker, tmp_path):
    ino = (await world.write("f", b"x")).ino
    changes = SetAttributes(mode=0o4711, uid=5, gid=6, atime_ns=7, mtime_ns=-8)
    for found in (await world.fs.setattr(ino, changes, ME), await world.path("f")):
        assert found.mode & 0o7777 == 0o4711
        assert (found.uid, found.gid, found.atime_ns, found.mtime_ns) == (5, 6, 7, -8)
    assert await world.fs.flush_all() == ()
    root = world.tree.directory_inode(ROOT).cap
    async with open_world(broker, tmp_path, root) as again:
        found = await again.path("f")
        assert (found.ino, found.mode & 0o7777) == (ino, 0o4711)
        assert (found.uid, found.gid, found.atime_ns, found.mtime_ns) == (5, 6, 7, -8)
        assert await again.read("f") == b"x"


async def test_what_the_root_is_stays_on_this_machine(world, broker, tmp_path):
    await world.fs.setattr(ROOT, SetAttributes(mode=0o1700, mtime_ns=99), ME)
    await world.fs.setxattr(ROOT, b"user.colour", b"blue", ME)
    [file] = (tmp_path / "state").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"blue" not in file.read_bytes()
    root = world.tree.directory_inode(ROOT).cap
    async with open_world(broker, tmp_path, root) as again:
        found = await again.path("")
        assert (found.ino, found.mode, found.mtime_ns) == (ROOT, stat.S_IFDIR | 0o1700, 99)
        assert await again.fs.getxattr(ROOT, b"user.colour", ME) == b"blue"
    file.write_bytes(b"damaged" * 100)
    async with open_world(broker, tmp_path, root) as again:
        assert (await again.path("")).mode & 0o777 == 0o755


async def test_new_things_belong_to_their_maker_or_the_directorys_group(world):
    other = Caller(uid=7, gid=8, umask=0o077)
    made = await world.fs.mkdir(ROOT, b"d", 0o2777, other)
    assert (made.uid, made.gid, made.mode & 0o7777) == (7, 8, 0o2700)
    inner = await world.fs.mkdir(made.ino, b"inner", 0o755, ME)
    assert (inner.uid, inner.gid, inner.mode & 0o7777) == (1000, 8, 0o2755)


async def test_hard_links(world, broker, tmp_path):
    made = await world.write("a", b"shared")
    await world.mkdir("d")
    other = await world.fs.link(made.ino, (await world.path("d")).ino, b"b")
    assert (other.ino, other.nlink) == (made.ino, 2)
    await world.write("d/b", b"changed")
    assert await world.read("a") == b"changed"
    await world.fs.setattr(made.ino, SetAttributes(mode=0o600), ME)
    assert await world.fs.flush_all() == ()
    root = world.tree.directory_inode(ROOT).cap
    async with open_world(broker, tmp_path, root) as again:
        first, second = await again.path("a"), await again.path("d/b")
        assert first == second
        assert (first.nlink, first.mode & 0o777) == (2, 0o600)
        assert await again.read("d/b") == b"changed"
    await world.unlink("a")
    assert (await world.path("d/b")).nlink == 1
    assert await world.read("d/b") == b"changed"
    with pytest.raises(NotPermittedError):
        await world.fs.link((await world.path("d")).ino, ROOT, b"no")
    with pytest.raises(ChildExistsError):
        await world.fs.link(made.ino, ROOT, b"d")


async def test_emptying_an_empty_file_is_a_change_that_lasts(world, broker, tmp_path):
    made = await world.write("f", b"")
    await world.fs.setattr(made.ino, SetAttributes(mtime_ns=5), ME)
    assert await world.fs.flush_all() == ()
    opened = await world.fs.open(made.ino, os.O_WRONLY | os.O_TRUNC)
    await world.fs.flush(opened.handle)
    await world.fs.release(opened.handle)
    changed = (await world.path("f")).mtime_ns
    assert changed > made.mtime_ns
    assert await world.fs.flush_all() == ()
    root = world.tree.directory_inode(ROOT).cap
    async with open_world(broker, tmp_path, root) as again:
        assert (await again.path("f")).mtime_ns == changed


async def forget_all(world):
    """What the kernel does when memory is short."""
    for inode in list(world.tree.table):
        world.fs.forget([(inode.number, 1000)])


async def test_hard_links_stay_one_file_when_the_kernel_forgets(world, broker, tmp_path):
    made = await world.write("a", b"shared")
    for name in (b"b", b"c"):
        await world.fs.link(made.ino, ROOT, name)
    for number, name in enumerate(("b", "a", "c")):
        assert await world.fs.flush_all() == ()
        await forget_all(world)
        await world.write(name, b"changed %d" % number)
        assert await world.fs.flush_all() == ()
        await forget_all(world)
        assert [await world.read(other) for other in "abc"] == [b"changed %d" % number] * 3
    await forget_all(world)
    await world.unlink("a")
    assert await world.fs.flush_all() == ()
    await forget_all(world)
    assert {(await world.path(name)).nlink for name in "bc"} == {2}
    root = world.tree.directory_inode(ROOT).cap
    async with open_world(broker, tmp_path, root, clock=world.clock) as again:
        await again.write("b", b"changed before the other name was seen")
        assert await again.fs.flush_all() == ()
        await forget_all(again)
        await again.unlink("b")
        await forget_all(again)
        assert await again.read("c") == b"changed before the other name was seen"
        assert (await again.path("c")).nlink == 1
        assert await again.fs.flush_all() == ()
        await forget_all(again)
        assert (await again.path("c")).nlink == 1
        await again.unlink("c")
        await forget_all(again)
        assert [inode.number for inode in again.tree.table] == [ROOT]


async def test_unlinked_files_last_until_closed(world):
    await world.write("f", b"still here")
    ino = (await world.path("f")).ino
    opened = await world.fs.open(ino, os.O_RDWR)
    await world.unlink("f")
    assert (await world.fs.getattr(ino)).nlink == 0
    assert await world.fs.read(opened.handle, 0, 100) == b"still here"
    await world.fs.write(opened.handle, 0, b"STILL")
    assert await world.fs.read(opened.handle, 0, 100) == b"STILL here"
    await world.flush(opened.handle)
    await world.fs.fsync(opened.handle)
    await world.fs.release(opened.handle)
    await world.settled()
    assert list(await world.on_grid()) == []
    world.fs.forget([(ino, 100)])
    with pytest.raises(StaleInodeError):
        await world.fs.getattr(ino)


async def test_renaming(world):
    for name in ("a", "b", "c"):
        await world.write(name, name.encode())
    ino = (await world.path("a")).ino
    await world.mkdir("d")
    await world.rename("a", "z")
    assert (await world.path("z")).ino == ino
    await world.rename("z", "d/z")
    assert (await world.path("d/z")).ino == ino
    await world.rename("b", "d/z")
    assert await world.read("d/z") == b"b"
    assert sorted(await world.listdir()) == [b"c", b"d"]
    await world.settled()
    assert sorted(await world.on_grid("d")) == ["z"]
    with pytest.raises(ChildExistsError):
        await world.rename("c", "d/z", RENAME_NOREPLACE)
    await world.rename("c", "d/new", RENAME_NOREPLACE)
    with pytest.raises(NoSuchChildError):
        await world.rename("c", "e")
    with pytest.raises(InvalidRequestError):
        await world.rename("d", "e", 8)


async def test_renaming_directories(world):
    for name in ("full", "empty", "full/inner"):
        await world.mkdir(name)
    await world.write("file", b"")
    ino = (await world.path("full/inner")).ino
    with pytest.raises(DirectoryNotEmptyError):
        await world.rename("empty", "full")
    with pytest.raises(NotADirectoryNodeError):
        await world.rename("full", "file")
    with pytest.raises(IsADirectoryNodeError):
        await world.rename("file", "empty")
    with pytest.raises(InvalidRequestError):
        await world.rename("full", "full/inner/deeper")
    await world.rename("full", "empty")
    assert (await world.path("empty/inner")).ino == ino
    await world.rename("empty/inner", "inner")
    assert (await world.path("inner")).ino == ino
    assert (await world.fs.lookup(ino, b"..")).ino == ROOT


async def test_exchanging(world):
    await world.write("a", b"A")
    await world.mkdir("d")
    await world.write("d/b", b"B")
    await world.write("c", b"C")
    inodes = {name: (await world.path(name)).ino for name in ("a", "d/b", "c")}
    await world.rename("a", "c", RENAME_EXCHANGE)
    assert (await world.read("a"), await world.read("c")) == (b"C", b"A")
    await world.rename("a", "d/b", RENAME_EXCHANGE)
    assert (await world.read("a"), await world.read("d/b")) == (b"B", b"C")
    assert (await world.path("d/b")).ino == inodes["c"]
    assert (await world.path("a")).ino == inodes["d/b"]
    await world.settled()
    assert sorted(await world.on_grid()) == ["a", "c", "d"]
    assert sorted(await world.on_grid("d")) == ["b"]
    await world.rename("c", "d", RENAME_EXCHANGE)
    assert (await world.path("c")).is_directory
    with pytest.raises(NoSuchChildError):
        await world.rename("a", "none", RENAME_EXCHANGE)
    with pytest.raises(InvalidRequestError):
        await world.rename("c", "c/b", RENAME_EXCHANGE)


async def test_unsaved_files_are_renamed_without_the_grid(world):
    await world.write("old", b"old")
    opened, made = await world.fs.create(ROOT, b".tmp", 0o644, os.O_WRONLY, ME)
    await world.fs.write(opened.handle, 0, b"new")
    before = world.publishes()
    await world.rename(".tmp", "old")
    assert world.publishes() == before
    assert await world.listdir() == [b"old"]
    assert await world.read("old") == b"new"
    await world.flush(opened.handle)
    await world.fs.release(opened.handle)
    assert world.publishes() == before + 1
    assert list(await world.on_grid()) == ["old"]
    assert (await world.path("old")).ino == made.ino


async def test_an_unsaved_file_that_replaced_another_moves_on(world):
    await world.write("old", b"old")
    opened, _ = await world.fs.create(ROOT, b".tmp", 0o644, os.O_WRONLY, ME)
    await world.rename(".tmp", "old")
    await world.rename("old", "elsewhere")
    assert await world.listdir() == [b"elsewhere"]
    await world.flush(opened.handle)
    await world.fs.release(opened.handle)
    assert list(await world.on_grid()) == ["elsewhere"]


async def test_extended_attributes(world):
    ino = (await world.write("f", b"x")).ino
    await world.fs.setxattr(ino, b"user.a", b"1", ME)
    await world.fs.setxattr(ino, b"security.capability", b"\0\1", ME)
    assert await world.fs.getxattr(ino, b"user.a", ME) == b"1"
    assert b"security.capability" in await world.fs.listxattr(ino)
    await world.fs.removexattr(ino, b"user.a", ME)
    for name in (b"user.a", b"trusted.none"):
        with pytest.raises(NoSuchAttributeError):
            await world.fs.getxattr(ino, name, ME)
    with pytest.raises(NoSuchAttributeError):
        await world.fs.removexattr(ino, b"user.a", ME)
    with pytest.raises(LafsError):
        await world.fs.setxattr(ino, b"user.big", bytes(70_000), ME)


async def test_capabilities_are_shown_to_the_owner_alone(world):
    ino = (await world.mkdir("d")).ino
    cap = world.tree.table[ino].cap
    assert await world.fs.getxattr(ino, b"user.lafs.cap", ME) == cap.danger_text().encode()
    assert await world.fs.getxattr(ino, b"user.lafs.kind", ME) == b"DIR2"
    for name in (b"user.lafs.readcap", b"user.lafs.verifycap"):
        assert (await world.fs.getxattr(ino, name, ME)).startswith(b"URI:DIR2-")
    assert await world.fs.listxattr(ino) == ()  # or cp -a would copy capabilities
    for uid in (0, 1001):
        stranger = Caller(uid=uid, gid=uid)
        with pytest.raises(NoSuchAttributeError):
            await world.fs.getxattr(ino, b"user.lafs.cap", stranger)
    with pytest.raises(NotPermittedError):
        await world.fs.setxattr(ino, b"user.lafs.cap", b"mine", ME)


async def test_space(world):
    space = await world.fs.statfs()
    assert space.blocks == 3 * 2**40 * 2 // 3 // space.block_size
    assert 0 < space.free <= space.blocks


async def test_handles_and_numbers_that_are_not_in_use(world):
    with pytest.raises(StaleInodeError):
        await world.fs.getattr(12345)
    for verb in (world.fs.flush, world.fs.release, world.fs.releasedir, world.fs.fsyncdir):
        with pytest.raises(BadHandleError):
            await verb(99)
    with pytest.raises(NotADirectoryNodeError):
        await world.fs.opendir((await world.write("f", b"")).ino)
    ino = (await world.path("f")).ino
    with pytest.raises(NotADirectoryNodeError):
        await world.fs.lookup(ino, b"x")
    reading = await world.fs.open(ino, os.O_RDONLY)
    with pytest.raises(BadHandleError):
        await world.fs.write(reading.handle, 0, b"x")
    writing = await world.fs.open(ino, os.O_WRONLY)
    with pytest.raises(BadHandleError):
        await world.fs.read(writing.handle, 0, 1)
    with pytest.raises(IsADirectoryNodeError):
        await world.fs.open(ROOT, os.O_RDONLY)


async def test_forgotten_inodes_take_no_memory(world):
    await world.mkdir("d")
    for number in range(20):
        await world.write(f"d/{number}", b"")
    await world.entries("d")
    for inode in world.tree.table:
        world.fs.forget([(inode.number, 1000)])
    assert [inode.number for inode in world.tree.table] == [ROOT]
    assert len(await world.listdir("d")) == 20
