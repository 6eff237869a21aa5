"""Time that waits for worker threads, and the stage of scenarios of reading."""

from __future__ import annotations

import pytest
from trio.testing import wait_all_tasks_blocked

from lafsfs.grid.broker import Broker
from lafsfs.immutable import SegmentCache
from tests.immutable.stage import Stage, reader_of, store
from tests.patience import PatientClock


@pytest.fixture
def patient_clock():
    """A virtual clock for tests whose work is done by threads, however slow these are today."""
    return PatientClock(idle=0.0)


@pytest.fixture
async def cold():
    """Nothing is known but the capability, and how the file is cut."""
    servers, cap = await store()
    async with SegmentCache.open() as cache:
        stage = Stage(servers, Broker(servers), cap, cache)
        stage.file = reader_of(stage)
        yield stage


@pytest.fixture
async def warm(cold):
    """The first segment has been read."""
    await cold.segment(0)
    await wait_all_tasks_blocked()
    cold.forget_calls()
    return cold
