"""What a directory entry holds: two slots, read and write, that need not make sense to us.

A directory may list children of kinds that only a later version knows. They are carried along as
:class:`UnknownCap` under rules that keep authority from leaking: nothing unknown is taken for a
read capability unless whoever stored it said so (``ro.``, ``imm.``, or its being in the read slot).
The rules are those of stock Tahoe-LAFS's unknown nodes, so both clients show and keep the same
children.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lafsfs.caps.base import Capability
from lafsfs.caps.fields import MAX_TEXT_LENGTH
from lafsfs.caps.parser import (
    IMMUTABLE_PREFIX,
    READONLY_PREFIX,
    UnknownKindError,
    parse,
    split_prefix,
)
from lafsfs.errors import BadCapabilityError, DeepImmutableError

if TYPE_CHECKING:
    from lafsfs.caps import Cap


@dataclass(frozen=True, slots=True, repr=False)
class UnknownCap(Capability):
    """A child that cannot be read here, but must survive every edit of its directory.

    ``read`` carries its prefix, ``ro.`` or ``imm.``; both slots may be None.
    """

    write: str | None
    read: str | None

    @property
    def kind(self) -> str:
        return "unknown"

    def danger_text(self) -> str:
        return self.write or self.read or ""

    @property
    def can_write(self) -> bool:
        return False

    @property
    def can_read(self) -> bool:
        return False

    @property
    def is_mutable(self) -> bool:
        """Whether nobody has promised that it cannot change."""
        return not self.is_allegedly_immutable

    @property
    def is_allegedly_immutable(self) -> bool:
        """Whether whoever stored it promised that it never changes."""
        return self.write is None and (self.read or IMMUTABLE_PREFIX).startswith(IMMUTABLE_PREFIX)

    @property
    def storage_index(self) -> None:
        return None

    @property
    def rights(self) -> str:
        return "unknown"

    def read_cap(self) -> UnknownCap:
        return UnknownCap(None, self.read)

    def verify_cap(self) -> None:
        return None


def parse_child(
    write: str | None, read: str | None, *, deep_immutable: bool = False
) -> Cap | UnknownCap:
    """Make sense of a directory entry's two slots (or of one capability given in ``write``).

    Trailing spaces are dropped. A known capability with the right to read is returned as what it
    is; a known write capability in the read slot loses the right to write; what is unknown, only
    verifies, or is malformed behind a good read slot comes back as :class:`UnknownCap`.

    Raises:
        BadCapabilityError: the slots cannot be kept safely: malformed, or an unknown capability
            that might write with nothing to read beside it.
        DeepImmutableError: ``deep_immutable`` (or ``imm.``) is broken.
    """
    write = (write or "").rstrip(" ") or None
    read = (read or "").rstrip(" ") or None
    known = _known_child(write, read, deep_immutable)
    return known if known is not None else _unknown_child(write, read, deep_immutable)


def _known_child(write: str | None, read: str | None, deep_immutable: bool) -> Cap | None:
    text = write or read
    if text is None:
        return None
    try:
        cap = parse(text, deep_immutable=deep_immutable)
    except UnknownKindError:
        return None
    except (BadCapabilityError, DeepImmutableError):
        if write is not None and read is not None and not deep_immutable:
            return None  # the read slot may still be worth showing
        raise
    if not cap.can_read:
        return None
    return cap if write is not None else cap.read_cap()


def _unknown_child(write: str | None, read: str | None, deep_immutable: bool) -> UnknownCap:
    if max(len(write or ""), len(read or "")) > MAX_TEXT_LENGTH:
        raise BadCapabilityError("a child's capability is far too long")
    write, read = _settle_slots(write, read, deep_immutable)
    if read is None:
        return UnknownCap(write, None)
    prefix, body = split_prefix(read)
    promise = IMMUTABLE_PREFIX if deep_immutable else prefix or READONLY_PREFIX
    with contextlib.suppress(UnknownKindError):
        parse(promise + body)  # of a known kind, the promise can be checked
    return UnknownCap(write, promise + body)


def _settle_slots(
    write: str | None, read: str | None, deep_immutable: bool
) -> tuple[str | None, str | None]:
    """Move a single prefixed capability to the read slot, and refuse what might over-share."""
    if write is None:
        return None, read
    prefix, _ = split_prefix(write)
    if deep_immutable and (read is not None or prefix != IMMUTABLE_PREFIX):
        raise DeepImmutableError("an unknown capability that may write cannot be kept here")
    if read is None:
        if not prefix:
            raise BadCapabilityError(
                "an unknown capability that may write can only be kept beside a read capability"
            )
        return None, write
    if read.startswith(IMMUTABLE_PREFIX):
        raise DeepImmutableError("a child that is written cannot promise never to change")
    return write, read


def slots_of(cap: Cap | UnknownCap) -> tuple[str | None, str | None]:
    """What to store for a child: its ``(write, read)`` strings, prefixes still in place.

    Whoever packs a table strips the read slot's prefix with :func:`strip_implied_prefix`.
    """
    if isinstance(cap, UnknownCap):
        return cap.write, cap.read
    return (cap.danger_text() if cap.can_write else None), cap.read_cap().danger_text()


def strip_implied_prefix(read: str, *, deep_immutable: bool) -> str:
    """Drop the promise that the place of storage implies.

    ``ro.`` is implied by the read slot, ``imm.`` only by an immutable directory.
    """
    prefix, body = split_prefix(read)
    return read if prefix == IMMUTABLE_PREFIX and not deep_immutable else body
