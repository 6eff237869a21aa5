"""A directory, served."""

from __future__ import annotations

import pytest

from lafsfs.gbs.service import running_service
from lafsfs.grid.local import LocalServer
from tests.gbs.service.client import connected


@pytest.fixture
async def storage(tmp_path):
    server = await LocalServer.open(tmp_path / "grid", create=True)
    yield server
    await server.aclose()


@pytest.fixture
async def service(storage):
    async with running_service(storage) as service:
        yield service


@pytest.fixture
async def client(service):
    async with connected(service) as client:
        yield client
