"""Several writers of one slot, and what half-finished publishes leave behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lafsfs.errors import NotHappyError, UncoordinatedWriteError
from lafsfs.mutable import file as file_module
from lafsfs.mutable.servermap import Mode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from lafsfs.caps import MutableFormat
    from lafsfs.mutable.file import MutableFile
    from tests.fakes import Call, FakeServer
    from tests.mutable.conftest import Client


def adding(word: bytes) -> Callable[[bytes], bytes | None]:
    """A modifier that recognises its own work."""
    return lambda old: None if word in old else old + word


def before_write(server: FakeServer, act: Callable[[], Awaitable[None]]) -> None:
    """Once, just before a server takes the next write, let something else happen."""

    async def hook(call: Call) -> None:
        if call.verb == "read_test_write":
            server.before_call = None
            await act()

    server.before_call = hook


Shares = dict[tuple[str, int], bytes]


def snapshot(client: Client, file: MutableFile) -> Shares:
    """Every share of the slot, by server and number."""
    return {
        (server.name, shnum): bytes(share.data)
        for server in client.servers
        for shnum, share in server.held(file.storage_index).items()
    }


def restore(file: MutableFile, shares: Shares, servers: Sequence[FakeServer]) -> None:
    """Put shares back as they were, on some servers."""
    for server in servers:
        for shnum, share in server.held(file.storage_index).items():
            share.data[:] = shares[server.name, shnum]


async def assert_settled(file: MutableFile, contents: bytes) -> None:
    """One version, all its shares, these contents."""
    assert await file.download_best() == contents
    servermap = await file.servermap(Mode.CHECK)
    assert servermap.settled()


async def test_a_stale_view_is_noticed_and_both_changes_stay(
    single: Client, format_: MutableFormat
) -> None:
    mine = await single.create(format_, b"")
    theirs = single.rival().open(mine)
    await theirs.modify(adding(b"theirs "))
    started = trio.current_time()
    assert await mine.modify(adding(b"mine ")) == b"theirs mine "
    assert trio.current_time() - started < file_module.FIRST_BACK_OFF / 2  # nothing landed, no wait
    await assert_settled(single.open(mine), b"theirs mine ")


async def test_a_write_between_map_and_publish_is_noticed(
    five: Client, format_: MutableFormat, autojump_clock: trio.testing.MockClock
) -> None:
    made = await five.create(format_, b"")
    mine, theirs = five.open(made), five.rival().open(made)
    await mine.servermap(Mode.WRITE)
    before_write(five.servers[0], lambda: theirs.modify(adding(b"theirs ")))
    result = await mine.modify(adding(b"mine "))
    assert sorted(result.split()) == [b"mine", b"theirs"]
    await assert_settled(five.open(made), result)


async def test_many_writers_all_get_through(
    five: Client, format_: MutableFormat, autojump_clock: trio.testing.MockClock
) -> None:
    made = await five.create(format_, b"")
    for server in five.servers:
        server.delay = 0.01
    words = [b"a", b"b", b"c"]
    writers = [five.rival(seed).open(made) for seed in range(len(words))]
    async with trio.open_nursery() as nursery:
        for writer, word in zip(writers, words, strict=True):
            nursery.start_soon(writer.modify, adding(word))
    fresh = five.open(made)
    contents = await fresh.download_best()
    assert sorted(contents) == sorted(b"abc")
    await assert_settled(fresh, contents)


async def test_a_rival_who_never_stops_wins(
    single: Client, format_: MutableFormat, autojump_clock: trio.testing.MockClock
) -> None:
    mine = await single.create(format_, b"0")
    server = single.servers[0]
    rival = single.rival().open(mine)
    count = 0

    async def interfere(call: Call) -> None:
        nonlocal count
        if call.verb == "read_test_write":
            server.before_call = None
            count += 1
            await rival.overwrite(b"%d" % count)
            server.before_call = interfere

    server.before_call = interfere
    with pytest.raises(UncoordinatedWriteError, match="6 tries"):
        await mine.modify(lambda old: old + b"mine")
    server.before_call = None
    assert await mine.download_best() == b"%d" % count


async def test_an_upload_from_an_old_map_is_refused(five: Client, format_: MutableFormat) -> None:
    mine = await five.create(format_, b"one")
    servermap = await mine.servermap(Mode.WRITE)
    await five.rival().open(mine).overwrite(b"two")
    with pytest.raises(UncoordinatedWriteError):
        await mine.upload(b"three", servermap)
    assert await mine.download_best() == b"two"
    await mine.upload(b"three", await mine.servermap(Mode.CHECK))
    await assert_settled(five.open(mine), b"three")


async def test_an_upload_wants_a_map_made_for_writing(
    single: Client, format_: MutableFormat
) -> None:
    mine = await single.create(format_, b"one")
    with pytest.raises(ValueError, match="WRITE or CHECK"):
        await mine.upload(b"two", await mine.servermap(Mode.READ))


async def test_half_landed_work_is_recognised_and_published_whole(
    five: Client, format_: MutableFormat, autojump_clock: trio.testing.MockClock
) -> None:
    made = await five.create(format_, b"")
    mine = five.open(made)
    await mine.servermap(Mode.WRITE)
    stranger = five.servers[2]
    shnum = next(iter(stranger.held(made.storage_index)))

    async def swap() -> None:  # somebody's older share appears on one server in between
        stranger.shares[made.storage_index, shnum].data[9] ^= 1

    before_write(stranger, swap)
    applied = []

    def modifier(old: bytes) -> bytes | None:
        applied.append(old)
        return adding(b"mine")(old)

    assert await mine.modify(modifier) == b"mine"
    assert applied == [b"", b"mine"]  # the second time it found its own work, on four servers
    assert (await mine.version()).seqnum == 3
    await assert_settled(five.open(made), b"mine")


async def test_a_lost_answer_is_not_written_twice(
    single: Client, format_: MutableFormat, autojump_clock: trio.testing.MockClock
) -> None:
    made = await single.create(format_, b"")
    server = single.servers[0]
    server.answer_delay = 300.0
    with trio.move_on_after(5):
        await made.modify(adding(b"mine"))
    server.answer_delay = 0.0
    assert await made.modify(adding(b"mine")) == b"mine"
    assert (await made.version()).seqnum == 2
    await assert_settled(single.open(made), b"mine")


async def test_a_cancelled_publish_leaves_a_file_that_works(
    five: Client, format_: MutableFormat, autojump_clock: trio.testing.MockClock
) -> None:
    made = await five.create(format_, b"old")
    for server in five.servers[:2]:
        server.delay = 1.0
    with trio.move_on_after(0.5) as scope:
        await made.overwrite(b"new")
    assert scope.cancelled_caught
    assert await made.modify(adding(b"!")) == b"new!"  # three of five had it, two are enough
    assert (await made.version()).seqnum == 3
    await assert_settled(five.open(made), b"new!")


async def test_a_version_with_too_few_shares_is_outnumbered(
    five: Client, format_: MutableFormat
) -> None:
    made = await five.create(format_, b"old")
    old = snapshot(five, made)
    await made.overwrite(b"lost")
    restore(made, old, five.server_order(made)[1:])  # all but one come back from a backup
    other = five.open(made)
    servermap = await other.servermap(Mode.WRITE)
    assert [version.seqnum for version in servermap.unrecoverable_newer()] == [2]
    assert await other.modify(adding(b" and new")) == b"old and new"
    assert (await other.version()).seqnum == 3
    await assert_settled(five.open(made), b"old and new")


async def test_a_look_that_overlaps_a_publish_does_not_have_its_number_used_again(
    five: Client, format_: MutableFormat
) -> None:
    """The publish fails, and leaves a whole version on a server that is away afterwards."""
    made = await five.create(format_, b"old")
    first, *others = five.servers
    gate = trio.Event()

    async def wait(call: Call) -> None:
        others[-1].before_call = None
        await gate.wait()

    others[-1].before_call = wait
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.servermap, Mode.CHECK)
        await trio.testing.wait_all_tasks_blocked()  # the others have answered
        for server in others:
            server.refuse = {"read_test_write"}
        with pytest.raises(NotHappyError):
            await made.modify(lambda old: b"given up")
        for server in others:
            server.refuse = set()
        gate.set()
    assert len(first.held(made.storage_index)) == 5  # all of the new version
    first.refuse = {"read_test_write"}
    await made.modify(lambda old: b"new")
    first.refuse = set()
    fresh = five.rival().open(made)
    assert (await fresh.version()).seqnum == 3
    assert await fresh.download_best() == b"new"


async def test_two_recoverable_versions_of_one_number(five: Client, format_: MutableFormat) -> None:
    made = await five.create(format_, b"old")
    old = snapshot(five, made)
    await five.rival().open(made).overwrite(b"A")
    a = snapshot(five, made)
    restore(made, old, five.servers)
    await five.rival().open(made).overwrite(b"B")
    restore(made, a, five.server_order(made)[3:])
    other = five.open(made)
    servermap = await other.servermap(Mode.CHECK)
    assert [v.seqnum for v in servermap.recoverable()] == [2, 2]
    best = servermap.best()
    assert best is not None
    assert best.root_hash == max(v.root_hash for v in servermap.versions())
    winner = await other.download_best()
    assert winner in (b"A", b"B")
    assert await other.modify(adding(b" merged")) == winner + b" merged"
    await assert_settled(five.open(made), winner + b" merged")


async def test_a_grid_rolled_back_is_read_and_then_overtaken(
    five: Client, format_: MutableFormat, caplog: pytest.LogCaptureFixture
) -> None:
    made = await five.create(format_, b"old")
    old = snapshot(five, made)
    await made.overwrite(b"newer")
    restore(made, old, five.servers)
    for _ in range(2):
        assert await made.download_best() == b"old"
    (line,) = caplog.messages
    assert line.startswith("version 1 is the newest to be had, but 2 was seen")
    await made.modify(adding(b" again"))
    assert (await made.version()).seqnum == 3  # above the one that was seen and is gone
    await assert_settled(five.open(made), b"old again")
