"""The embedded server when the world misbehaves: mistaken paths, lost disks, full ones, kill -9."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from lafsfs.errors import ConfigError, ServerReadOnlyError, ServerUnavailableError
from lafsfs.grid import disk
from lafsfs.grid.api import ReadVector
from lafsfs.grid.local import LocalServer
from tests.grid import contract
from tests.grid.actors import INCREMENTS, ME, SLOT_SIZE, patterned
from tests.grid.contract import (
    IMMUTABLE,
    LEASE,
    MUTABLE,
    OTHER_SI,
    SECRET,
    SI,
    SLOT,
    slot_contents,
    writing,
)

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
async def server(tmp_path):
    (tmp_path / "grid" / "shares").mkdir(parents=True)
    server = LocalServer(tmp_path / "grid", ME)
    yield server
    await server.aclose()


def command(actor: str, directory: Path) -> list[str]:
    return [sys.executable, "-m", "tests.grid.actors", actor, str(directory)]


@contextmanager
def acting(actor: str, directory: Path):
    """An actor, to be talked to in lines; killed at the end."""
    process = subprocess.Popen(
        command(actor, directory),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


# --- which directory ------------------------------------------------------------------------------


async def test_a_directory_is_made_once_and_found_again(tmp_path):
    path = tmp_path / "new" / "grid"
    first = await LocalServer.open(path, create=True)
    assert len(first.server_id) == 20
    await contract.store_slot(first, s0=b"data")
    await first.aclose()
    assert (path / "node.pem").stat().st_mode & 0o777 == 0o600
    for create in (False, True):
        again = await LocalServer.open(path, create=create)
        assert again.server_id == first.server_id
        assert again.permutation_seed == first.permutation_seed
        assert await slot_contents(again) == {0: b"data"}
        await again.aclose()


async def test_an_empty_directory_may_be_made_into_one(tmp_path):
    (tmp_path / "lost+found").mkdir()
    with pytest.raises(ServerUnavailableError, match="empty"):
        await LocalServer.open(tmp_path, create=False)
    server = await LocalServer.open(tmp_path, create=True)
    await contract.store(server, b"data")
    await server.aclose()


async def test_making_one_is_taken_up_where_it_was_interrupted(tmp_path):
    first = await LocalServer.open(tmp_path, create=True)
    (tmp_path / "shares").rmdir()
    again = await LocalServer.open(tmp_path, create=True)
    assert again.server_id == first.server_id


@pytest.mark.parametrize("create", [False, True])
async def test_somebody_elses_directory_is_refused_and_left_alone(tmp_path, create):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(ConfigError, match="neither empty nor a storage directory"):
        await LocalServer.open(tmp_path, create=create)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


async def test_a_tahoe_node_directory_is_refused_with_a_hint(tmp_path):
    (tmp_path / "storage" / "shares").mkdir(parents=True)
    (tmp_path / "tahoe.cfg").touch()
    with pytest.raises(ConfigError, match=f"{tmp_path}/storage"):
        await LocalServer.open(tmp_path, create=True)


async def test_a_missing_directory_or_a_file_is_said_to_be_that(tmp_path):
    with pytest.raises(ServerUnavailableError, match="does not exist"):
        await LocalServer.open(tmp_path / "missing", create=False)
    (tmp_path / "file").touch()
    for create in (False, True):
        with pytest.raises(ConfigError, match="not a directory"):
            await LocalServer.open(tmp_path / "file", create=create)


async def test_many_that_open_a_new_directory_at_once_agree_who_it_is(tmp_path):
    ids = set()

    async def open_it():
        ids.add((await LocalServer.open(tmp_path, create=True)).server_id)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(open_it)
    assert len(ids) == 1


# --- a directory that goes away -------------------------------------------------------------------


async def every_verb_fails(server, error):
    verbs = (
        lambda: server.version(),
        lambda: server.list_shares(IMMUTABLE, SI),
        lambda: server.read_share(IMMUTABLE, SI, 0, 0, 1),
        lambda: server.allocate(SI, frozenset({1}), 4, SECRET, LEASE),
        lambda: server.write_share(SI, 1, SECRET, 0, b"x"),
        lambda: server.abort_share(SI, 1, SECRET),
        lambda: server.read_test_write(OTHER_SI, SLOT, {0: writing(b"x")}, ()),
        lambda: server.read_test_write(OTHER_SI, SLOT, {}, ()),
        lambda: server.add_lease(SI, LEASE),
        lambda: server.advise_corrupt_share(IMMUTABLE, SI, 0, "bad"),
    )
    for verb in verbs:
        with pytest.raises(error):
            await verb()


@pytest.mark.parametrize("left_behind", ["nothing", "empty mountpoint", "another grid", "a file"])
async def test_a_vanished_disk_is_unavailable_and_nothing_is_written_in_its_place(
    tmp_path, left_behind
):
    path = tmp_path / "grid"
    server = await LocalServer.open(path, create=True)
    await contract.store(server, b"data")
    await server.allocate(SI, frozenset({1}), 4, SECRET, LEASE)
    path.rename(tmp_path / "unplugged")
    if left_behind == "empty mountpoint":
        path.mkdir()
    elif left_behind == "another grid":
        await (await LocalServer.open(path, create=True)).aclose()
    elif left_behind == "a file":
        path.touch()
    before = sorted(tmp_path.rglob("*"))
    await every_verb_fails(server, ServerUnavailableError)
    assert sorted(tmp_path.rglob("*")) == before
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    (tmp_path / "unplugged").rename(path)
    assert await server.read_share(IMMUTABLE, SI, 0, 0, 9) == b"data"
    assert await server.write_share(SI, 1, SECRET, 0, b"more")
    await server.aclose()


async def test_a_server_used_read_only_reads(server):
    await contract.store(server, b"data")
    await contract.store_slot_at(server, OTHER_SI, b"slot")
    reader = LocalServer(server._directory.path, ME, read_only=True)
    assert (await reader.version()).available_space == 0
    assert await reader.read_share(IMMUTABLE, SI, 0, 0, 9) == b"data"
    assert (await reader.read_test_write(OTHER_SI, SLOT, {}, contract.ALL)).reads == {0: (b"slot",)}
    for verb in (
        lambda: reader.allocate(SI, frozenset({1}), 4, SECRET, LEASE),
        lambda: reader.write_share(SI, 1, SECRET, 0, b"x"),
        lambda: reader.abort_share(SI, 1, SECRET),
        lambda: reader.read_test_write(OTHER_SI, SLOT, {0: writing(b"x")}, ()),
        lambda: reader.add_lease(SI, LEASE),
    ):
        with pytest.raises(ServerReadOnlyError):
            await verb()
    await reader.advise_corrupt_share(IMMUTABLE, SI, 0, "a note that is only logged")
    assert not (server._directory.path / "corruption-advisories").exists()


@contextmanager
def write_protected(directory: Path):
    everything = [directory, *directory.rglob("*")]
    for each in everything:
        each.chmod(0o555 if each.is_dir() else 0o444)
    try:
        yield
    finally:
        for each in everything:
            each.chmod(0o700)


async def test_a_directory_that_may_only_be_read_is_read():
    """By another user, since root may write anywhere."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "grid"
        (path / "shares").mkdir(parents=True)
        server = LocalServer(path, ME)
        await contract.store(server, b"immutable", si=OTHER_SI)
        await contract.store_slot(server, s0=b"slot")
        shutil.rmtree(path / "locks")
        with write_protected(Path(directory)):
            result = await trio.run_process(
                command("unwritable", path), cwd=ROOT, capture_stdout=True
            )
        assert result.stdout == b"read\n"


# --- full -----------------------------------------------------------------------------------------


async def test_a_file_that_cannot_grow_leaves_nothing_half_written(tmp_path):
    (tmp_path / "shares").mkdir()
    result = await trio.run_process(
        command("fill_limited", tmp_path), cwd=ROOT, capture_stdout=True
    )
    assert result.stdout == b"full\n"


def can_mount_tmpfs(path: Path) -> bool:
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(path)]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(probe, capture_output=True, check=False).returncode == 0
    )


async def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    if not can_mount_tmpfs(tmp_path):
        pytest.skip("no file system of its own can be mounted here")
    script = 'mount -t tmpfs -o size=1500k tmpfs "$1" && mkdir "$1/shares" && shift && exec "$@"'
    result = await trio.run_process(
        ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), *command("fill", tmp_path)],
        cwd=ROOT,
        capture_stdout=True,
    )
    assert result.stdout == b"full\n"


# --- two processes, and none ----------------------------------------------------------------------


async def test_test_and_set_is_atomic_between_processes(server):
    await contract.store_slot(server, s0=b"00000000")
    path = server._directory.path
    with acting("increment", path) as first, acting("increment", path) as second:
        for process in (first, second):
            assert process.stdout.readline() == "ready\n"
        for process in (first, second):
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in (first, second):
            assert process.wait() == 0
    assert await slot_contents(server) == {0: b"%08d" % (2 * INCREMENTS)}


async def test_a_process_killed_while_writing_tears_no_share(server):
    whole = {b"A" * SLOT_SIZE, b"B" * SLOT_SIZE}
    for seen in (1, 2, 3, 5):
        with acting("rewrite", server._directory.path) as process:
            for _ in range(seen):
                process.stdout.readline()
            process.kill()
            process.wait()
        for shnum in (0, 1):
            data = await server.read_share(MUTABLE, SI, shnum, 0, 2 * SLOT_SIZE)
            assert data in whole
        assert (await server.read_test_write(SI, SLOT, patterned(b"C"), ())).success
        assert set((await slot_contents_whole(server)).values()) == {b"C" * SLOT_SIZE}


async def slot_contents_whole(server):
    result = await server.read_test_write(SI, SLOT, {}, (ReadVector(0, 2 * SLOT_SIZE),))
    return {shnum: data for shnum, (data,) in result.reads.items()}


async def test_an_upload_whose_process_was_killed_is_never_seen_and_begins_anew(server):
    with acting("upload", server._directory.path) as process:
        assert process.stdout.readline() == "half\n"
        process.kill()
        process.wait()
    incoming = server._directory.shares / "incoming"
    assert len(list(incoming.glob("lafsfs-*/*"))) == 1
    assert await server.list_shares(IMMUTABLE, SI) == frozenset()
    assert (await server.allocate(SI, frozenset({0}), 10, SECRET, LEASE)).allocated == {0}
    assert len(list(incoming.glob("lafsfs-*/*"))) == 1
    assert not await server.write_share(SI, 0, SECRET, 5, b"56789")
    assert await server.write_share(SI, 0, SECRET, 0, b"01234")


async def test_a_lock_that_is_taken_is_waited_for_and_the_wait_can_be_cancelled(server):
    await contract.store_slot(server, s0=b"0")
    locks = disk.FileLocks(server._directory.path / "locks")
    with locks.held(disk.stripe_of(SI)), trio.move_on_after(0.03) as scope:
        await server.read_test_write(SI, SLOT, {0: writing(b"1")}, ())
    assert scope.cancelled_caught
    assert await slot_contents(server) == {0: b"0"}
    async with trio.open_nursery() as nursery:
        with locks.held(disk.stripe_of(SI)):
            nursery.start_soon(server.read_test_write, SI, SLOT, {0: writing(b"2")}, ())
            await trio.sleep(0.01)
            assert await server.read_share(MUTABLE, SI, 0, 0, 9) == b"0"
    assert await slot_contents(server) == {0: b"2"}
