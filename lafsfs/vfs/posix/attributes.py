"""POSIX attributes in edge metadata, and back. Pure and total: foreign metadata never raises.

Everything of ours is under the one key ``lafsfs`` of the edge metadata, a JSON object:

=========  =====================================================================================
``v``      1
``cap``    digest of the child's *read* capability that the rest describes
``type``   ``file dir symlink fifo socket chr blk``; counts only for immutable children that match
``mode``   permission bits, octal 7777 at most
``uid``, ``gid``, ``rdev``  numbers (``rdev`` as in st_rdev)
``mtime``, ``atime``, ``ctime``, ``btime``  nanoseconds since the epoch
``mset``   directories: when ``mtime`` was set explicitly (see below), nanoseconds
``size``   mutable files: the size last seen
``nlink``  how many names the file had, where more than one
``id``     the inode number, hexadecimal
``xattrs`` extended attributes: name (Latin-1) to value (base64)
``raw``    the local name's own bytes where they are not the stored name (base64)
=========  =====================================================================================

Rules:

- Stock replaces a child and keeps the old metadata. Where ``cap`` is not the child's digest, type,
  size and times are not taken from here: mtime and ctime are the edge's ``linkmotime``.
- Without our key: mode 644 or 755, the mount's owner, ``linkmotime`` and ``linkcrtime``, or the
  ``mtime`` and ``ctime`` that clients before Tahoe-LAFS 1.4 left at top level.
- A field of the wrong type or range is as good as absent. Times are kept within 64 bits.
- A directory's mtime: the explicitly set one until a name appears later (``linkcrtime``) than it
  was set, then the newest of those.
"""

from __future__ import annotations

import base64
import binascii
import enum
import math
import stat
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from lafsfs.vfs.api import AttributeSpaceError
from lafsfs.vfs.posix import acl, numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY: Final = "lafsfs"
VERSION: Final = 1

MAX_XATTR_NAME: Final = 255  # bytes, as Linux has it
MAX_XATTR_SPACE: Final = 64 << 10  # bytes of names and values on one edge: tables stay readable
_MAX_TIME: Final = (1 << 63) - 1  # ns: the year 2262
_MAX_ID: Final = 0xFFFFFFFE  # 2^32 - 1 means "nobody" to chown
_MAX_RDEV: Final = 0xFFFFFFFF
_MAX_SIZE: Final = (1 << 63) - 1
_NS: Final = 1_000_000_000

_NO_XATTRS: Final[Mapping[bytes, bytes]] = MappingProxyType({})  # one for all who have none

_Default = TypeVar("_Default", int, None)


class Kind(enum.Enum):
    """What an inode is. The value is what ``type`` holds."""

    FILE = "file"
    DIRECTORY = "dir"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    CHARACTER = "chr"
    BLOCK = "blk"

    @property
    def mode_bits(self) -> int:
        """The type bits of st_mode."""
        return _MODE_BITS[self]

    @classmethod
    def of_mode(cls, mode: int) -> Kind | None:
        """The kind that st_mode's type bits stand for; none at all is a file, as for mknod."""
        bits = stat.S_IFMT(mode) or stat.S_IFREG
        return next((kind for kind, its in _MODE_BITS.items() if its == bits), None)


_MODE_BITS: Final = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
    Kind.CHARACTER: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
}
_KINDS: Final = {kind.value: kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Posix:
    """The attributes of one inode. Times in nanoseconds; see the module for the rest."""

    kind: Kind
    mode: int
    uid: int
    gid: int
    atime: int
    mtime: int
    ctime: int
    btime: int
    mtime_set: int | None = None
    rdev: int = 0
    nlink: int = 1
    size: int | None = None
    number: int | None = None
    xattrs: Mapping[bytes, bytes] = field(default_factory=lambda: _NO_XATTRS, repr=False)

    @property
    def st_mode(self) -> int:
        return self.kind.mode_bits | self.mode

    def with_mode(self, mode: int) -> Posix:
        """After chmod: an access ACL follows."""
        mode &= 0o7777
        stored = self.xattrs.get(acl.ACCESS)
        if stored is None:
            return replace(self, mode=mode)
        changed = acl.Acl.parse(stored).with_mode(mode).pack()
        return replace(self, mode=mode, xattrs={**self.xattrs, acl.ACCESS: changed})

    def with_xattr(self, name: bytes, value: bytes) -> Posix:
        """After setxattr; an access ACL sets the mode, and stays only if it says more.

        Raises:
            AttributeSpaceError: all of them together would be too much.
            InvalidRequestError: a malformed access control list.
        """
        if name in (acl.ACCESS, acl.DEFAULT):
            return self._with_acl(name, value)
        return self._with_value(name, value)

    def without_xattr(self, name: bytes) -> Posix:
        return replace(self, xattrs={k: v for k, v in self.xattrs.items() if k != name})

    def _with_value(self, name: bytes, value: bytes) -> Posix:
        xattrs = {**self.xattrs, name: value}
        if sum(len(key) + len(data) for key, data in xattrs.items()) > MAX_XATTR_SPACE:
            raise AttributeSpaceError("no more room for extended attributes on this file")
        return replace(self, xattrs=xattrs)

    def _with_acl(self, name: bytes, value: bytes) -> Posix:
        if not value:  # setfacl -k and -b say so on some systems
            return self.without_xattr(name)
        parsed = acl.Acl.parse(value)
        if name == acl.DEFAULT:
            return self._with_value(name, value)
        changed = replace(self, mode=self.mode & ~0o777 | parsed.mode)
        if parsed.is_minimal:
            return changed.without_xattr(name)
        return changed._with_value(name, value)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a child without its metadata.

    ``digest``: of its read capability. ``may_be_special``: whether ``type`` may say something else
    than file or directory: only for children that cannot change.
    """

    digest: str
    is_directory: bool
    may_be_special: bool


@dataclass(frozen=True, slots=True)
class Defaults:
    """Who owns what has no attributes."""

    uid: int
    gid: int
    file_mode: int = 0o644
    directory_mode: int = 0o755


def encode(posix: Posix, digest: str, raw_name: bytes | None = None) -> dict[str, Any]:
    """The value of ``lafsfs`` for an edge whose child's read capability has ``digest``."""
    record: dict[str, Any] = {
        "v": VERSION,
        "cap": digest,
        "type": posix.kind.value,
        "mode": posix.mode,
        "uid": posix.uid,
        "gid": posix.gid,
        "mtime": posix.mtime,
        "atime": posix.atime,
        "ctime": posix.ctime,
        "btime": posix.btime,
    }
    optional = {
        "mset": posix.mtime_set,
        "rdev": posix.rdev or None,
        "nlink": posix.nlink if posix.nlink > 1 else None,
        "size": posix.size,
        "id": None if posix.number is None else f"{posix.number:x}",
        "xattrs": _encode_xattrs(posix.xattrs) or None,
        "raw": None if raw_name is None else _base64(raw_name),
    }
    return record | {key: value for key, value in optional.items() if value is not None}


def decode(metadata: Mapping[str, Any], facts: Facts, defaults: Defaults) -> Posix:
    """The attributes of a child, from its edge metadata as far as that can be believed."""
    record = _record(metadata)
    matches = record.get("cap") == facts.digest
    kind = _kind(record if matches else {}, facts)
    directory = kind is Kind.DIRECTORY
    modified = _link_time(metadata, "linkmotime", "mtime")
    described = record if matches else {}
    mtime = _time(described, "mtime", modified)
    return Posix(
        kind=kind,
        mode=_whole(record, "mode", 0o7777, _default_mode(directory, defaults)),
        uid=_whole(record, "uid", _MAX_ID, defaults.uid),
        gid=_whole(record, "gid", _MAX_ID, defaults.gid),
        atime=_time(described, "atime", mtime),
        mtime=mtime,
        ctime=_time(described, "ctime", modified),
        btime=_time(record, "btime", _link_time(metadata, "linkcrtime", "ctime")),
        mtime_set=_time(described, "mset", None) if directory else None,
        rdev=_whole(described, "rdev", _MAX_RDEV, 0) if kind in (Kind.CHARACTER, Kind.BLOCK) else 0,
        nlink=max(1, _whole(record, "nlink", 0xFFFFFFFF, 1)) if not directory else 1,
        size=_whole(described, "size", _MAX_SIZE, None),
        number=_number(record.get("id")),
        xattrs=_decode_xattrs(record.get("xattrs")),
    )


def raw_name_of(metadata: Mapping[str, Any]) -> bytes | None:
    """The local bytes of the name, if the metadata claims to know them."""
    return _from_base64(_record(metadata).get("raw"))


def nanoseconds(seconds: object) -> int | None:
    """A time in seconds, as JSON holds it, in nanoseconds; None for what is no time."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    if isinstance(seconds, float) and not math.isfinite(seconds):
        return None
    if isinstance(seconds, int):
        return clamped(seconds * _NS)
    whole, fraction = divmod(seconds, 1)
    return clamped(int(whole) * _NS + int(fraction * _NS))


def clamped(time: int) -> int:
    """A time in nanoseconds as near as 64 bits can hold it."""
    return max(-_MAX_TIME, min(_MAX_TIME, time))


def _record(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    record = metadata.get(KEY)
    return record if isinstance(record, dict) else {}  # as JSON makes them


def _kind(record: Mapping[str, Any], facts: Facts) -> Kind:
    if facts.is_directory:
        return Kind.DIRECTORY
    claimed = record.get("type")
    kind = _KINDS.get(claimed) if isinstance(claimed, str) else None
    if kind is None or kind is Kind.DIRECTORY or not facts.may_be_special:
        return Kind.FILE
    return kind


def _default_mode(directory: bool, defaults: Defaults) -> int:
    return defaults.directory_mode if directory else defaults.file_mode


def _whole(record: Mapping[str, Any], key: str, most: int, default: _Default) -> int | _Default:
    value = record.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
        return value
    return default


def _time(record: Mapping[str, Any], key: str, default: _Default) -> int | _Default:
    value = record.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return clamped(value)
    return default


def _link_time(metadata: Mapping[str, Any], system_key: str, old_key: str) -> int:
    system = metadata.get("tahoe")
    stamp = nanoseconds(system.get(system_key)) if isinstance(system, dict) else None
    if stamp is None:
        stamp = nanoseconds(metadata.get(old_key))
    return 0 if stamp is None else stamp


def _number(text: object) -> int | None:
    if not isinstance(text, str) or not 1 <= len(text) <= 16:
        return None
    try:
        value = int(text, 16)
    except ValueError:
        return None
    return value if numbers.is_number(value) else None


def _encode_xattrs(xattrs: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode("latin-1"): _base64(value) for name, value in xattrs.items()}


def _decode_xattrs(stored: object) -> Mapping[bytes, bytes]:
    if not isinstance(stored, dict):
        return _NO_XATTRS
    xattrs: dict[bytes, bytes] = {}
    space = 0
    for name, text in stored.items():
        pair = _decode_xattr(name, text)
        if pair is None or space + len(pair[0]) + len(pair[1]) > MAX_XATTR_SPACE:
            continue
        xattrs[pair[0]] = pair[1]
        space += len(pair[0]) + len(pair[1])
    return xattrs


def _decode_xattr(name: object, text: object) -> tuple[bytes, bytes] | None:
    value = _from_base64(text)
    if value is None or not isinstance(name, str):
        return None
    try:
        raw = name.encode("latin-1")
    except UnicodeEncodeError:
        return None
    if not 0 < len(raw) <= MAX_XATTR_NAME or b"\0" in raw:
        return None
    if raw in (acl.ACCESS, acl.DEFAULT) and not acl.is_valid(value):
        return None
    return raw, value


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _from_base64(text: object) -> bytes | None:
    if not isinstance(text, str):
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
