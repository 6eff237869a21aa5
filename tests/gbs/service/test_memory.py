"""Memory that is waited for, and bytes that wait elsewhere."""

from __future__ import annotations

import gc
import os

import pytest
import trio
import trio.testing

from lafsfs.gbs.service.budget import Budget
from lafsfs.gbs.service.limits import PIECE
from lafsfs.gbs.service.spool import Spool


class Customers:
    """Tasks that reserve memory; ``served`` tells who has been."""

    def __init__(self, budget, nursery):
        self.budget = budget
        self.nursery = nursery
        self.served = []
        self.done = {}
        self.patience = {}

    async def come(self, name, size):
        self.done[name] = trio.Event()
        self.patience[name] = trio.CancelScope()
        self.nursery.start_soon(self._buy, name, size)
        await trio.testing.wait_all_tasks_blocked()

    async def go(self, name):
        self.done[name].set()
        await trio.testing.wait_all_tasks_blocked()

    async def give_up(self, name):
        self.patience[name].cancel()
        await trio.testing.wait_all_tasks_blocked()

    async def _buy(self, name, size):
        with self.patience[name]:
            async with self.budget.reserved(size):
                self.served.append(name)
                await self.done[name].wait()


@pytest.fixture
async def customers(nursery):
    return Customers(Budget(10), nursery)


async def test_there_is_enough_for_all_or_they_wait(customers):
    await customers.come("Alice", 4)
    await customers.come("Bob", 6)
    await customers.come("Carol", 1)
    assert customers.served == ["Alice", "Bob"]
    await customers.go("Alice")
    assert customers.served == ["Alice", "Bob", "Carol"]
    for name in ("Bob", "Carol"):
        await customers.go(name)


async def test_who_wants_much_is_not_passed_by_those_who_want_little(customers):
    await customers.come("Alice", 4)
    await customers.come("Bob", 8)
    await customers.come("Carol", 1)
    assert customers.served == ["Alice"]
    await customers.go("Alice")
    assert customers.served == ["Alice", "Bob", "Carol"]
    for name in ("Bob", "Carol"):
        await customers.go(name)


async def test_more_than_there_is_means_all_of_it(customers):
    await customers.come("Alice", 1)
    await customers.come("Bob", 1000)
    assert customers.served == ["Alice"]
    await customers.go("Alice")
    assert customers.served == ["Alice", "Bob"]
    await customers.go("Bob")
    await customers.come("Carol", 10)
    assert customers.served == ["Alice", "Bob", "Carol"]
    await customers.go("Carol")


async def test_who_stops_waiting_holds_nobody_up(customers):
    await customers.come("Alice", 5)
    await customers.come("Bob", 6)
    await customers.come("Carol", 5)
    assert customers.served == ["Alice"]
    await customers.give_up("Bob")
    assert customers.served == ["Alice", "Carol"]
    for name in ("Alice", "Carol"):
        await customers.go(name)
    await customers.come("Dave", 10)
    assert customers.served == ["Alice", "Carol", "Dave"]
    await customers.go("Dave")


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 3 * PIECE + 7])
async def test_a_spool_gives_back_what_it_was_given(tmp_path, size):
    data = bytes(i * 7 % 251 for i in range(size))
    spool = Spool(tmp_path)
    for start in range(0, size, 100_000):
        await spool.write(data[start : start + 100_000])
    assert spool.size == size
    assert await spool.contents() == data
    assert await spool.read(3, 5) == data[3:8]
    assert await spool.read(max(0, size - 1), 9) == data[-1:]
    assert await spool.read(size, 9) == b""
    assert list(tmp_path.iterdir()) == []


async def test_a_spool_lets_go_of_its_file(tmp_path):
    def open_files():
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    spool = Spool(tmp_path)
    await trio.to_thread.run_sync(bool)
    before = open_files()
    await spool.write(bytes(PIECE + 1))
    assert open_files() == before + 1
    del spool
    assert open_files() == before
