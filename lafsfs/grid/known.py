"""The storage directories a client has used, so that an unplugged one is not taken for a new one.

Where a disk was mounted, an empty directory is left when it is gone. Making that into a storage
directory would put shares on the wrong disk under a new identity. So a client notes each directory
it has used, with its identity: one it knows is never made again. While it is away, a server of that
identity stands in its place, unavailable, and works again as soon as the disk is back.

The note is a JSON object in the client's configuration: path -> ``{"id", "seed"}`` in base32.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from lafsfs.crypto import base32
from lafsfs.errors import ConfigError, FormatError, ServerUnavailableError, UsageError
from lafsfs.grid.identity import SERVER_ID_SIZE, Identity
from lafsfs.grid.local import LocalServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_directories(
    directories: Sequence[Path], note: Path, *, reserved: int = 0, read_only: bool = False
) -> AsyncIterator[tuple[LocalServer, ...]]:
    """A server for each directory, in that order. Directories never used before are made.

    ``reserved`` and ``read_only`` are as in :class:`~lafsfs.grid.local.LocalServer`.

    Raises:
        ConfigError: a directory holds something else, or ``note`` cannot be understood.
        ServerUnavailableError: not one of them is there.
        UsageError: one is named twice, or is a copy of another: that is one disk to lose, not two.
    """
    await trio.to_thread.run_sync(_require_distinct, directories)
    known = await trio.to_thread.run_sync(load_known, note)
    async with contextlib.AsyncExitStack() as stack:
        servers: list[LocalServer] = []
        missing: list[ServerUnavailableError] = []
        for directory in directories:
            try:
                server = await LocalServer.open(
                    directory,
                    create=str(directory) not in known,
                    reserved=reserved,
                    read_only=read_only,
                )
            except ServerUnavailableError as error:
                if str(directory) not in known:
                    raise
                missing.append(error)
                server = LocalServer(directory, known[str(directory)])
            stack.push_async_callback(server.aclose)
            servers.append(server)
        if missing and len(missing) == len(servers):
            raise missing[0]
        for away in missing:
            log.warning("going on without a storage directory: %s", away)
        _require_one_each(servers)
        found = {
            server.name: Identity(server.server_id, server.permutation_seed) for server in servers
        }
        if any(known.get(name) != identity for name, identity in found.items()):
            await trio.to_thread.run_sync(save_known, note, {**known, **found})
        yield tuple(servers)


def _require_distinct(directories: Sequence[Path]) -> None:
    seen: set[Path] = set()
    for directory in directories:
        there = directory.resolve()
        if there in seen:
            raise UsageError(f"the storage directory {directory} is named twice")
        seen.add(there)


def _require_one_each(servers: Sequence[LocalServer]) -> None:
    names: dict[bytes, str] = {}
    for server in servers:
        other = names.setdefault(server.server_id, server.name)
        if other != server.name:
            raise UsageError(
                f"{other} and {server.name} have one identity: they are the same storage "
                "directory, or one is a copy of the other"
            )


def load_known(note: Path) -> dict[str, Identity]:
    """What was noted; nothing if there is no note yet. Raises ConfigError."""
    try:
        table = json.loads(note.read_text(encoding="utf-8"))
        return {path: _identity(entry) for path, entry in table.items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"cannot read {note}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, FormatError):
        raise ConfigError(f"{note} does not list storage directories; remove it") from None


def _identity(entry: Mapping[str, Any]) -> Identity:
    return Identity(base32.decode(entry["id"], SERVER_ID_SIZE), base32.decode(entry["seed"]))


def save_known(note: Path, known: Mapping[str, Identity]) -> None:
    """Replace the note, atomically. Raises ConfigError."""
    table = {
        path: {
            "id": base32.encode(identity.server_id),
            "seed": base32.encode(identity.permutation_seed),
        }
        for path, identity in known.items()
    }
    draft = note.with_name(f".{note.name}.{os.getpid()}")
    try:
        draft.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        draft.replace(note)
    except OSError as error:
        raise ConfigError(f"cannot write {note}: {error.strerror}") from None
