"""A TLS server that does exactly what a test tells it, on a loopback port.

A *script* is an async function of a :class:`Peer`, run for every connection. What it raises for a
connection that the client has closed is ignored.
"""

from __future__ import annotations

import functools
import ssl
import tempfile
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cbor2
import h11
import trio

from lafsfs.crypto import x509
from lafsfs.gbs.nurl import Nurl
from lafsfs.grid.api import ReadVector, TestVector, TestWriteVectors, WriteVector
from tests.grid.contract import SI, SLOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.fakes import FakeServer

    Script = Callable[["Peer"], Awaitable[None]]

SWISSNUM = b"swissnum"
CBOR = (("Content-Type", "application/cbor"),)


@functools.cache
def identity(number: int = 0) -> bytes:
    """Key and certificate of one of several servers, as PEM."""
    return x509.make_node_certificate()


def server_context(pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    target: str
    headers: dict[str, list[str]]
    body: bytes

    def secrets(self) -> set[str]:
        """The names of the secrets that came along."""
        return {value.split(" ")[0] for value in self.headers.get("x-tahoe-authorization", [])}


class Peer:
    """The server's end of one connection."""

    def __init__(self, stream: trio.SSLStream, number: int, asked: list[Asked]) -> None:
        self.stream = stream
        self.number = number  # of the connection, from 0
        self._asked = asked
        self._http = h11.Connection(h11.SERVER)

    async def request(self) -> Asked:
        """Wait for a request; ends the script when there is none any more."""
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        head, body = None, b""
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self.stream.receive_some(65536))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                raise trio.BrokenResourceError
        headers: dict[str, list[str]] = {}
        for name, value in head.headers:
            headers.setdefault(name.decode(), []).append(value.decode())
        asked = Asked(head.method.decode(), head.target.decode(), headers, body)
        self._asked.append(asked)
        return asked

    async def reply(self, status: int, body: bytes = b"", headers=(), *, length=True) -> None:
        """A well-formed answer."""
        more = [("Content-Length", str(len(body)))] if length and status != 204 else []
        http = self._http
        data = http.send(h11.Response(status_code=status, headers=[*headers, *more]))
        for event in ([h11.Data(data=body)] if body else []) + [h11.EndOfMessage()]:
            data += http.send(event)
        await self.stream.send_all(data)

    async def raw(self, data: bytes) -> None:
        """Anything at all."""
        await self.stream.send_all(data)


class HostileServer:
    """What a test sees of its server."""

    def __init__(self, nurl: Nurl) -> None:
        self.nurl = nurl
        self.connections = 0
        self.asked: list[Asked] = []


@asynccontextmanager
async def serving(
    script: Script,
    *,
    pem: bytes | None = None,
    context: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
    pins: bytes | None = None,
) -> AsyncIterator[HostileServer]:
    """Run a script on a free port. ``pins``: the PEM whose key the NURL names."""
    pem = pem or identity()
    context = context or server_context(pem)
    listeners = await trio.open_tcp_listeners(0, host=host)
    port = listeners[0].socket.getsockname()[1]
    server = HostileServer(Nurl(x509.spki_hash(pins or pem), host, port, SWISSNUM))

    async def handle(transport: trio.SocketStream) -> None:
        number = server.connections
        server.connections += 1
        stream = trio.SSLStream(transport, context, server_side=True, https_compatible=True)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError):
            await stream.do_handshake()
            await script(Peer(stream, number, server.asked))
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        yield server
        nursery.cancel_scope.cancel()


def slot_script(slots: FakeServer, faults: list[str]) -> Script:
    """Test-and-sets over a FakeServer, each with the next fault of the list.

    ``before`` and ``after`` drop the connection before or after the call has had its effect;
    ``late`` drops it and lets the call have its effect once the next one has been answered.
    Anything else, and the end of the list, is no fault.
    """
    late: list[Callable[[], Awaitable[object]]] = []

    async def script(peer: Peer) -> None:
        while True:
            asked = await peer.request()
            message = cbor2.loads(asked.body)
            vectors = {
                shnum: TestWriteVectors(
                    tuple(TestVector(**test) for test in vector["test"]),
                    tuple(WriteVector(**write) for write in vector["write"]),
                    vector["new-length"],
                )
                for shnum, vector in message["test-write-vectors"].items()
            }
            reads = [ReadVector(**read) for read in message["read-vector"]]
            call = functools.partial(slots.read_test_write, SI, SLOT, vectors, reads)
            fault = faults.pop(0) if faults else ""
            if fault == "late":
                late.append(call)
            if fault in ("before", "late"):
                return
            result = await call()
            while late:
                await late.pop()()
            if fault == "after":
                return
            answer = {"success": result.success, "data": {n: [*d] for n, d in result.reads.items()}}
            await peer.reply(200, cbor2.dumps(answer), CBOR)

    return script
