"""What the journal's rows say: pending inodes and pending names, as CBOR. Pure.

A row is a CBOR list that begins with ``VERSION`` and the kind of row:

    inode   number, what it is, attributes, capability, capability beneath staged contents,
            digests of superseded capabilities, key pair (DER), target
    name    capability of the directory, stored name, local bytes, edge, base, entry, maybe, left,
            when the name was made, when the directory changed

A capability is its text, or the two slots of one that is unknown; an entry is the table's bytes; an
edge is the number of its inode, how far the grid has heard of it, and the entry it came from.

Rules:

- A row holds all of its record: what is unpacked and packed again is the same bytes.
- A row that is not understood to its last byte is a :class:`~lafsfs.errors.JournalFormatError` that
  names the row. Nothing is guessed, and nothing left out.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import cbor2

from lafsfs.caps import DirectoryCap, UnknownCap, parse
from lafsfs.errors import BadCapabilityError, DeepImmutableError, FormatError, JournalFormatError
from lafsfs.formats import cbor
from lafsfs.formats.dirtable import Entry, parse_entry
from lafsfs.nodes.edits import Base
from lafsfs.vfs.posix.attributes import Kind, Posix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lafsfs.caps import Cap
    from lafsfs.nodes.edits import BaseCap

VERSION: Final = 1
_INODE: Final = 1
_NAME: Final = 2
_MAX_DEPTH: Final = 8
_MAX_ITEMS: Final = 1 << 20
_LIMIT: Final = 1 << 63  # of 64 signed bits

NEW: Final = 0  # the grid never had the inode under the name
OLDER: Final = -1  # it has something older there
CURRENT: Final = 1  # it has what is wanted


class What(enum.IntEnum):
    """What an inode is to the vfs."""

    FILE = 1  # or anything that is stored as one
    DIRECTORY = 2
    LOOP = 3  # a directory inside itself, shown as a link
    REMOVED = 4  # a directory that nothing leads to any more


@dataclass(frozen=True, slots=True)
class InodeRecord:
    """An inode of which something is pending, but for the contents, which go beside the row.

    ``beneath``: what staged contents are laid over. ``key``: the DER of the key pair of a directory
    that may not be on the grid. ``target``: of a loop.
    """

    number: int
    what: What
    posix: Posix
    cap: Cap | UnknownCap | None
    beneath: Cap | UnknownCap | None = None
    superseded: tuple[str, ...] = ()
    key: bytes | None = field(default=None, repr=False)
    target: bytes = b""

    def pack(self) -> bytes:
        """The row's value."""
        return cbor2.dumps(
            [
                VERSION,
                _INODE,
                self.number,
                self.what.value,
                _packed_posix(self.posix),
                packed_cap(self.cap),
                packed_cap(self.beneath),
                self.superseded,
                self.key,
                self.target,
            ]
        )


@dataclass(frozen=True, slots=True)
class EdgeRecord:
    """What a name leads to: see :class:`~lafsfs.vfs.tree.bindings.Edge`. ``told``: NEW and so
    on."""

    number: int
    told: int
    origin: Entry | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NameRecord:
    """A name of which something is pending: see :class:`~lafsfs.vfs.tree.bindings.Binding`.

    ``edge`` None: the name is removed. ``left``: numbers of inodes. ``changed``: when a name in the
    directory changed last, in ns, 0 for never. ``made``: when this one was given, in ns.
    """

    directory: DirectoryCap
    name: str
    raw_name: bytes | None
    edge: EdgeRecord | None
    base: BaseCap
    entry: Entry | None = field(default=None, repr=False)
    maybe: tuple[BaseCap, ...] = ()
    left: tuple[int, ...] = ()
    made: int | None = None
    changed: int = 0

    def pack(self, directory: str | None = None) -> bytes:
        """The row's value. ``directory``: as :func:`packed_cap` gives it, if that is at hand."""
        edge = self.edge
        return cbor2.dumps(
            [
                VERSION,
                _NAME,
                packed_cap(self.directory) if directory is None else directory,
                self.name,
                self.raw_name,
                None if edge is None else [edge.number, edge.told, _packed_entry(edge.origin)],
                _packed_base(self.base),
                _packed_entry(self.entry),
                [_packed_base(one) for one in self.maybe],
                self.left,
                self.made,
                self.changed,
            ]
        )


Record: TypeAlias = InodeRecord | NameRecord


def packed_cap(cap: Cap | UnknownCap | None) -> str | tuple[str | None, str | None] | None:
    """A capability as a row holds it: all of it, so keep it secret."""
    if cap is None:
        return None
    if isinstance(cap, UnknownCap):
        return cap.write, cap.read
    return cap.danger_text()


def unpack(row: int, value: bytes) -> Record:
    """What the row with the id ``row`` says.

    Raises:
        JournalFormatError: that is not known. The message says what to do.
    """
    try:
        fields = cbor.decode(value, max_depth=_MAX_DEPTH, max_items=_MAX_ITEMS)
        record = _record(fields)
        if record.pack() != value:
            raise FormatError("it says more than is understood")
    except _NewerError as error:
        raise JournalFormatError(
            f"row {row} of the journal is of version {error.version}, written by a newer lafsfs,"
            f" and this one knows {VERSION}: mount with the newer one"
        ) from None
    except (FormatError, BadCapabilityError, DeepImmutableError, TypeError, ValueError) as error:
        raise JournalFormatError(
            f"row {row} of the journal is not understood ({error}): nothing is mounted, and"
            " nothing in the journal was changed"
        ) from None
    return record


# --- packing --------------------------------------------------------------------------------------


def _packed_posix(posix: Posix) -> list[Any]:
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


def _packed_entry(entry: Entry | None) -> bytes | None:
    return None if entry is None else entry.raw


def _packed_base(base: BaseCap) -> Any:  # noqa: ANN401
    """Nothing for nothing, as an absent capability is never a base."""
    if isinstance(base, Base):
        if base is not Base.ABSENT:
            raise ValueError("a name is based on what was seen there")
        return None
    return packed_cap(base)


# --- unpacking ------------------------------------------------------------------------------------


class _NewerError(Exception):
    def __init__(self, version: int) -> None:
        super().__init__()
        self.version = version


def _record(fields: Any) -> Record:  # noqa: ANN401
    if not isinstance(fields, list) or len(fields) < 2 or not isinstance(fields[0], int):
        raise FormatError("it is no record")
    version, kind, *rest = fields
    if version > VERSION:
        raise _NewerError(version)
    if version == VERSION and kind == _INODE and len(rest) == 8:
        return _inode(rest)
    if version == VERSION and kind == _NAME and len(rest) == 10:
        return _name(rest)
    raise FormatError("it is no record that is known")


def _inode(fields: list[Any]) -> InodeRecord:
    number, what, posix, cap, beneath, superseded, key, target = fields
    return InodeRecord(
        _whole(number),
        What(_whole(what)),
        _posix(posix),
        _cap(cap),
        _cap(beneath),
        tuple(_text(one) for one in _list(superseded)),
        None if key is None else _bytes(key),
        _bytes(target),
    )


def _name(fields: list[Any]) -> NameRecord:
    directory, name, raw_name, edge, base, entry, maybe, left, made, changed = fields
    cap = _cap(directory)
    if not isinstance(cap, DirectoryCap):
        raise FormatError("a name is in a directory")
    return NameRecord(
        cap,
        _text(name),
        None if raw_name is None else _bytes(raw_name),
        None if edge is None else _edge(edge),
        _base(base),
        _entry(entry),
        tuple(_base(one) for one in _list(maybe)),
        tuple(_whole(one) for one in _list(left)),
        None if made is None else _integer(made),
        _integer(changed),
    )


def _edge(fields: Any) -> EdgeRecord:  # noqa: ANN401
    if len(_list(fields)) != 3:
        raise FormatError("an edge has three parts")
    number, told, origin = fields
    if _integer(told) not in (NEW, OLDER, CURRENT):
        raise FormatError("the grid has heard of an edge, or of an older one, or not")
    return EdgeRecord(_whole(number), told, _entry(origin))


def _posix(fields: Any) -> Posix:  # noqa: ANN401
    if len(_list(fields)) != 14 or not isinstance(fields[-1], dict):
        raise FormatError("attributes have fourteen parts")
    kind, mode, uid, gid, atime, mtime, ctime, btime, mtime_set, rdev, nlink, size, number, x = (
        fields
    )
    return Posix(
        kind=Kind(_text(kind)),
        mode=_whole(mode),
        uid=_whole(uid),
        gid=_whole(gid),
        atime=_integer(atime),
        mtime=_integer(mtime),
        ctime=_integer(ctime),
        btime=_integer(btime),
        mtime_set=None if mtime_set is None else _integer(mtime_set),
        rdev=_whole(rdev),
        nlink=_whole(nlink),
        size=None if size is None else _whole(size),
        number=None if number is None else _whole(number),
        **_xattrs(x),
    )


def _xattrs(value: Mapping[Any, Any]) -> dict[str, Mapping[bytes, bytes]]:
    """Nothing for none, so that all who have none share one mapping."""
    return {"xattrs": {_bytes(key): _bytes(one) for key, one in value.items()}} if value else {}


def _cap(value: Any) -> Cap | UnknownCap | None:  # noqa: ANN401
    if value is None:
        return None
    if isinstance(value, str):
        return parse(value)
    if len(_list(value)) != 2:
        raise FormatError("an unknown capability has two slots")
    write, read = (None if one is None else _text(one) for one in value)
    return UnknownCap(write, read)


def _base(value: Any) -> BaseCap:  # noqa: ANN401
    cap = _cap(value)
    return Base.ABSENT if cap is None else cap


def _entry(value: Any) -> Entry | None:  # noqa: ANN401
    if value is None:
        return None
    entry = parse_entry(_bytes(value))
    if not isinstance(entry, Entry):
        raise FormatError("an entry of a directory can be read")
    return entry


def _list(value: Any) -> list[Any]:  # noqa: ANN401
    if not isinstance(value, list):
        raise FormatError("a list is wanted")
    return value


def _bytes(value: Any) -> bytes:  # noqa: ANN401
    if not isinstance(value, bytes):
        raise FormatError("bytes are wanted")
    return value


def _text(value: Any) -> str:  # noqa: ANN401
    if not isinstance(value, str):
        raise FormatError("text is wanted")
    return value


def _integer(value: Any) -> int:  # noqa: ANN401
    if not isinstance(value, int) or isinstance(value, bool) or not -_LIMIT <= value < _LIMIT:
        raise FormatError("a number is wanted")
    return value


def _whole(value: Any) -> int:  # noqa: ANN401
    if _integer(value) < 0:
        raise FormatError("a number that is not negative is wanted")
    return int(value)
