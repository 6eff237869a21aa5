"""A node maker over a grid in memory, on a clock that stands still until a test moves it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from lafsfs.grid.encoding import Encoding
from lafsfs.grid.secrets import ClientSecrets
from lafsfs.immutable import SegmentCache
from lafsfs.mutable.contents import ContentsCache
from lafsfs.mutable.keypool import KeyPool
from lafsfs.nodes.maker import Grid, NodeMaker
from tests.fakes import FakeServer, fake_grid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECRETS = ClientSecrets(b"l" * 32, b"c" * 32)


@dataclass
class Clock:
    """Unix time, as the tests set it."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def open_maker(broker, *, host="desk", clock=None) -> AsyncIterator[NodeMaker]:
    """A client of a grid: one of several, perhaps."""
    async with KeyPool.open(1) as pool, SegmentCache.open(1 << 20) as segments:
        grid = Grid(
            broker=broker,
            secrets=SECRETS,
            encoding=Encoding(2, 2, 3),
            key_pool=pool,
            segment_cache=segments,
            contents_cache=ContentsCache(1 << 20),
            convergence=SECRETS.convergence_secret,
        )
        yield NodeMaker(grid, host=host, clock=clock or Clock())


@pytest.fixture
def broker():
    return fake_grid(3)


@pytest.fixture
def servers(broker) -> tuple[FakeServer, ...]:
    return broker.servers


@pytest.fixture
async def maker(broker, mock_clock):
    async with open_maker(broker) as maker:
        yield maker
