"""What the fields of the journal's rows hold: capabilities, entries, attributes, values. Pure.

Each kind has what packs it and what takes it apart again, which takes nothing else for it: whatever
it is given, it returns a value or raises what is said there.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from lafsfs.caps import DirectoryCap, UnknownCap, parse
from lafsfs.errors import FormatError
from lafsfs.formats.dirtable import Entry, parse_entry
from lafsfs.nodes.edits import Base
from lafsfs.vfs.posix.attributes import Kind, Posix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lafsfs.caps import Cap
    from lafsfs.nodes.edits import BaseCap

_LIMIT: Final = 1 << 63  # of 64 signed bits
_DIRECTORIES: Final = 256  # whose capabilities are kept as text, which takes 10 us to make


def packed_cap(cap: Cap | UnknownCap | None) -> str | tuple[str | None, str | None] | None:
    """A capability as a row holds it: all of it, so keep it secret."""
    if cap is None:
        return None
    if isinstance(cap, UnknownCap):
        return cap.write, cap.read
    return cap.danger_text()


@functools.lru_cache(_DIRECTORIES)
def packed_directory(cap: DirectoryCap) -> str:
    """That of a directory, which is in the rows of all its names."""
    return cap.danger_text()


def packed_posix(posix: Posix) -> list[Any]:
    """Attributes, in the order in which they have always been."""
    return [
        posix.kind.value,
        posix.mode,
        posix.uid,
        posix.gid,
        posix.atime,
        posix.mtime,
        posix.ctime,
        posix.btime,
        posix.mtime_set,
        posix.rdev,
        posix.nlink,
        posix.size,
        posix.number,
        dict(posix.xattrs),
    ]


def packed_entry(entry: Entry | None) -> bytes | None:
    """The bytes that the directory's table has."""
    return None if entry is None else entry.raw


def packed_base(base: BaseCap) -> Any:  # noqa: ANN401
    """Nothing for nothing, as an absent capability is never a base."""
    if isinstance(base, Base):
        if base is not Base.ABSENT:
            raise ValueError("a name is based on what was seen there")
        return None
    return packed_cap(base)


def as_posix(fields: Any) -> Posix:  # noqa: ANN401
    """Raises FormatError."""
    if len(as_list(fields)) != 14 or not isinstance(fields[-1], dict):
        raise FormatError("attributes have fourteen parts")
    kind, mode, uid, gid, atime, mtime, ctime, btime, mtime_set, rdev, nlink, size, number, x = (
        fields
    )
    return Posix(
        kind=Kind(as_text(kind)),
        mode=as_whole(mode),
        uid=as_whole(uid),
        gid=as_whole(gid),
        atime=as_integer(atime),
        mtime=as_integer(mtime),
        ctime=as_integer(ctime),
        btime=as_integer(btime),
        mtime_set=None if mtime_set is None else as_integer(mtime_set),
        rdev=as_whole(rdev),
        nlink=as_whole(nlink),
        size=None if size is None else as_whole(size),
        number=None if number is None else as_whole(number),
        **_xattrs(x),
    )


def _xattrs(value: Mapping[Any, Any]) -> dict[str, Mapping[bytes, bytes]]:
    """Nothing for none, so that all who have none share one mapping."""
    return {"xattrs": {as_bytes(key): as_bytes(one) for key, one in value.items()}} if value else {}


def as_cap(value: Any) -> Cap | UnknownCap | None:  # noqa: ANN401
    """Raises FormatError, or what a capability raises that is none."""
    if value is None:
        return None
    if isinstance(value, str):
        return parse(value)
    if len(as_list(value)) != 2:
        raise FormatError("an unknown capability has two slots")
    write, read = (None if one is None else as_text(one) for one in value)
    return UnknownCap(write, read)


def as_base(value: Any) -> BaseCap:  # noqa: ANN401
    """As :func:`as_cap`."""
    cap = as_cap(value)
    return Base.ABSENT if cap is None else cap


def as_entry(value: Any) -> Entry | None:  # noqa: ANN401
    """Raises FormatError."""
    if value is None:
        return None
    entry = parse_entry(as_bytes(value))
    if not isinstance(entry, Entry):
        raise FormatError("an entry of a directory can be read")
    return entry


def as_list(value: Any) -> list[Any]:  # noqa: ANN401
    """Raises FormatError."""
    if not isinstance(value, list):
        raise FormatError("a list is wanted")
    return value


def as_bytes(value: Any) -> bytes:  # noqa: ANN401
    """Raises FormatError."""
    if not isinstance(value, bytes):
        raise FormatError("bytes are wanted")
    return value


def as_text(value: Any) -> str:  # noqa: ANN401
    """Raises FormatError."""
    if not isinstance(value, str):
        raise FormatError("text is wanted")
    return value


def as_integer(value: Any) -> int:  # noqa: ANN401
    """A number of 64 bits. Raises FormatError."""
    if not isinstance(value, int) or isinstance(value, bool) or not -_LIMIT <= value < _LIMIT:
        raise FormatError("a number is wanted")
    return value


def as_whole(value: Any) -> int:  # noqa: ANN401
    """One that is not negative. Raises FormatError."""
    if as_integer(value) < 0:
        raise FormatError("a number that is not negative is wanted")
    return int(value)


def as_directory(value: Any) -> DirectoryCap:  # noqa: ANN401
    """As :func:`as_cap`, of a directory."""
    cap = as_cap(value)
    if not isinstance(cap, DirectoryCap):
        raise FormatError("a name is in a directory")
    return cap
