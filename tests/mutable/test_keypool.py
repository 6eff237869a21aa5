"""Keys made ahead, and contents kept."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from lafsfs.caps import MutableFormat
from lafsfs.crypto.rsa import SigningKey, generate_keypair
from lafsfs.errors import NotHappyError
from lafsfs.mutable.contents import ContentsCache
from lafsfs.mutable.encode import SlotKeys, encode_version
from lafsfs.mutable.keypool import IDLE, REST_SPENT, SOON, KeyPool

if TYPE_CHECKING:
    from collections.abc import Callable


class Factory:
    """Hands out the same few keys, and remembers who asked from where."""

    def __init__(self, keys: list[SigningKey]) -> None:
        self.keys = keys
        self.threads: list[threading.Thread] = []

    def __call__(self) -> SigningKey:
        self.threads.append(threading.current_thread())
        return self.keys[len(self.threads) % len(self.keys)]


async def test_no_key_is_made_before_one_is_wanted(keys: list[SigningKey]) -> None:
    factory = Factory(keys)
    async with KeyPool.open(4, generate=factory):
        await trio.testing.wait_all_tasks_blocked()
    assert factory.threads == []


async def test_who_takes_one_key_gets_one_and_the_stock_is_filled_when_all_is_idle(
    keys: list[SigningKey], resting_clock: trio.testing.MockClock
) -> None:
    factory = Factory(keys)
    async with KeyPool.open(2, rested_size=4, generate=factory, used=float) as pool:
        assert await pool.take() in keys
        await trio.sleep(IDLE - 0.1)
        assert len(factory.threads) == 1
        await trio.sleep(0.2)
        await later(lambda: pool.ready == 4)
        await trio.sleep(2 * IDLE)
        assert len(factory.threads) == 5
    assert threading.main_thread() not in factory.threads


async def test_the_stock_is_filled_before_the_first_key_is_taken_if_that_is_expected(
    keys: list[SigningKey], resting_clock: trio.testing.MockClock
) -> None:
    async with KeyPool.open(2, rested_size=4, generate=Factory(keys), used=float) as pool:
        await pool.expect()
        await later(lambda: pool.ready == 4)
        assert trio.current_time() >= IDLE


async def test_no_keys_are_made_ahead_while_there_is_something_else_to_do(
    keys: list[SigningKey], resting_clock: trio.testing.MockClock
) -> None:
    factory = Factory(keys)
    processor = 0.0
    async with KeyPool.open(2, rested_size=4, generate=factory, used=lambda: processor) as pool:
        await pool.expect()
        for _ in range(100):
            await trio.sleep(1)
            processor += 0.2
        assert factory.threads == []
        await later(lambda: pool.ready == 4)


async def test_what_is_spent_on_keys_that_may_never_be_taken_has_an_end(
    keys: list[SigningKey], resting_clock: trio.testing.MockClock
) -> None:
    """On a machine that is so slow that one takes as long as all of them may."""
    factory = Factory(keys)
    slow = KeyPool.open(
        2,
        rested_size=4,
        generate=factory,
        used=float,
        thread_used=lambda: REST_SPENT * len(factory.threads),
    )
    async with slow as pool:
        await pool.expect()
        await trio.sleep(100 * REST_SPENT)
        assert pool.ready == 1
        assert await pool.take() in keys
        await trio.sleep(100 * REST_SPENT)
        assert pool.ready == 1


async def test_the_stock_grows_with_the_demand(
    keys: list[SigningKey], mock_clock: trio.testing.MockClock
) -> None:
    factory = Factory(keys)
    async with KeyPool.open(4, generate=factory) as pool:
        for stock in (0, 1, 2, 4, 4):
            assert await pool.take() in keys
            await until(partial(in_stock, pool, stock))
        mock_clock.jump(SOON)
        assert await pool.take() in keys
        await until(lambda: pool.ready == 3)  # what is there stays
        await trio.testing.wait_all_tasks_blocked()
        assert pool.ready == 3


async def test_many_who_wait_get_a_key_each(keys: list[SigningKey]) -> None:
    taken: list[SigningKey] = []

    async def take(pool: KeyPool) -> None:
        taken.append(await pool.take())

    async with KeyPool.open(4, generate=Factory(keys)) as pool, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(take, pool)
    assert len(taken) == 20


@pytest.fixture
def resting_clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """Runs on when nothing else happens, in worker threads either."""
    autojump_clock.autojump_threshold = 0.05
    return autojump_clock


def in_stock(pool: KeyPool, number: int) -> bool:
    return pool.ready == number


async def later(holds: Callable[[], bool]) -> None:
    """Wait on a clock that runs on by itself."""
    while not holds():  # noqa: ASYNC110 - so that the clock runs on
        await trio.sleep(1)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for worker threads, whatever the clock says."""
    while not holds():
        await trio.to_thread.run_sync(time.sleep, 0.001)


async def test_real_keys_differ() -> None:
    async with KeyPool.open(2) as pool:
        assert await pool.take() != await pool.take()


async def test_an_error_in_the_body_comes_out_as_it_is() -> None:
    with pytest.raises(NotHappyError):
        async with KeyPool.open(2, generate=generate_keypair):
            raise NotHappyError("no luck")


def test_contents_are_kept_up_to_a_size(keys: list[SigningKey]) -> None:
    slot = SlotKeys(keys[0])
    versions = [
        encode_version(b"", MutableFormat.MDMF, 1, 1, seqnum, slot).version for seqnum in (1, 2, 3)
    ]
    cache = ContentsCache(100)
    cache.put(b"a", versions[0], b"x" * 60)
    cache.put(b"a", versions[1], b"y" * 40)
    assert cache.get(b"a", versions[0]) == b"x" * 60
    cache.put(b"b", versions[0], b"z" * 40)  # the least recently used goes
    assert cache.get(b"a", versions[1]) is None
    assert cache.get(b"a", versions[0]) == b"x" * 60
    assert cache.get(b"b", versions[0]) == b"z" * 40
    cache.put(b"b", versions[2], b"w" * 101)  # too large to keep
    assert cache.get(b"b", versions[2]) is None
    cache.drop(b"a", versions[0])
    assert cache.get(b"a", versions[0]) is None
