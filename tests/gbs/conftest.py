"""What the tests of the HTTPS client share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lafsfs.gbs.server import GBSServer
from tests.patience import PatientClock

if TYPE_CHECKING:
    from lafsfs.gbs.nurl import Nurl


@pytest.fixture
def patient_clock():
    """Virtual time that passes only while sockets are silent and threads rest."""
    return PatientClock()


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
