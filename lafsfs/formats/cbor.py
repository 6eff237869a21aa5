"""CBOR from strangers: fenced in before the library sees it (RFC 8949).

Messages of the storage protocol, and rows of the journal, are plain trees of numbers, bytes, texts,
booleans, lists, maps and sets (tag 258), small in number though some bytes are long. A walk over
the heads of a raw body makes sure of that first, so that no tag can make the library compute, no
declared length make it allocate, and no crowd of keys make it slow.

Pure.
"""

from __future__ import annotations

from typing import Any

import cbor2

from lafsfs.errors import FormatError

_SET_TAG = 258
_BYTES, _TEXT, _LIST, _MAP, _TAG, _SIMPLE = 2, 3, 4, 5, 6, 7


def decode(body: bytes, *, max_depth: int, max_items: int) -> Any:  # noqa: ANN401
    """Decode one plain item that is all of the body.

    Args:
        max_depth: containers inside each other.
        max_items: items in all, keys and containers included.

    Raises:
        FormatError: not CBOR, not plain, or beyond a limit. The message quotes nothing.
    """
    _check(body, max_depth, max_items)
    try:
        return cbor2.loads(body)
    except (cbor2.CBORDecodeError, ValueError, TypeError):
        raise FormatError("the CBOR cannot be decoded") from None


def _check(body: bytes, max_depth: int, max_items: int) -> None:
    at, items = 0, 0
    wanted = [1]  # how many items each open container still lacks, the outermost first
    while wanted:
        if wanted[-1] == 0:
            wanted.pop()
            continue
        wanted[-1] -= 1
        items += 1
        major, argument, at = _head(body, at)
        if major in (_BYTES, _TEXT):
            at += argument
        elif major in (_LIST, _MAP, _TAG):
            wanted.append(_members(body, at, major, argument))
        if at > len(body):
            raise FormatError("the CBOR is cut short")
        if len(wanted) > max_depth + 1 or items + wanted[-1] > max_items:
            raise FormatError("the CBOR has too many items")
    if at != len(body):
        raise FormatError("something stands behind the CBOR")


def _head(body: bytes, at: int) -> tuple[int, int, int]:
    """An item's major type and argument, and where its contents begin."""
    if at >= len(body):
        raise FormatError("the CBOR is cut short")
    major, info = divmod(body[at], 32)
    at += 1
    if info < 24:
        return major, info, at
    if info > 27 or major == _SIMPLE:
        raise FormatError("the CBOR has an item of no plain kind")
    size = 1 << (info - 24)
    return major, int.from_bytes(body[at : at + size], "big"), at + size


def _members(body: bytes, at: int, major: int, argument: int) -> int:
    """How many items belong to a container whose head has been read."""
    if major == _LIST:
        return argument
    if major == _MAP:
        return 2 * argument
    if argument != _SET_TAG or at >= len(body) or body[at] // 32 != _LIST:
        raise FormatError("the CBOR has a tag that has no place there")
    return 1
