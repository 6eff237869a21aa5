"""What an upload reads: contents of a known size that can be read more than once.

A convergent upload reads everything twice, once for the key and once to encrypt. In between the
contents must not change, and the upload checks that they did not: two different texts under one
key would give away their difference.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import trio

from lafsfs.crypto.hashes import TaggedHasher, convergence_key_hasher
from lafsfs.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


Parameters: TypeAlias = tuple[int, int, int, bytes]  # k, n, bytes of a segment, secret


class SourceChangedError(LocalError):
    """The contents were not the same bytes each time they were read, or not as many as promised."""


class Source(Protocol):
    """Contents to upload."""

    @property
    def size(self) -> int:
        """Bytes in all; does not change."""

    async def read(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes at ``offset``; any range in the contents, any number of times."""


@dataclass(frozen=True, slots=True)
class Hashed:
    """A hash for the convergent key, under way: of the first ``length`` bytes of some contents.

    ``parameters``: what else the key depends on; see :func:`begin_hash`.
    """

    parameters: Parameters = field(repr=False)
    hasher: TaggedHasher = field(repr=False)
    length: int = 0


def begin_hash(k: int, n: int, segment_size: int, secret: bytes) -> Hashed:
    """A hash of nothing so far, for an encoding, the size of its segments, and the secret."""
    return Hashed((k, n, segment_size, secret), convergence_key_hasher(k, n, segment_size, secret))


@runtime_checkable
class SteadySource(Source, Protocol):
    """Contents that cannot change, because every byte of them is authenticated when it is read.

    They are not checked a second time, and hashing goes on from what was hashed already.
    """

    @property
    def hashed(self) -> Hashed | None:
        """What was hashed of them while they were written."""


class BytesSource:
    """Contents in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self._data)

    async def read(self, offset: int, size: int) -> bytes:
        """A slice."""
        await trio.lowlevel.checkpoint()
        return self._data[offset : offset + size]


class FileSource:
    """A local file, as long as it was when it was opened. Made by :func:`open_source`."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self.size = size

    async def read(self, offset: int, size: int) -> bytes:
        """Read in a worker thread. Raises OSError as the system does."""
        return await trio.to_thread.run_sync(self._read, offset, size)

    def _read(self, offset: int, size: int) -> bytes:
        parts = []
        while size > 0:
            data = os.pread(self._descriptor, size, offset)
            if not data:
                break
            parts.append(data)
            offset, size = offset + len(data), size - len(data)
        return b"".join(parts)


@asynccontextmanager
async def open_source(path: str | os.PathLike[str]) -> AsyncIterator[FileSource]:
    """Open a local file to upload it. Raises OSError as the system does."""
    descriptor = await trio.to_thread.run_sync(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield FileSource(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


async def read_exactly(source: Source, offset: int, size: int) -> bytes:
    """Read, and check that as much came as was asked for.

    Raises:
        SourceChangedError: the source is shorter than it said (or answers with too much).
    """
    data = await source.read(offset, size)
    if len(data) != size:
        raise SourceChangedError(
            f"what is being uploaded changed: {len(data)} bytes at {offset} instead of {size}"
        )
    return data
