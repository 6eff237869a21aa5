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
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from lafsfs.caps import UnknownCap
from lafsfs.errors import BadNameError

if TYPE_CHECKING:
    from lafsfs.caps import Cap

Metadata: TypeAlias = Mapping[str, Any]


class Base(enum.Enum):
    """What an edit expects of the edge when it is not one particular capability."""

    ANY = "any"  # whatever is there, or nothing
    ABSENT = "absent"  # no child of that name


@dataclass(frozen=True, slots=True)
class SetChild:
    """Link ``cap`` under ``name``, replacing the edge if it is still ``base``.

    ``metadata`` is laid over the edge's (see the module); with ``replace`` it is all that the new
    edge has besides ``tahoe``, as when a child and its metadata move here from elsewhere.
    """

    name: str
    cap: Cap | UnknownCap
    metadata: Metadata | None = field(default=None, repr=False)
    base: Base | Cap | UnknownCap = Base.ANY
    replace: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", normalized(self.name))


@dataclass(frozen=True, slots=True)
class Unlink:
    """Remove the edge ``name`` if it is still ``base``. An absent edge is fine."""

    name: str
    base: Base | Cap | UnknownCap = Base.ANY

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
