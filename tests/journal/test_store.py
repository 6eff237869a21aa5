"""Rows and contents: what is committed is there again, and what nobody names is not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from lafsfs.errors import (
    JournalBusyError,
    JournalError,
    JournalFormatError,
    JournalFullError,
    StagingCorruptError,
)
from lafsfs.journal import ContentsRef, Entry, Journal, Kind, Limits, Put

if TYPE_CHECKING:
    from pathlib import Path

KEY = bytes(range(32))


async def rows_of(directory: Path, key: bytes = KEY) -> dict[int, bytes]:
    async with Journal.open(directory, key) as journal:
        return {row.id: row.value for row in journal.take_rows()}


def files_of(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "contents").iterdir())


async def test_rows_are_there_again(tmp_path):
    async with Journal.open(tmp_path / "j", KEY) as journal:
        assert journal.take_rows() == ()
        first, second, third = (journal.new_row() for _ in range(3))
        journal.commit({first: Put(b"one"), second: Put(b"two")})
        journal.commit({first: Put(b"uno"), third: Put(b"three")}, [second])
        journal.commit({}, [12345])
    async with Journal.open(tmp_path / "j", KEY) as journal:
        rows = journal.take_rows()
        assert [(row.id, row.value) for row in rows] == [(first, b"uno"), (third, b"three")]
        assert rows[0].sequence < rows[1].sequence
        assert journal.take_rows() == ()
        fresh = journal.new_row()
        assert fresh not in (first, third)
        journal.commit({fresh: Put(b"new")})
    assert await rows_of(tmp_path / "j") == {first: b"uno", third: b"three", fresh: b"new"}


async def test_sequence_goes_on_after_a_restart(tmp_path):
    async with Journal.open(tmp_path, KEY) as journal:
        journal.commit({1: Put(b"a"), 2: Put(b"b")})
    async with Journal.open(tmp_path, KEY) as journal:
        journal.commit({1: Put(b"c")})
    async with Journal.open(tmp_path, KEY) as journal:
        assert [row.value for row in journal.take_rows()] == [b"b", b"c"]


async def test_nothing_is_readable_on_the_disk_or_by_others(tmp_path, mock_clock):
    directory = tmp_path / "above" / "j"
    async with Journal.open(directory, KEY) as journal:
        log = journal.hold(journal.new_contents())
        await journal.append(log, [Entry(Kind.WRITE, 0, b"large precious contents")])
        blob = journal.new_contents()
        journal.commit(
            {
                1: Put(b"precious row", ContentsRef(blob)),
                2: Put(b"", ContentsRef(log.number, log.end)),
            },
            blobs={blob: b"small precious contents"},
        )
        paths = [path for path in directory.rglob("*") if path.is_file()]
        assert {path.name for path in paths} >= {"lock", "secret", "journal.db", "journal.db-wal"}
        for path in paths:
            assert b"precious" not in path.read_bytes()
            assert path.stat().st_mode & 0o077 == 0
        assert directory.stat().st_mode & 0o777 == 0o700


async def test_one_process_at_a_time(tmp_path):
    async with Journal.open(tmp_path, KEY):
        with pytest.raises(JournalBusyError, match=f"process {os.getpid()} .*: unmount"):
            async with Journal.open(tmp_path, KEY):
                pass
    assert await rows_of(tmp_path) == {}


async def test_a_place_that_cannot_be(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JournalError, match="cannot keep a journal"):
        async with Journal.open(tmp_path / "file", KEY):
            pass


# --- refusing what is not ours --------------------------------------------------------------------


def image(directory: Path) -> dict[str, bytes]:
    ours = [p for p in directory.rglob("*") if p.is_file() and not p.name.endswith("-shm")]
    return {str(path): path.read_bytes() for path in ours}


async def assert_refused(directory: Path, why: str, key: bytes = KEY) -> None:
    before = image(directory)
    with pytest.raises(JournalFormatError, match=why) as caught:
        async with Journal.open(directory, key):
            pass
    assert str(directory) in str(caught.value)
    assert image(directory) == before


@pytest.fixture
async def full(tmp_path) -> Path:
    async with Journal.open(tmp_path / "j", KEY) as journal:
        for number in range(200):
            blob = journal.new_contents()
            put = Put(b"row %d" % number, ContentsRef(blob))
            journal.commit({journal.new_row(): put}, blobs={blob: bytes(100)})
    return tmp_path / "j"


async def test_another_capability_is_refused(full):
    await assert_refused(full, "belongs to another capability", bytes(32))


async def test_a_newer_format_is_refused(full):
    raw = bytearray((full / "journal.db").read_bytes())
    raw[60:64] = (7).to_bytes(4, "big")
    (full / "journal.db").write_bytes(raw)
    await assert_refused(full, "format 7, written by a newer lafsfs")


async def test_another_programs_database_is_refused(full):
    raw = bytearray((full / "journal.db").read_bytes())
    raw[68:72] = b"\0\0\0\1"
    (full / "journal.db").write_bytes(raw)
    await assert_refused(full, "another program")


async def test_something_else_is_refused(full):
    (full / "journal.db").write_bytes(b"no database at all" * 1000)
    await assert_refused(full, "is damaged")


async def test_a_lost_or_damaged_secret_is_refused(full):
    secret = (full / "secret").read_bytes()
    (full / "secret").write_bytes(secret[:-1])
    await assert_refused(full, "'secret' of the journal")
    (full / "secret").write_bytes(bytes(32))
    await assert_refused(full, "its secret was exchanged")
    (full / "secret").unlink()
    await assert_refused(full, "lost its file 'secret'")
    (full / "secret").write_bytes(secret)
    assert len(await rows_of(full)) == 200


async def test_a_making_that_was_cut_short_is_begun_again(tmp_path):
    async with Journal.open(tmp_path, KEY):
        pass
    (tmp_path / "journal.db").write_bytes(b"")
    (tmp_path / "secret.draft").write_bytes(b"half")
    assert await rows_of(tmp_path) == {}


# --- contents -------------------------------------------------------------------------------------


async def test_small_contents_live_and_die_with_their_row(tmp_path):
    async with Journal.open(tmp_path, KEY) as journal:
        first, second = journal.new_contents(), journal.new_contents()
        journal.commit({1: Put(b"row", ContentsRef(first))}, blobs={first: b"old"})
        assert journal.blob(first) == b"old"
        journal.commit({1: Put(b"row", ContentsRef(second))}, blobs={second: b"newer"})
        with pytest.raises(StagingCorruptError):
            journal.blob(first)
    async with Journal.open(tmp_path, KEY) as journal:
        (row,) = journal.take_rows()
        assert row.contents == ContentsRef(second)
        assert journal.blob(second) == b"newer"
        before = journal.room.used
        journal.commit({1: Put(b"row")})
        assert journal.room.used < before
        journal.commit({}, [1])
        assert journal.room.used == 0
        assert journal.new_contents() > second


async def written(journal: Journal, *parts: bytes):
    """A held log of these parts, one behind the other."""
    log, at = journal.hold(journal.new_contents()), 0
    for part in parts:
        await journal.append(log, [Entry(Kind.WRITE, at, part)])
        at += len(part)
    return log


async def test_large_contents_are_there_again(tmp_path):
    async with Journal.open(tmp_path, KEY) as journal:
        log = await written(journal, b"a" * 100_000, b"b" * 10)
        await journal.append(log, [Entry(Kind.CUT, 7), Entry(Kind.WRITE, 7, b"c")])
        journal.commit({1: Put(b"row", ContentsRef(log.number, log.end))})
        await journal.append(log, [Entry(Kind.WRITE, 0, b"not accepted")])
    async with Journal.open(tmp_path, KEY) as journal:
        (row,) = journal.take_rows()
        log = journal.hold(row.contents.id)
        assert log.end == row.contents.end
        records = log.records(log.end)
        said = [(record.kind, record.start, record.length) for record in records]
        assert said == [
            (Kind.WRITE, 0, 100_000),
            (Kind.WRITE, 100_000, 10),
            (Kind.CUT, 7, 0),
            (Kind.WRITE, 7, 1),
        ]
        assert log.read(records[0]) == b"a" * 100_000
        assert log.read(records[3]) == b"c"
        (position,) = await journal.append(log, [Entry(Kind.WRITE, 8, b"on")])
        assert position == row.contents.end
        assert [log.read(r) for r in log.records(log.end)][3:] == [b"c", b"on"]


async def test_contents_without_a_row_are_gone_at_the_next_start(tmp_path, mock_clock):
    async with Journal.open(tmp_path, KEY) as journal:
        kept = await written(journal, b"kept")
        await written(journal, b"lost")
        journal.commit({1: Put(b"", ContentsRef(kept.number, kept.end))})
        journal.let_go(kept.number)
    assert len(files_of(tmp_path)) == 2
    await rows_of(tmp_path)
    assert files_of(tmp_path) == [str(kept.number)]


async def test_a_log_is_deleted_behind_the_sync_of_what_took_its_row(tmp_path, mock_clock):
    async with Journal.open(tmp_path, KEY) as journal:
        log = await written(journal, b"x" * 1000)
        used = journal.room.used
        assert used > 1000
        journal.commit({1: Put(b"", ContentsRef(log.number, log.end))})
        await journal.sync()
        journal.commit({}, [1])
        await journal.sync()
        assert files_of(tmp_path)  # somebody holds it
        journal.let_go(log.number)
        assert files_of(tmp_path)
        await journal.sync()
        assert files_of(tmp_path) == []
        assert journal.room.used == 0


async def test_contents_that_changed_on_the_disk_are_never_given_out(tmp_path):
    async with Journal.open(tmp_path, KEY) as journal:
        log = await written(journal, b"abc" * 20, b"def")
        records = log.records(log.end)
        path = tmp_path / "contents" / str(log.number)
        right = path.read_bytes()
        for at in range(len(right)):
            wrong = bytearray(right)
            wrong[at] ^= 4
            path.write_bytes(wrong)
            log._sealer = None
            with pytest.raises(StagingCorruptError):
                log.verify(0, log.end)
        for size in range(len(right)):
            path.write_bytes(right[:size])
            log._sealer = None
            with pytest.raises(StagingCorruptError):
                log.verify(0, log.end)
        path.write_bytes(right)
        assert log.read(records[1]) == b"def"


async def test_records_cannot_be_exchanged(tmp_path):
    async with Journal.open(tmp_path, KEY) as journal:
        log = await written(journal, b"abc", b"def")
        first, second = log.records(log.end)
        path = tmp_path / "contents" / str(log.number)
        raw = path.read_bytes()
        one, two = raw[first.position : first.end], raw[second.position : second.end]
        path.write_bytes(raw[: first.position] + two + one)
        with pytest.raises(StagingCorruptError):
            log.records(log.end)


async def test_a_database_that_was_large_becomes_small_again(tmp_path):
    async with Journal.open(tmp_path, KEY) as journal:
        for row in range(300):
            await journal.ready()
            blob = journal.new_contents()
            journal.commit({row: Put(b"", ContentsRef(blob))}, blobs={blob: bytes(100_000)})
        await journal.ready()
        journal.commit({1000: Put(b"left")}, range(300))
    assert (tmp_path / "journal.db").stat().st_size > 20_000_000
    assert await rows_of(tmp_path) == {1000: b"left"}
    assert (tmp_path / "journal.db").stat().st_size < 1_000_000
    assert await rows_of(tmp_path) == {1000: b"left"}


# --- syncing --------------------------------------------------------------------------------------


async def test_it_syncs_itself_within_seconds(tmp_path, mock_clock):
    async with Journal.open(tmp_path, KEY) as journal:
        log = await written(journal, b"x")
        journal.commit({1: Put(b"", ContentsRef(log.number, log.end))})
        await wait_all_tasks_blocked()
        mock_clock.jump(4.9)
        await wait_all_tasks_blocked()
        assert journal._epoch == log.synced == 0
        mock_clock.jump(0.1)
        while log.synced != log.end:  # a thread is at it
            await wait_all_tasks_blocked()


async def test_callers_share_a_sync(tmp_path, mock_clock):
    async with Journal.open(tmp_path, KEY) as journal:
        log = await written(journal, b"x")
        async with trio.open_nursery() as nursery:
            for number in range(10):
                journal.commit({number: Put(b"", ContentsRef(log.number, log.end))})
                nursery.start_soon(journal.sync)
        assert journal._epoch <= 2
        assert log.synced == log.end


async def test_a_sync_without_changes_does_nothing(tmp_path):
    async with Journal.open(tmp_path, KEY) as journal:
        await journal.sync()
        assert journal._epoch == 0


async def test_the_log_of_the_database_is_cut_while_commits_go_on(tmp_path):
    async with Journal.open(tmp_path, KEY) as journal:
        wal = tmp_path / "journal.db-wal"

        async def committer(number: int) -> None:
            for count in range(100):
                await journal.ready()
                journal.commit({number: Put(b"%d" % count + bytes(5000))})
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(committer, number)
            for _ in range(5):
                await journal._commit_log.empty()
                await trio.lowlevel.checkpoint()
        await journal._commit_log.empty()
        assert wal.stat().st_size < 100_000
    rows = await rows_of(tmp_path)
    assert [value[:2] for value in rows.values()] == [b"99"] * 3


# --- limits ---------------------------------------------------------------------------------------


async def test_the_limit_holds_writers_and_then_refuses_them(tmp_path, autojump_clock):
    limits = Limits(staged=1000, margin=0, patience=10)
    async with Journal.open(tmp_path, KEY, limits) as journal:
        room = journal.room
        await room.promise(700)
        assert not room.is_scarce
        await room.promise(200)
        assert room.is_scarce
        with pytest.raises(JournalFullError, match="do not fit: the journal may hold") as caught:
            await room.promise(200)
        assert caught.value.errno == 28
        room.progress()
        start = trio.current_time()
        with pytest.raises(JournalFullError):
            await room.promise(200)
        assert trio.current_time() - start >= 10

        async def later() -> None:
            await trio.sleep(5)
            room.release(300)

        room.progress()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(later)
            await room.promise(200)
        assert room.promised == 800


async def test_the_disk_keeps_a_margin(tmp_path, autojump_clock):
    async with Journal.open(tmp_path, KEY, Limits(staged=1000, margin=1 << 60)) as journal:
        with pytest.raises(JournalFullError, match="is full but for"):
            await journal.room.promise(1)
