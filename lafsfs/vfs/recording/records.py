"""What the journal's rows say: pending inodes and pending names, as CBOR. Pure.

A row is a CBOR list that begins with a version and the kind of row:

    inode   number, what it is, attributes, capability, capability beneath staged contents,
            digests of superseded capabilities, key pair (DER) or key, target
    name    capability of the directory, stored name, local bytes, edge, base, entry, maybe, left,
            when the name was made, when the directory changed
    place   capability of a directory, stored name, entry: something pending is in what it leads to
    look    capability of a directory, stored name, entry, inode: see LookRecord
    begun   capability of a slot, sequence number: versions up to that may turn up

Inodes and names are of version 1, the others of version 2.

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

from lafsfs.caps import UnknownCap
from lafsfs.errors import BadCapabilityError, DeepImmutableError, FormatError, JournalFormatError
from lafsfs.formats import cbor
from lafsfs.vfs.recording.fields import (
    as_base,
    as_bytes,
    as_cap,
    as_directory,
    as_entry,
    as_integer,
    as_list,
    as_posix,
    as_text,
    as_whole,
    packed_base,
    packed_cap,
    packed_directory,
    packed_entry,
    packed_posix,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lafsfs.caps import Cap, DirectoryCap
    from lafsfs.formats.dirtable import Entry
    from lafsfs.nodes.edits import BaseCap
    from lafsfs.vfs.posix.attributes import Posix

VERSION: Final = 2  # the newest of them
_INODE: Final = (1, 1)
_NAME: Final = (1, 2)
_PLACE: Final = (2, 3)
_LOOK: Final = (2, 4)
_BEGUN: Final = (2, 5)
_MAX_DEPTH: Final = 8
_MAX_ITEMS: Final = 1 << 20

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
    that may not be on the grid; of a file, the 16 random bytes that its contents are uploaded
    under. ``target``: of a loop.
    """

    number: int
    what: What
    posix: Posix
    cap: Cap | UnknownCap | None
    beneath: Cap | UnknownCap | None = None
    superseded: tuple[str, ...] = ()
    key: bytes | None = field(default=None, repr=False)
    target: bytes = b""

    @property
    def is_new_directory(self) -> bool:
        """Whether it has a key pair."""
        return self.key is not None and self.what is not What.FILE

    def pack(self) -> bytes:
        """The row's value."""
        return cbor2.dumps(
            [
                *_INODE,
                self.number,
                self.what.value,
                packed_posix(self.posix),
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

    def pack(self) -> bytes:
        """The row's value."""
        edge = self.edge
        return cbor2.dumps(
            [
                *_NAME,
                packed_directory(self.directory),
                self.name,
                self.raw_name,
                None if edge is None else [edge.number, edge.told, packed_entry(edge.origin)],
                packed_base(self.base),
                packed_entry(self.entry),
                [packed_base(one) for one in self.maybe],
                self.left,
                self.made,
                self.changed,
            ]
        )


@dataclass(frozen=True, slots=True)
class PlaceRecord:
    """A name on the way to something pending, as the grid has it: it leads to a directory."""

    directory: DirectoryCap
    name: str
    entry: Entry = field(repr=False)

    def pack(self) -> bytes:
        """The row's value."""
        return cbor2.dumps([*_PLACE, packed_cap(self.directory), self.name, self.entry.raw])


@dataclass(frozen=True, slots=True)
class LookRecord:
    """What is yet to be looked at in or above ``directory``: see
    :class:`~lafsfs.vfs.publishing.removals.Look`. ``number``: of an inode."""

    directory: DirectoryCap
    name: str = ""
    entry: Entry | None = field(default=None, repr=False)
    number: int | None = None

    def pack(self) -> bytes:
        """The row's value."""
        cap, entry = packed_cap(self.directory), packed_entry(self.entry)
        return cbor2.dumps([*_LOOK, cap, self.name, entry, self.number])


@dataclass(frozen=True, slots=True)
class BegunRecord:
    """Versions of a slot up to ``seqnum`` were begun to be published, and none went well since."""

    cap: Cap
    seqnum: int

    def pack(self) -> bytes:
        """The row's value."""
        return cbor2.dumps([*_BEGUN, packed_cap(self.cap), self.seqnum])


Record: TypeAlias = InodeRecord | NameRecord | PlaceRecord | LookRecord | BegunRecord


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
    if not isinstance(kind, int):
        raise FormatError("it is no record")
    size, unpacked = _KINDS.get((version, kind), (-1, None))
    if unpacked is None or len(rest) != size:
        raise FormatError("it is no record that is known")
    return unpacked(rest)


def _inode(fields: list[Any]) -> InodeRecord:
    number, what, posix, cap, beneath, superseded, key, target = fields
    return InodeRecord(
        as_whole(number),
        What(as_whole(what)),
        as_posix(posix),
        as_cap(cap),
        as_cap(beneath),
        tuple(as_text(one) for one in as_list(superseded)),
        None if key is None else as_bytes(key),
        as_bytes(target),
    )


def _name(fields: list[Any]) -> NameRecord:
    directory, name, raw_name, edge, base, entry, maybe, left, made, changed = fields
    return NameRecord(
        as_directory(directory),
        as_text(name),
        None if raw_name is None else as_bytes(raw_name),
        None if edge is None else _edge(edge),
        as_base(base),
        as_entry(entry),
        tuple(as_base(one) for one in as_list(maybe)),
        tuple(as_whole(one) for one in as_list(left)),
        None if made is None else as_integer(made),
        as_integer(changed),
    )


def _place(fields: list[Any]) -> PlaceRecord:
    directory, name, raw = fields
    entry = as_entry(raw)
    if entry is None:
        raise FormatError("a place is known by its entry")
    return PlaceRecord(as_directory(directory), as_text(name), entry)


def _look(fields: list[Any]) -> LookRecord:
    directory, name, entry, number = fields
    whole = None if number is None else as_whole(number)
    return LookRecord(as_directory(directory), as_text(name), as_entry(entry), whole)


def _begun(fields: list[Any]) -> BegunRecord:
    cap = as_cap(fields[0])
    if cap is None or isinstance(cap, UnknownCap):
        raise FormatError("what is published is known")
    return BegunRecord(cap, as_whole(fields[1]))


def _edge(fields: Any) -> EdgeRecord:  # noqa: ANN401
    if len(as_list(fields)) != 3:
        raise FormatError("an edge has three parts")
    number, told, origin = fields
    if as_integer(told) not in (NEW, OLDER, CURRENT):
        raise FormatError("the grid has heard of an edge, or of an older one, or not")
    return EdgeRecord(as_whole(number), told, as_entry(origin))


_KINDS: Final[Mapping[tuple[int, int], tuple[int, Callable[[list[Any]], Record]]]] = {
    _INODE: (8, _inode),
    _NAME: (10, _name),
    _PLACE: (3, _place),
    _LOOK: (4, _look),
    _BEGUN: (2, _begun),
}
