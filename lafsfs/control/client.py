"""The command line's side of a mount's control socket. Blocking, and quick to import."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lafsfs.control.messages import parse, parse_status, request
from lafsfs.errors import FormatError, LocalError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from lafsfs.vfs.status import Status

PATIENCE: Final = 30.0  # seconds for the mount to say anything


class NoAnswerError(LocalError):
    """Nobody answers on the socket, or not in time."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. ``errors``: with the last one of a flush, why things are not on the grid."""

    status: Status
    errors: tuple[str, ...] | None = None


def ask(path: Path, verb: str) -> Generator[Reply, None, None]:
    """The answers to one request. Closing the iterator takes the request back.

    Raises:
        NoAnswerError: there is no mount, or it does not answer.
        LocalError: it refuses.
        FormatError: it says what this version does not understand.
    """
    try:
        with _connected(path) as connection, connection.makefile("rb") as replies:
            connection.sendall(request(verb))
            for line in replies:
                yield _reply(line)
    except TimeoutError:
        raise NoAnswerError("the mount does not answer") from None
    except (ConnectionError, FileNotFoundError):
        raise NoAnswerError("there is no mount that answers") from None
    except OSError as error:
        raise LocalError(f"cannot ask the mount: {error.strerror}") from None


def _reply(line: bytes) -> Reply:
    message = parse(line)
    if "error" in message:
        raise LocalError(str(message["error"]))
    errors = message.get("errors")
    if errors is not None and not isinstance(errors, list):
        raise FormatError("errors that are no list")
    told = None if errors is None else tuple(map(str, errors))
    return Reply(parse_status(message.get("status")), told)


@contextmanager
def _connected(path: Path) -> Iterator[socket.socket]:
    """A connection; through the directory, since a socket's path has 107 bytes at most."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(f"/proc/self/fd/{directory}/{path.name}")
            yield connection
    finally:
        os.close(directory)
