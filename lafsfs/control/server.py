"""The mount's side of its control socket.

- Only the user who mounted, and root, are answered: the kernel says who is at the other end.
- The socket is in a directory that only the user can enter. It is addressed through that directory,
  open, since a socket's own path may have 107 bytes at most.
- Whatever a client says or leaves unsaid, and however it goes away, the mount goes on.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

import trio

from lafsfs.control.messages import MAX_REQUEST, pack, status_object, verb_of
from lafsfs.errors import FormatError, LafsError, LocalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from typing import Any

    from lafsfs.vfs.status import Status

log = logging.getLogger(__name__)

MAX_CLIENTS: Final = 16  # at a time; others wait
PATIENCE: Final = 10.0  # seconds for a client to say what it wants, or to take an answer
PROGRESS: Final = 0.25  # seconds between two reports of a flush
_CREDENTIALS: Final = struct.Struct("iII")  # pid, uid, gid: struct ucred of unix(7)


class Controlled(Protocol):
    """What the socket gives access to."""

    async def status(self) -> Status:
        """What is pending."""

    async def flush_all(self) -> tuple[LafsError, ...]:
        """Bring it to the grid; an error for each thing that could not be."""


@asynccontextmanager
async def open_control(
    path: Path, fs: Controlled, leave: Callable[[], None]
) -> AsyncIterator[None]:
    """Answer on ``path`` for as long as the context lasts. ``leave``: called when told to.

    Raises:
        LocalError: there cannot be a socket.
    """
    try:
        listener = _listen(path)
    except OSError as error:
        raise LocalError(f"cannot make the socket {path}: {error.strerror}") from None
    control = _Control(fs, leave)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(control.serve, listener)
            yield
            nursery.cancel_scope.cancel()
    finally:
        listener.close()
        _remove(path)


def _listen(path: Path) -> trio.socket.SocketType:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove(path)  # of a mount that was killed
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
        path.chmod(0o600)
        listener.listen(MAX_CLIENTS)
        return trio.socket.from_stdlib_socket(listener)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(directory)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


class _Control:
    """Answers clients."""

    def __init__(self, fs: Controlled, leave: Callable[[], None]) -> None:
        self._fs = fs
        self._leave = leave
        self._clients = trio.CapacityLimiter(MAX_CLIENTS)

    async def serve(self, listener: trio.socket.SocketType) -> None:
        """Take clients, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._clients.acquire_on_behalf_of(token := object())
                try:
                    client, _ = await listener.accept()
                except OSError as error:  # the client is gone already, or we have no descriptors
                    log.warning("control socket: %s", error)
                    self._clients.release_on_behalf_of(token)
                    await trio.sleep(PROGRESS)
                    continue
                nursery.start_soon(self._meet, trio.SocketStream(client), token)

    async def _meet(self, client: trio.SocketStream, token: object) -> None:
        try:
            async with client:
                await self._answer(client)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("a client of the control socket has gone")
        except* Exception:  # a bug here must not end the mount
            log.exception("answering on the control socket")
        finally:
            self._clients.release_on_behalf_of(token)

    async def _answer(self, client: trio.SocketStream) -> None:
        if not _may_ask(client.socket):
            await _send(client, {"error": "this is another user's mount"})
            return
        try:
            verb = verb_of(await _line(client))
        except FormatError as error:
            await _send(client, {"error": str(error)})
            return
        if verb == "flush":
            await self._flush(client)
            return
        if verb == "leave":
            self._leave()
        await _send(client, {"status": await self._status()})

    async def _status(self) -> dict[str, Any]:
        return status_object(await self._fs.status())

    async def _flush(self, client: trio.SocketStream) -> None:
        errors: tuple[LafsError, ...] | None = None

        async def work() -> None:
            nonlocal errors
            errors = await self._fs.flush_all()
            nursery.cancel_scope.cancel()

        async def gone() -> None:
            await client.receive_some(1)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            nursery.start_soon(gone)
            while True:
                began = trio.current_time()
                await _send(client, {"status": await self._status()})
                await trio.sleep(max(PROGRESS, 5 * (trio.current_time() - began)))
        if errors is not None:
            told = [str(error) or type(error).__name__ for error in errors]
            await _send(client, {"status": await self._status(), "errors": told})


def _may_ask(client: trio.socket.SocketType) -> bool:
    """Whether a client runs as the user who mounted, or as root."""
    raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    return uid in (0, os.geteuid())


async def _line(client: trio.SocketStream) -> bytes:
    """What a client asks. Raises FormatError if it does not get to the point."""
    received = b""
    with trio.move_on_after(PATIENCE):
        while b"\n" not in received and len(received) < MAX_REQUEST:
            data = await client.receive_some(MAX_REQUEST)
            if not data:
                break
            received += data
    line, newline, _ = received.partition(b"\n")
    if not newline:
        raise FormatError("a request without an end")
    return line


async def _send(client: trio.SocketStream, message: dict[str, Any]) -> None:
    """Raises BrokenResourceError if the client does not take it."""
    with trio.move_on_after(PATIENCE) as scope:
        await client.send_all(pack(message))
    if scope.cancelled_caught:
        raise trio.BrokenResourceError
