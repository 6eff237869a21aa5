"""Patience with servers, their record at the broker, and errors without groups."""

import logging
from functools import partial

import pytest
import trio

from lafsfs.errors import NoSuchShareError, NotHappyError, ServerUnavailableError
from lafsfs.grid.api import ShareKind
from lafsfs.grid.asking import SLOWEST_RATE, ask, plain_errors
from tests.immutable.grids import empty_grid

INDEX = bytes(16)


async def list_at(broker, server, **more):
    return await ask(broker, server, lambda: server.list_shares(ShareKind.IMMUTABLE, INDEX), **more)


async def test_an_answer_is_noted_with_its_latency(autojump_clock):
    (server,), broker = empty_grid(1)
    server.delay = 2.0
    assert await list_at(broker, server) == frozenset()
    assert broker.health(server).latency == 2.0


async def test_of_many_asked_at_once_none_is_the_slowest(autojump_clock):
    """The first shares the line with those behind it as well as the last with those before it."""
    servers, broker = empty_grid(4)
    async with trio.open_nursery() as nursery:
        for server in servers:
            server.delay = 2.0
            nursery.start_soon(partial(list_at, broker, server, size=1 << 20))
    assert {broker.expected(server, 4 << 20) for server in servers} == {2.0}


async def test_a_failure_is_noted_and_told_once(autojump_clock, caplog):
    (server,), broker = empty_grid(1)
    server.down = True
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with pytest.raises(ServerUnavailableError):
                await list_at(broker, server)
    assert broker.health(server).failures == 3
    assert [record.getMessage() for record in caplog.records] == [
        "storage server in trouble: fake0 is down"
    ]


async def test_no_is_an_answer_too():
    (server,), broker = empty_grid(1)
    lease = None
    with pytest.raises(NoSuchShareError):
        await ask(broker, server, lambda: server.add_lease(INDEX, lease))
    assert broker.health(server).failures == 0


async def test_patience_ends_later_when_there_is_more_to_carry(autojump_clock):
    (server,), broker = empty_grid(1)
    server.hang()
    with pytest.raises(ServerUnavailableError, match="within 13 s"):
        await list_at(broker, server, size=3 * SLOWEST_RATE, patience=10.0)
    assert trio.current_time() == 13.0
    assert broker.is_backing_off(server)


async def test_a_call_that_we_cancel_is_nobody_s_fault(autojump_clock):
    (server,), broker = empty_grid(1)
    server.hang()
    with trio.move_on_after(1.0):
        await list_at(broker, server)
    assert broker.health(server).failures == 0


async def fail(error):
    await trio.lowlevel.checkpoint()
    raise error


async def test_one_error_comes_out_of_a_nursery_plain():
    async def race():
        with plain_errors():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(fail, ZeroDivisionError())

    with pytest.raises(ZeroDivisionError):
        await race()


async def test_of_several_errors_of_ours_the_first_comes_out():
    with pytest.raises(NotHappyError, match="first"), plain_errors():
        raise ExceptionGroup("", [NotHappyError("first"), NotHappyError("second")])


async def test_several_errors_with_a_bug_among_them_stay_together():
    with pytest.raises(ExceptionGroup) as caught, plain_errors():
        raise ExceptionGroup("", [NotHappyError("first"), ZeroDivisionError()])
    assert len(caught.value.exceptions) == 2


async def test_cancellation_passes():
    with trio.CancelScope() as scope, plain_errors():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
    assert scope.cancelled_caught
