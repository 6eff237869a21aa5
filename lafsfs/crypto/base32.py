"""Tahoe's base32: the alphabet of RFC 4648 in lower case, without padding.

Capabilities and the names of storage directories are compared as text, so one value must have one
spelling. :func:`decode` therefore refuses everything :func:`encode` would not have written: upper
case, padding, impossible lengths, and bits set behind the last whole byte.

Texts are often secret: no message quotes one.
"""

from __future__ import annotations

from base64 import b32encode

from lafsfs.errors import FormatError

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"

_LETTERS = ALPHABET.encode("ascii")
# ``int(..., 32)`` counts in these digits; translating to them makes decoding one conversion.
_DIGITS = bytes.maketrans(_LETTERS, b"0123456789abcdefghijklmnopqrstuv")
# What 0 to 4 bytes leave over after whole groups of 5 bytes, in characters.
_POSSIBLE_REMAINDERS = frozenset({0, 2, 4, 5, 7})


def encode(data: bytes) -> str:
    """Write bytes as base32, ``ceil(8 * len(data) / 5)`` characters long."""
    return b32encode(data).decode("ascii").rstrip("=").lower()


def decode(text: str, size: int | None = None) -> bytes:
    """Read canonical base32 back into bytes.

    Args:
        size: the number of bytes that must come out; None allows any.

    Raises:
        FormatError: another alphabet, an impossible or unwanted length, or non-canonical trailing
            bits. The message names the fault and not the text.
    """
    if not text.isascii() or text.encode("ascii").translate(None, _LETTERS):
        raise FormatError("base32: a character outside a-z and 2-7")
    if len(text) % 8 not in _POSSIBLE_REMAINDERS:
        raise FormatError(f"base32: no value is {len(text)} characters long")
    length = len(text) * 5 // 8
    if size is not None and length != size:
        raise FormatError(f"base32: {length} bytes where {size} are needed")
    if not text:
        return b""
    number = int(text.encode("ascii").translate(_DIGITS), 32)
    spare = len(text) * 5 - length * 8
    if number & ((1 << spare) - 1):
        raise FormatError("base32: non-canonical trailing bits")
    return (number >> spare).to_bytes(length, "big")
