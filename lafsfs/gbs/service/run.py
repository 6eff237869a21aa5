"""A service, from its first listener to its last connection."""

from __future__ import annotations

import ipaddress
import logging
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from lafsfs.errors import LocalError, ServerError, UsageError
from lafsfs.gbs.service.app import StorageApp
from lafsfs.gbs.service.budget import Budget
from lafsfs.gbs.service.endpoints import Storage
from lafsfs.gbs.service.identity import ServiceIdentity, open_identity
from lafsfs.gbs.service.limits import Limits
from lafsfs.gbs.service.listening import (
    Connections,
    GuardedListener,
    HTTPWorker,
    server_context,
)
from lafsfs.gbs.service.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from lafsfs.gbs.nurl import Nurl
    from lafsfs.grid.local import LocalServer

log = logging.getLogger(__name__)

BACKLOG = 1024  # connections that wait to be accepted
TIDY_SECONDS = 60.0  # between looks for idle uploads

_SCRAPERS = Limits(connections=8, idle=30.0, shutdown=0.0)  # of metrics

Address = tuple[str | None, int]  # None: every address of this machine


@dataclass(frozen=True, slots=True)
class Service:
    """A service that runs.

    Attributes:
        nurls: how to reach it, one for each address.
        metrics_port: where it tells its metrics, on the address asked for; None if it does not.
    """

    identity: ServiceIdentity
    nurls: tuple[Nurl, ...] = field(repr=False)
    metrics: Metrics = field(repr=False)
    metrics_port: int | None = None

    @property
    def nurl(self) -> str:
        """The first NURL as text: a secret."""
        return self.nurls[0].danger_text()

    @property
    def port(self) -> int:
        """The first NURL's port."""
        return self.nurls[0].port


@asynccontextmanager
async def running_service(
    server: LocalServer,
    *,
    listen: Sequence[Address] = (("127.0.0.1", 0),),
    advertise: Sequence[tuple[str, int | None]] = (),
    metrics_at: Address | None = None,
    limits: Limits = Limits(),  # noqa: B008 - it is frozen
) -> AsyncIterator[Service]:
    """Serve a storage directory for the time of a block.

    Args:
        server: the directory, open; it stays open.
        listen: addresses; port 0 lets the system choose.
        advertise: hosts and ports for the NURLs; None is the first port listened on. By default,
            what is listened on.
        metrics_at: where to tell metrics; a loopback address.

    Raises:
        LocalError: an address cannot be listened on.
        ConfigError: the directory's key, certificate or swissnum cannot be understood.
        UsageError: ``metrics_at`` is not a loopback address.
    """
    directory = Path(server.name)
    identity = await trio.to_thread.run_sync(open_identity, server, directory)
    context = await trio.to_thread.run_sync(server_context, identity.pem)
    metrics = Metrics()
    budgets = (Budget(limits.memory), Budget(limits.memory))
    app = StorageApp(Storage(server, directory, limits, *budgets), identity.swissnum, metrics)
    async with AsyncExitStack() as stack:  # everything that can fail comes before what runs
        listeners = await _open_listeners(listen, stack)
        telling = await _open_metrics_listeners(metrics_at, stack)
        nurls = _nurls(identity, listeners, advertise)
        connections = Connections(limits, metrics.connections.set)
        secure = [
            trio.SSLListener(GuardedListener(one, connections), context, https_compatible=True)
            for one in listeners
        ]
        await stack.enter_async_context(_serving(HTTPWorker(app, limits), secure, connections))
        if telling:
            scrapers = Connections(_SCRAPERS, lambda _: None)
            plain = [GuardedListener(one, scrapers) for one in telling]
            worker = HTTPWorker(metrics.app(), _SCRAPERS)
            await stack.enter_async_context(_serving(worker, plain, scrapers))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_tidy, server, metrics)
            yield Service(identity, nurls, metrics, _port_of(telling))
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _serving(
    worker: HTTPWorker,
    listeners: list[Any],
    connections: Connections,
) -> AsyncIterator[None]:
    """Accept and serve for the time of a block; then let requests under way end, if they do."""
    async with trio.open_nursery() as handlers:
        try:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(
                    partial(
                        trio.serve_listeners, worker.handle, listeners, handler_nursery=handlers
                    )
                )
                yield
                accepting.cancel_scope.cancel()
            await worker.stop()
            with trio.move_on_after(connections.limits.shutdown):
                await connections.all_closed()
        finally:
            connections.close_all()
        handlers.cancel_scope.cancel()


async def _open_metrics_listeners(
    address: Address | None, stack: AsyncExitStack
) -> list[trio.SocketListener]:
    if address is None:
        return []
    if address[0] is None or not _is_loopback(address[0]):
        raise UsageError("metrics are told at a loopback address only, such as 127.0.0.1")
    return await _open_listeners([address], stack)


def _port_of(listeners: Sequence[trio.SocketListener]) -> int | None:
    for listener in listeners:
        port: int = listener.socket.getsockname()[1]
        return port
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _open_listeners(
    addresses: Sequence[Address], stack: AsyncExitStack
) -> list[trio.SocketListener]:
    listeners: list[trio.SocketListener] = []
    for host, port in addresses:
        try:
            new = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
        except OSError as error:
            where = f"{host or 'all addresses'}, port {port}"
            raise LocalError(f"cannot listen on {where}: {error.strerror or error}") from None
        for listener in new:
            stack.push_async_callback(listener.aclose)
        listeners += new
    return listeners


async def _tidy(server: LocalServer, metrics: Metrics) -> None:
    """Discard idle uploads, and look at the disk, now and then."""
    while True:
        try:
            await server.forget_idle_uploads()
            metrics.uploads.set(server.uploads_in_progress)
            metrics.available.set((await server.version()).available_space)
        except ServerError as error:
            log.warning("%s", error)
            metrics.available.set(0)
        await trio.sleep(TIDY_SECONDS)


# --- addresses ------------------------------------------------------------------------------------


def _nurls(
    identity: ServiceIdentity,
    listeners: Sequence[trio.SocketListener],
    advertise: Sequence[tuple[str, int | None]],
) -> tuple[Nurl, ...]:
    """What clients are told: what the operator says, else what is listened on."""
    bound = [listener.socket.getsockname()[:2] for listener in listeners]
    places = [(host, port or bound[0][1]) for host, port in advertise]
    if not places:
        places = [(_reachable(host), port) for host, port in bound]
    return tuple(identity.nurl(host, port) for host, port in dict.fromkeys(places))


def _reachable(host: str) -> str:
    """An address that others can use, for one that may stand for all of this machine's."""
    address = ipaddress.ip_address(host)
    if not address.is_unspecified:
        return str(address)
    is_ipv6 = address.version == 6
    family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:  # connecting a datagram socket sends nothing; it only chooses the way out
            probe.connect(("2001:db8::1" if is_ipv6 else "192.0.2.1", 9))
            found: str = probe.getsockname()[0]
        except OSError:
            return "::1" if is_ipv6 else "127.0.0.1"
    return found
