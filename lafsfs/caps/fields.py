"""The fields between a capability's colons: strict in what they accept, silent about what they saw.

A capability string is bearer authority, so a typing mistake must be found here and not as a missing
file later, and the message that reports it must not repeat the string. Every function therefore
takes the *name* of the field and speaks of nothing else.
"""

from __future__ import annotations

from lafsfs.crypto import base32
from lafsfs.errors import BadCapabilityError, FormatError

KEY_SIZE = 16  # bytes: read keys, write keys, encryption keys and storage indexes alike
HASH_SIZE = 32  # bytes: UEB hashes and public key fingerprints

MAX_SHARES = 256  # zfec works in GF(2^8)
MAX_FILE_SIZE = 2**63 - 1  # bytes: what a system call can address
MAX_LITERAL_SIZE = 4096  # bytes; clients write up to 55, a capability made by hand may hold more
MAX_TEXT_LENGTH = 16 * 1024  # characters of one capability with all its hints

_MAX_DIGITS = 19  # of MAX_FILE_SIZE


def base32_field(name: str, text: str, size: int | None = None) -> bytes:
    """Decode a base32 field of exactly ``size`` bytes (any number if None).

    Raises:
        BadCapabilityError: not lower-case base32, wrong length, or bits set behind the last byte.
    """
    if not text and size:
        raise BadCapabilityError(f"the capability's {name} is missing")
    try:
        return base32.decode(text, size)
    except FormatError:
        wanted = "" if size is None else f" of {size} bytes"
        raise BadCapabilityError(
            f"the capability's {name} is not canonical base32{wanted}; was it cut or mistyped?"
        ) from None


def number_field(name: str, text: str) -> int:
    """Decode a decimal number without sign or leading zeros; its range is the caller's affair."""
    if not (text.isascii() and text.isdigit()):
        raise BadCapabilityError(f"the capability's {name} is not a number")
    if len(text) > _MAX_DIGITS:
        raise BadCapabilityError(f"the capability's {name} is absurdly large")
    if text != "0" and text.startswith("0"):
        raise BadCapabilityError(f"the capability's {name} has leading zeros")
    return int(text)


def check_size(name: str, value: bytes, size: int) -> None:
    """Refuse a binary field that does not have exactly ``size`` bytes."""
    if len(value) != size:
        raise BadCapabilityError(f"the capability's {name} must have {size} bytes")


def check_encoding(k: int, n: int, size: int) -> None:
    """Refuse parameters that no encoder can have used: 1 <= k <= n <= 256, 0 <= size < 2^63."""
    if not 1 <= n <= MAX_SHARES:
        raise BadCapabilityError(f"the capability's total shares must be 1 to {MAX_SHARES}")
    if not 1 <= k <= n:
        raise BadCapabilityError("the capability's needed shares must be 1 to its total shares")
    if not 0 <= size <= MAX_FILE_SIZE:
        raise BadCapabilityError("the capability's size is absurdly large")
