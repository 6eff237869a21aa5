"""The service passes the contract of all storage servers, as its own client sees it."""

from __future__ import annotations

import pytest

from lafsfs.gbs.nurl import parse_nurl
from lafsfs.gbs.server import GBSServer
from lafsfs.gbs.service import running_service
from lafsfs.grid.local import LocalServer
from tests.grid import contract


class TestOverHTTPS(contract.StorageServerContract):
    @pytest.fixture
    async def server(self, tmp_path):
        local = await LocalServer.open(tmp_path / "grid", create=True)
        async with running_service(local) as service:
            client = GBSServer([parse_nurl(service.nurl)], server_id=local.server_id)
            yield client
            await client.aclose()
        await local.aclose()
