"""Whole grids of stock nodes."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.stock.nodes import (
    Client,
    Node,
    Shares,
    client_command,
    create,
    introducer_command,
    self_serving_command,
    server_command,
)
from tests.stock.processes import free_ports, started, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.stock.web import WebClient


@dataclass(frozen=True)
class Grid:
    """An introducer, storage servers, and a client, which may itself be the only server."""

    tahoe: Path
    introducer: Node
    servers: list[Node]
    client: Client

    @property
    def web(self) -> WebClient:
        """The client's web API."""
        return self.client.web

    @property
    def furl(self) -> str:
        """Where the introducer is."""
        return (self.introducer.private / "introducer.furl").read_text().strip()


@contextmanager
def _introducer(tahoe: Path, base: Path) -> Iterator[tuple[Node, str]]:
    introducer = Node(tahoe, base / "introducer")
    (port,) = free_ports(1)
    create(tahoe, [introducer_command(introducer, port)])
    furl = introducer.private / "introducer.furl"
    with started(introducer):
        wait_until(furl.exists, "the introducer has a fURL", why_not=introducer.last_words)
        yield introducer, furl.read_text().strip()


@contextmanager
def stock_grid(tahoe: Path, base: Path, *, servers: int, shares: Shares) -> Iterator[Grid]:
    """A real grid; gone when the block ends. ``base`` is a directory that exists."""
    with _introducer(tahoe, base) as (introducer, furl):
        *ports, web_port = free_ports(servers + 1)
        nodes = [Node(tahoe, base / f"server{number}") for number in range(servers)]
        client = Client(tahoe, base / "client", web_port)
        commands = [server_command(*pair, furl) for pair in zip(nodes, ports, strict=True)]
        create(tahoe, [*commands, client_command(client, web_port, furl, shares)])
        with started(*nodes, client):
            client.wait_for(servers, nodes)
            yield Grid(tahoe, introducer, nodes, client)


@contextmanager
def stock_node(
    tahoe: Path, base: Path, *, prepare: Callable[[Node], None] = lambda node: None
) -> Iterator[Grid]:
    """One node that stores for itself, 1-of-1 like the embedded default grid.

    ``prepare`` is called before the node's first start.
    """
    with _introducer(tahoe, base) as (introducer, furl):
        port, web_port = free_ports(2)
        node = Client(tahoe, base / "node", web_port)
        create(tahoe, [self_serving_command(node, port, web_port, furl, Shares(1, 1, 1))])
        prepare(node)
        with started(node):
            node.wait_for(1)
            yield Grid(tahoe, introducer, [node], node)


@contextmanager
def added_client(
    tahoe: Path,
    directory: Path,
    *,
    furl: str | None,
    shares: Shares,
    connected: int,
    static: str = "",
) -> Iterator[Client]:
    """One more client, connected to ``connected`` servers.

    ``furl``: None for a client without an introducer. ``static``: its ``servers.yaml``.
    """
    (web_port,) = free_ports(1)
    client = Client(tahoe, directory, web_port)
    create(tahoe, [client_command(client, web_port, furl, shares)])
    if static:
        (client.private / "servers.yaml").write_text(static)
    with started(client):
        client.wait_for(connected)
        yield client
