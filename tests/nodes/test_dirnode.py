"""Directories over a grid in memory: listings, edits, other writers, round trips."""

from __future__ import annotations

import gc

import pytest
import trio

from lafsfs.caps import DirectoryCap, LiteralCap, MutableFormat
from lafsfs.errors import (
    BadCapabilityError,
    DeepImmutableError,
    FormatError,
    NoSuchChildError,
    NotADirectoryNodeError,
    ReadOnlyCapabilityError,
)
from lafsfs.immutable import BytesSource
from lafsfs.nodes.dirnode import DirectoryNode, move
from lafsfs.nodes.edits import Base, Conflict, Done, Kept, SetChild, SetMetadata, Unlink
from lafsfs.nodes.walk import walk
from tests.nodes.conftest import Clock, open_maker

ONE, TWO, THREE = (LiteralCap(text) for text in (b"one", b"two", b"three"))
FORMATS = list(MutableFormat)


def caps(listing):
    return {name: child.cap for name, child in listing.items()}


def calls(servers) -> int:
    return sum(server.count() for server in servers)


async def test_what_was_read_before_is_not_taken_for_what_is_asked_now(maker, broker, mock_clock):
    """Though the clock says that both are at the same time."""
    node = await maker.create_directory(MutableFormat.SDMF)
    assert caps(await node.table(0)) == {}
    async with open_maker(broker) as another:
        await another.directory(node.cap).edit([SetChild("a", ONE)])
    assert caps(await node.table(0)) == {"a": ONE}


@pytest.mark.parametrize("format", FORMATS)
async def test_make_edit_and_read_back(maker, broker, format):
    node = await maker.create_directory(format, {"a": (ONE, {"k": 1})})
    result = await node.edit([SetChild("b", TWO), SetMetadata("a", {"k": 2}), Unlink("c")])
    assert result.outcomes == (Done(True), Done(True), Done(False))
    async with open_maker(broker) as another:
        listing = await another.directory(node.cap).table()
        assert caps(listing) == {"a": ONE, "b": TWO}
        assert listing["a"].metadata["k"] == 2
        readonly = await another.directory(node.cap.read_cap()).table()
        assert caps(readonly) == caps(listing)
    with pytest.raises(NoSuchChildError):
        listing.child("c")


async def test_immutable_directories(maker):
    small = await maker.create_immutable_directory({})
    assert small.cap == DirectoryCap(LiteralCap(b""))
    file = await maker.upload(BytesSource(b"x" * 100))
    large = await maker.create_immutable_directory({"f": (file, {}), "d": (small.cap, {"m": 1})})
    assert large.cap.kind == "DIR2-CHK"
    listing = await large.table()
    assert caps(listing) == {"d": small.cap, "f": file}
    assert await large.table(0) is listing
    assert not large.can_write
    with pytest.raises(ReadOnlyCapabilityError):
        await large.edit([SetChild("a", ONE)])
    changing = await maker.create_directory(MutableFormat.SDMF)
    for cap in (changing.cap, changing.cap.read_cap()):
        with pytest.raises(DeepImmutableError):
            await maker.create_immutable_directory({"d": (cap, {})})


async def test_read_capabilities_cannot_edit(maker, servers):
    node = await maker.create_directory(MutableFormat.SDMF)
    reader = maker.directory(node.cap.read_cap())
    assert reader is not node
    before = calls(servers)
    with pytest.raises(ReadOnlyCapabilityError):
        await reader.edit([SetChild("a", ONE)])
    with pytest.raises(ReadOnlyCapabilityError):
        await move(reader, "a", node, "b")
    assert calls(servers) == before


async def test_a_listing_is_kept_for_its_age(maker, servers, mock_clock):
    node = await maker.create_directory(MutableFormat.SDMF)
    listing = await node.table()
    before = calls(servers)
    assert await node.table(5.0) is listing
    assert await node.table(None) is listing
    assert calls(servers) == before
    mock_clock.jump(6.0)
    assert await node.table(None) is listing
    assert calls(servers) == before
    assert await node.table(5.0) is listing  # it was asked for, and is the same
    assert calls(servers) > before


async def test_an_unchanged_table_is_not_read_again(maker, servers):
    node = await maker.create_directory(MutableFormat.SDMF)
    await node.edit([SetChild(f"{number}", ONE) for number in range(200)])
    listing = await node.table(0)
    assert await node.table(0) is listing


async def test_others_edits_are_seen_and_merged(maker, broker):
    node = await maker.create_directory(MutableFormat.SDMF)
    async with open_maker(broker, host="laptop") as laptop:
        other = laptop.directory(node.cap)
        await node.edit([SetChild("mine", ONE, base=Base.ABSENT)])
        await other.edit([SetChild("theirs", TWO, base=Base.ABSENT)])
        assert caps(await node.table(0)) == {"mine": ONE, "theirs": TWO}
        result = await node.edit([SetChild("theirs", THREE, base=Base.ABSENT)])
        assert result.outcomes == (Conflict("theirs.conflicted-20231114-221320-desk"),)
        await node.edit([SetChild("mine", THREE, base=ONE)])
        (kept,) = (await other.edit([Unlink("mine", base=ONE)])).outcomes
        assert kept == Kept()
        assert caps(await other.table(0)) == {
            "mine": THREE,
            "theirs": TWO,
            "theirs.conflicted-20231114-221320-desk": THREE,
        }


async def test_edits_made_at_once_all_count(maker, broker):
    node = await maker.create_directory(MutableFormat.SDMF)
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(node.edit, [SetChild(f"{number}", ONE)])
    assert len(await node.table(0)) == 8


async def test_one_batch_is_one_publish(maker, servers):
    node = await maker.create_directory(MutableFormat.SDMF)
    before = [server.count("read_test_write") for server in servers]
    await node.edit([SetChild(f"{number}", ONE) for number in range(1000)])
    after = [server.count("read_test_write") for server in servers]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 1]


async def test_readers_are_not_held_up_by_an_edit(maker, servers):
    node = await maker.create_directory(MutableFormat.SDMF)
    listing = await node.table()
    for server in servers:
        server.hang()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.edit, [SetChild("a", ONE)])
        await trio.testing.wait_all_tasks_blocked()
        assert await node.table(0.001) is listing
        for server in servers:
            server.wake()
    assert caps(await node.table(None)) == {"a": ONE}


async def test_readers_at_once_ask_once(maker, broker, servers):
    node = await maker.create_directory(MutableFormat.SDMF)
    asked = []
    for readers in (1, 10):
        before = calls(servers)
        found = []
        async with open_maker(broker) as fresh:
            directory = fresh.directory(node.cap)

            async def read(directory=directory, found=found):
                found.append(await directory.table())

            async with trio.open_nursery() as nursery:
                for _ in range(readers):
                    nursery.start_soon(read)
        assert len({id(listing) for listing in found}) == 1
        asked.append(calls(servers) - before)
    assert asked[0] == asked[1]


async def test_move(maker, mock_clock):
    clock = Clock()
    source = await maker.create_directory(MutableFormat.SDMF, {"a": (ONE, {"k": 1})})
    target = await maker.create_directory(MutableFormat.MDMF, {"b": (TWO, {"k": 2, "x": 1})})
    assert await move(source, "a", target, "b") == Done(changed=True)
    assert caps(await source.table()) == {}
    moved = (await target.table())["b"]
    assert moved.cap == ONE
    assert moved.metadata == {
        "k": 1,
        "tahoe": {"linkcrtime": clock.now, "linkmotime": clock.now},
    }
    assert await move(target, "b", target, "c") == Done(changed=True)
    assert await move(target, "c", target, "c") == Done(changed=False)
    assert caps(await target.table()) == {"c": ONE}
    with pytest.raises(NoSuchChildError):
        await move(target, "b", source, "b")


@pytest.mark.parametrize("contents", [b"5:short", b"garbage", b"3:abc,x", b"99999999999999999999:"])
async def test_a_table_that_is_none(maker, contents):
    file = await maker.create_mutable(MutableFormat.SDMF, contents)
    directory = maker.directory(DirectoryCap(file.cap))
    with pytest.raises(FormatError):
        await directory.table()
    with pytest.raises(FormatError):
        await directory.edit([SetChild("a", ONE)])
    assert (await file.contents())[1] == contents


async def test_files(maker):
    literal = maker.node(LiteralCap(b"literal"))
    assert (await literal.size(), await literal.read(1, 3)) == (7, b"ite")
    cap = await maker.upload(BytesSource(b"immutable" * 20))
    file = maker.node(cap)
    assert (await file.size(), await file.read(9, 9)) == (180, b"immutable")
    mutable = await maker.create_mutable(MutableFormat.MDMF, b"first")
    await mutable.modify(lambda old: old + b" second")
    assert await mutable.read(0, 100) == b"first second"
    reader = maker.node(mutable.cap.read_cap())
    assert await reader.size() == 12
    assert (await reader.contents())[1] == b"first second"
    for write in (reader.overwrite(b""), reader.modify(lambda old: b"")):
        with pytest.raises(ReadOnlyCapabilityError):
            await write
    await mutable.overwrite(b"third")
    assert (await mutable.contents())[1] == b"third"


async def test_one_node_for_each_capability(maker):
    node = await maker.create_directory(MutableFormat.SDMF)
    cap = node.cap
    assert maker.node(cap) is maker.node(DirectoryCap(cap.backing)) is node
    assert maker.node(cap.backing) is maker.node(cap.backing)
    marker = id(node)
    del node
    gc.collect()
    assert isinstance(maker.node(cap), DirectoryNode)
    assert marker
    with pytest.raises(NotADirectoryNodeError):
        maker.directory(ONE)
    with pytest.raises(BadCapabilityError):
        maker.node(cap.backing.verify_cap())


async def test_walk_meets_everything_once(maker, servers):
    root = await maker.create_directory(MutableFormat.SDMF)
    below = await maker.create_directory(MutableFormat.SDMF)
    gone = await maker.create_directory(MutableFormat.SDMF)
    file = await maker.upload(BytesSource(b"f" * 100))
    await below.edit([SetChild("up", root.cap), SetChild("file", file)])
    await root.edit(
        [
            SetChild("below", below.cap),
            SetChild("again", below.cap.read_cap()),
            SetChild("file", file),
            SetChild("gone", gone.cap),
            SetChild("small", ONE),
        ]
    )
    async with open_maker(maker.grid.broker) as fresh:
        for server in servers:
            server.lose(gone.cap.storage_index)
        steps = [step async for step in walk(fresh, root.cap)]
    paths = {"/".join(step.path): step for step in steps}
    assert set(paths) == {"", "again", "again/file", "gone", "small"}
    assert paths["gone"].error is not None
    assert all(step.error is None for name, step in paths.items() if name != "gone")
