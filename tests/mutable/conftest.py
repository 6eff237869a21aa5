"""A client of a grid of FakeServers, and a few key pairs made once."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from lafsfs.caps import MutableFormat
from lafsfs.crypto.rsa import SigningKey, generate_keypair
from lafsfs.grid.broker import Broker
from lafsfs.grid.encoding import Encoding
from lafsfs.grid.secrets import ClientSecrets
from lafsfs.mutable import file
from lafsfs.mutable.file import MutableFile
from tests.fakes import FakeServer, fake_servers

if TYPE_CHECKING:
    from collections.abc import Sequence

SECRETS = ClientSecrets(b"L" * 32, b"C" * 32)


@dataclass
class Client:
    """One writer with its own idea of the grid. Two of them over the same servers may collide."""

    servers: Sequence[FakeServer]
    encoding: Encoding
    keys: Sequence[SigningKey]
    seed: int = 0

    def __post_init__(self) -> None:
        self.broker = Broker(self.servers)

    async def create(self, format_: MutableFormat, contents: bytes, key: int = 0) -> MutableFile:
        """A new file; each key makes another one."""
        return await file.create(
            format_,
            contents,
            broker=self.broker,
            secrets=SECRETS,
            encoding=self.encoding,
            key=self.keys[key],
            jitter=random.Random(self.seed).random,
        )

    def open(self, other: MutableFile, *, read_only: bool = False) -> MutableFile:
        """The same slot through an object of this client, which knows nothing of it yet."""
        return MutableFile(
            other.cap.read_cap() if read_only else other.cap,
            self.broker,
            SECRETS,
            encoding=self.encoding,
            jitter=random.Random(self.seed + 1).random,
        )

    def rival(self, seed: int = 7) -> Client:
        """Another client of the same servers."""
        return Client(self.servers, self.encoding, self.keys, seed)

    def calls(self) -> int:
        """How many calls all servers have had."""
        return sum(server.count() for server in self.servers)

    def server_order(self, opened: MutableFile) -> list[FakeServer]:
        """The servers as the slot prefers them."""
        return list(self.broker.servers_for(opened.storage_index))


@pytest.fixture(scope="session")
def keys() -> list[SigningKey]:
    return [generate_keypair() for _ in range(3)]


@pytest.fixture
def single(keys: list[SigningKey]) -> Client:
    """The default grid: one server, 1-of-1."""
    return Client(fake_servers(1), Encoding(1, 1, 1), keys)


@pytest.fixture
def five(keys: list[SigningKey]) -> Client:
    """Five servers, 2-of-5, on three at least."""
    return Client(fake_servers(5), Encoding(2, 3, 5), keys)


@pytest.fixture(params=list(MutableFormat), ids=lambda f: f.value)
def format_(request: pytest.FixtureRequest) -> MutableFormat:
    return request.param
