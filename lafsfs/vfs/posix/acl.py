"""POSIX access control lists, as Linux hands them over in extended attributes. Pure.

The attributes ``system.posix_acl_access`` and ``system.posix_acl_default`` hold a version (2) and
entries of tag, permissions and id, little-endian (``linux/posix_acl_xattr.h``). Rules (acl(5)):

- An access ACL and the mode say the same of owner, group class and others: the group bits of the
  mode are the mask where there is one. Setting either changes the other.
- An access ACL without named entries says no more than the mode, so only the mode is kept.
- A directory's default ACL is what its new children get as access ACL, limited by the mode they are
  created with and instead of the umask; new directories inherit it as default ACL too.

The kernel checks permissions against the mode alone: this file system keeps ACLs and does not
enforce their named entries.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Final

from lafsfs.vfs.api import InvalidRequestError

ACCESS: Final = b"system.posix_acl_access"
DEFAULT: Final = b"system.posix_acl_default"

USER_OBJ: Final = 0x01
USER: Final = 0x02
GROUP_OBJ: Final = 0x04
GROUP: Final = 0x08
MASK: Final = 0x10
OTHER: Final = 0x20
NO_ID: Final = 0xFFFFFFFF

_VERSION: Final = 2
_HEADER: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_SINGLE: Final = frozenset({USER_OBJ, GROUP_OBJ, MASK, OTHER})
_NAMED: Final = frozenset({USER, GROUP})
_REQUIRED: Final = frozenset({USER_OBJ, GROUP_OBJ, OTHER})


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. ``permissions``: three bits; ``who``: an id for USER and GROUP, else NO_ID."""

    tag: int
    permissions: int
    who: int = NO_ID


@dataclass(frozen=True, slots=True)
class Acl:
    """A valid list: one entry each for owner, owning group and others, a mask if any is named."""

    entries: tuple[Entry, ...]

    @classmethod
    def parse(cls, value: bytes) -> Acl:
        """Raises InvalidRequestError for everything that the kernel would refuse."""
        if len(value) < _HEADER.size or (len(value) - _HEADER.size) % _ENTRY.size:
            raise InvalidRequestError("an access control list of a wrong length")
        if _HEADER.unpack_from(value)[0] != _VERSION:
            raise InvalidRequestError("an access control list of an unknown version")
        acl = cls(tuple(Entry(*fields) for fields in _ENTRY.iter_unpack(value[_HEADER.size :])))
        acl._check()
        return acl

    def pack(self) -> bytes:
        entries = (_ENTRY.pack(e.tag, e.permissions, e.who) for e in self.entries)
        return _HEADER.pack(_VERSION) + b"".join(entries)

    @property
    def is_minimal(self) -> bool:
        """Whether it says no more than a mode can."""
        return len(self.entries) == len(_REQUIRED)

    @property
    def mode(self) -> int:
        """The nine permission bits of a file that has this access ACL."""
        group = self._permissions(MASK if self._has(MASK) else GROUP_OBJ)
        return self._permissions(USER_OBJ) << 6 | group << 3 | self._permissions(OTHER)

    def with_mode(self, mode: int) -> Acl:
        """The list after chmod: owner, mask (or owning group) and others as ``mode`` says."""
        group = MASK if self._has(MASK) else GROUP_OBJ
        bits = {USER_OBJ: mode >> 6 & 7, group: mode >> 3 & 7, OTHER: mode & 7}
        return Acl(
            tuple(replace(e, permissions=bits.get(e.tag, e.permissions)) for e in self.entries)
        )

    def _has(self, tag: int) -> bool:
        return any(entry.tag == tag for entry in self.entries)

    def _permissions(self, tag: int) -> int:
        return next(entry.permissions for entry in self.entries if entry.tag == tag)

    def _check(self) -> None:
        tags = [entry.tag for entry in self.entries]
        if any(tag not in _SINGLE | _NAMED for tag in tags):
            raise InvalidRequestError("an access control list with an unknown kind of entry")
        if any(tags.count(tag) > 1 for tag in _SINGLE) or not set(tags) >= _REQUIRED:
            raise InvalidRequestError("an access control list without owner, group or others")
        if set(tags) & _NAMED and MASK not in tags:
            raise InvalidRequestError("an access control list with names and no mask")
        if any(entry.permissions & ~7 for entry in self.entries):
            raise InvalidRequestError("an access control list with unknown permissions")
        named = [(entry.tag, entry.who) for entry in self.entries if entry.tag in _NAMED]
        if len(set(named)) < len(named):
            raise InvalidRequestError("an access control list that names someone twice")


def is_valid(value: bytes) -> bool:
    """Whether the kernel would take ``value`` for a list."""
    try:
        Acl.parse(value)
    except InvalidRequestError:
        return False
    return True


def inherited(default: Acl, mode: int) -> Acl:
    """The access ACL of a child created with ``mode`` below a directory with that default ACL."""
    return default.with_mode(default.mode & mode)
