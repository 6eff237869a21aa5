"""Sealed blobs on the local disk: at most so many bytes, and the least recently used go first.

Theory. A *shelf* is what belongs together: the segments of one file, say. Who opens it brings what
identifies and unlocks it; with the client's own secret mixed in, that gives the key that seals its
blobs and the names of their files. So somebody who finds the directory learns how much is cached
and nothing else, and who changes it, or loses half of it, makes blobs that do not open: those are
deleted and count as never kept. Nothing is synchronised to the disk, and nothing needs to be.

Rules:

- A blob is one file, written under another name and renamed. The newest use is the file's time of
  modification, so that the order of use survives everything that the files survive.
- :meth:`Shelf.keep` never waits and may be ignored: what is to be written waits in a bounded
  buffer, and what does not fit in there is not kept.
- The bound is kept by deleting the oldest down to :data:`LOW_WATER` of it, and counts whole disk
  blocks. Other mounts may use the directory at the same time: what they added is found out by
  looking again, every time that a part of the bound was written.
- A disk that is full, or nearly so, is not filled further. Caching never makes a read fail.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import time
from collections import OrderedDict
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.crypto import aes, base32
from lafsfs.crypto.hashes import derive_key, tagged_hash
from lafsfs.errors import ConfigError, HashMismatchError
from lafsfs.grid.asking import plain_errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

log = logging.getLogger(__name__)

BUFFER_SIZE: Final = 16 << 20  # bytes waiting to be written: a burst of read-ahead
LOW_WATER: Final = 0.95  # of the bound is left by a clean-up, so that not every blob needs one
LOOK_AGAIN: Final = 1 / 16  # of the bound is written between two looks at the directory
RESERVE: Final = 256 << 20  # bytes of the volume that are left to others
SULK: Final = 60.0  # seconds without writing, after the disk refused or was full
BLOCK: Final = 4096  # bytes: what files take at least, and in steps of

_NAME_TAG: Final = b"lafsfs_cache_name_v1"
_NAME_SIZE: Final = 20  # bytes of hash: two blobs never share a name by chance
_DRAFTS: Final = "drafts"


@dataclass(frozen=True, slots=True)
class _Blob:
    """One to be written."""

    name: str
    key: bytes = field(repr=False)
    data: bytes = field(repr=False)


class Shelf:
    """What belongs together; made by :meth:`DiskCache.shelf`, and as good as any other of its like.

    Numbers tell its blobs apart.
    """

    def __init__(self, cache: DiskCache, key: bytes) -> None:
        self._cache = cache
        self._key = key

    async def load(self, number: int) -> bytes | None:
        """The blob of that number, just as it was kept; ``None`` if it is not here (any more)."""
        return await self._cache.load(self._name(number), self._key)

    def keep(self, number: int, data: bytes) -> None:
        """Write it down when there is time, if there is room."""
        self._cache.keep(_Blob(self._name(number), self._key, data))

    def _name(self, number: int) -> str:
        return base32.encode(tagged_hash(_NAME_TAG, self._key + b"%d" % number, _NAME_SIZE))


class DiskCache:
    """Made by :meth:`open`."""

    def __init__(self, directory: Path, secret: bytes, max_bytes: int, reserve: int) -> None:
        self._directory = directory
        self._secret = secret
        self._max_bytes = max_bytes
        self._reserve = reserve
        self._sizes: OrderedDict[str, int] = OrderedDict()  # bytes on the disk, oldest use first
        self._total = 0
        self._looked = False  # whether ``_sizes`` is complete
        self._written = 0  # bytes since the last look
        self._waiting: OrderedDict[str, _Blob] = OrderedDict()
        self._buffered = 0
        self._more = trio.Event()
        self._idle = trio.Event()
        self._sulks_until = float("-inf")

    @classmethod
    @asynccontextmanager
    async def open(
        cls, directory: Path, secret: bytes, max_bytes: int, *, reserve: int = RESERVE
    ) -> AsyncIterator[DiskCache]:
        """A cache in ``directory``, made 0700 if it is not there.

        Args:
            secret: the client's; another one finds nothing of this one's.
            max_bytes: of disk space.
            reserve: bytes of the volume to leave free.

        Raises:
            ConfigError: the directory cannot be used.
        """
        try:
            await trio.to_thread.run_sync(_make_directories, directory)
        except OSError as error:
            raise ConfigError(f"cannot cache in {directory}: {error.strerror}") from None
        cache = cls(directory, secret, max_bytes, reserve)
        with plain_errors():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cache._write_all)
                yield cache
                nursery.cancel_scope.cancel()

    @property
    def size(self) -> int:
        """Bytes of disk space taken, as far as is known."""
        return self._total

    def shelf(self, identity: bytes) -> Shelf:
        """What belongs to ``identity``, which is as secret as the blobs are to be."""
        return Shelf(self, derive_key(self._secret, b"cache shelf:" + identity))

    async def load(self, name: str, key: bytes) -> bytes | None:
        """See :meth:`Shelf.load`."""
        waiting = self._waiting.get(name)
        if waiting is not None or (self._looked and name not in self._sizes):
            await trio.lowlevel.checkpoint()
            return None if waiting is None else waiting.data
        data = await trio.to_thread.run_sync(_read, self._path(name), name, key)
        if data is None:
            self._total -= self._sizes.pop(name, 0)
        elif name in self._sizes:
            self._sizes.move_to_end(name)
        return data

    def keep(self, blob: _Blob) -> None:
        """See :meth:`Shelf.keep`."""
        size = len(blob.data)
        if blob.name in self._sizes or blob.name in self._waiting:
            return
        if self._buffered + size > BUFFER_SIZE or 2 * size > self._max_bytes:
            return
        if trio.current_time() < self._sulks_until:
            return
        self._waiting[blob.name] = blob
        self._buffered += size
        self._more.set()

    async def settled(self) -> None:
        """Wait until all that waits to be written is."""
        while self._waiting:
            if self._idle.is_set():
                self._idle = trio.Event()
            await self._idle.wait()

    def _path(self, name: str) -> Path:
        return self._directory / name[:2] / name

    # --- writing ----------------------------------------------------------------------------------

    async def _write_all(self) -> None:
        await self._look()
        while True:
            if not self._waiting:
                self._idle.set()
                self._more = trio.Event()
                await self._more.wait()
            await self._write(next(iter(self._waiting.values())))

    async def _write(self, blob: _Blob) -> None:
        try:
            size = await trio.to_thread.run_sync(self._store, blob)
        except OSError as error:
            self._sulks_until = trio.current_time() + SULK
            if error.errno != errno.ENOSPC:
                log.warning("nothing is cached on the disk for a while: %s", error)
        else:
            self._sizes[blob.name] = size
            self._total += size
            self._written += size
        del self._waiting[blob.name]
        self._buffered -= len(blob.data)
        if self._written > LOOK_AGAIN * self._max_bytes:
            await self._look()
        await self._make_room()

    def _store(self, blob: _Blob) -> int:
        """Write one blob. Raises OSError, ENOSPC also where there is little room left."""
        if self._reserve:
            volume = os.statvfs(self._directory)
            if volume.f_bavail * volume.f_frsize < self._reserve:
                raise OSError(errno.ENOSPC, "the volume is nearly full")
        nonce = secrets.token_bytes(aes.NONCE_SIZE)
        sealed = aes.seal(blob.key, nonce, blob.data, blob.name.encode())
        path = self._path(blob.name)
        draft = self._directory / _DRAFTS / secrets.token_hex(8)
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(nonce)
                file.write(sealed)
            try:
                draft.replace(path)
            except FileNotFoundError:
                path.parent.mkdir(mode=0o700, exist_ok=True)
                draft.replace(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        return _on_disk(len(nonce) + len(sealed))

    async def _make_room(self) -> None:
        if self._total <= self._max_bytes:
            return
        names: list[str] = []
        while self._sizes and self._total > LOW_WATER * self._max_bytes:
            name, size = self._sizes.popitem(last=False)
            self._total -= size
            names.append(name)
        await trio.to_thread.run_sync(_delete, [self._path(name) for name in names])

    async def _look(self) -> None:
        """Find out what is there, in the order of use."""
        self._written = 0
        found = await trio.to_thread.run_sync(_list, self._directory)
        self._sizes = OrderedDict(found)
        self._total = sum(self._sizes.values())
        self._looked = True
        await self._make_room()


# --- in threads -----------------------------------------------------------------------------------


def _make_directories(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / _DRAFTS).mkdir(mode=0o700, exist_ok=True)


def _read(path: Path, name: str, key: bytes) -> bytes | None:
    """A blob, and note its use. What does not open is deleted."""
    try:
        raw = path.read_bytes()
        nonce = raw[: aes.NONCE_SIZE]
        if len(nonce) < aes.NONCE_SIZE:
            raise HashMismatchError("it is cut short")
        data = aes.open_sealed(key, nonce, memoryview(raw)[aes.NONCE_SIZE :], name.encode())
        os.utime(path)
    except HashMismatchError:
        _delete([path])
        return None
    except OSError:
        return None
    return data


def _delete(paths: list[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink()


def _list(directory: Path) -> list[tuple[str, int]]:
    """The names and sizes of all blobs, oldest use first. Drafts of dead mounts are deleted."""
    found: list[tuple[int, str, int]] = []
    for shelf in _entries(directory):
        if shelf.name == _DRAFTS:
            _delete_old_drafts(directory / _DRAFTS)
            continue
        for entry in _entries(shelf):
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                found.append((status.st_mtime_ns, entry.name, _on_disk(status.st_size)))
    found.sort()
    return [(name, size) for _, name, size in found]


def _entries(directory: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError:
        return []


def _delete_old_drafts(directory: Path) -> None:
    limit = time.time() - 3600  # seconds: nobody writes one blob for an hour
    for draft in _entries(directory):
        with suppress(OSError):
            if draft.stat().st_mtime < limit:
                os.unlink(draft)


def _on_disk(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
