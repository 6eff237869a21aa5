"""Where the shares of immutable files were seen, across mounts: a help and never a verdict.

With it the first byte of a file costs one round trip instead of two: the shares are read where they
were last time, and only if that does not work are the servers asked again. Beside the places stands
the file's segment size, so that the numbers of cached segments are right from the first read on.

Rules:

- Bounded: the files not used for the longest time are forgotten.
- On the disk it is one file, sealed under a key that derives from the client's own secret, replaced
  atomically every so often while it changes, and at the end. A crash forgets the newest notes.
- A file that cannot be opened or understood is an empty memory. What another mount wrote meanwhile
  is kept where we know nothing better.

The layout, inside the seal: see :func:`pack` and :func:`parse`, which are pure.
"""

from __future__ import annotations

import logging
import os
import secrets
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import trio
from cachetools import LRUCache

from lafsfs.crypto import aes
from lafsfs.crypto.hashes import derive_key
from lafsfs.errors import FormatError
from lafsfs.grid.asking import plain_errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

MAX_FILES: Final = 20_000  # about 100 bytes each with ten shares: 2 MB on the disk
SAVE_INTERVAL: Final = 30.0  # seconds between two writes of a memory that keeps changing
MAX_SIZE: Final = 64 << 20  # bytes; a larger file was not written by us

_MAGIC: Final = b"lafsfs places 1\n"
_INDEX_SIZE: Final = 16
_SERVER_SIZE: Final = 20
_FILE: Final = struct.Struct(f">{_INDEX_SIZE}sIH")  # storage index, segment size, servers
_SERVER: Final = struct.Struct(">HH")  # which server, how many shares


@dataclass(frozen=True, slots=True)
class Places:
    """What is remembered of one file.

    ``shares``: 20-byte server id -> numbers of the shares seen there. ``segment_size``: in bytes, 0
    where it is not known.
    """

    shares: Mapping[bytes, frozenset[int]] = field(default_factory=lambda: MappingProxyType({}))
    segment_size: int = 0


class PlaceMemory:
    """Places by storage index. All methods but :meth:`save` answer at once, from memory."""

    def __init__(self, path: Path | None, secret: bytes, max_files: int = MAX_FILES) -> None:
        """``path`` of the file, or ``None`` to forget at the end; ``secret``: the client's."""
        self._path = path
        self._key = derive_key(secret, b"share places")
        self._places: LRUCache[bytes, Places] = LRUCache(max_files)
        self._changed = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls, path: Path | None, secret: bytes, max_files: int = MAX_FILES
    ) -> AsyncIterator[PlaceMemory]:
        """What is in the file, if there is one; kept up to date while the context lasts."""
        memory = cls(path, secret, max_files)
        memory._places.update(await trio.to_thread.run_sync(memory._load))
        try:
            with plain_errors():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(memory._keep_saving)
                    yield memory
                    nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await memory.save()

    def __len__(self) -> int:
        return len(self._places)

    def recall(self, storage_index: bytes) -> Places | None:
        """What was noted last."""
        found: Places | None = self._places.get(storage_index)
        return found

    def note(self, storage_index: bytes, places: Places) -> None:
        """Remember this instead of what was noted before."""
        if self._places.get(storage_index) != places:
            self._places[storage_index] = places
            self._changed = True

    async def save(self) -> None:
        """Write it down, if there is anything new. A disk that does not take it is logged."""
        if self._path is None or not self._changed:
            return
        self._changed = False
        ours = dict(self._places)
        try:
            await trio.to_thread.run_sync(self._store, self._path, ours)
        except OSError as error:
            log.warning("share locations are not saved: %s", error)

    async def _keep_saving(self) -> None:
        while True:
            await trio.sleep(SAVE_INTERVAL)
            await self.save()

    # --- in threads -------------------------------------------------------------------------------

    def _load(self) -> dict[bytes, Places]:
        if self._path is None:
            return {}
        try:
            with self._path.open("rb") as file:
                raw = file.read(MAX_SIZE + 1)
            if len(raw) > MAX_SIZE or not raw.startswith(_MAGIC):
                raise FormatError("it is no such file")
            nonce, sealed = (
                raw[len(_MAGIC) :][: aes.NONCE_SIZE],
                raw[len(_MAGIC) + aes.NONCE_SIZE :],
            )
            if len(nonce) != aes.NONCE_SIZE:
                raise FormatError("it is cut short")
            return parse(aes.open_sealed(self._key, nonce, sealed, _MAGIC))
        except FileNotFoundError:
            return {}
        except (OSError, FormatError) as error:
            log.info("share locations start anew: %s", error)
            return {}

    def _store(self, path: Path, ours: dict[bytes, Places]) -> None:
        theirs = {index: known for index, known in self._load().items() if index not in ours}
        room = max(0, int(self._places.maxsize) - len(ours))
        merged = dict(list(theirs.items())[-room:] if room else [])
        nonce = secrets.token_bytes(aes.NONCE_SIZE)
        sealed = aes.seal(self._key, nonce, pack(merged | ours), _MAGIC)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(_MAGIC + nonce + sealed)
            draft.replace(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise


# --- the layout, PURE -----------------------------------------------------------------------------


def pack(places: Mapping[bytes, Places]) -> bytes:
    """The notes as bytes, in their order: a table of server ids, then one record for each file."""
    servers = {s: i for i, s in enumerate({s: None for p in places.values() for s in p.shares})}
    parts = [struct.pack(">H", len(servers)), *servers]
    for storage_index, known in places.items():
        parts.append(_FILE.pack(storage_index, known.segment_size, len(known.shares)))
        for server_id, shnums in known.shares.items():
            parts.append(_SERVER.pack(servers[server_id], len(shnums)))
            parts.append(bytes(sorted(shnums)))
    return b"".join(parts)


def parse(data: bytes) -> dict[bytes, Places]:
    """What :func:`pack` packed. Raises FormatError for anything else."""
    try:
        return dict(_records(data))
    except (struct.error, IndexError) as error:
        raise FormatError("share locations are cut short") from error


def _records(data: bytes) -> list[tuple[bytes, Places]]:
    (count,) = struct.unpack_from(">H", data)
    position = 2 + count * _SERVER_SIZE
    if position > len(data):
        raise FormatError("share locations are cut short")
    servers = [data[i : i + _SERVER_SIZE] for i in range(2, position, _SERVER_SIZE)]
    records: list[tuple[bytes, Places]] = []
    while position < len(data):
        storage_index, segment_size, holders = _FILE.unpack_from(data, position)
        position += _FILE.size
        shares: dict[bytes, frozenset[int]] = {}
        for _ in range(holders):
            server, many = _SERVER.unpack_from(data, position)
            position += _SERVER.size
            shnums = data[position : position + many]
            if len(shnums) != many:
                raise FormatError("share locations are cut short")
            shares[servers[server]] = frozenset(shnums)
            position += many
        records.append((storage_index, Places(MappingProxyType(shares), segment_size)))
    return records
