"""Reading netstrings, ``LENGTH:BYTES,``, which the UEB and the directory table are made of.

Parsing is total and linear: numbers are decimal, bounded in digits, without sign, blanks or leading
zeros, and everything else is a :class:`~lafsfs.errors.FormatError`.
"""

from __future__ import annotations

from lafsfs.errors import FormatError

MAX_LENGTH_DIGITS = 11  # no netstring here has more than 99,999,999,999 bytes
MAX_NUMBER_DIGITS = 19  # as many as 2**63 has


def parse_number(digits: bytes) -> int:
    """A canonical decimal number of up to :data:`MAX_NUMBER_DIGITS` digits."""
    if not digits.isdigit() or len(digits) > MAX_NUMBER_DIGITS:
        raise FormatError("malformed decimal number")
    if digits[0] == 0x30 and len(digits) > 1:
        raise FormatError("a decimal number begins with a zero")
    return int(digits)


def parse_netstring(data: bytes, start: int) -> tuple[bytes, int]:
    """The netstring at ``start`` and the offset of what follows it."""
    colon = data.find(b":", start, start + MAX_LENGTH_DIGITS + 1)
    if colon < 0:
        raise FormatError(f"no netstring at byte {start}")
    begin = colon + 1
    end = begin + parse_number(data[start:colon])
    if data[end : end + 1] != b",":
        raise FormatError(f"the netstring at byte {start} does not end where it says")
    return data[begin:end], end + 1
