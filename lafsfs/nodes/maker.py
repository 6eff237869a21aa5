"""From capabilities to nodes, and from contents to capabilities.

The maker holds what every node needs (servers, secrets, encoding, keys, caches). Rules:

- One node for each capability: as long as anybody uses it, everybody gets the same one, with its
  caches and its lock. Unused nodes are forgotten.
- A write capability and its read capability have different nodes: rights come from the capability
  that was asked for, never from what else is known.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakValueDictionary

import trio

from lafsfs.caps import (
    CHKCap,
    DirectoryCap,
    LiteralCap,
    MutableReadCap,
    MutableWriteCap,
    UnknownCap,
    slots_of,
)
from lafsfs.crypto.hashes import ssk_writekey
from lafsfs.errors import BadCapabilityError, DeepImmutableError, NotADirectoryNodeError
from lafsfs.formats.dirtable import make_entry, pack_table
from lafsfs.formats.geometry import planned_segment_size
from lafsfs.immutable import BytesSource, CHKFile, upload
from lafsfs.immutable.source import begin_hash
from lafsfs.mutable.encode import SlotKeys
from lafsfs.mutable.file import MutableFile, create
from lafsfs.nodes.dirnode import DirectoryNode
from lafsfs.nodes.edits import attenuated, normalized, stamped
from lafsfs.nodes.filenode import ImmutableFile, LiteralFile, MutableFileNode, UnknownNode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lafsfs.cache.places import PlaceMemory
    from lafsfs.caps import Cap, FileCap, MutableFormat
    from lafsfs.crypto.rsa import SigningKey
    from lafsfs.grid.broker import Broker
    from lafsfs.grid.encoding import Encoding
    from lafsfs.grid.secrets import ClientSecrets
    from lafsfs.immutable import SegmentCache, Source
    from lafsfs.immutable.source import Hashed
    from lafsfs.mutable.contents import ContentsCache
    from lafsfs.mutable.keypool import KeyPool
    from lafsfs.nodes.edits import Metadata

File: TypeAlias = LiteralFile | ImmutableFile | MutableFileNode
Node: TypeAlias = File | DirectoryNode | UnknownNode


@dataclass(frozen=True, slots=True)
class Grid:
    """What reading and writing on one grid takes, for one client.

    ``convergence``: mixed into the keys of immutable files, so that equal files are stored once
    among those who share it; ``None`` gives every upload a random key. ``places``: where shares
    were seen in earlier lives of the client.
    """

    broker: Broker
    secrets: ClientSecrets
    encoding: Encoding
    key_pool: KeyPool
    segment_cache: SegmentCache
    contents_cache: ContentsCache
    convergence: bytes | None = field(repr=False)
    places: PlaceMemory | None = None


class NodeMaker:
    """Makes nodes from capabilities, and puts new objects on the grid."""

    def __init__(
        self, grid: Grid, *, host: str | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """``host`` goes into the names of conflicting copies; ``clock`` gives Unix time."""
        self.grid = grid
        self._host = (host or socket.gethostname()).replace("/", "-").replace("\0", "-")
        self._clock = clock
        self._nodes: WeakValueDictionary[Cap | UnknownCap, Node] = WeakValueDictionary()

    def node(self, cap: Cap | UnknownCap) -> Node:
        """The node of ``cap``.

        Raises:
            BadCapabilityError: the capability does not let its holder read.
        """
        node = self._nodes.get(cap)
        if node is None:
            node = self._make(cap)
            self._nodes[cap] = node
        return node

    def directory(self, cap: Cap | UnknownCap) -> DirectoryNode:
        """The node of a directory.

        Raises:
            NotADirectoryNodeError: it is something else.
        """
        node = self.node(cap)
        if not isinstance(node, DirectoryNode):
            raise NotADirectoryNodeError(f"this {cap.kind} capability is not of a directory")
        return node

    async def upload(
        self,
        source: Source,
        key: bytes | None = None,
        placed: Callable[[int], None] = lambda size: None,
    ) -> CHKCap | LiteralCap:
        """Put immutable contents on the grid.

        Args:
            key: where nothing converges, 16 random bytes to use instead of drawing some: written
                down before, they make the upload repeatable.
            placed: told, again and again, how many bytes from the beginning are on servers.

        Raises:
            NotHappyError: too few servers took shares.
        """
        grid = self.grid
        return await upload(
            source,
            broker=grid.broker,
            secrets=grid.secrets,
            encoding=grid.encoding,
            convergence=grid.convergence,
            key=None if grid.convergence is not None else key,
            placed=placed,
        )

    @property
    def is_convergent(self) -> bool:
        """Whether equal files are stored once."""
        return self.grid.convergence is not None

    def begin_hash(self) -> Hashed | None:
        """A hash for the convergent keys of files of a segment or more; None if none converge."""
        grid, encoding = self.grid, self.grid.encoding
        if grid.convergence is None:
            return None
        largest = encoding.max_segment_size
        segment_size = planned_segment_size(largest, encoding.k, largest)
        return begin_hash(encoding.k, encoding.n, segment_size, grid.convergence)

    async def create_mutable(self, format: MutableFormat, contents: bytes) -> MutableFileNode:
        """Make a mutable file with these contents.

        Raises:
            NotHappyError: too few servers took shares.
        """
        key = await self.grid.key_pool.take()
        return await self._create(format, contents, key)

    async def create_directory(
        self,
        format: MutableFormat,
        children: Mapping[str, tuple[Cap | UnknownCap, Metadata]] | None = None,
    ) -> DirectoryNode:
        """Make a directory that can be changed, with these children from the beginning.

        Raises:
            NotHappyError: too few servers took shares.
        """
        key = await self.grid.key_pool.take()
        contents = await self._packed(children or {}, ssk_writekey(key.der))
        backing = await self._create(format, contents, key)
        return self.directory(DirectoryCap(backing.cap))

    async def new_directory(self, format: MutableFormat) -> DirectoryNode:
        """A directory that can be changed, with a key pair of its own and nothing on the grid yet.

        Its first edit makes it.
        """
        return self.restored_directory(format, await self.grid.key_pool.take())

    def restored_directory(self, format: MutableFormat, key: SigningKey) -> DirectoryNode:
        """The new directory whose key pair is ``key``, which may have been made after all."""
        keys = SlotKeys(key)
        cap = DirectoryCap(MutableWriteCap(format, keys.write_key, keys.fingerprint))
        backing = self._file(cap.backing)
        node = DirectoryNode(cap, backing, host=self._host, clock=self._clock, key=key)
        self._nodes[cap] = node
        return node

    async def create_immutable_directory(
        self, children: Mapping[str, tuple[Cap | UnknownCap, Metadata]]
    ) -> DirectoryNode:
        """Make a directory that never changes, nor anything in it.

        Raises:
            DeepImmutableError: a child that could change.
            NotHappyError: too few servers took shares.
        """
        contents = await self._packed(children, None)
        return self.directory(DirectoryCap(await self.upload(BytesSource(contents))))

    async def _create(
        self, format: MutableFormat, contents: bytes, key: SigningKey
    ) -> MutableFileNode:
        grid = self.grid
        file = await create(
            format,
            contents,
            broker=grid.broker,
            secrets=grid.secrets,
            encoding=grid.encoding,
            key=key,
            cache=grid.contents_cache,
            segments=grid.segment_cache,
        )
        node = MutableFileNode(file)
        self._nodes[node.cap] = node
        return node

    async def _packed(
        self,
        children: Mapping[str, tuple[Cap | UnknownCap, Metadata]],
        write_key: bytes | None,
    ) -> bytes:
        now = self._clock()
        return await trio.to_thread.run_sync(_pack, dict(children), write_key, now)

    def _make(self, cap: Cap | UnknownCap) -> Node:
        if isinstance(cap, DirectoryCap):
            return DirectoryNode(cap, self._file(cap.backing), host=self._host, clock=self._clock)
        if isinstance(cap, UnknownCap):
            return UnknownNode(cap)
        return self._make_file(cap)

    def _file(self, cap: FileCap) -> File:
        node = self.node(cap)
        assert isinstance(node, File)
        return node

    def _make_file(self, cap: FileCap) -> File:
        if isinstance(cap, LiteralCap):
            return LiteralFile(cap)
        if isinstance(cap, CHKCap):
            grid = self.grid
            return ImmutableFile(cap, CHKFile(cap, grid.broker, grid.segment_cache, grid.places))
        if isinstance(cap, MutableWriteCap | MutableReadCap):
            return MutableFileNode(self._mutable_file(cap))
        raise BadCapabilityError(f"this {cap.kind} capability verifies and does not read")

    def _mutable_file(self, cap: MutableWriteCap | MutableReadCap) -> MutableFile:
        grid = self.grid
        return MutableFile(
            cap,
            grid.broker,
            grid.secrets,
            encoding=grid.encoding,
            cache=grid.contents_cache,
            segments=grid.segment_cache,
        )


def _pack(
    children: Mapping[str, tuple[Cap | UnknownCap, Metadata]],
    write_key: bytes | None,
    now: float,
) -> bytes:
    """A first table. Without a write key it is one that promises never to change."""
    entries = []
    for name, (cap, metadata) in children.items():
        cap = attenuated(cap, metadata)
        if write_key is None and cap.is_mutable:
            raise DeepImmutableError("a child that can change cannot be in such a directory")
        kept = stamped(metadata, metadata, now)
        entries.append(make_entry(normalized(name), *slots_of(cap), kept, write_key))
    return pack_table(entries)
