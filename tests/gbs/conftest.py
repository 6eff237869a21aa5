"""What the tests of the HTTPS client share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lafsfs.gbs.server import GBSServer

if TYPE_CHECKING:
    from lafsfs.gbs.nurl import Nurl

IDLE = 0.05  # seconds of real time in which nothing happened on any socket


@pytest.fixture
def patient_clock(mock_clock):
    """A virtual clock that jumps only once the sockets have been silent for a while."""
    mock_clock.autojump_threshold = IDLE
    return mock_clock


@pytest.fixture
async def reach():
    """``reach(nurl, ...)`` makes a client of the server there, closed when the test is over."""
    servers = []

    def make(*nurls: Nurl, name: str = "Alice") -> GBSServer:
        servers.append(GBSServer(nurls, server_id=b"i" * 20, name=name))
        return servers[-1]

    yield make
    for server in servers:
        await server.aclose()
