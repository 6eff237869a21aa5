"""Which share is tried next."""

import pytest

from lafsfs.caps import CHKVerifyCap
from lafsfs.immutable.choosing import SAME, best_reader, is_last_resort
from lafsfs.immutable.share import ShareReader
from lafsfs.immutable.verified import VerifiedFile
from tests.fakes import fake_grid

SIZE = 1000
VERIFIED = VerifiedFile(CHKVerifyCap(bytes(16), bytes(32), 3, 10, 100_000))


@pytest.fixture
async def grid():
    """Four servers that answered in no time."""
    broker = fake_grid(4)
    for server in broker.servers:
        broker.note_success(server, SAME / 2)
    return broker


def reader(broker, server, shnum):
    return ShareReader(broker, broker.servers[server], shnum, VERIFIED)


async def test_the_lowest_number_of_equals(grid):
    readers = [reader(grid, n, 9 - n) for n in range(4)]
    assert best_reader(readers, grid, {}, SIZE).shnum == 6
    grid.note_success(grid.servers[3], SAME / 3)  # a little quicker is not quicker
    grid.note_success(grid.servers[0], SAME / 9)
    assert best_reader(readers, grid, {}, SIZE).shnum == 6


async def test_a_server_that_takes_twice_the_time_comes_after(grid):
    for _ in range(30):
        grid.note_success(grid.servers[0], 2 * SAME)
    readers = [reader(grid, 0, 0), reader(grid, 1, 1)]
    assert best_reader(readers, grid, {}, SIZE).shnum == 1


async def test_shares_are_taken_from_different_servers_while_these_are_alike(grid):
    busy, idle, slow = grid.servers[:3]
    for _ in range(30):
        grid.note_success(slow, 10 * SAME)
    readers = [reader(grid, 0, 0), reader(grid, 1, 1)]
    assert best_reader(readers, grid, {busy: 1}, SIZE).server is idle
    readers = [reader(grid, 0, 0), reader(grid, 2, 1)]
    assert best_reader(readers, grid, {busy: 1}, SIZE).server is busy
    assert best_reader(readers, grid, {busy: 30}, SIZE).server is slow


async def test_nobody_waits_to_be_measured(grid):
    other = fake_grid(2)
    readers = [reader(other, n, n) for n in range(2)]
    assert best_reader(readers, other, {}, SIZE).shnum == 0


async def test_suspects_and_servers_in_doubt_come_last(grid):
    suspect, doubtful, slow = (reader(grid, n, n) for n in range(3))
    suspect.is_suspect = True
    grid.note_late(grid.servers[1])
    for _ in range(30):
        grid.note_success(grid.servers[2], 1000 * SAME)
    assert best_reader([suspect, doubtful, slow], grid, {}, SIZE) is slow
    assert best_reader([suspect, doubtful], grid, {}, SIZE) is doubtful
    assert best_reader([suspect], grid, {}, SIZE) is suspect
    assert [is_last_resort(r, grid) for r in (suspect, doubtful, slow)] == [True, True, False]
