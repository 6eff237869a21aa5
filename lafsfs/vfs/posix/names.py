"""Local names and stored names. Pure.

A *local* name is what a program sees: bytes, without ``/`` and NUL, not ``.`` or ``..``, 1 to 255
of them. A *stored* name is what a directory table has: text in Unicode's normal form C.

- A local name that is UTF-8 but not NFC is stored as NFC, and its own bytes go into the edge
  metadata (the *raw name*), so that listings show what was written. Names that differ only in
  normalisation are therefore one name: lookups find it under any spelling.
- A local name that is not UTF-8 cannot be stored: :class:`BadNameError` (EILSEQ).
- A stored name that no program could use is shown escaped: ``/`` and NUL as ``%2F`` and ``%00``,
  dot names as ``%2E``, cut if it is too long, and ``.lafs-`` with 16 base32 characters of a hash of
  the stored name behind it. It can be opened, renamed and removed under that name.
- Stored names that tables should not have (not NFC) are shown as they are.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from lafsfs.crypto import base32
from lafsfs.crypto.hashes import tagged_hash
from lafsfs.errors import BadNameError, NameTooLongError
from lafsfs.vfs.api import NAME_MAX

_TAG: Final = b"lafsfs_escaped_name_v1"
_MARK: Final = b".lafs-"
_HASH_SIZE: Final = 10  # bytes: 16 base32 characters
_ESCAPED: Final = re.compile(rb".*\.lafs-[a-z2-7]{16}", re.DOTALL)
_DOTS: Final = (b".", b"..")


def stored_name(local: bytes) -> str:
    """The name under which ``local`` is stored.

    Raises:
        NameTooLongError: more than 255 bytes.
        BadNameError: not UTF-8, or not a name at all.
    """
    if len(local) > NAME_MAX:
        raise NameTooLongError(f"a name has at most {NAME_MAX} bytes")
    if not is_representable(local):
        raise BadNameError("this cannot be the name of a child")
    try:
        text = local.decode("utf-8")
    except UnicodeDecodeError:
        raise BadNameError("names on the grid are UTF-8, and this one is not") from None
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def raw_name(local: bytes, stored: str) -> bytes | None:
    """What the edge metadata must remember beside ``stored`` to show ``local`` again."""
    return None if stored.encode("utf-8", "surrogatepass") == local else local


def local_name(stored: str, raw: bytes | None = None) -> bytes:
    """What a program sees of a stored name; ``raw`` only counts if it really is its spelling."""
    if raw is not None and _spells(raw, stored):
        return raw
    plain = stored.encode("utf-8", "surrogatepass")
    return plain if is_representable(plain) else _escaped(plain)


def is_representable(local: bytes) -> bool:
    """Whether a system call can name a child so."""
    return (
        0 < len(local) <= NAME_MAX
        and b"/" not in local
        and b"\0" not in local
        and local not in _DOTS
    )


def may_be_escaped(local: bytes) -> bool:
    """Whether ``local`` looks like the escaped form of some stored name."""
    return _ESCAPED.fullmatch(local) is not None


def _spells(raw: bytes, stored: str) -> bool:
    try:
        return stored_name(raw) == stored
    except (BadNameError, NameTooLongError):
        return False


def _escaped(plain: bytes) -> bytes:
    if plain in _DOTS:
        shown = plain.replace(b".", b"%2E")
    else:
        shown = plain.replace(b"/", b"%2F").replace(b"\0", b"%00")
    digest = base32.encode(tagged_hash(_TAG, plain, _HASH_SIZE)).encode()
    room = NAME_MAX - len(_MARK) - len(digest)
    stem = shown[:room].decode("utf-8", "ignore").encode()
    return stem + _MARK + digest
