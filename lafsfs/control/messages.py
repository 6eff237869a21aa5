"""What is said on a mount's control socket: one JSON object a line.

The client sends one request, ``{"version": 1, "verb": ...}``, and reads replies until the end:

    status    {"status": {...}}
    flush     {"status": {...}} every now and then; then, with "errors" beside it, the last one
    leave     {"status": {...}}: the mount does not wait for the grid when it ends

A request that cannot be met is answered with ``{"error": "..."}``. What ``status`` has is
:class:`lafsfs.vfs.status.Status`, field by field; fields that a client does not know it leaves out.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final, TypeVar

from lafsfs.errors import FormatError
from lafsfs.vfs.status import PendingFile, ServerState, State, Status

VERSION: Final = 1
MAX_REQUEST: Final = 4096  # bytes
VERBS: Final = ("status", "flush", "leave")

T = TypeVar("T")


def pack(message: dict[str, Any]) -> bytes:
    """One line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def parse(line: bytes) -> dict[str, Any]:
    """One line back. Raises FormatError if it is not an object in JSON."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise FormatError("a message that is not JSON") from None
    if not isinstance(message, dict):
        raise FormatError("a message that is not an object")
    return message


def request(verb: str) -> bytes:
    """What the client sends."""
    return pack({"version": VERSION, "verb": verb})


def verb_of(line: bytes) -> str:
    """What a client asks for. Raises FormatError for what this version does not know."""
    message = parse(line)
    if message.get("version") != VERSION:
        raise FormatError("the mount and this command are of different versions of lafsfs")
    verb = message.get("verb")
    if verb not in VERBS:
        raise FormatError("a request that this version does not know")
    return str(verb)


def status_object(status: Status) -> dict[str, Any]:
    """A status in JSON's terms."""
    values = dataclasses.asdict(status)
    for file, values_of_file in zip(status.pending, values["pending"], strict=True):
        values_of_file["state"] = file.state.value
    values["unnamed"] = status.unnamed
    return values


def parse_status(values: object) -> Status:
    """A status back. Raises FormatError."""
    try:
        assert isinstance(values, dict)
        values["pending"] = tuple(map(_pending_file, values["pending"]))
        values["servers"] = tuple(_made(ServerState, server) for server in values["servers"])
        return _made(Status, values)
    except (AssertionError, KeyError, TypeError, ValueError):
        raise FormatError("a status that this version does not understand") from None


def _pending_file(values: dict[str, Any]) -> PendingFile:
    return _made(PendingFile, {**values, "state": State(values["state"])})


def _made(kind: type[T], values: dict[str, Any]) -> T:
    """A record from the fields that it has."""
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in known})
