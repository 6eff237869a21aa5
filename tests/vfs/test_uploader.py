"""When written files go to the grid, with every request counted, on a clock that tests move."""

from __future__ import annotations

import os

import pytest
import trio

from lafsfs.caps import MutableFormat
from lafsfs.errors import LafsError, NotHappyError
from lafsfs.nodes.edits import SetChild
from lafsfs.vfs.api import SetAttributes
from lafsfs.vfs.publishing.uploader import BIG_AT_ONCE, LONGEST, OPEN_QUIET, SMALL, SMALL_AT_ONCE
from tests.vfs.conftest import ME, ROOT, open_maker, open_world

CREATE = os.O_RDWR | os.O_CREAT
BIG = 16 * SMALL


@pytest.fixture
async def lazy(broker, tmp_path, patient_clock):
    """A mount as it is used: nothing waits for the grid."""
    async with open_world(
        broker, tmp_path, quiet=1.0, retry_first=1.0, sync=False, max_age=1e6
    ) as world:
        for server in broker.servers:
            server.calls.clear()
        yield world


def uploads(servers) -> int:
    """How many files were begun to be sent."""
    calls = [call for server in servers for call in server.calls if call.verb == "allocate"]
    return len({call.storage_index for call in calls})


def writes(servers) -> int:
    return sum(server.count("write_share") for server in servers)


async def settled(world, seconds: float = 1000.0) -> None:
    """Wait until nothing is pending, by itself."""
    with trio.fail_after(seconds):
        while not (await world.fs.status()).is_settled:  # noqa: ASYNC110 - what users do
            await trio.sleep(0.25)


async def begin(world, name: bytes, data: bytes) -> tuple[int, int]:
    """A file that was written and is still open: its handle and its number."""
    opened, made = await world.fs.create(ROOT, name, 0o644, CREATE, ME)
    await world.fs.write(opened.handle, 0, data)
    return opened.handle, made.ino


async def close(world, handle: int) -> None:
    await world.fs.flush(handle)
    await world.fs.release(handle)


async def uploading(world, servers, path: str, share: float = 0.0) -> None:
    """Wait until more than that share of a file is placed, and it is still on its way."""
    for server in servers:
        server.delay = 1.0
    with trio.fail_after(1000):
        while True:
            [file] = [f for f in (await world.fs.status()).pending if f.path == path]
            if file.state.value == "uploading" and file.done > share * file.size:
                return
            await trio.sleep(0.1)


async def test_closing_does_not_wait_for_the_grid(lazy, servers, patient_clock):
    for server in servers:
        server.hang()
    await lazy.write("f", b"x" * 1000)
    assert [server.count() for server in servers] == [0, 0, 0]
    assert await lazy.read("f") == b"x" * 1000
    for server in servers:
        server.wake()
    await trio.sleep(0.9)
    assert uploads(servers) == 0
    await settled(lazy)
    assert (uploads(servers), lazy.publishes()) == (1, 1)
    assert list(await lazy.on_grid()) == ["f"]
    assert await lazy.read("f") == b"x" * 1000


async def test_a_file_removed_soon_never_leaves_the_machine(lazy, servers, patient_clock):
    await lazy.write("f", b"x" * 1000)
    await trio.sleep(0.9)
    await lazy.unlink("f")
    await trio.sleep(100)
    assert [server.count() for server in servers] == [0, 0, 0]
    assert (await lazy.fs.status()).is_settled


async def test_a_file_written_again_and_again_goes_once(lazy, servers, patient_clock):
    for number in range(5):
        await lazy.write("f", b"%d" % number * 1000)
        await trio.sleep(0.9)
    await settled(lazy)
    assert (uploads(servers), lazy.publishes()) == (1, 1)
    assert await lazy.read("f") == b"4" * 1000


async def test_a_file_that_never_rests_goes_every_minute(lazy, servers, patient_clock):
    for number in range(360):
        await lazy.write("f", b"%d" % number * 1000)
        await trio.sleep(0.5)
    assert uploads(servers) in (2, 3)
    await settled(lazy)
    assert await lazy.read("f") == b"359" * 1000


async def test_an_open_file_goes_once_it_was_accepted_and_rests(lazy, servers, patient_clock):
    handle, _ = await begin(lazy, b"f", b"x" * 1000)
    await trio.sleep(LONGEST / 2)
    assert uploads(servers) == 0  # nobody has said that this is all of it
    await lazy.fs.write(handle, 0, b"y")
    await lazy.fs.fsync(handle)
    await trio.sleep(OPEN_QUIET - 0.5)
    assert uploads(servers) == 0
    await settled(lazy, 3 * OPEN_QUIET)
    assert await lazy.read("f") == b"y" + b"x" * 999
    await lazy.fs.write(handle, 1, b"z")
    await close(lazy, handle)
    await settled(lazy, 10)
    assert uploads(servers) == 2
    assert await lazy.read("f") == b"yz" + b"x" * 998


async def test_an_open_file_that_is_never_accepted_goes_in_the_end(lazy, servers, patient_clock):
    handle, _ = await begin(lazy, b"log", b"")
    for line in range(70):
        await lazy.fs.write(handle, 1000 * line, b"%d" % (line % 10) * 1000)
        await trio.sleep(10)
    assert uploads(servers) == 1
    await close(lazy, handle)
    await settled(lazy)
    assert (await lazy.path("log")).size == 70_000


async def test_small_files_go_together_and_big_ones_hold_nobody_up(lazy, servers, patient_clock):
    for number in range(2 * BIG_AT_ONCE):
        await lazy.write(f"big{number}", b"%d" % number * BIG)
    for number in range(3 * SMALL_AT_ONCE):
        await lazy.write(f"small{number}", b"%d" % number * 100)
    for server in servers:
        server.hang()
    await trio.sleep(2)
    asking = {call.storage_index for server in servers for call in server.calls}
    assert len(asking) == SMALL_AT_ONCE + BIG_AT_ONCE
    for server in servers:
        server.wake()
    await settled(lazy)
    assert uploads(servers) == 2 * BIG_AT_ONCE + 3 * SMALL_AT_ONCE


async def test_a_thousand_files_are_a_few_publishes(lazy, patient_clock):
    for number in range(1000):
        await lazy.write(f"f{number}", b"%d" % number)
    await settled(lazy)
    assert lazy.publishes() <= 10
    assert len(await lazy.on_grid()) == 1000


async def test_a_grid_that_is_away_for_an_hour_is_not_pestered(lazy, servers, patient_clock):
    for number in range(50):
        await lazy.write(f"f{number}", b"%d" % number * 1000)
    for server in servers:
        server.refuse = {"allocate"}
    await trio.sleep(3600)
    assert sum(server.count("allocate") for server in servers) < 3 * 3 * 90
    status = await lazy.fs.status()
    assert (status.files, status.failed > 0) == (50, True)
    assert status.pending[0].state.value == "failed"
    assert "share" in status.pending[0].error
    assert status.pending[0].since < status.now - 3500
    for server in servers:
        server.refuse = set()
    await settled(lazy, 200)
    assert len(await lazy.on_grid()) == 50


async def test_one_file_that_fails_holds_no_others_up(lazy, servers, patient_clock):
    """Servers have no room for the big one, ever."""
    for server in servers:
        server.capacity = 100_000
    await lazy.write("big", bytes(BIG))
    await trio.sleep(10)
    for number in range(20):
        await lazy.write(f"f{number}", b"%d" % number * 500)
        await trio.sleep(5)
    await trio.sleep(LONGEST)
    status = await lazy.fs.status()
    assert [(file.path, file.state.value) for file in status.pending] == [("big", "failed")]
    assert len(await lazy.on_grid()) == 20


async def test_unlinked_while_uploading(lazy, servers, patient_clock):
    await lazy.write("f", os.urandom(BIG))
    await uploading(lazy, servers, "f")
    await lazy.unlink("f")
    await trio.sleep(100)
    before = writes(servers)
    assert (await lazy.fs.status()).is_settled
    assert not any(server.uploads for server in servers)  # given back
    await trio.sleep(100)
    assert (writes(servers), lazy.publishes()) == (before, 0)


async def test_unlinked_while_uploading_and_still_open(lazy, servers, patient_clock):
    data = os.urandom(BIG)
    handle, _ = await begin(lazy, b"f", data)
    await lazy.fs.fsync(handle)
    await uploading(lazy, servers, "f")
    await lazy.unlink("f")
    await lazy.fs.write(handle, 0, b"new")
    await trio.sleep(100)
    assert not any(server.uploads for server in servers)
    assert await lazy.fs.read(handle, 0, 10) == b"new" + data[3:10]
    await close(lazy, handle)
    assert (await lazy.fs.status()).is_settled
    assert list(await lazy.on_grid()) == []


async def test_changed_while_little_of_it_is_uploaded(lazy, servers, patient_clock):
    """The upload is cut short; another brings the file as it is then."""
    data = os.urandom(BIG)
    await lazy.write("f", data)
    await uploading(lazy, servers, "f")
    opened = await lazy.fs.open((await lazy.path("f")).ino, os.O_RDWR)
    await lazy.fs.write(opened.handle, 0, b"new")
    await close(lazy, opened.handle)
    await settled(lazy)
    assert uploads(servers) == 2
    assert lazy.publishes() == 1
    assert sum(len(server.shares) for server in servers) == 3 + 3  # one file, one directory
    assert await lazy.read("f") == b"new" + data[3:]


async def test_changed_while_most_of_it_is_uploaded(lazy, servers, patient_clock):
    """The upload goes on, and what it brings shows until the next has brought the change."""
    data = os.urandom(BIG)
    await lazy.write("f", data)
    await uploading(lazy, servers, "f", 0.5)
    opened = await lazy.fs.open((await lazy.path("f")).ino, os.O_RDWR)
    await lazy.fs.write(opened.handle, 0, b"new")
    await close(lazy, opened.handle)
    await settled(lazy)
    assert uploads(servers) == 2
    assert sum(len(server.shares) for server in servers) == 3 + 3 + 3
    assert await lazy.read("f") == b"new" + data[3:]


async def test_truncated_while_uploading(lazy, servers, patient_clock):
    data = os.urandom(BIG)
    ino = (await lazy.write("f", data)).ino
    await uploading(lazy, servers, "f")
    await lazy.fs.setattr(ino, SetAttributes(size=1000), ME)
    await settled(lazy)
    assert (await lazy.on_grid())["f"].read_cap.size == 1000
    assert await lazy.read("f") == data[:1000]


async def test_renamed_while_uploading(lazy, servers, patient_clock):
    data = os.urandom(BIG)
    await lazy.write("f", data)
    await uploading(lazy, servers, "f")
    await lazy.rename("f", "g")
    await settled(lazy)
    assert uploads(servers) == 1
    assert list(await lazy.on_grid()) == ["g"]
    assert await lazy.read("g") == data


async def test_written_all_the_time_while_uploading(lazy, servers, patient_clock):
    """Uploads that are cut short each time would never end: one that is overdue is not."""
    data = bytearray(os.urandom(BIG))
    handle, _ = await begin(lazy, b"f", data)
    for server in servers:
        server.delay = 1.0
    for number in range(300):
        await lazy.fs.write(handle, number, b"n")
        await lazy.fs.fsync(handle)
        data[number] = ord("n")
        await trio.sleep(0.5)
    assert "f" in await lazy.on_grid()
    await close(lazy, handle)
    await settled(lazy)
    assert await lazy.read("f") == bytes(data)


async def test_sync_waits_for_the_grid_and_reports_what_failed(broker, tmp_path, servers):
    async with open_world(broker, tmp_path, sync=True) as world:
        handle, _ = await begin(world, b"f", b"x" * 1000)
        for server in servers:
            server.refuse = {"allocate"}
        for _ in range(2):
            with pytest.raises(NotHappyError):
                await world.fs.flush(handle)
        for server in servers:
            server.refuse = set()
        await world.fs.fsync(handle)
        assert list(await world.on_grid()) == ["f"]
        await world.fs.release(handle)


async def test_flushing_everything_does_not_wait_for_quiet(lazy, servers, patient_clock):
    await lazy.mkdir("d")
    handle, _ = await begin(lazy, b"open", b"x" * 1000)
    await lazy.write("d/f", b"y" * 1000)
    await lazy.fs.setattr((await lazy.path("d")).ino, SetAttributes(mode=0o700), ME)
    now = trio.current_time()
    assert await lazy.fs.flush_all() == ()
    assert trio.current_time() == now
    assert (await lazy.fs.status()).is_settled
    assert sorted(await lazy.on_grid()) == ["d", "open"]
    assert list(await lazy.on_grid("d")) == ["f"]
    await close(lazy, handle)


async def test_flushing_says_what_is_not_on_the_grid(lazy, servers, patient_clock):
    await lazy.write("f", b"x" * 1000)
    await lazy.write("tiny", b"x")
    for server in servers:
        server.refuse = {"allocate"}
    [error] = await lazy.fs.flush_all()
    assert isinstance(error, LafsError)
    assert list(await lazy.on_grid()) == ["tiny"]
    [file] = (await lazy.fs.status()).pending
    assert (file.path, file.state.value) == ("f", "failed")
    for server in servers:
        server.refuse = set()
    assert await lazy.fs.flush_all() == ()
    assert sorted(await lazy.on_grid()) == ["f", "tiny"]


async def test_a_flush_that_is_given_up_leaves_everything_going(lazy, servers, patient_clock):
    await lazy.write("f", b"x" * 1000)
    for server in servers:
        server.hang()
    with trio.move_on_after(1) as scope:
        await lazy.fs.flush_all()
    assert scope.cancelled_caught
    for server in servers:
        server.wake()
    await settled(lazy)
    assert list(await lazy.on_grid()) == ["f"]


async def test_the_state_of_a_file_is_told(lazy, servers, patient_clock):
    async def state(ino: int) -> bytes:
        return await lazy.fs.getxattr(ino, b"user.lafs.state", ME)

    handle, ino = await begin(lazy, b"f", b"x" * 1000)
    assert await state(ino) == b"being written"
    await close(lazy, handle)
    assert await state(ino) == b"accepted"
    for server in servers:
        server.hang()
    await trio.sleep(1.5)
    assert await state(ino) == b"uploading"
    for server in servers:
        server.wake()
    await settled(lazy)
    assert await state(ino) == b"on the grid"
    assert await lazy.fs.listxattr(ino) == ()


async def test_asking_for_the_capability_brings_the_file_to_the_grid(lazy, servers, patient_clock):
    ino = (await lazy.write("f", b"x" * 1000)).ino
    old = await lazy.fs.getxattr(ino, b"user.lafs.cap", ME)
    opened = await lazy.fs.open(ino, os.O_RDWR)
    await lazy.fs.write(opened.handle, 0, b"y" * 500)
    assert await lazy.fs.getxattr(ino, b"user.lafs.cap", ME) != old
    assert uploads(servers) == 2
    await close(lazy, opened.handle)


async def test_replaced_by_a_rename_while_uploading(lazy, servers, patient_clock):
    """What an editor does when it saves twice in a row."""
    await lazy.write("f", os.urandom(BIG))
    await uploading(lazy, servers, "f")
    await lazy.write("f~", b"new" * 1000)
    await lazy.rename("f~", "f")
    await settled(lazy)
    assert not any(server.uploads for server in servers)
    assert list(await lazy.on_grid()) == ["f"]
    assert await lazy.read("f") == b"new" * 1000


async def test_removed_and_made_again_while_uploading(lazy, servers, patient_clock):
    await lazy.write("f", os.urandom(BIG))
    await uploading(lazy, servers, "f")
    await lazy.unlink("f")
    await lazy.write("f", b"new" * 1000)
    await settled(lazy)
    assert (await lazy.on_grid())["f"].read_cap.size == 3000
    assert await lazy.read("f") == b"new" * 1000


async def test_linked_while_uploading(lazy, servers, patient_clock):
    data = os.urandom(BIG)
    ino = (await lazy.write("f", data)).ino
    await uploading(lazy, servers, "f")
    await lazy.fs.link(ino, ROOT, b"g")
    await lazy.unlink("f")
    await settled(lazy)
    assert uploads(servers) == 1
    assert list(await lazy.on_grid()) == ["g"]
    assert await lazy.read("g") == data


async def test_opened_with_o_trunc_while_uploading(lazy, servers, patient_clock):
    ino = (await lazy.write("f", os.urandom(BIG))).ino
    await uploading(lazy, servers, "f")
    opened = await lazy.fs.open(ino, os.O_WRONLY | os.O_TRUNC)
    await lazy.fs.write(opened.handle, 0, b"new" * 1000)
    await close(lazy, opened.handle)
    await settled(lazy)
    assert await lazy.read("f") == b"new" * 1000
    assert (await lazy.on_grid())["f"].read_cap.size == 3000


async def test_removed_while_it_fails(lazy, servers, patient_clock):
    for server in servers:
        server.refuse = {"allocate"}
    await lazy.write("f", b"x" * 1000)
    await trio.sleep(100)
    assert (await lazy.fs.status()).failed == 1
    await lazy.unlink("f")
    await trio.sleep(100)
    assert (await lazy.fs.status()).is_settled
    calls = sum(server.count() for server in servers)
    await trio.sleep(1000)
    assert sum(server.count() for server in servers) == calls


async def test_changed_while_it_fails(lazy, servers, patient_clock):
    for server in servers:
        server.refuse = {"allocate"}
    await lazy.write("f", b"x" * 1000)
    await trio.sleep(100)
    await lazy.write("f", b"y" * 1000)
    for server in servers:
        server.refuse = set()
    await settled(lazy, 200)
    assert await lazy.read("f") == b"y" * 1000


async def test_whoever_waits_is_told_of_a_failure_and_nothing_is_lost(lazy, servers, patient_clock):
    ino = (await lazy.write("f", b"x" * 1000)).ino
    errors = []

    async def wait() -> None:
        try:
            await lazy.fs.getxattr(ino, b"user.lafs.cap", ME)
        except NotHappyError as error:
            errors.append(error)

    for server in servers:
        server.refuse = {"allocate"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
    assert len(errors) == 2
    for server in servers:
        server.refuse = set()
    await wait()
    assert len(errors) == 2


async def test_waiting_for_what_is_unlinked_meanwhile_ends(lazy, servers, patient_clock):
    ino = (await lazy.write("f", os.urandom(BIG))).ino
    async with trio.open_nursery() as nursery:
        await uploading(lazy, servers, "f")
        nursery.start_soon(lazy.fs.flush_all)
        await trio.sleep(0.1)
        await lazy.unlink("f")
    assert (await lazy.fs.status()).is_settled
    assert lazy.tree.table.get(ino) is None or not lazy.tree.table[ino].is_dirty


async def test_written_to_while_somebody_waits(lazy, servers, patient_clock):
    """Waiting is for what was there when it began, and changes do not cut the upload short."""
    handle, _ = await begin(lazy, b"f", os.urandom(BIG))
    await lazy.fs.fsync(handle)
    for server in servers:
        server.delay = 1.0
    done = trio.Event()

    async def wait() -> None:
        await lazy.fs.flush_all()
        done.set()

    with trio.fail_after(300):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            number = 0
            while not done.is_set():
                await trio.sleep(0.3)
                await lazy.fs.write(handle, number, b"n")
                number += 1
    for server in servers:
        server.delay = 0.0
    await close(lazy, handle)
    await settled(lazy)
    assert (await lazy.read("f"))[:number] == b"n" * number


async def test_a_mutable_file_is_written_in_place_in_the_background(lazy, servers, patient_clock):
    node = await lazy.maker.create_mutable(MutableFormat.SDMF, b"before" * 10)
    root = lazy.tree.directory_inode(ROOT).directory.node
    await root.edit([SetChild("m", node.cap)])
    opened = await lazy.fs.open((await lazy.path("m")).ino, os.O_RDWR)
    await lazy.fs.write(opened.handle, 0, b"AFTER!")
    await close(lazy, opened.handle)
    assert await lazy.read("m") == b"AFTER!" + b"before" * 9
    assert (await lazy.fs.status()).files == 1
    await settled(lazy)
    async with open_maker(lazy.maker.grid.broker, lazy.clock) as other:
        assert await other.node(node.cap).read(0, 100) == b"AFTER!" + b"before" * 9


async def test_what_is_forgotten_while_it_is_pending_goes_later(lazy, patient_clock):
    numbers = [(await lazy.write(f"f{number}", b"x" * 1000)).ino for number in range(100)]
    lazy.fs.forget([(number, 1) for number in numbers])
    assert len(lazy.tree.table) == 101
    assert await lazy.read("f7") == b"x" * 1000
    await settled(lazy)
    for _ in range(3):
        lazy.fs.forget([(ROOT, 0)])
    assert set(numbers) & {inode.number for inode in lazy.tree.table} <= {numbers[7]}
    assert await lazy.read("f8") == b"x" * 1000


async def test_flushing_publishes_each_new_directory_once(lazy, patient_clock):
    paths = ["d", "d/e", "d/e/f", "g"]
    numbers = [(await lazy.mkdir(path)).ino for path in paths]
    for path in paths:
        for number in range(3):
            await lazy.write(f"{path}/file{number}", path.encode() * 100 * (number + 1))
    before = [lazy.publishes(number) for number in numbers]
    assert await lazy.fs.flush_all() == ()
    after = [lazy.publishes(number) for number in numbers]
    assert [new - old for old, new in zip(before, after, strict=True)] == [1, 1, 1, 1]
    assert sorted(await lazy.on_grid("d/e")) == ["f", "file0", "file1", "file2"]
