"""The service passes the contract of all storage servers, as its own client sees it."""

from __future__ import annotations

import pytest

from lafsfs.gbs.server import GBSServer
from tests.grid import contract


class TestOverHTTPS(contract.StorageServerContract):
    @pytest.fixture
    async def server(self, service):
        client = GBSServer(service.nurls, server_id=service.identity.server_id)
        yield client
        await client.aclose()
