"""What is accepted outlives a mount: the next one shows it and brings it to the grid."""

from __future__ import annotations

import os
import shutil

import cbor2
import pytest
import trio

from lafsfs.caps import MutableFormat
from lafsfs.errors import (
    JournalBusyError,
    JournalError,
    JournalFormatError,
    JournalFullError,
    StagingCorruptError,
)
from lafsfs.journal import Journal, Limits, Put
from lafsfs.journal.faultpoints import watch
from lafsfs.nodes.edits import SetChild, Unlink
from lafsfs.vfs.api import RENAME_EXCHANGE, SetAttributes
from lafsfs.vfs.publishing.settling import settle_name
from lafsfs.vfs.recording.durable import JournalRecorder
from lafsfs.vfs.recording.ground import journal_of
from tests.vfs.conftest import ME, ROOT, open_maker, open_world
from tests.vfs.crashes import copied_directory

LARGE = bytes(range(256)) * 1000  # more than the journal keeps in its database


async def open_journal(tmp_path, root, limits=None):
    place, key = journal_of(tmp_path / "journal", root)
    return Journal.open(place, key, limits)


# --- what is found --------------------------------------------------------------------------------


async def test_nothing_pending_is_nothing_found(mount):
    async with mount() as world:
        assert (world.fs.found.changes, world.fs.found.size) == (0, 0)
        assert not world.fs.found.went_back


async def test_how_much_is_said(mount):
    async with mount() as world:
        await world.write("new", b"12345")
        await world.write("large", LARGE)
        await world.unlink("g")
    async with mount() as world:
        assert str(world.fs.found) == "3 pending changes (256,005 bytes) from an earlier mount"
        assert (await world.fs.status()).names + (await world.fs.status()).files == 3


async def test_everything_is_shown_as_it_was_and_gets_to_the_grid(mount):
    async with mount() as world:
        await world.write("d/small", b"s" * 100, mode=0o600)
        await world.write("large", LARGE)
        await world.mkdir("new", 0o700)
        await world.mkdir("new/newer")
        await world.write("new/newer/deep", b"deep")
        await world.symlink("new/link", b"newer/deep" * 10)
        await world.rename("d/f", "new/f")
        deep = await world.path("new/newer/deep")
        await world.fs.setattr(deep.ino, SetAttributes(mode=0o640, mtime_ns=7), ME)
        await world.fs.setxattr(deep.ino, b"user.note", b"kept", ME)
        deep = await world.path("new/newer/deep")
    for attempt in range(2):
        async with mount() as world:
            assert await world.read("d/small") == b"s" * 100
            assert await world.read("large") == LARGE
            assert await world.read("new/f") == b"first"
            assert await world.listdir("d") == [b"small"]
            assert sorted(await world.listdir("new")) == [b"f", b"link", b"newer"]
            found = await world.path("new/newer/deep")
            assert (found.ino, found.mode, found.mtime_ns) == (deep.ino, deep.mode, 7)
            assert await world.fs.getxattr(found.ino, b"user.note", ME) == b"kept"
            assert (await world.path("d/small")).mode & 0o777 == 0o600
            if attempt:
                await world.settled()
    async with mount() as world:
        assert world.fs.found.changes == 0
        assert await world.read("new/newer/deep") == b"deep"
        assert await world.read("large") == LARGE


async def test_a_file_stays_one_file_under_both_names(mount):
    async with mount() as world:
        ino = (await world.path("g")).ino
        await world.fs.link(ino, (await world.path("d")).ino, b"linked")
        await world.write("g", b"changed")
    async with mount() as world:
        one, other = await world.path("g"), await world.path("d/linked")
        assert (one.ino, one.nlink) == (other.ino, other.nlink) == (ino, 2)
        assert await world.read("d/linked") == b"changed"
        await world.settled()
    async with mount() as world:
        assert await world.read("d/linked") == await world.read("g") == b"changed"
        assert (await world.path("g")).ino == (await world.path("d/linked")).ino


async def test_names_that_were_exchanged(mount):
    async with mount() as world:
        await world.rename("d/f", "g", RENAME_EXCHANGE)
    async with mount() as world:
        assert (await world.read("d/f"), await world.read("g")) == (b"other", b"first")
        await world.settled()
    async with mount() as world:
        assert (await world.read("d/f"), await world.read("g")) == (b"other", b"first")


async def test_a_folder_that_was_moved_is_not_taken_for_one_that_was_removed(mount, servers):
    """Its new name is on the grid, its old one is not gone yet, and it has something in it."""
    async with mount() as world:
        await world.mkdir("e")
        await world.settled()
        await world.rename("d", "e/d")
        inode = world.tree.directory_inode((await world.path("e/d")).ino)
        await settle_name(inode.edges[0].binding)
    async with mount() as world:
        assert sorted(await world.listdir()) == [b"e", b"g"]
        await world.settled()
    async with mount() as world:
        assert sorted(await world.listdir()) == [b"e", b"g"]
        assert await world.read("e/d/f") == b"first"


async def test_what_others_did_meanwhile_is_kept(mount, broker, root):
    async with mount() as world:
        await world.write("g", b"ours")
        await world.unlink("d/f")
        clock = world.clock
    async with open_maker(broker, clock) as maker:
        directory = maker.directory(root)
        below = maker.directory((await directory.table(0))["d"].cap)
        theirs = await maker.create_mutable(MutableFormat.SDMF, b"theirs")
        await directory.edit([SetChild("g", theirs.cap), SetChild("more", theirs.cap)])
        await below.edit([Unlink("f"), SetChild("f", theirs.cap)])
    async with mount() as world:
        await world.settled()
    async with mount() as world:
        names = await world.listdir()
        (copy,) = [name.decode() for name in names if b"conflicted" in name]
        assert sorted(names) == sorted([b"d", b"g", b"more", copy.encode()])
        assert await world.read("g") == await world.read("d/f") == b"theirs"
        assert await world.read(copy) == b"ours"


async def test_what_was_removed_before_it_was_on_the_grid_leaves_nothing(mount, root, tmp_path):
    async with mount() as world:
        await world.mkdir("new")
        await world.write("new/file", LARGE)
        await world.unlink("new/file")
        await world.fs.rmdir(ROOT, b"new")
    async with await open_journal(tmp_path, root) as journal:
        assert journal.take_rows() == ()
        await journal.sync()
    assert list((journal_of(tmp_path / "journal", root)[0] / "contents").iterdir()) == []


# --- when it cannot be used -----------------------------------------------------------------------


async def test_one_mount_at_a_time_but_for_those_that_only_read(mount, root, tmp_path):
    async with await open_journal(tmp_path, root):
        with pytest.raises(JournalBusyError, match="mounted already"):
            async with mount():
                raise AssertionError("two mounts on one journal")
        async with mount(read_only=True) as world:
            assert await world.read("g") == b"other"


@pytest.mark.parametrize("value", [b"no row", cbor2.dumps([99, 1, "of the future"])])
async def test_a_row_that_is_not_understood_stays(mount, root, tmp_path, value):
    async with await open_journal(tmp_path, root) as journal:
        journal.commit({journal.new_row(): Put(value)})
    for _ in range(2):
        with pytest.raises(JournalFormatError, match="row 1 of the journal"):
            async with mount():
                raise AssertionError("it was mounted")
    async with await open_journal(tmp_path, root) as journal:
        assert [row.value for row in journal.take_rows()] == [value]


async def test_a_name_without_its_file_is_refused(mount, root, tmp_path):
    async with mount() as world:
        await world.write("new", b"12345")
    async with await open_journal(tmp_path, root) as journal:
        rows = journal.take_rows()
        (inode,) = [row for row in rows if row.contents is not None]
        journal.commit({}, [inode.id])
    with pytest.raises(JournalFormatError, match="does not fit the others"):
        async with mount():
            raise AssertionError("it was mounted")


async def test_contents_that_the_disk_lost_hold_nothing_else_up(mount, root, tmp_path):
    async with mount() as world:
        await world.write("lost", LARGE)
        await world.write("kept", b"kept")
    contents = journal_of(tmp_path / "journal", root)[0] / "contents"
    (path,) = contents.iterdir()
    path.write_bytes(b"")
    for _ in range(2):
        async with mount(retry_first=0.01, retry_most=0.01) as world:
            assert sorted(await world.listdir()) == [b"d", b"g", b"kept", b"lost"]
            with pytest.raises(StagingCorruptError):
                await world.read("lost")
            errors = await world.fs.flush_all()
            assert [type(error) for error in errors] == [StagingCorruptError]
            (failed,) = (await world.fs.status()).pending
            assert failed.path == "lost"
            assert sorted(await world.on_grid()) == ["d", "g", "kept"]
    async with mount() as world:
        await world.unlink("lost")
        await world.settled()
    async with mount() as world:
        assert world.fs.found.changes == 0
        assert sorted(await world.listdir()) == [b"d", b"g", b"kept"]


class FullDisk:
    """A journal on a disk that is full until it is not."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.error: JournalError | None = None
        self.new_row = journal.new_row
        self.ready = journal.ready
        self.sync = journal.sync

    def commit(self, puts, deletes=(), blobs=None) -> None:
        if self.error is not None:
            raise self.error
        self.journal.commit(puts, deletes, blobs)


async def test_a_full_disk_is_told_and_tried_again(mount, root, tmp_path, patient_clock):
    async with Journal.open(tmp_path / "j", bytes(32), Limits()) as journal:
        disk = FullDisk(journal)
        recorder = JournalRecorder(disk)
        async with mount(recorder=recorder) as world:
            world.tree.nursery.start_soon(recorder.run)
            disk.error = JournalFullError("the disk that holds the journal is full")
            with pytest.raises(JournalFullError):
                await world.mkdir("new")
            assert b"new" in await world.listdir()
            with pytest.raises(JournalFullError):
                await world.mkdir("newer")  # which does not begin
            assert b"newer" not in await world.listdir()
            disk.error = None
            await trio.sleep(5)
            await world.mkdir("newest")
            assert {b"new", b"newest"} <= set(await world.listdir())
        await journal.sync()
    async with Journal.open(tmp_path / "j", bytes(32)) as journal:
        assert len(journal.take_rows()) == 4


async def test_a_small_file_is_one_commit(mount, counting):
    """When it is closed, with its name and with what tar sets while it is open."""
    async with mount(recorder=JournalRecorder(counting)) as world:
        opened, found = await world.fs.create(ROOT, b"new", 0o644, os.O_WRONLY, ME)
        await world.fs.write(opened.handle, 0, b"12345")
        for changes in (SetAttributes(mtime_ns=1), SetAttributes(uid=5, gid=6)):
            await world.fs.setattr(found.ino, changes, ME)
        await world.fs.setxattr(found.ino, b"user.note", b"x", ME)
        assert counting.commits == []
        await world.fs.flush(opened.handle)
        assert counting.commits == [(2, 0)]
        await world.fs.release(opened.handle)
        await world.fs.setattr(found.ino, SetAttributes(mode=0o600), ME)
        assert len(counting.commits) == 2  # it is closed: nothing else would have that accepted


async def test_what_is_open_goes_along_with_any_other_commit(mount, counting):
    """What came later is never there without what came before it."""
    async with mount(recorder=JournalRecorder(counting)) as world:
        await world.fs.create(ROOT, b"new", 0o644, os.O_WRONLY, ME)
        await world.mkdir("folder")
        assert counting.commits == [(4, 0)]


async def test_a_file_that_was_made_by_opening_it_for_reading_is_accepted(mount, counting):
    async with mount(recorder=JournalRecorder(counting)) as world:
        opened, _ = await world.fs.create(ROOT, b"new", 0o644, os.O_RDONLY, ME)
        await world.fs.flush(opened.handle)
        assert counting.commits == [(2, 0)]


async def test_a_file_that_was_emptied_by_opening_it_for_reading_is_accepted(mount):
    async with mount() as world:
        opened = await world.fs.open((await world.path("d/f")).ino, os.O_RDONLY | os.O_TRUNC)
        await world.fs.flush(opened.handle)
        await world.fs.release(opened.handle)
        crashed = copied_directory(world.directory / "journal", world.directory / "crashed")
    shutil.rmtree(crashed.with_name("journal"))
    crashed.rename(crashed.with_name("journal"))
    async with mount() as world:
        assert await world.read("d/f") == b""


@pytest.mark.parametrize("written", [b"12345", LARGE], ids=["small", "large"])
async def test_what_stays_open_is_accepted_within_five_seconds(
    mount, tmp_path, patient_clock, broker, root, written
):
    """Killed then, or without power: it is there as it was. Its upload waits as before."""
    killed, synced = tmp_path / "killed", tmp_path / "synced"

    def remember(place: str) -> None:
        if place == "journal.sync.after":
            copied_anew(tmp_path / "journal", synced / "journal")

    async with mount() as world:
        await trio.sleep(10)
        opened, found = await world.fs.create(ROOT, b"new", 0o644, os.O_WRONLY, ME)
        await world.fs.write(opened.handle, 0, b"-" * len(written))
        await world.fs.flush(opened.handle)
        await trio.sleep(100)
        await world.fs.setattr(found.ino, SetAttributes(mode=0o600), ME)
        await world.fs.write(opened.handle, 0, written)
        with watch(remember):
            await trio.sleep(5)
        copied_anew(tmp_path / "journal", killed / "journal")
        assert world.fs._uploader.get(world.tree.table[found.ino]).brought < 0
        await world.fs.release(opened.handle)
    for left in (killed, synced):
        async with open_world(broker, left, root, sync=False, max_age=1e6) as world:
            assert await world.read("new") == written
            assert (await world.path("new")).mode & 0o777 == 0o600


async def test_what_is_open_when_the_mount_ends_is_accepted(mount):
    async with mount() as world:
        opened, _ = await world.fs.create(ROOT, b"new", 0o644, os.O_WRONLY, ME)
        await world.fs.write(opened.handle, 0, LARGE)
    async with mount() as world:
        assert await world.read("new") == LARGE


async def test_what_is_open_and_has_no_name_is_not_written_down(mount, counting, patient_clock):
    async with mount(recorder=JournalRecorder(counting)) as world:
        opened, _ = await world.fs.create(ROOT, b"new", 0o644, os.O_RDWR, ME)
        await world.unlink("new")
        await world.fs.write(opened.handle, 0, LARGE)
        await trio.sleep(5)
        assert counting.commits == []
        assert await world.fs.read(opened.handle, 0, 10) == LARGE[:10]


def copied_anew(source, target) -> None:
    """A copy as a process that is killed leaves it, instead of an older one."""
    shutil.rmtree(target, ignore_errors=True)
    copied_directory(source, target)


class Counting(FullDisk):
    """A journal that remembers how many rows each commit put and deleted."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal)
        self.commits: list[tuple[int, int]] = []

    def commit(self, puts, deletes=(), blobs=None) -> None:
        self.commits.append((len(puts), len(deletes)))
        super().commit(puts, deletes, blobs)


@pytest.fixture
async def counting(tmp_path):
    async with Journal.open(tmp_path / "j", bytes(32), Limits()) as journal:
        yield Counting(journal)


async def test_a_removal_that_had_landed_takes_nothing_with_it(mount, broker, root):
    """What is made under the name afterwards, though it is the same as what was there."""
    async with mount() as world:
        await world.write("same", b"")
        await world.write("other", b"1")
        await world.settled()
    async with mount() as world:
        await world.unlink("same")
        await world.unlink("other")
        async with open_maker(broker, world.clock) as maker:  # as if a publish had landed, unheard
            await maker.directory(root).edit([Unlink("same"), Unlink("other")])
    async with mount() as world:
        await world.write("same", b"")
        await world.write("other", b"2")
        await world.settled()
    async with mount() as world:
        assert sorted(await world.listdir()) == [b"d", b"g", b"other", b"same"]
        assert await world.read("same") == b""
        assert await world.read("other") == b"2"
