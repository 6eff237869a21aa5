"""Trees that are not trees, and directories that somebody else made."""

from __future__ import annotations

import os
import stat
from itertools import islice

import pytest

from lafsfs.caps import LiteralCap, MutableFormat, UnknownCap
from lafsfs.errors import (
    LafsError,
    NameTooLongError,
    NoSuchChildError,
    NotPermittedError,
    NotSupportedError,
    ReadOnlyCapabilityError,
)
from lafsfs.formats.dirtable import make_entry, pack_table
from lafsfs.immutable import BytesSource
from lafsfs.nodes.edits import SetChild, Unlink
from lafsfs.vfs.api import RENAME_EXCHANGE, InvalidRequestError, SetAttributes
from lafsfs.vfs.posix import numbers
from tests.vfs.conftest import ME, ROOT, open_maker, open_world

CREATE = os.O_WRONLY | os.O_CREAT


async def attach(world, path: str, name: str, cap, metadata=None) -> None:
    """Link a capability as another client would."""
    ino = (await world.path(path)).ino
    directory = world.maker.directory(world.tree.directory_inode(ino).cap)
    await directory.edit([SetChild(name, cap, metadata)])


def cap_at(world, ino):
    return world.tree.table[ino].cap


@pytest.mark.parametrize("flags", [0, RENAME_EXCHANGE])
async def test_a_name_is_renamed_to_itself_on_another_path(world, flags):
    """The kernel sees two directories, and two in them: so does not know that it is one name."""
    made = await world.mkdir("one")
    await world.mkdir("one/inner")
    await world.write("one/inner/f", b"contents")
    await attach(world, "", "two", cap_at(world, made.ino))
    await world.rename("one/inner", "two/inner", flags)
    assert await world.listdir("one") == await world.listdir("two") == [b"inner"]
    assert await world.read("two/inner/f") == await world.read("one/inner/f") == b"contents"


async def test_what_changes_places_is_where_the_caller_said(world):
    """A file in a directory with two names was seen first below what it changes places with."""
    top = world.tree.directory_inode((await world.mkdir("top")).ino)
    inner = await world.mkdir("top/inner")
    await world.write("top/inner/f", b"contents")
    await attach(world, "", "inner", cap_at(world, inner.ino))
    outer = await world.path("inner")
    found = await world.path("top/inner/f")
    assert [edge.parent.number for edge in world.tree.table[found.ino].edges] == [inner.ino]
    await world.rename("top", "inner/f", RENAME_EXCHANGE)
    above = [one.number for one in islice(top.path(), 9)]
    assert above == [top.number, outer.ino, ROOT]
    assert await world.listdir() == [b"inner", b"top"]
    assert await world.read("top") == b"contents"
    assert (await world.path("inner/f")).ino == top.number


async def test_a_directory_under_two_names(world):
    made = await world.mkdir("one")
    await world.mkdir("one/inner")
    await attach(world, "", "two", cap_at(world, made.ino))
    other = await world.path("two")
    assert other.is_directory
    assert other.ino != made.ino
    assert (await world.fs.lookup(other.ino, b"..")).ino == ROOT
    await world.write("two/f", b"through the other")
    assert await world.read("one/f") == b"through the other"
    assert (await world.path("one/f")).ino == (await world.path("two/f")).ino
    inner = (await world.path("one/inner")).ino, (await world.path("two/inner")).ino
    assert inner[0] != inner[1]
    assert (await world.fs.lookup(inner[1], b"..")).ino == other.ino
    await world.fs.setattr(inner[1], SetAttributes(mode=0o700), ME)
    assert await world.fs.flush_all() == ()
    assert (await world.path("one/inner")).mode & 0o777 == 0o700
    await world.rename("two/inner", "two/renamed")
    assert sorted(await world.listdir("one")) == [b"f", b"renamed"]
    await world.fs.rmdir((await world.path("one")).ino, b"renamed")
    assert await world.listdir("two") == [b"f"]


async def test_alias_numbers_are_the_same_after_a_remount(world, broker, tmp_path):
    made = await world.mkdir("one")
    await attach(world, "", "two", cap_at(world, made.ino))
    first = [(await world.path(name)).ino for name in ("one", "two")]
    await world.settled()
    async with open_world(broker, tmp_path, cap_at(world, ROOT)) as again:
        assert [(await again.path(name)).ino for name in ("one", "two")] == first


async def test_a_directory_inside_itself_is_a_link(world):
    made = await world.mkdir("a")
    inner = await world.mkdir("a/b")
    await attach(world, "a/b", "up", cap_at(world, made.ino))
    await attach(world, "a/b", "self", cap_at(world, inner.ino))
    await attach(world, "a/b", "root", cap_at(world, ROOT))
    targets = {}
    for name in ("up", "self", "root"):
        found = await world.path(f"a/b/{name}")
        assert stat.S_ISLNK(found.mode)
        targets[name] = await world.fs.readlink(found.ino)
        assert found.size == len(targets[name])
    assert targets == {"up": b"..", "self": b".", "root": b"../.."}
    with pytest.raises(NotPermittedError):
        await world.fs.setattr(found.ino, SetAttributes(mode=0), ME)
    await world.unlink("a/b/self")
    await world.rename("a/b/up", "elsewhere")
    elsewhere = await world.path("elsewhere")
    assert elsewhere.is_directory
    assert elsewhere.ino not in (made.ino, found.ino)
    assert await world.listdir("a/b") == [b"root"]


async def test_a_directory_moved_by_another_client_keeps_its_number(world):
    made = await world.mkdir("here")
    await world.mkdir("there")
    await world.settled()
    cap = cap_at(world, made.ino)
    await attach(world, "there", "moved", cap)
    root = world.maker.directory(cap_at(world, ROOT))
    await root.edit([Unlink("here")])
    assert (await world.path("there/moved")).ino == made.ino
    with pytest.raises(NoSuchChildError):
        await world.path("here")


HOSTILE = ["a/b", ".", "..", "x\0y", "\u00e9" * 200, "ordinary"]


async def hostile_root(maker):
    """A directory whose table holds what no file system can show."""
    node = await maker.create_directory(MutableFormat.SDMF)
    key = node.cap.backing.write_key
    entries = [make_entry(name, None, "URI:LIT:", {}, key) for name in HOSTILE]
    entries.append(make_entry("metadata", None, "URI:LIT:", {"lafsfs": [1], "tahoe": 7}, key))
    entries.append(make_entry("nothing", None, None, {}, key))
    entries.append(make_entry("future", "lafs:w", "ro.lafs:r", {}, key))
    damaged = make_entry("damaged", None, "URI:LIT:", {}, key)
    claims = {"mode": 0o104755, "id": "1", "type": "dir", "size": -5, "raw": "Li4="}
    liar = make_entry("liar", None, "URI:LIT:ma", {"lafsfs": {"v": 1, **claims}}, key)
    table = pack_table([*entries, liar, damaged])
    table = table.replace(b"7:damaged,", b"7:dam\xff\xffed,") + b"3:bad,"
    await node._backing.overwrite(table)
    return node.cap


async def test_hostile_contents_never_break_the_listing(broker, tmp_path, world):
    async with open_maker(broker, world.clock) as maker:
        cap = await hostile_root(maker)
    async with open_world(broker, tmp_path, cap) as hostile:
        entries = {entry.name: entry.attributes for entry in await hostile.entries()}
        assert b"ordinary" in entries
        assert len({found.ino for found in entries.values()}) == len(entries)
        escaped = [name for name in entries if b".lafs-" in name]
        assert len(escaped) == 5
        for name, found in entries.items():
            assert 0 < len(name) <= 255
            assert not {b"/", b"\0"} & set(name)
            again = await hostile.fs.lookup(ROOT, name)
            assert again.ino == found.ino
            await hostile.fs.getattr(found.ino)
            await hostile.fs.getxattr(found.ino, b"user.lafs.kind", ME)
        liar = entries[b"liar"]
        assert (liar.ino != ROOT, stat.S_ISREG(liar.mode), liar.size) == (True, True, 1)
        future = entries[b"future"]
        assert future.mode & 0o777 == 0
        for flags in (os.O_RDONLY, os.O_RDWR):
            with pytest.raises(LafsError):
                await hostile.fs.open(future.ino, flags)
        with pytest.raises(NotSupportedError):
            await hostile.fs.open(future.ino, os.O_RDONLY)
        with pytest.raises(NotPermittedError):
            await hostile.fs.setattr(future.ino, SetAttributes(mode=0o777), ME)
        await hostile.rename("future", "later")
        assert isinstance(cap_at(hostile, (await hostile.path("later")).ino), UnknownCap)
        with pytest.raises(NotPermittedError):
            await hostile.rename("nothing", "else")
        await hostile.fs.rename(ROOT, escaped[0], ROOT, b"named")
        await hostile.unlink("named")
        for name in escaped[1:]:
            await hostile.fs.unlink(ROOT, name)
        left = sorted(await hostile.listdir())
        assert left == [b"later", b"liar", b"metadata", b"nothing", b"ordinary"]
        assert (await hostile.on_grid()).table.unreadable  # kept to the last


async def test_a_directory_with_only_unreadable_entries_is_not_empty(world):
    made = await world.mkdir("d")
    await world.settled()
    node = world.maker.directory(cap_at(world, made.ino))
    await node._backing.overwrite(b"3:bad,")
    assert await world.listdir("d") == []
    with pytest.raises(LafsError, match="not empty"):
        await world.fs.rmdir(ROOT, b"d")


async def test_a_claimed_number_does_not_make_a_hard_link(world):
    made = await world.write("mine", b"mine")
    claim = {"lafsfs": {"v": 1, "id": f"{made.ino:x}"}}
    await attach(world, "", "theirs", LiteralCap(b"other"), claim)
    found = await world.path("theirs")
    assert found.ino != made.ino
    assert (await world.read("mine"), await world.read("theirs")) == (b"mine", b"other")


async def test_equal_files_are_not_hard_links(world):
    first = await world.write("a", b"same" * 100)
    second = await world.write("b", b"same" * 100)
    assert first.ino != second.ino
    cap = cap_at(world, first.ino)
    assert cap_at(world, second.ino) == cap
    await attach(world, "", "c", cap)
    found = await world.path("c")
    assert found.ino not in (first.ino, second.ino)
    assert found.ino == numbers.edge_number(ROOT, "c")


async def test_links_that_lead_nowhere(world):
    record = {"v": 1, "type": "symlink"}
    for name, target in (("nul", b"a\0b"), ("empty", b""), ("long", b"x" * 4096)):
        cap = await world.maker.upload(BytesSource(target))
        metadata = {"lafsfs": {**record, "cap": cap.digest}}
        await attach(world, "", name, cap, metadata)
        ino = (await world.path(name)).ino
        with pytest.raises((InvalidRequestError, NameTooLongError)):
            await world.fs.readlink(ino)


async def test_reading_only(broker, tmp_path, world):
    await world.write("f", b"x")
    made = await world.mkdir("d")
    await world.fs.setattr(ROOT, SetAttributes(mode=0o711), ME)
    await world.settled()
    for cap, settings in (
        (cap_at(world, ROOT).read_cap(), {}),
        (cap_at(world, ROOT), {"read_only": True}),
    ):
        async with open_world(broker, tmp_path, cap, **settings) as reader:
            ino = (await reader.path("f")).ino
            assert await reader.read("f") == b"x"
            assert (await reader.path("d")).ino == made.ino
            for verb in (
                reader.mkdir("new"),
                reader.fs.create(ROOT, b"new", 0o644, CREATE, ME),
                reader.symlink("new", b"x"),
                reader.unlink("f"),
                reader.rename("f", "g"),
                reader.fs.rmdir(ROOT, b"d"),
                reader.fs.link(ino, ROOT, b"new"),
                reader.fs.open(ino, os.O_RDWR),
                reader.fs.setattr(ino, SetAttributes(mode=0), ME),
                reader.fs.setattr(ROOT, SetAttributes(mode=0), ME),
                reader.fs.setxattr(ino, b"user.a", b"", ME),
            ):
                with pytest.raises(ReadOnlyCapabilityError):
                    await verb


async def test_a_read_only_folder_in_a_writable_one(world):
    made = await world.mkdir("d")
    await world.write("d/f", b"x")
    await attach(world, "", "ro", cap_at(world, made.ino).read_cap())
    assert await world.read("ro/f") == b"x"
    with pytest.raises(ReadOnlyCapabilityError):
        await world.write("ro/g", b"")
    await world.rename("ro", "still ro")
    with pytest.raises(ReadOnlyCapabilityError):
        await world.unlink("still ro/f")
    await world.write("d/f", b"changed")
    assert await world.read("still ro/f") == b"changed"


async def test_an_immutable_directory(world):
    cap = await world.maker.upload(BytesSource(b"contents" * 20))
    inner = await world.maker.create_immutable_directory({"leaf": (cap, {})})
    outer = await world.maker.create_immutable_directory(
        {"inner": (inner.cap, {}), "leaf": (cap, {})}
    )
    await attach(world, "", "frozen", outer.cap)
    assert await world.read("frozen/inner/leaf") == b"contents" * 20
    with pytest.raises(ReadOnlyCapabilityError):
        await world.unlink("frozen/leaf")
    await world.rename("frozen", "ice")
    assert await world.listdir("ice") == [b"inner", b"leaf"]


async def test_display_overrides(broker, tmp_path, world):
    await world.write("f", b"")
    await world.symlink("l", b"f")
    await world.settled()
    cap = cap_at(world, ROOT)
    async with open_world(broker, tmp_path, cap, uid=7, gid=8, umask=0o077) as other:
        found = await other.path("f")
        assert (found.uid, found.gid, found.mode & 0o777) == (7, 8, 0o600)
        assert (await other.path("l")).mode & 0o777 == 0o777
        assert (await other.path("")).mode & 0o777 == 0o700
