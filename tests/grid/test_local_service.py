"""What the embedded server offers beyond the protocol, to those who serve it to strangers."""

from __future__ import annotations

import gc
import os

import pytest

from lafsfs.errors import NoSuchUploadError, ProtocolError, ServerFullError
from lafsfs.grid.api import ReadVector, ShareKind, TestVector, TestWriteVectors
from lafsfs.grid.local import LocalServer
from lafsfs.grid.slots import TooMuchToReadError
from lafsfs.grid.uploads import (
    IDLE_SECONDS,
    BeyondAllocationError,
    ConflictingWriteError,
    WrongUploadSecretError,
)
from tests.grid import contract
from tests.grid.contract import LEASE, MUTABLE, OTHER_SECRET, SECRET, SI, SLOT, writing


class Clock:
    now = 1_700_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def server(tmp_path, clock):
    server = await LocalServer.open(tmp_path / "grid", create=True, clock=clock)
    yield server
    await server.aclose()


# --- uploads --------------------------------------------------------------------------------------


async def test_what_is_missing_is_said_until_nothing_is(server):
    await server.allocate(SI, frozenset({0}), 10, SECRET, LEASE)
    assert await server.write_range(SI, 0, SECRET, 2, b"23") == [(0, 2), (4, 10)]
    assert await server.write_range(SI, 0, SECRET, 4, b"456789") == [(0, 2)]
    assert await server.write_range(SI, 0, SECRET, 0, b"01") == []
    assert await server.read_share(ShareKind.IMMUTABLE, SI, 0, 0, 99) == b"0123456789"


async def test_refusals_say_of_which_kind_they_are(server):
    with pytest.raises(NoSuchUploadError) as unknown:
        await server.write_range(SI, 0, SECRET, 0, b"x")
    assert not isinstance(unknown.value, WrongUploadSecretError)
    await server.allocate(SI, frozenset({0}), 10, SECRET, LEASE)
    await server.write_range(SI, 0, SECRET, 0, b"01")
    with pytest.raises(WrongUploadSecretError):
        await server.write_range(SI, 0, OTHER_SECRET, 0, b"01")
    with pytest.raises(WrongUploadSecretError):
        await server.abort_share(SI, 0, OTHER_SECRET)
    with pytest.raises(ConflictingWriteError):
        await server.write_range(SI, 0, SECRET, 0, b"X")
    with pytest.raises(BeyondAllocationError):
        await server.write_range(SI, 0, SECRET, 9, b"9X")


async def test_idle_uploads_are_forgotten_when_asked_to(server, clock):
    await server.allocate(SI, frozenset({0, 1}), 10, SECRET, LEASE)
    clock.now += IDLE_SECONDS
    await server.write_range(SI, 1, SECRET, 0, b"x")
    await server.forget_idle_uploads()
    assert server.uploads_in_progress == 2
    clock.now += 1
    await server.forget_idle_uploads()
    assert server.uploads_in_progress == 1
    with pytest.raises(NoSuchUploadError):
        await server.write_range(SI, 0, SECRET, 0, b"x")


# --- shares held open -----------------------------------------------------------------------------


def open_files():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


async def test_a_share_held_open_stays_what_it_was(server):
    await contract.store_slot(server, s0=b"0123456789")
    share = await server.open_share(MUTABLE, SI, 0)
    await server.read_test_write(SI, SLOT, {0: writing(b"new")}, ())
    await server.read_test_write(SI, SLOT, {0: TestWriteVectors(new_length=0)}, ())
    assert await server.open_share(MUTABLE, SI, 0) is None
    assert share.size == 10
    assert await share.read(3, 4) == b"3456"
    assert await share.read(8, 99) == b"89"
    assert await share.read(10, 1) == b""


async def test_files_are_closed_with_their_last_reader(server):
    await contract.store(server, b"data")
    before = open_files()
    shares = [await server.open_share(ShareKind.IMMUTABLE, SI, 0) for _ in range(20)]
    assert open_files() >= before + 20
    assert await shares[-1].read(0, 4) == b"data"
    assert await server.open_share(MUTABLE, SI, 0) is None
    assert await server.open_share(ShareKind.IMMUTABLE, SI, 1) is None
    shares.clear()
    assert open_files() <= before


# --- slots ----------------------------------------------------------------------------------------


async def test_no_more_is_read_than_the_caller_can_hold(server):
    await contract.store_slot(server, s0=b"0123456789", s1=b"0123")
    reads = (ReadVector(0, 1 << 40), ReadVector(2, 2))
    result = await server.read_test_write(SI, SLOT, {}, reads, max_read=18)
    assert result.reads == {0: (b"0123456789", b"23"), 1: (b"0123", b"23")}
    vectors = {0: writing(b"X")}
    with pytest.raises(TooMuchToReadError):
        await server.read_test_write(SI, SLOT, vectors, reads, max_read=17)
    assert (await contract.slot_contents(server))[0] == b"0123456789"


@pytest.mark.parametrize(
    ("test", "passes"),
    [
        (TestVector(0, 1 << 60, b"0123456789"), True),
        (TestVector(0, 1 << 60, b"012345678"), False),
        (TestVector(0, 9, b"012345678"), True),
        (TestVector(0, 8, b"012345678"), False),
        (TestVector(8, 1 << 60, b"89"), True),
        (TestVector(10, 1 << 60, b""), True),
        (TestVector(0, 0, b""), True),
    ],
)
async def test_a_test_reads_what_it_says_however_little_is_compared(server, test, passes):
    await contract.store_slot(server, s0=b"0123456789")
    result = await server.read_test_write(SI, SLOT, {0: TestWriteVectors((test,))}, ())
    assert result.success is passes


async def test_a_hole_larger_than_the_disk_is_refused_and_leaves_nothing(server):
    with pytest.raises(ServerFullError):
        await server.read_test_write(SI, SLOT, {0: writing(b"x", 10**15)}, ())
    assert await server.list_shares(MUTABLE, SI) == frozenset()
    with pytest.raises(ProtocolError):
        await server.read_test_write(SI, SLOT, {0: writing(b"x", 10**18)}, ())
    cut = TestWriteVectors(writes=writing(b"x", 10**9).writes, new_length=5)
    assert (await server.read_test_write(SI, SLOT, {0: cut}, ())).success
    assert await contract.slot_contents(server) == {0: bytes(5)}
