"""Reading netstrings, ``LENGTH:BYTES,``, which the UEB and the directory table are made of.

Parsing is total and linear: a length has at most :data:`MAX_DIGITS` digits, no sign, no blanks and
no leading zero, and everything else is a :class:`~lafsfs.errors.FormatError`.
"""

from __future__ import annotations

from lafsfs.errors import FormatError

MAX_DIGITS = 11  # nothing here has more than 99,999,999,999 bytes


def parse_number(digits: bytes) -> int:
    """A canonical decimal number of up to :data:`MAX_DIGITS` digits."""
    if not digits.isdigit() or len(digits) > MAX_DIGITS or (digits[0] == 0x30 and digits != b"0"):
        raise FormatError("malformed decimal number")
    return int(digits)


def parse_netstring(data: bytes, start: int) -> tuple[bytes, int]:
    """The netstring at ``start`` and the offset of what follows it."""
    colon = data.find(b":", start, start + MAX_DIGITS + 1)
    if colon < 0:
        raise FormatError(f"no netstring at byte {start}")
    begin = colon + 1
    end = begin + parse_number(data[start:colon])
    if data[end : end + 1] != b",":
        raise FormatError(f"the netstring at byte {start} does not end where it says")
    return data[begin:end], end + 1
