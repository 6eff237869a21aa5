"""Directories that are removed, moved and filled by several clients, of which one may crash.

What such a client has yet to look at is in its journal: whoever mounts next looks.
"""

from __future__ import annotations

import os
import stat
from contextlib import asynccontextmanager

import cbor2
import pytest
import trio

from lafsfs.caps import DirectoryCap, LiteralCap
from lafsfs.errors import DirectoryNotEmptyError, NotEnoughSharesError, ServerUnavailableError
from lafsfs.journal import Journal, Limits
from lafsfs.journal.faultpoints import watch
from lafsfs.nodes.edits import SetChild, Unlink
from lafsfs.vfs.api import SetAttributes
from lafsfs.vfs.publishing.settling import settle_name
from lafsfs.vfs.recording.durable import JournalRecorder
from lafsfs.vfs.status import State
from tests.vfs.conftest import ME, ROOT, open_maker, open_world
from tests.vfs.crashes import Image, copied_directory, copied_grid
from tests.vfs.racing import blocked
from tests.vfs.test_journal import Counting, open_journal

LATE = SetChild("late", LiteralCap(b"late"))


@pytest.fixture
async def e(mount):
    """The capability of an empty directory of that name, which everybody has heard of."""
    async with mount() as world:
        await world.mkdir("e")
        await world.settled()
        return cap_of(world, await world.path("e"))


def cap_of(world, found):
    return world.tree.directory_inode(found.ino).cap


async def edit(broker, world, cap, *edits) -> None:
    """What another client does."""
    async with open_maker(broker, world.clock, "laptop") as maker:
        await maker.directory(cap).edit(edits)


class Away:
    """Servers do not answer for a directory once another has been written to."""

    def __init__(self, servers, written, away) -> None:
        self.servers, self.written, self.away = servers, written, away
        self.is_written = False
        for server in servers:
            server.before_call = self

    def __call__(self, call) -> None:
        if self.is_written and call.storage_index == self.away.storage_index:
            raise ServerUnavailableError("away")
        if (call.verb, call.storage_index) == ("read_test_write", self.written.storage_index):
            self.is_written = True

    def end(self) -> None:
        for server in self.servers:
            server.before_call = None


# --- what was moved -------------------------------------------------------------------------------


async def test_a_moved_directory_stays_moved_though_nobody_has_looked_where_it_went(mount):
    async with mount() as world:
        await world.mkdir("e")
        await world.mkdir("e/deep")
        await world.settled()
    async with mount() as world:
        await world.rename("d", "e/deep/d")
    async with mount() as world:
        await world.settled()
        assert await world.listdir() == [b"e", b"g"]
        assert await world.read("e/deep/d/f") == b"first"


async def test_what_was_moved_is_forgotten_and_looked_up_before_its_old_name_is_gone(mount, e):
    async with mount() as world:
        await world.rename("d", "e/d")
        inode = world.tree.directory_inode((await world.path("e/d")).ino)
        await settle_name(inode.edges[0].binding)
        world.fs.forget([(inode.number, inode.lookups)])
        await world.fs.setattr((await world.path("e/d")).ino, SetAttributes(mode=0o700), ME)
    async with mount() as world:
        assert (await world.path("e/d")).mode == stat.S_IFDIR | 0o700
        await world.settled()
        assert await world.listdir() == [b"e", b"g"]
        assert await world.read("e/d/f") == b"first"


async def test_two_look_into_what_was_removed(mount, servers, e):
    """Its two names go at a time. What is known of it is not forgotten by the first who looks."""
    async with mount() as world:
        top, d = [cap_of(world, await world.path(path)) for path in ("", "d")]
        await world.rename("d", "e/d")
        above = world.tree.directory_inode((await world.path("e")).ino)
        await above.directory.publisher.attempt()
        await world.unlink("e/d/f")
        await world.fs.rmdir(above.number, b"d")
        written, e_goes, d_answers = trio.Event(), trio.Event(), trio.Event()

        async def wait(call) -> None:
            if call.storage_index == e.storage_index:
                await e_goes.wait()
            elif call.storage_index == top.storage_index:
                written.set()
            elif call.storage_index == d.storage_index and written.is_set():
                await d_answers.wait()

        for server in servers:
            server.before_call = wait
        async with trio.open_nursery() as nursery:
            nursery.start_soon(above.directory.publisher.attempt)
            await blocked()
            nursery.start_soon(world.tree.directory_inode(ROOT).directory.publisher.attempt)
            await blocked()
            e_goes.set()
            await blocked()
            d_answers.set()
        await world.settled()
        assert await everything(world) == {"g": b"other"}


async def test_two_look_into_what_is_below_what_was_removed(mount, servers, e):
    """Once the first has looked, nobody knows any more what was removed in there."""
    async with mount() as world:
        below = cap_of(world, await world.mkdir("e/below"))
        await world.write("e/below/f", b"gone")
        await world.settled()
        await world.unlink("e/below/f")
        above = world.tree.directory_inode((await world.path("e")).ino)
        await world.fs.rmdir(above.number, b"below")
        written, below_answers = trio.Event(), trio.Event()

        async def wait(call) -> None:
            if (call.verb, call.storage_index) == ("read_test_write", e.storage_index):
                written.set()
            elif call.storage_index == below.storage_index and written.is_set():
                await below_answers.wait()

        for server in servers:
            server.before_call = wait
        async with trio.open_nursery() as nursery:
            nursery.start_soon(above.directory.publisher.attempt)
            await blocked()
            await world.fs.rmdir(ROOT, b"e")
            nursery.start_soon(world.tree.directory_inode(ROOT).directory.publisher.attempt)
            await blocked()
            below_answers.set()
        await world.settled()
        assert sorted(await world.on_grid()) == ["d", "g"]
        assert await world.listdir() == [b"d", b"g"]


async def test_what_was_removed_while_it_waited_to_be_published_is_not(mount, servers, e):
    """Whoever looks into what is above would give up what it is about to look into."""
    async with mount() as world:
        below, side = [cap_of(world, await world.mkdir(path)) for path in ("e/below", "e/side")]
        await world.mkdir("e/below/deep")
        await world.write("e/below/deep/f", b"gone")
        await world.settled()
        await world.unlink("e/below/deep/f")
        parents = [world.tree.directory_inode((await world.path(p)).ino) for p in ("e/below", "e")]
        await world.fs.rmdir(parents[0].number, b"deep")
        await blocked()  # its turn comes after the quiet period
        await world.fs.rmdir(parents[1].number, b"below")
        await world.fs.rmdir(parents[1].number, b"side")
        await world.fs.rmdir(ROOT, b"e")
        top = cap_of(world, await world.fs.getattr(ROOT))
        written, side_answers, below_answers = trio.Event(), trio.Event(), trio.Event()

        async def wait(call) -> None:
            if (call.verb, call.storage_index) == ("read_test_write", top.storage_index):
                written.set()
            elif (call.verb, call.storage_index) == ("read_test_write", below.storage_index):
                await below_answers.wait()
            elif call.storage_index == side.storage_index and written.is_set():
                await side_answers.wait()

        for server in servers:
            server.before_call = wait
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.tree.directory_inode(ROOT).directory.publisher.attempt)
            await blocked()
            nursery.start_soon(parents[0].directory.publisher.attempt)
            await blocked()
            side_answers.set()
            await blocked()
            below_answers.set()
        await world.settled()
        assert sorted(await world.on_grid()) == ["d", "g"]
    async with mount() as world:
        assert world.fs.found.changes == 0


@pytest.mark.parametrize("is_known", [False, True])
async def test_what_is_above_what_has_yet_to_come_back_stays(mount, broker, servers, e, is_known):
    """Somebody has filled a directory while we took it away, and then we remove what was above."""
    async with mount() as world:
        below = cap_of(world, await world.mkdir("e/below"))
        await world.settled()
        above = world.tree.directory_inode((await world.path("e")).ino)
        await world.fs.rmdir(above.number, b"below")
        first = [True]

        async def fill(call) -> None:
            is_ours = (call.verb, call.storage_index) == ("read_test_write", e.storage_index)
            if is_ours and first:
                first.clear()
                await edit(broker, world, below, LATE)
                if not is_known:
                    await world.fs.rmdir(ROOT, b"e")

        servers[0].before_call = fill
        await above.directory.publisher.attempt()
        servers[0].before_call = None
        if is_known:
            with pytest.raises(DirectoryNotEmptyError):
                await world.fs.rmdir(ROOT, b"e")
        await world.settled()
        assert (await everything(world))["e/below/late"] == b"late"


async def test_what_was_removed_before_a_crash_has_another_name(mount, broker, e):
    async with mount() as world:
        top = cap_of(world, await world.fs.getattr(ROOT))
        await world.fs.rmdir(ROOT, b"e")
    async with mount(max_age=0.0) as world:
        await edit(broker, world, top, SetChild("e2", e))
        await world.fs.setattr((await world.path("e2")).ino, SetAttributes(mode=0o700), ME)
    async with mount() as world:
        assert (await world.path("e2")).mode == stat.S_IFDIR | 0o700
        await world.settled()
        assert await world.listdir() == [b"d", b"e2", b"g"]


async def test_two_mounts_move_two_directories_into_each_other(mount, broker, tmp_path, e):
    async with mount() as one:
        await one.rename("d", "e/d")
        top = cap_of(one, await one.fs.getattr(ROOT))
        async with open_world(broker, tmp_path / "two", top, host="two") as two:
            await two.rename("e", "d/e")
            await two.settled()
    async with mount(max_age=0.0) as world:
        await world.settled()
        assert sorted((await everything(world)).values()) == [b"first", b"other"]


async def test_a_ring_of_directories_that_a_crash_kept_from_being_seen(mount, broker, servers, e):
    async with mount() as world:
        top, d = [cap_of(world, await world.path(path)) for path in ("", "d")]
        await world.rename("d", "e/d")
        inode = world.tree.directory_inode((await world.path("e/d")).ino)
        await settle_name(inode.edges[0].binding)
        away = Away(servers, top, e)
        with pytest.raises(NotEnoughSharesError):
            await world.tree.directory_inode(ROOT).directory.publisher.attempt()
        away.end()
        await edit(broker, world, d, SetChild("e", e))
        await edit(broker, world, top, Unlink("e"))
    async with mount(max_age=0.0) as world:
        await world.settled()
        assert sorted((await everything(world)).values()) == [b"first", b"other"]


async def everything(world, path="") -> dict[str, bytes]:
    """The contents of all files that can be reached, by path."""
    found = {}
    for entry in await world.entries(path):
        name = f"{path}/{entry.name.decode()}" if path else entry.name.decode()
        attributes = await world.path(name)
        if attributes.is_directory:
            found |= await everything(world, name)
        elif stat.S_ISREG(attributes.mode):
            found[name] = await world.read(name)
    return found


async def test_looking_above_what_is_moved_meanwhile(mount, servers, e):
    """The way up changes while it is walked: nothing is brought back for that."""
    async with mount() as world:
        await world.mkdir("e/deep")
        await world.mkdir("x")
        await world.settled()
        looking = []

        async def move(call) -> None:
            if looking and call.storage_index == e.storage_index and looking.pop():
                await world.rename("e/deep", "x/deeper")
                await world.tree.settle(world.tree.table[(await world.path("x/deeper")).ino])

        async def begin(call) -> None:
            top = world.tree.directory_inode(ROOT).cap
            if (call.verb, call.storage_index) == ("read_test_write", top.storage_index):
                servers[0].before_call = move
                looking.append(True)

        await world.rename("d", "e/deep/d")
        inode = world.tree.directory_inode((await world.path("e/deep/d")).ino)
        await settle_name(inode.edges[0].binding)
        servers[0].before_call = begin
        await world.settled()
        servers[0].before_call = None
        assert not looking
        assert await everything(world) == {"g": b"other", "x/deeper/d/f": b"first"}
        assert sorted(await world.on_grid()) == ["e", "g", "x"]


async def test_a_journal_without_places_is_read(mount, tmp_path, root):
    """As an older version left it. Where directories are is found when somebody looks."""
    async with mount() as world:
        await world.mkdir("e")
        await world.mkdir("e/deep")
        await world.settled()
    async with mount() as world:
        await world.symlink("e/deep/x", b"new")
        await world.rename("d", "e/deep/d")
    async with await open_journal(tmp_path, root) as journal:
        newer = [row.id for row in journal.take_rows() if cbor2.loads(row.value)[0] > 1]
        assert len(newer) == 2
        journal.commit({}, newer)
    async with mount() as world:
        await world.settled()
        found = await everything(world)
        assert found["e/deep/d/f"] == b"first"
        assert found.keys() <= {"e/deep/d/f", "d/f", "g"}
        assert sorted(await world.listdir("e/deep")) == [b"d", b"x"]


# --- what was removed -----------------------------------------------------------------------------


async def test_what_was_removed_before_a_crash_is_looked_into_behind_it(mount, broker, servers, e):
    async with mount() as world:
        top = cap_of(world, await world.fs.getattr(ROOT))
        await world.fs.rmdir(ROOT, b"e")
        away = Away(servers, top, e)
        with pytest.raises(NotEnoughSharesError):
            await world.tree.directory_inode(ROOT).directory.publisher.attempt()
        away.end()
        assert sorted(await world.on_grid()) == ["d", "g"]
    async with mount() as world:
        await edit(broker, world, e, LATE)
    for _ in range(2):
        async with mount() as world:
            await world.settled()
            assert (await everything(world))["e/late"] == b"late"
    async with mount() as world:
        assert world.fs.found.changes == 0


async def test_what_was_removed_and_replaced_is_looked_into_behind_a_crash(mount, broker, e):
    """The removal has landed, which no row says, and another client has used the name."""
    async with mount() as world:
        top = cap_of(world, await world.fs.getattr(ROOT))
        await world.fs.rmdir(ROOT, b"e")
        await edit(broker, world, top, Unlink("e"), SetChild("e", LiteralCap(b"theirs")))
        await edit(broker, world, e, LATE)
    async with mount() as world:
        await world.settled()
        found = await everything(world)
        assert found.pop("e") == b"theirs"
        assert sorted(found.values()) == [b"first", b"late", b"other"]


async def test_what_cannot_be_looked_into_holds_no_other_name_up(mount, servers, e):
    async with mount() as world:
        top = cap_of(world, await world.fs.getattr(ROOT))
        await world.fs.rmdir(ROOT, b"e")
        away = Away(servers, top, e)
        publisher = world.tree.directory_inode(ROOT).directory.publisher
        with pytest.raises(NotEnoughSharesError):
            await publisher.attempt()
        await world.symlink("new", b"x")
        with pytest.raises(NotEnoughSharesError):
            await publisher.attempt()
        assert sorted(await world.on_grid()) == ["d", "g", "new"]
        away.end()
        await world.settled()


async def test_what_is_yet_to_be_looked_at_is_pending(mount, servers, e):
    async with mount() as world:
        await world.fs.rmdir(ROOT, b"e")
        await world.symlink("d/link", b"x")
        top = cap_of(world, await world.fs.getattr(ROOT))
        away = Away(servers, top, e)
        with pytest.raises(NotEnoughSharesError):
            await world.tree.directory_inode(ROOT).directory.publisher.attempt()
        await world.tree.directory_inode((await world.path("d")).ino).directory.publisher.attempt()
        (pending,) = (await world.fs.status()).pending
        assert (pending.path, pending.state) == ("e (removed)", State.FAILED)
        assert "away" in pending.error
        away.end()
        await world.settled()
        assert (await world.fs.status()).is_settled


@pytest.mark.parametrize("is_gone", [False, True])
async def test_what_nobody_can_read_any_more_is_not_waited_for(mount, servers, e, is_gone):
    """Its shares are lost before its name is taken away, or after that."""
    async with mount() as world:
        await world.fs.rmdir(ROOT, b"e")
        top = cap_of(world, await world.fs.getattr(ROOT))
        if is_gone:
            away = Away(servers, top, e)
            with pytest.raises(NotEnoughSharesError):
                await world.tree.directory_inode(ROOT).directory.publisher.attempt()
            away.end()
    for server in servers:
        server.lose(e.storage_index)
    async with mount() as world:
        assert world.fs.found.changes == 1
        servers[0].down = True
        with pytest.raises(NotEnoughSharesError):
            await world.tree.directory_inode(ROOT).directory.publisher.attempt()
        servers[0].down = False
        await world.settled()
        assert sorted(await world.on_grid()) == ["d", "g"]
    async with mount() as world:
        assert world.fs.found.changes == 0


async def removed_unseen(world, servers, e) -> tuple[DirectoryCap, Away]:
    """A directory below e that was taken away, and into which nobody can look yet."""
    below = cap_of(world, await world.mkdir("e/below"))
    await world.settled()
    await world.fs.rmdir((await world.path("e")).ino, b"below")
    publisher = world.tree.directory_inode((await world.path("e")).ino).directory.publisher
    away = Away(servers, e, below)
    with pytest.raises(NotEnoughSharesError):
        await publisher.attempt()
    return below, away


async def test_what_is_above_a_removed_directory_is_not_gone_before_that_is_seen(
    mount,
    broker,
    servers,
    e,
):
    async with mount() as world:
        below, away = await removed_unseen(world, servers, e)
        await world.fs.rmdir(ROOT, b"e")
        away.end()
        await edit(broker, world, below, LATE)
    async with mount() as world:
        await world.settled()
        assert (await everything(world))["e/below/late"] == b"late"


async def test_nothing_is_left_of_a_tree_that_was_removed(mount, servers, tmp_path, root, e):
    async with mount() as world:
        _, away = await removed_unseen(world, servers, e)
        away.end()
        await world.fs.rmdir(ROOT, b"e")
        await world.settled()
    async with await open_journal(tmp_path, root) as journal:
        assert journal.take_rows() == ()


async def test_nothing_is_left_of_directories_that_may_lie_in_each_other(mount, tmp_path, root, e):
    """Moved to and fro, and removed: the grid may have each of them in the other, still."""
    async with mount() as world:
        await world.mkdir("e/f")
        await world.settled()
        await world.rename("e/f", "f")
        await world.tree.directory_inode(ROOT).directory.publisher.attempt()
        f = await world.path("f")
        await world.rename("e", "f/e")
        await world.tree.directory_inode(f.ino).directory.publisher.attempt()
        await world.fs.rmdir(f.ino, b"e")
        await world.fs.rmdir(ROOT, b"f")
        with trio.fail_after(60):
            await world.settled()
        assert sorted(await world.on_grid()) == ["d", "g"]
    async with await open_journal(tmp_path, root) as journal:
        assert journal.take_rows() == ()


# --- what was filled ------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["e", "e/deep"])
async def test_a_tree_that_somebody_removes_while_we_put_something_into_it(mount, broker, e, where):
    """Nobody empties what is removed with all that is in it: from within it looks as ever."""
    async with mount() as world:
        await world.mkdir("e/deep")
        await world.symlink(f"{where}/old", b"x")
        await world.settled()
        await world.write(f"{where}/x", b"new")
        top = cap_of(world, await world.fs.getattr(ROOT))
        await edit(broker, world, top, Unlink("e"))
        await world.settled()
        assert (await everything(world))[f"{where}/x"] == b"new"
    async with mount() as world:
        assert (await everything(world))[f"{where}/x"] == b"new"


@pytest.mark.parametrize("where", ["e", "e/deep"])
async def test_a_tree_that_somebody_removes_while_a_file_in_it_is_written(mount, broker, e, where):
    """It is seen to be gone before what was written has a place on the grid."""
    async with mount() as world:
        await world.mkdir("e/deep")
        await world.write(f"{where}/x", b"old")
        await world.settled()
        opened = await world.fs.open((await world.path(f"{where}/x")).ino, os.O_WRONLY)
        await world.fs.write(opened.handle, 0, b"new")
        top = world.tree.directory_inode(ROOT)
        await edit(broker, world, top.cap, Unlink("e"))
        await top.directory.listing(0)
        assert b"e" in await world.listdir()
        await world.flush(opened.handle)
        await world.settled()
        assert (await everything(world))[f"{where}/x"] == b"new"
    async with mount() as world:
        assert (await everything(world))[f"{where}/x"] == b"new"


@pytest.mark.parametrize("is_seen", [False, True])
async def test_a_directory_that_somebody_removes_after_we_filled_it_and_crashed(
    mount,
    broker,
    e,
    is_seen,
):
    async with mount() as world:
        await world.mkdir("e/deep")
        await world.settled()
        await world.symlink("e/deep/x", b"early")
        top = cap_of(world, await world.fs.getattr(ROOT))
        await edit(broker, world, e, Unlink("deep"))
        await edit(broker, world, top, Unlink("e"))
    async with mount(max_age=0.0) as world:
        if is_seen:
            assert sorted(await world.listdir()) == [b"d", b"e", b"g"]
        await world.settled()
        assert await world.fs.readlink((await world.path("e/deep/x")).ino) == b"early"
        assert list(await world.on_grid("e/deep")) == ["x"]


async def test_a_directory_that_somebody_replaces_while_we_fill_it(mount, broker, e):
    async with mount(max_age=0.0) as world:
        await world.write("e/x", b"early")
        top = cap_of(world, await world.fs.getattr(ROOT))
        d = (await world.on_grid())["d"].cap
        await edit(broker, world, top, Unlink("e"), SetChild("e", d))
        await world.settled()
        found = await everything(world)
        assert found["e/f"] == b"first"
        assert b"early" in found.values()


async def test_what_was_filled_before_a_crash_is_looked_for_behind_it(mount, broker, servers, e):
    async with mount() as world:
        await world.symlink("e/x", b"early")
        top = cap_of(world, await world.fs.getattr(ROOT))
        await edit(broker, world, top, Unlink("e"))
        away = Away(servers, e, top)
        publisher = world.tree.directory_inode((await world.path("e")).ino).directory.publisher
        with pytest.raises(NotEnoughSharesError):
            await publisher.attempt()
        away.end()
    async with mount() as world:
        await world.settled()
        assert await world.fs.readlink((await world.path("e/x")).ino) == b"early"


# --- killed at every place ------------------------------------------------------------------------


@asynccontextmanager
async def photographed(broker, tmp_path, prepare):
    """A mount of a new root, and what it leaves where it could be killed from then on."""
    images: list[Image] = []
    directory = tmp_path / "mount"

    def photograph(place: str) -> None:
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            trio.from_thread.run_sync(photograph, place)
        else:
            target = copied_directory(directory, tmp_path / f"image{len(images)}")
            images.append(Image(place, target, copied_grid(broker), 0, 0))

    async with open_world(broker, directory, sync=False, max_age=1e6) as world:
        await prepare(world)
        await world.settled()
        with watch(photograph):
            yield world, images
            await world.settled()
        await trio.sleep(1)  # until everything is recorded


@pytest.mark.parametrize("verb", ["rmdir", "replace"])
async def test_killed_anywhere_while_a_directory_goes_that_others_fill(
    broker, tmp_path, patient_clock, verb
):
    async def prepare(world) -> None:
        await world.mkdir("e")
        await world.mkdir("d")
        await world.write("d/f", b"first")

    async with photographed(broker, tmp_path, prepare) as (world, images):
        e, top = [cap_of(world, await world.path(path)) for path in ("e", "")]
        if verb == "rmdir":
            await world.fs.rmdir(ROOT, b"e")
        else:
            await world.rename("d", "e")
    places = set()
    for number, image in enumerate(images):
        await edit(image.broker, world, e, LATE)
        async with open_world(image.broker, image.directory, top, sync=False) as again:
            if number and not again.tree.outgoing.pending:
                continue  # it was looked into: the others have come too late
            places.add(image.place)
            await again.settled()
            found = sorted((await everything(again)).values())
            assert found == [b"first", b"late"], image.place
    assert {"publisher.landed", "publisher.settled", "publisher.looked"} <= places


async def test_killed_anywhere_while_a_directory_is_moved(broker, tmp_path, patient_clock):
    async def prepare(world) -> None:
        await world.mkdir("e")
        await world.mkdir("e/deep")
        await world.mkdir("d")
        await world.write("d/f", b"first")

    async with photographed(broker, tmp_path, prepare) as (world, images):
        top = cap_of(world, await world.path(""))
        await world.rename("d", "e/deep/d")
    for number, image in enumerate(images):
        async with open_world(image.broker, image.directory, top, sync=False) as again:
            await again.settled()
            where = "e/deep/d/f" if number else "d/f"  # before it was accepted
            assert await everything(again) == {where: b"first"}, image.place


async def test_killed_anywhere_while_a_directory_is_filled_that_others_remove(
    broker, tmp_path, patient_clock
):
    async def prepare(world) -> None:
        await world.mkdir("d")
        await world.mkdir("d/e")

    async with photographed(broker, tmp_path, prepare) as (world, images):
        d, top = [cap_of(world, await world.path(path)) for path in ("d", "")]
        await world.write("d/e/x", b"early")
    for number, image in enumerate(images):
        async with open_world(image.broker, image.directory / "other", top, max_age=0.0) as other:
            if not await other.listdir("d/e"):
                await edit(image.broker, world, d, Unlink("e"))
                await edit(image.broker, world, top, Unlink("d"))
        async with open_world(image.broker, image.directory, top, sync=False) as again:
            await again.settled()
            found = await everything(again)
            assert found in ({"d/e/x": b"early"}, {"d/e/x": b""}, {}), image.place
            assert found or not number
    assert {"publisher.settled", "publisher.looked"} <= {image.place for image in images}


# --- what it costs --------------------------------------------------------------------------------


async def test_a_removal_is_one_commit(mount, tmp_path, e):
    """And one before it goes to the grid, one when it is there, with or without a look."""
    async with Journal.open(tmp_path / "j", bytes(32), Limits()) as journal:
        counting = Counting(journal)
        recorder = JournalRecorder(counting)
        async with mount(recorder=recorder) as world:
            await world.path("e")
            await world.fs.rmdir(ROOT, b"e")
            assert counting.commits == [(2, 0)]
            await world.settled()
            await recorder.accept()
            assert counting.commits == [(2, 0), (1, 0), (0, 3)]


async def test_names_on_the_way_are_recorded_once(mount, tmp_path, e):
    async with Journal.open(tmp_path / "j", bytes(32), Limits()) as journal:
        counting = Counting(journal)
        recorder = JournalRecorder(counting)
        async with mount(recorder=recorder) as world:
            await world.mkdir("e/deep")
            await world.settled()
            await recorder.accept()
            counting.commits.clear()
            for name in ("a", "b"):
                await world.symlink(f"e/deep/{name}", b"x")
            assert counting.commits == [(4, 0), (2, 0)]
            await world.settled()
            await recorder.accept()
            assert counting.commits == [(4, 0), (2, 0), (1, 0), (0, 7)]
            assert len(journal.take_rows()) == 0
            await trio.lowlevel.checkpoint()
