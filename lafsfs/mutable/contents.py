"""Plaintexts of mutable versions, kept in memory up to a number of bytes.

What a version's signature covers determines its contents, so an entry never goes stale: it only
becomes one that nobody asks for. One cache serves all mutable files of a mount.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachetools import LRUCache

if TYPE_CHECKING:
    from lafsfs.mutable.servermap import Version

DEFAULT_SIZE = 64 << 20  # bytes; a directory of 50,000 children has about 16 MiB


class ContentsCache:
    """Least recently used contents go first; contents larger than the cache are not kept."""

    def __init__(self, max_bytes: int = DEFAULT_SIZE) -> None:
        self._entries: LRUCache[tuple[bytes, Version], bytes] = LRUCache(max_bytes, getsizeof=len)

    def get(self, storage_index: bytes, version: Version) -> bytes | None:
        """The contents of that version of that slot, if they are still here."""
        found: bytes | None = self._entries.get((storage_index, version))
        return found

    def put(self, storage_index: bytes, version: Version, contents: bytes) -> None:
        """Keep contents that were verified, or that we published."""
        if len(contents) <= self._entries.maxsize:
            self._entries[storage_index, version] = contents

    def drop(self, storage_index: bytes, version: Version) -> None:
        """Make room: nobody will ask for the whole of this version again."""
        self._entries.pop((storage_index, version), None)
