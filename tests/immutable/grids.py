"""Grids for the tests of immutable files: empty ones, and one that holds what stock stored."""

from __future__ import annotations

from lafsfs.formats.containers import parse_immutable_header
from lafsfs.grid.api import ShareKind
from lafsfs.grid.broker import Broker
from lafsfs.grid.encoding import Encoding
from lafsfs.grid.secrets import ClientSecrets
from tests import golden_data
from tests.fakes import FakeServer, fake_servers

SECRETS = ClientSecrets(golden_data.LEASE_SECRET, golden_data.CONVERGENCE)
GOLDEN_ENCODING = Encoding(golden_data.K, 5, golden_data.N)
CHK_NAMES = [name for name, golden in golden_data.OBJECTS.items() if golden.kind == "CHK"]


def share_data(storage_index: bytes) -> dict[tuple[str, int], bytes]:
    """The golden shares under a storage index, out of their containers."""
    found = {}
    for key, path in golden_data.shares_of(storage_index).items():
        raw = path.read_bytes()
        container = parse_immutable_header(raw[:12], len(raw))
        found[key] = raw[container.data_offset : container.lease_offset]
    return found


def golden_servers(*names: str) -> list[FakeServer]:
    """Fake servers with the golden identities, holding the golden CHK objects of these names."""
    servers = {
        server.name: FakeServer(
            server.name, server_id=server.server_id, permutation_seed=server.permutation_seed
        )
        for server in golden_data.SERVERS.values()
    }
    for name in names or CHK_NAMES:
        index = golden_data.OBJECTS[name].storage_index
        for (server, shnum), data in share_data(index).items():
            servers[server].put(ShareKind.IMMUTABLE, index, shnum, data)
    return list(servers.values())


def empty_grid(count: int) -> tuple[list[FakeServer], Broker]:
    """Fake servers without shares."""
    servers = fake_servers(count)
    return servers, Broker(servers)


def spread_of(servers: list[FakeServer], storage_index: bytes) -> dict[str, set[int]]:
    """Which complete shares each server holds; servers without any are left out."""
    spread = {server.name: set(server.held(storage_index)) for server in servers}
    return {name: shnums for name, shnums in spread.items() if shnums}


def all_shares(servers: list[FakeServer], storage_index: bytes) -> dict[int, bytes]:
    """The complete shares by number, wherever they are."""
    return {
        shnum: bytes(share.data)
        for server in servers
        for shnum, share in server.held(storage_index).items()
    }
