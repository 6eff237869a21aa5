"""Files made operable: one small face over literal, immutable and mutable ones.

A node is cheap to make and does nothing until asked. Whoever wants one asks the
:class:`~lafsfs.nodes.maker.NodeMaker`, which keeps one node for each capability, so that caches
and locks inside are shared by all that use the same object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from lafsfs.errors import ReadOnlyCapabilityError, UncoordinatedWriteError
from lafsfs.mutable.encode import SlotKeys
from lafsfs.nodes.health import Health

if TYPE_CHECKING:
    from collections.abc import Callable

    from lafsfs.cache.segments import Prefetch
    from lafsfs.caps import (
        Cap,
        CHKCap,
        FileCap,
        LiteralCap,
        MutableReadCap,
        MutableWriteCap,
        UnknownCap,
    )
    from lafsfs.crypto.rsa import SigningKey
    from lafsfs.immutable import CHKFile
    from lafsfs.mutable.file import Before, MutableFile
    from lafsfs.mutable.servermap import Version

Modifier: TypeAlias = "Callable[[bytes], bytes | None]"


class FileNode(Protocol):
    """What every readable file can do."""

    @property
    def cap(self) -> FileCap:
        """The capability the node was made from."""

    async def size(self) -> int:
        """The length of the contents in bytes. Only mutable files ask the grid."""

    async def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes at ``offset``: fewer at the end, none past it.

        Raises:
            NotEnoughSharesError: too few good shares can be reached.
        """

    def prefetch(self, offset: int, size: int) -> Prefetch | None:
        """Start to fetch a range that is likely to be read; ``None`` if nothing is to be done.

        Returns at once. What is returned stands for the interest, until it is cancelled.
        """

    def explanation(self) -> str:
        """What a read that is under way waits for, in words; empty if nothing is known."""

    def health(self) -> Health | None:
        """The shares seen so far; ``None`` if there are none, or nobody looked."""


class LiteralFile:
    """A file whose contents are in its capability."""

    def __init__(self, cap: LiteralCap) -> None:
        self.cap = cap

    async def size(self) -> int:
        return len(self.cap.data)

    async def read(self, offset: int, size: int) -> bytes:
        return self.cap.data[offset : offset + size]

    def prefetch(self, offset: int, size: int) -> None:
        return None

    def explanation(self) -> str:
        return ""

    def health(self) -> None:
        return None


class ImmutableFile:
    """A CHK file: its length is in its capability, its contents can never change."""

    def __init__(self, cap: CHKCap, file: CHKFile) -> None:
        self.cap = cap
        self._file = file

    async def size(self) -> int:
        return self.cap.size

    async def read(self, offset: int, size: int) -> bytes:
        return await self._file.read(offset, size)

    def prefetch(self, offset: int, size: int) -> Prefetch:
        return self._file.prefetch(offset, size)

    def explanation(self) -> str:
        return self._file.explain()

    def health(self) -> Health | None:
        seen = self._file.health()
        if not seen.good and not seen.bad:
            return None
        return Health(seen.k, seen.n, seen.good, seen.bad)


class MutableFileNode:
    """An SDMF or MDMF file. Without the write key it reads only."""

    def __init__(self, file: MutableFile) -> None:
        self._file = file

    @property
    def cap(self) -> MutableWriteCap | MutableReadCap:
        return self._file.cap

    @property
    def can_write(self) -> bool:
        """Whether this node may change the file."""
        return self.cap.can_write

    async def size(self) -> int:
        return await self._file.size()

    async def read(self, offset: int, size: int) -> bytes:
        return await self._file.read(offset, size)

    def prefetch(self, offset: int, size: int) -> Prefetch | None:
        return self._file.prefetch(offset, size)

    def explanation(self) -> str:
        return self._file.explanation()

    def health(self) -> Health | None:
        version, servermap = self._file.latest, self._file.latest_map
        if version is None or servermap is None:
            return None
        good: dict[str, frozenset[int]] = {}
        bad: dict[str, frozenset[int]] = {}
        for share in servermap.shares_of(version):
            good[share.server.name] = good.get(share.server.name, frozenset()) | {share.shnum}
        for wrong in servermap.bad.values():
            bad[wrong.server.name] = bad.get(wrong.server.name, frozenset()) | {wrong.shnum}
        return Health(version.k, version.n, good, bad)

    @property
    def is_lost(self) -> bool:
        """Whether all servers have answered when we last looked, and nothing can be recovered."""
        return self._file.is_lost

    async def version(self, max_age: float = 0.0) -> Version:
        """The newest version, known for at most ``max_age`` seconds; equal versions, equal bytes.

        Costs one short read per server while the file has not changed.

        Raises:
            NotEnoughSharesError: no version can be recovered.
        """
        return await self._file.version(max_age)

    async def contents(self, max_age: float = 0.0) -> tuple[Version, bytes]:
        """The newest version, known for at most ``max_age`` seconds, and all that is in it.

        Raises:
            NotEnoughSharesError: no version can be recovered.
        """
        return await self._file.download(max_age)

    def begun(self, seqnum: int) -> None:
        """See :meth:`~lafsfs.mutable.file.MutableFile.begun`."""
        self._file.begun(seqnum)

    async def create(self, key: SigningKey, contents: bytes, before: Before | None = None) -> bool:
        """Make the slot whose write key is ``key``'s, and say whether ``contents`` are in it now.

        An earlier try with the same key may have made it: then what that put there stays.

        Raises:
            NotHappyError: too few servers took shares.
        """
        keys = SlotKeys(key)
        try:
            await self._file.publish_first(keys, contents, replay=False, before=before)
        except UncoordinatedWriteError:
            await self._file.publish_first(keys, contents, replay=True, before=before)
            return False
        return True

    async def overwrite(self, contents: bytes) -> None:
        """Replace the contents, whatever they are.

        Raises:
            ReadOnlyCapabilityError: there is no write key.
            UncoordinatedWriteError: another writer was ahead every time.
            NotHappyError: too few servers took the new version.
        """
        self._require_write()
        await self._file.overwrite(contents)

    async def modify(self, modifier: Modifier, before: Before | None = None) -> bytes:
        """Replace the contents by what ``modifier`` makes of them; the new contents.

        ``modifier`` is pure, may be called several times and from a thread, and returns ``None``
        to leave things as they are. ``before`` is awaited with the sequence number of a version
        before any of it is written. Raises as :meth:`overwrite` does.
        """
        self._require_write()
        return await self._file.modify(modifier, before)

    def _require_write(self) -> None:
        if not self.can_write:
            raise ReadOnlyCapabilityError("the capability of this file reads only")


class UnknownNode:
    """A child that only a later version can use: it can be kept, moved and unlinked."""

    def __init__(self, cap: Cap | UnknownCap) -> None:
        self.cap = cap
