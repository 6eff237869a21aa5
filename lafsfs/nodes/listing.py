"""What a directory shows: an immutable value, decoded only as far as anybody looks.

A table of 50,000 entries is parsed in one go, but opening each child's sealed write capability and
reading its metadata would take seconds, so both wait until asked for. Rules:

- A :class:`Listing` never changes; an edit makes another one. It may be kept as long as one likes.
- A child whose capability this version cannot understand, or may not use here, is still there: its
  ``cap`` is an :class:`~lafsfs.caps.UnknownCap`, with nothing in it where what is stored breaks the
  rules (``slots_of`` gives two ``None``): such a child can only stay or be unlinked.
- Entries that have no readable name are not in the listing, but every edit keeps them.
- Without the directory's write key a child's ``cap`` is its read capability.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lafsfs.caps import UnknownCap, parse_child
from lafsfs.errors import (
    BadCapabilityError,
    DeepImmutableError,
    FormatError,
    NoSuchChildError,
)
from lafsfs.formats.dirtable import open_write_cap

if TYPE_CHECKING:
    from lafsfs.caps import Cap
    from lafsfs.formats.dirtable import DirectoryTable, Entry


class Child:
    """One edge of a directory. Compares by identity; keep it as a snapshot."""

    __slots__ = ("_cap", "_entry", "_key", "_metadata", "_mutable", "_read_cap", "name")

    def __init__(self, name: str, entry: Entry, write_key: bytes | None, mutable: bool) -> None:
        self.name = name  # NFC
        self._entry = entry
        self._key = write_key
        self._mutable = mutable
        self._cap: Cap | UnknownCap | None = None
        self._read_cap: Cap | UnknownCap | None = None
        self._metadata: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Child({self.name!r})"

    @property
    def entry(self) -> Entry:
        """The entry as the table holds it."""
        return self._entry

    @property
    def read_cap(self) -> Cap | UnknownCap:
        """The child's read capability: enough to know kind, size and identity, and cheap."""
        if self._read_cap is None:
            stored = cap_text(self._entry.read_cap)
            if stored is None:  # only a write capability was stored
                self._read_cap = self.cap
            else:
                self._read_cap = self._parsed(None, stored)
        return self._read_cap

    @property
    def cap(self) -> Cap | UnknownCap:
        """The most capable capability that the directory gives its holder."""
        if self._cap is None:
            self._cap = self._open_cap()
        return self._cap

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The edge metadata; empty where what is stored is not a JSON object. Do not change it."""
        if self._metadata is None:
            self._metadata = decoded_metadata(self._entry.metadata_json)
        return self._metadata

    def _open_cap(self) -> Cap | UnknownCap:
        stored = cap_text(self._entry.read_cap)
        if self._key is None or not self._entry.sealed_write:
            return self._parsed(None, stored)
        try:
            write = cap_text(open_write_cap(self._key, self._entry.sealed_write))
        except FormatError:  # sealed with another key: the right to read is what is left
            write = None
        return self._parsed(write, stored)

    def _parsed(self, write: str | None, read: str | None) -> Cap | UnknownCap:
        try:
            return parse_child(write, read, deep_immutable=not self._mutable)
        except (BadCapabilityError, DeepImmutableError):
            return UnknownCap(None, None)


class Listing(Mapping[str, Child]):
    """The readable children of a directory by NFC name, in the table's order."""

    __slots__ = ("_children", "_entries", "_key", "_mutable", "table")

    def __init__(self, table: DirectoryTable, write_key: bytes | None, *, mutable: bool) -> None:
        self.table = table
        self._key = write_key
        self._mutable = mutable
        self._entries: Mapping[str, Entry] = table.by_name
        self._children: dict[str, Child] = {}

    def __getitem__(self, name: str) -> Child:
        child = self._children.get(name)
        if child is None:
            entry = self._entries[name]
            child = Child(name, entry, self._key, self._mutable)
            self._children[name] = child
        return child

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __repr__(self) -> str:
        return f"Listing({len(self)} children)"

    def child(self, name: str) -> Child:
        """The child of that NFC name.

        Raises:
            NoSuchChildError: there is none.
        """
        try:
            return self[name]
        except KeyError:
            raise NoSuchChildError("the directory has no child of that name") from None


def cap_text(stored: bytes) -> str | None:
    """A stored capability without its padding of spaces, ``None`` for none.

    Bytes that are not UTF-8 come out as replacement characters: an unknown capability all the same.
    """
    return stored.rstrip(b" ").decode("utf-8", "replace") or None


def decoded_metadata(stored: bytes) -> dict[str, Any]:
    """Edge metadata from its JSON, or nothing where it is no object."""
    try:
        metadata = json.loads(stored)
    except (ValueError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}
