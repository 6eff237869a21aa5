"""A journal that is nearly full: what waits goes out, and writers wait for it."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from lafsfs.errors import LafsError
from tests.vfs.conftest import open_world
from tests.vfs.test_uploader import uploads


@pytest.fixture
async def narrow(broker, tmp_path, patient_clock):
    """A mount whose journal holds 4 MB, and that is in no hurry."""
    async with open_world(
        broker, tmp_path, quiet=1000.0, retry_first=1.0, sync=False, journal_limit=4_000_000
    ) as world:
        yield world


async def test_what_waits_goes_out_when_room_in_the_journal_becomes_scarce(
    narrow, servers, patient_clock
):
    for number in range(2):
        await narrow.write(f"f{number}", os.urandom(900_000))
    await trio.sleep(100)
    assert uploads(servers) == 0
    for number in range(2, 4):
        await narrow.write(f"f{number}", os.urandom(900_000))
    with trio.fail_after(100):
        while (await narrow.fs.status()).files:  # noqa: ASYNC110 - what users do
            await trio.sleep(1)
    await trio.sleep(100)
    await narrow.write("late", bytes(1000))
    await trio.sleep(100)
    assert (await narrow.fs.status()).files == 1  # there is room again, and no hurry


async def test_a_writer_waits_for_what_can_go_out(narrow, servers, patient_clock):
    await narrow.write("f", os.urandom(2_500_000))
    for server in servers:
        server.delay = 1.0
    with trio.fail_after(100):
        await narrow.write("g", data := os.urandom(2_500_000))
    assert await narrow.read("g") == data
    assert uploads(servers) == 1


async def test_without_a_grid_a_full_journal_is_told(narrow, servers, patient_clock):
    for server in servers:
        server.refuse = {"allocate"}
    await narrow.write("f", os.urandom(2_500_000))
    began = trio.current_time()
    with pytest.raises(LafsError) as caught:
        await narrow.write("g", os.urandom(2_500_000))
    assert caught.value.errno == errno.ENOSPC
    assert 10 <= trio.current_time() - began < 60
    began = trio.current_time()
    with pytest.raises(LafsError) as caught:
        await narrow.write("h", os.urandom(2_500_000))
    assert caught.value.errno == errno.ENOSPC
    assert trio.current_time() - began < 1
