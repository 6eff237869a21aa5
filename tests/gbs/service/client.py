"""A client that says anything at all, byte for byte, and reads what is answered."""

from __future__ import annotations

from base64 import b64encode
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cbor2
import h11
import trio

from lafsfs.crypto import base32
from lafsfs.gbs.tls import client_context, open_pinned
from tests.grid.contract import LEASE, SECRET, SI, SLOT

if TYPE_CHECKING:
    from lafsfs.gbs.service import Service

INDEX = base32.encode(SI)
IMMUTABLE = f"/storage/v1/immutable/{INDEX}"
MUTABLE = f"/storage/v1/mutable/{INDEX}"
CBOR = ("Content-Type", "application/cbor")


def secret(name: str, value: bytes) -> tuple[str, str]:
    """One header."""
    return "X-Tahoe-Authorization", f"{name} {b64encode(value).decode()}"


UPLOAD = secret("upload-secret", SECRET)
LEASES = (secret("lease-renew-secret", LEASE.renew), secret("lease-cancel-secret", LEASE.cancel))
ENABLER = secret("write-enabler", SLOT.write_enabler)
ALLOCATE = (CBOR, UPLOAD, *LEASES)
WRITE = (CBOR, ENABLER, *LEASES)


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> object:
        assert self.headers["content-type"] == "application/cbor"
        return cbor2.loads(self.body)


class Client:
    """One connection to a service."""

    def __init__(self, service: Service, stream: trio.SSLStream) -> None:
        self.stream = stream
        self.authorization = f"Tahoe-LAFS {b64encode(service.identity.swissnum).decode()}"

    def head(self, method: str, path: str, *headers: tuple[str, str]) -> bytes:
        """The beginning of a request."""
        given = {name.lower() for name, _ in headers}
        lines = [f"{method} {path} HTTP/1.1", "Host: x"]
        if "authorization" not in given:
            lines.append(f"Authorization: {self.authorization}")
        lines += [f"{name}: {value}" for name, value in headers]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    async def ask(
        self, method: str, path: str, *headers: tuple[str, str], body: bytes | object = b""
    ) -> Reply:
        """Send a request, and read its reply."""
        data = body if isinstance(body, bytes) else cbor2.dumps(body)
        length = ("Content-Length", str(len(data)))
        await self.stream.send_all(self.head(method, path, *headers, length) + data)
        return await self.reply()

    async def reply(self) -> Reply:
        """Read one reply."""
        state = h11.Connection(h11.CLIENT)
        state.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        state.send(h11.EndOfMessage())
        reply, parts = None, []
        while True:
            event = state.next_event()
            if event is h11.NEED_DATA:
                state.receive_data(await self.stream.receive_some())
            elif isinstance(event, h11.Response):
                headers = {name.decode(): value.decode() for name, value in event.headers}
                reply = Reply(event.status_code, headers, b"")
            elif isinstance(event, h11.Data):
                parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                reply.body = b"".join(parts)
                return reply
            else:
                assert isinstance(event, h11.InformationalResponse), event

    async def is_closed(self) -> bool:
        """Wait for the end; False if something comes instead."""
        try:
            return await self.stream.receive_some() == b""
        except trio.BrokenResourceError:
            return True


@asynccontextmanager
async def connected(service: Service):
    """A new connection."""
    stream = await open_pinned(service.nurls[0], client_context())
    try:
        yield Client(service, stream)
    finally:
        await trio.aclose_forcefully(stream)


def number(service: Service, name: str) -> float | None:
    """What a metric says."""
    return service.metrics.registry.get_sample_value(f"lafsfs_storage_{name}")


async def becomes(service: Service, name: str, value: float, *, every: float = 0.001) -> None:
    """Wait until a metric says so. ``every``: seconds between looks; many, on a virtual clock."""
    while number(service, name) != value:  # noqa: ASYNC110 - metrics have no events
        await trio.sleep(every)
