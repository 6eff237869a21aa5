"""The embedded server: the contract, and what a directory adds to it."""

from __future__ import annotations

import pytest

from lafsfs.crypto import base32
from lafsfs.errors import ServerReadOnlyError
from lafsfs.formats import containers
from lafsfs.grid.api import LeaseSecrets
from lafsfs.grid.identity import Identity
from lafsfs.grid.local import LocalServer
from tests.grid import contract
from tests.grid.contract import (
    IMMUTABLE,
    LEASE,
    MUTABLE,
    OTHER_LEASE,
    OTHER_SECRET,
    SECRET,
    SI,
    SLOT,
    writing,
)

ME = Identity.of(b"i" * 20)
NOW = 1_700_000_000


class Clock:
    """Seconds since 1970, as a test wants them."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def server(tmp_path, clock):
    (tmp_path / "grid" / "shares").mkdir(parents=True)
    server = LocalServer(tmp_path / "grid", ME, clock=clock)
    yield server
    await server.aclose()


class TestContract(contract.StorageServerContract):
    @pytest.fixture
    async def server(self, server):
        return server


def share_path(server, shnum=0, si=SI):
    text = base32.encode(si)
    return server._directory.shares / text[:2] / text / str(shnum)


def leases_of(server, shnum=0):
    data = share_path(server, shnum).read_bytes()
    if containers.is_mutable(data):
        slot = containers.parse_mutable_head(data, len(data))
        return containers.parse_mutable_tail(slot, data[slot.extra_lease_offset :])
    share = containers.parse_immutable_header(data, len(data))
    return tuple(containers.parse_immutable_leases(share, data[share.lease_offset :]))
