"""The directory table: what a directory's backing file contains.

A table is a sequence of netstrings, one per child; each holds four more: the child's name in UTF-8,
its read capability, its sealed write capability, and the edge's metadata as a JSON object. A write
capability is sealed under the directory's write key, so that whoever may only read the directory
may only read what is in it; an immutable directory has no write key, and empty sealed parts.

Rules:

- No child is ever dropped. An entry keeps its bytes as they were found and is packed as those, and
  an entry that makes no sense (:class:`UnreadableEntry`) is carried along. Only an entry hidden by
  a later one of the same name is left out when a changed table is packed, as in stock Tahoe-LAFS.
- A table whose outer netstrings are broken is a :class:`~lafsfs.errors.FormatError` as a whole:
  there is no telling what it lists.
- Nothing is decoded before it is asked for: opening capabilities and reading JSON of 50,000 entries
  would take seconds, and a listing needs few of them.
- What is written can be read by stock, for which a name that is not UTF-8, or metadata that is no
  object, makes the whole directory unreadable. Entries are written in the order of their names.
"""

from __future__ import annotations

import hmac
import json
import unicodedata
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from lafsfs.caps import strip_implied_prefix
from lafsfs.crypto.aes import ctr
from lafsfs.crypto.hashes import (
    HASH_SIZE,
    KEY_SIZE,
    dirnode_child_key,
    dirnode_child_salt,
    dirnode_mac,
    netstring,
)
from lafsfs.errors import BadNameError, FormatError, HashMismatchError
from lafsfs.formats.netstring import parse_netstring

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SEAL_SIZE = KEY_SIZE + HASH_SIZE  # bytes that sealing adds: salt in front, MAC behind


@dataclass(frozen=True, slots=True)
class UnreadableEntry:
    """An entry that has not four parts and a name in UTF-8: nothing but its bytes to keep."""

    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """One child. Compares by its bytes.

    Attributes:
        name: the name in Unicode's normal form C.
        read_cap: the read capability as stored: no ``ro.``, perhaps trailing spaces or nothing.
        sealed_write: salt, ciphertext and MAC of the write capability; empty where there is none.
        metadata_json: the edge metadata as stored; whether it is a JSON object is not yet known.
        raw: the entry whole, without its outer netstring.
    """

    name: str = field(compare=False)
    read_cap: bytes = field(repr=False, compare=False)
    sealed_write: bytes = field(repr=False, compare=False)
    metadata_json: bytes = field(repr=False, compare=False)
    raw: bytes = field(repr=False)

    @property
    def raw_name(self) -> bytes:
        """The name as stored, which an old client may have left in another normal form."""
        return parse_netstring(self.raw, 0)[0]

    def with_metadata(self, metadata: Mapping[str, Any]) -> Entry:
        """The same child, whatever it is, under the same name with other metadata."""
        encoded = encode_metadata(metadata)
        parts = (self.raw_name, self.read_cap, self.sealed_write, encoded)
        return replace(self, metadata_json=encoded, raw=_join(*parts))


class DirectoryTable:
    """A parsed table, immutable. Compares by its entries' bytes.

    Attributes:
        entries: every entry, in the table's order.
        by_name: the readable ones by name. Of several with one name the last is seen.
    """

    __slots__ = ("by_name", "entries")

    entries: tuple[Entry | UnreadableEntry, ...]
    by_name: Mapping[str, Entry]

    def __init__(self, entries: Iterable[Entry | UnreadableEntry]) -> None:
        self.entries = tuple(entries)
        self.by_name = MappingProxyType(
            {entry.name: entry for entry in self.entries if isinstance(entry, Entry)}
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DirectoryTable) and self.entries == other.entries

    def __hash__(self) -> int:
        return hash(self.entries)

    def __repr__(self) -> str:
        return f"DirectoryTable({len(self.entries)} entries)"

    @property
    def unreadable(self) -> tuple[UnreadableEntry, ...]:
        """The entries that cannot be shown, only kept."""
        return tuple(entry for entry in self.entries if isinstance(entry, UnreadableEntry))

    def with_entries(self, by_name: Mapping[str, Entry]) -> Self:
        """The table with these readable entries, sorted by name, and the unreadable ones it has."""
        ordered = [by_name[name] for name in sorted(by_name)]
        return type(self)((*ordered, *self.unreadable))

    def pack(self) -> bytes:
        """The table's bytes; those it was parsed from, if it was."""
        return b"".join(netstring(entry.raw) for entry in self.entries)


def parse_table(data: bytes) -> DirectoryTable:
    """Read a table. Raises FormatError unless it is a sequence of whole netstrings."""
    entries: list[Entry | UnreadableEntry] = []
    position = 0
    while position < len(data):
        raw, position = parse_netstring(data, position)
        entries.append(parse_entry(raw))
    return DirectoryTable(entries)


def pack_table(entries: Iterable[Entry]) -> bytes:
    """A new table of these entries, sorted by name."""
    ordered = sorted(entries, key=lambda entry: entry.name)
    return DirectoryTable(ordered).pack()


def parse_entry(raw: bytes) -> Entry | UnreadableEntry:
    """Read one entry, without its outer netstring."""
    try:
        name, read_cap, sealed_write, metadata = _split(raw)
        text = name.decode("utf-8")
    except (FormatError, UnicodeDecodeError):
        return UnreadableEntry(raw)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return Entry(text, read_cap, sealed_write, metadata, raw)


def _split(raw: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """The four parts of an entry. What an entry has behind them stock ignores, and so do we."""
    name, position = parse_netstring(raw, 0)
    read_cap, position = parse_netstring(raw, position)
    sealed_write, position = parse_netstring(raw, position)
    metadata, position = parse_netstring(raw, position)
    return name, read_cap, sealed_write, metadata


def _join(name: bytes, read_cap: bytes, sealed_write: bytes, metadata: bytes) -> bytes:
    return b"".join(map(netstring, (name, read_cap, sealed_write, metadata)))


def make_entry(
    name: str,
    write: str | None,
    read: str | None,
    metadata: Mapping[str, Any],
    write_key: bytes | None,
) -> Entry:
    """An entry as stock would write it.

    Args:
        name: stored in normal form C.
        write: the child's write capability, None for none.
        read: the child's read capability, None for none; the prefix that its place implies is
            stripped.
        metadata: what JSON can hold.
        write_key: the directory's 16 bytes; None makes an entry of an immutable directory, which
            must not have ``write``.

    Raises:
        BadNameError: the name is empty or has no UTF-8.
    """
    if write_key is None and write is not None:
        raise ValueError("an immutable directory cannot hold a write capability")
    stored_name, encoded_name = _encode_name(name)
    stripped = strip_implied_prefix(read or "", deep_immutable=write_key is None).encode("utf-8")
    sealed = b"" if write_key is None else seal_write_cap(write_key, (write or "").encode("utf-8"))
    encoded = encode_metadata(metadata)
    raw = _join(encoded_name, stripped, sealed, encoded)
    return Entry(stored_name, stripped, sealed, encoded, raw)


def _encode_name(name: str) -> tuple[str, bytes]:
    if not name:
        raise BadNameError("a child's name cannot be empty")
    normalized = unicodedata.normalize("NFC", name)
    try:
        return normalized, normalized.encode("utf-8")
    except UnicodeEncodeError:
        raise BadNameError("a child's name must be UTF-8") from None


def encode_metadata(metadata: Mapping[str, Any]) -> bytes:
    """Edge metadata as JSON, in ASCII as stock writes it."""
    return json.dumps(dict(metadata)).encode("ascii")


def seal_write_cap(write_key: bytes, write_cap: bytes) -> bytes:
    """Seal a child's write capability (empty for none) under the directory's write key.

    Salt, AES-CTR ciphertext, MAC. The salt is a hash of the capability: the same child seals to the
    same bytes, and another one under another key.
    """
    salt = dirnode_child_salt(write_cap)
    key = dirnode_child_key(salt, write_key)
    sealed = salt + ctr(key, write_cap)
    return sealed + dirnode_mac(key, sealed)


def open_write_cap(write_key: bytes, sealed: bytes) -> bytes:
    """Open what :func:`seal_write_cap` sealed: the capability's text, empty for none.

    Trailing spaces, which pad for secrecy, are stripped. Stock writes the MAC but does not look at
    it; we do, so that bytes sealed under another key are not taken for an unknown capability.

    Raises:
        HashMismatchError: the MAC does not match (another key, or damage before it was signed).
        FormatError: too short to have been sealed.
    """
    if not sealed:
        return b""
    if len(sealed) < SEAL_SIZE:
        raise FormatError(f"a sealed write capability cannot have {len(sealed)} bytes")
    body, mac = sealed[:-HASH_SIZE], sealed[-HASH_SIZE:]
    salt, ciphertext = body[:KEY_SIZE], body[KEY_SIZE:]
    key = dirnode_child_key(salt, write_key)
    if not hmac.compare_digest(dirnode_mac(key, body), mac):
        raise HashMismatchError("a sealed write capability was not sealed with this write key")
    return ctr(key, ciphertext).rstrip(b" ")
