"""A directory, served."""

from __future__ import annotations

import pytest

from lafsfs.crypto import x509
from lafsfs.gbs.service import running_service
from lafsfs.grid.local import LocalServer
from tests.gbs.service.client import connected


@pytest.fixture(scope="session")
def pem():
    """A key and its certificate; making one for every test would take longer than the tests."""
    return x509.make_node_certificate()


@pytest.fixture
async def storage(tmp_path, pem):
    directory = tmp_path / "grid"
    directory.mkdir()
    (directory / "node.pem").write_bytes(pem)
    (directory / "node.pem").chmod(0o600)
    server = await LocalServer.open(directory, create=True)
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
