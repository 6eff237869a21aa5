"""Contents on their way between local files and the grid, a piece at a time.

Nothing is held in memory but a few pieces, except of mutable files, which are written whole.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
import tempfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, TypeAlias

import trio

from lafsfs.caps import MutableFormat, MutableReadCap, MutableWriteCap
from lafsfs.crypto import aes
from lafsfs.errors import IsADirectoryNodeError, LocalError, NotSupportedError
from lafsfs.immutable import FileSource
from lafsfs.nodes.filenode import ImmutableFile, LiteralFile, MutableFileNode

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator
    from pathlib import Path

    from lafsfs.caps import Cap, UnknownCap
    from lafsfs.immutable import Source
    from lafsfs.nodes.listing import Child
    from lafsfs.nodes.maker import File, NodeMaker

PIECE = 4 << 20  # bytes: some segments at once, so that their fetches overlap
MAX_MUTABLE_SIZE = 1 << 30  # bytes: a mutable file is encoded in memory


Pieces: TypeAlias = "AsyncGenerator[bytes, None]"


@dataclass(frozen=True, slots=True)
class Counted:
    """A source that tells how many bytes were read from it, each pass anew."""

    source: Source
    progress: Callable[[int], None]

    @property
    def size(self) -> int:
        return self.source.size

    async def read(self, offset: int, size: int) -> bytes:
        data = await self.source.read(offset, size)
        self.progress(len(data))
        return data


class SealedSpool:
    """A stream, kept so that it can be read twice: on disk, but unreadable there.

    The key exists in memory only and the file has no name.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._key = secrets.token_bytes(32)
        self.size = 0

    def fill(self, stream: IO[bytes]) -> None:
        """Append everything that ``stream`` has."""
        while data := stream.read(PIECE):
            self._file.write(aes.ctr(self._key, data, self.size))
            self.size += len(data)
        self._file.flush()

    async def read(self, offset: int, size: int) -> bytes:
        return await trio.to_thread.run_sync(self._read, offset, size)

    def _read(self, offset: int, size: int) -> bytes:
        sealed = os.pread(self._file.fileno(), size, offset)
        return aes.ctr(self._key, sealed, offset)


@contextlib.contextmanager
def local_source(path: Path | None) -> Iterator[Source]:
    """A local file to upload, or all of standard input (None).

    Raises:
        LocalError: it cannot be read.
    """
    with local_errors(path or "standard input"), contextlib.ExitStack() as stack:
        file = sys.stdin.buffer if path is None else stack.enter_context(open(path, "rb"))
        status = None if path is None else os.fstat(file.fileno())
        if status is not None and stat.S_ISREG(status.st_mode):
            yield FileSource(file.fileno(), status.st_size)
        else:  # a pipe or a device: it has no size, and cannot be read twice
            spool = SealedSpool(stack.enter_context(tempfile.TemporaryFile()))
            spool.fill(file)
            yield spool


@contextlib.contextmanager
def local_errors(what: Path | str) -> Iterator[None]:
    """Say which local file an OSError was about."""
    try:
        yield
    except OSError as error:
        raise LocalError(f"{what}: {error.strerror or error}") from error


async def upload(
    maker: NodeMaker, source: Source, format: MutableFormat | None, existing: Child | None
) -> Cap | UnknownCap:
    """Store contents: in place in a mutable file that is there, otherwise as a new file.

    ``format``: None keeps what is there, and makes new files immutable.
    """
    if existing is not None and format in (None, _format_of(existing.cap)):
        node = maker.node(existing.cap)
        if isinstance(node, MutableFileNode) and node.can_write:
            await node.overwrite(await _whole(source))
            return existing.cap
    if format is None:
        return await maker.upload(source)
    return (await maker.create_mutable(format, await _whole(source))).cap


def _format_of(cap: Cap | UnknownCap) -> MutableFormat | None:
    return cap.format if isinstance(cap, MutableWriteCap | MutableReadCap) else None


async def _whole(source: Source) -> bytes:
    if source.size > MAX_MUTABLE_SIZE:
        raise NotSupportedError(
            "this is too big for a mutable file; --format chk has no such limit"
        )
    return await source.read(0, source.size)


async def contents(maker: NodeMaker, cap: Cap | UnknownCap) -> tuple[int, Pieces]:
    """The size of a file, and its contents in pieces.

    Raises:
        IsADirectoryNodeError: it is a directory.
        NotSupportedError: of a kind this version cannot read.
    """
    node = maker.node(cap)
    if cap.is_directory:
        raise IsADirectoryNodeError("this is a directory; mount it, or get what is in it")
    if isinstance(node, MutableFileNode):
        _, data = await node.contents()  # one version, however long it takes to write it out
        return len(data), _slices(data)
    if isinstance(node, LiteralFile | ImmutableFile):
        size = await node.size()
        return size, _pieces(node, size)
    raise NotSupportedError("this child is of a kind that this version cannot read")


async def _pieces(node: File, size: int) -> Pieces:
    for offset in range(0, size, PIECE):
        yield await node.read(offset, PIECE)


async def _slices(data: bytes) -> Pieces:
    for offset in range(0, len(data), PIECE):
        yield data[offset : offset + PIECE]


@contextlib.contextmanager
def local_sink(path: Path | None) -> Iterator[IO[bytes]]:
    """A local file that appears only when it is complete, or standard output.

    Raises:
        LocalError: it cannot be written.
    """
    with local_errors(path or "standard output"):
        if path is None:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
            return
        with _incomplete(path) as file:
            yield file


@contextlib.contextmanager
def _incomplete(path: Path) -> Iterator[IO[bytes]]:
    if path.exists() and not path.is_file():
        with open(path, "wb") as special:  # a device, a fifo
            yield special
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
