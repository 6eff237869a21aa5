"""Inode numbers by rule, so that they are the same after every remount. Pure.

- The root is 1.
- Directories and mutable files go by their storage index: they are one object wherever linked.
- Other files go by the ``id`` in their edge metadata, which *is* the number; an edge that a stock
  client made has none and goes by its directory's number and its name until we write to it.
- Never by a CHK capability: two equal files are not hard links.

A number may be taken by something else: a directory linked twice, a child of a foreign directory
that claims an ``id``. The taker asks for :func:`alias_number`, again and again until one is free.

Numbers lie in [2^32, 2^63): small ones are reserved, and signed 64-bit programs can hold them all.
"""

from __future__ import annotations

import secrets
from typing import Final

from lafsfs.crypto.hashes import tagged_hash

_TAG: Final = b"lafsfs_inode_number_v1"
LOWEST: Final = 1 << 32
HIGHEST: Final = (1 << 63) - 1


def is_number(value: int) -> bool:
    """Whether ``value`` lies in the range of numbers given by rule."""
    return LOWEST <= value <= HIGHEST


def fresh_number() -> int:
    """A random number for a new file."""
    return LOWEST + secrets.randbelow(HIGHEST - LOWEST)


def object_number(storage_index: bytes) -> int:
    """The number of a directory or mutable file."""
    return _number(b"object", storage_index)


def edge_number(parent: int, name: str) -> int:
    """The number of a child that nothing else identifies."""
    return _number(b"edge", _pack(parent), name.encode("utf-8", "surrogatepass"))


def alias_number(taken: int, parent: int, name: str) -> int:
    """The number instead of one that is taken, for the child ``name`` of ``parent``."""
    return _number(b"alias", _pack(taken), _pack(parent), name.encode("utf-8", "surrogatepass"))


def _pack(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _number(*parts: bytes) -> int:
    data = b"".join(_pack(len(part)) + part for part in parts)
    value = int.from_bytes(tagged_hash(_TAG, data, 8), "big")
    return LOWEST + value % (HIGHEST - LOWEST)
