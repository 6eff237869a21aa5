"""Edits of a directory, as values, and what becomes of a table when they are applied. Pure.

A directory is only ever changed by handing a batch of edits to :func:`apply_edits`, inside one
``modify()`` of its mutable file. The function sees the table as it is *now*, which need not be the
one the edits were made against, and may be called several times for one batch. Its rules:

- An edit says which edge it was based on (its *base*). It acts where the edge is still that, or is
  already what the edit wants; otherwise somebody else was there first, and both sides keep what
  they have: a new child goes in under a ``NAME.conflicted-...`` name, an unlink keeps the child.
- Applying a batch to a table that already holds its result changes nothing, so a batch may be
  replayed after a half-seen success.
- Entries that no edit names keep their bytes, readable to us or not. No child is ever dropped.
- Edge metadata follows stock's rules (``frontends/webapi.rst``, "Metadata"): the ``tahoe`` key is
  the system's and keeps ``linkcrtime`` and ``linkmotime``; everything else belongs to whoever
  wrote it. ``no-write`` means that only the read capability is stored.

Metadata given with an edit is laid over what the edge has: each top-level key given replaces that
key whole, ``None`` removes it, keys not given stay. ``tahoe`` is never taken from an edit.
"""

from __future__ import annotations

import enum
import itertools
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from lafsfs.caps import slots_of
from lafsfs.errors import BadNameError, NotPermittedError
from lafsfs.formats.dirtable import make_entry
from lafsfs.nodes.listing import Child

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lafsfs.caps import Cap, UnknownCap
    from lafsfs.formats.dirtable import DirectoryTable, Entry

LATEST = 253_402_300_799.0  # seconds: the last that a calendar of four-digit years can name
MAX_NAME_BYTES = 255  # of UTF-8: what a local file system can show without escaping

Metadata: TypeAlias = Mapping[str, Any]


class Base(enum.Enum):
    """What an edit expects of the edge when it is not one particular capability."""

    ANY = "any"  # whatever is there, or nothing
    ABSENT = "absent"  # no child of that name


# What an edit may expect of the edge: one thing, or any of several.
BaseCap: TypeAlias = "Base | Cap | UnknownCap"
Expected: TypeAlias = "BaseCap | tuple[BaseCap, ...]"


@dataclass(frozen=True, slots=True)
class SetChild:
    """Link ``cap`` under ``name``, replacing the edge if it is still ``base``, or one of them.

    ``metadata`` is laid over the edge's (see the module); with ``replace`` it is all that the new
    edge has besides ``tahoe``, as when a child and its metadata move here from elsewhere. ``made``
    is when the name was made, in seconds since the epoch, if that was before now.
    """

    name: str
    cap: Cap | UnknownCap
    metadata: Metadata | None = field(default=None, repr=False)
    base: Expected = Base.ANY
    replace: bool = False
    made: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", normalized(self.name))
        if slots_of(self.cap) == (None, None):
            raise NotPermittedError("this child can be kept where it is, but not linked elsewhere")


@dataclass(frozen=True, slots=True)
class Unlink:
    """Remove the edge ``name`` if it is still ``base``, or one of them. An absent edge is fine."""

    name: str
    base: Expected = Base.ANY

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", normalized(self.name))


@dataclass(frozen=True, slots=True)
class SetMetadata:
    """Lay ``metadata`` over whatever edge ``name`` is there now."""

    name: str
    metadata: Metadata = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", normalized(self.name))


Edit: TypeAlias = SetChild | Unlink | SetMetadata


@dataclass(frozen=True, slots=True)
class Done:
    """The edge is as the edit wanted it. ``changed`` is False if it was so before."""

    changed: bool


@dataclass(frozen=True, slots=True)
class Conflict:
    """The name had been taken or changed; our child is under ``name`` instead."""

    name: str


@dataclass(frozen=True, slots=True)
class Kept:
    """The edge is not the one that was to be unlinked, so it stays."""


@dataclass(frozen=True, slots=True)
class Gone:
    """There is no such edge (any more) whose metadata could be set."""


Outcome: TypeAlias = Done | Conflict | Kept | Gone


def normalized(name: str) -> str:
    """The NFC form under which a name is stored.

    Raises:
        BadNameError: empty, or not encodable as UTF-8 (stock could not read the directory again).
    """
    if not name:
        raise BadNameError("a child's name cannot be empty")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise BadNameError("a child's name must be UTF-8") from None
    return unicodedata.normalize("NFC", name)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What every edit of one batch needs to know; fixed once, so that retries agree.

    ``now`` is in seconds since the epoch, ``host`` tells whose conflicting copy it was, and
    ``write_key`` is the directory's.
    """

    now: float
    host: str
    write_key: bytes = field(repr=False)


def apply_edits(
    table: DirectoryTable, edits: Sequence[Edit], circumstances: Circumstances
) -> tuple[DirectoryTable | None, tuple[Outcome, ...]]:
    """Apply ``edits`` in order: the new table (``None`` if nothing changed), an outcome for each.

    Later edits see what earlier ones did.
    """
    draft = _Draft(dict(table.by_name), circumstances)
    outcomes = tuple(draft.apply(edit) for edit in edits)
    return (table.with_entries(draft.entries) if draft.changed else None), outcomes


class _Draft:
    """The readable entries of a table while a batch is being applied to them."""

    def __init__(self, entries: dict[str, Entry], circumstances: Circumstances) -> None:
        self.entries = entries
        self.changed = False
        self._circumstances = circumstances

    def apply(self, edit: Edit) -> Outcome:
        if isinstance(edit, SetChild):
            return self._set_child(edit)
        if isinstance(edit, Unlink):
            return self._unlink(edit)
        return self._set_metadata(edit)

    def _set_child(self, edit: SetChild) -> Outcome:
        child = self._child(edit.name)
        if is_base(child, edit.base) or self._holds(edit.name, edit):
            return Done(self._link(edit.name, child, edit))
        name = self._conflict_name(edit)
        self._link(name, self._child(name), edit)
        return Conflict(name)

    def _unlink(self, edit: Unlink) -> Outcome:
        child = self._child(edit.name)
        if child is None:
            return Done(changed=False)
        if not is_base(child, edit.base):
            return Kept()
        del self.entries[edit.name]
        self.changed = True
        return Done(changed=True)

    def _set_metadata(self, edit: SetMetadata) -> Outcome:
        child = self._child(edit.name)
        if child is None:
            return Gone()
        return Done(self._store(edit.name, child, child.cap, edit.metadata, replace=False))

    def _link(self, name: str, child: Child | None, edit: SetChild) -> bool:
        metadata = edit.metadata or {}
        return self._store(name, child, edit.cap, metadata, replace=edit.replace, made=edit.made)

    def _store(
        self,
        name: str,
        child: Child | None,
        cap: Cap | UnknownCap,
        metadata: Metadata,
        *,
        replace: bool,
        made: float | None = None,
    ) -> bool:
        """Make ``name`` lead to ``cap`` with that metadata; False if it did already."""
        before = {} if child is None else child.metadata
        after = laid_over(before, metadata, replace=replace)
        cap = attenuated(cap, after)
        if child is not None and child.cap == cap and after == before:
            return False
        after = stamped(after, before, self._circumstances.now, made)
        if child is not None and child.cap == cap:
            entry = child.entry.with_metadata(after)  # whatever the entry holds, it stays
        else:
            entry = make_entry(name, *slots_of(cap), after, self._circumstances.write_key)
        self.entries[name] = entry
        self.changed = True
        return True

    def _child(self, name: str) -> Child | None:
        entry = self.entries.get(name)
        if entry is None:
            return None
        return Child(name, entry, self._circumstances.write_key, mutable=True)

    def _conflict_name(self, edit: SetChild) -> str:
        """Where a child goes whose name is taken: where it went before, if it has been here."""
        stem = f"{edit.name}.conflicted-"
        for name in self.entries:
            if name.startswith(stem) and self._holds(name, edit):
                return name
        now = min(max(self._circumstances.now, 0.0), LATEST)
        when = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d-%H%M%S")
        for count in itertools.count(1):
            suffix = f".conflicted-{when}-{self._circumstances.host}"
            name = _shortened(edit.name, suffix + (f"-{count}" if count > 1 else ""))
            if name not in self.entries or self._holds(name, edit):
                return name
        raise AssertionError("unreachable")

    def _holds(self, name: str, edit: SetChild) -> bool:
        child = self._child(name)
        return child is not None and child.cap == attenuated(edit.cap, edit.metadata or {})


def laid_over(before: Metadata, update: Metadata, *, replace: bool) -> dict[str, Any]:
    """Metadata after an edit, but for the time stamps (see the module)."""
    kept = {} if replace else {key: value for key, value in before.items() if key != "tahoe"}
    after = kept | {key: value for key, value in update.items() if key != "tahoe"}
    after = {key: value for key, value in after.items() if value is not None}
    return after | ({"tahoe": before["tahoe"]} if "tahoe" in before else {})


def stamped(
    after: Metadata, before: Metadata, now: float, made: float | None = None
) -> dict[str, Any]:
    """``after`` with the system's own time stamps brought up to ``now``.

    ``linkcrtime`` is when the name first appeared, ``made`` where that was here and before now;
    before Tahoe-LAFS 1.4 it was ``ctime``.
    """
    born = now if made is None else min(made, now)
    system = before.get("tahoe")
    system = dict(system) if isinstance(system, dict) else {}
    system.setdefault("linkcrtime", before.get("ctime") or born)
    system["linkmotime"] = now
    return {**after, "tahoe": system}


def attenuated(cap: Cap | UnknownCap, metadata: Metadata) -> Cap | UnknownCap:
    """What of a capability may be stored: ``no-write`` leaves the right to read."""
    return cap.read_cap() if metadata.get("no-write") else cap


def is_base(child: Child | None, base: Expected) -> bool:
    """Whether an edge is what an edit expects."""
    if isinstance(base, tuple):
        return any(is_base(child, one) for one in base)
    if base is Base.ANY:
        return True
    if isinstance(base, Base):
        return child is None
    return child is not None and child.read_cap == base.read_cap()


def _shortened(name: str, suffix: str) -> str:
    """``name`` cut so that ``name + suffix`` still fits a local name, and the suffix."""
    room = max(MAX_NAME_BYTES - len(suffix.encode()), 1)
    stem = name.encode()[:room].decode("utf-8", "ignore")
    return unicodedata.normalize("NFC", stem + suffix)
