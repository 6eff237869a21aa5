"""What to say when a segment cannot be had. PURE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lafsfs.errors import NotEnoughSharesError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_NOTES = 12  # how many troubles an error message speaks of


def not_enough(good: int, needed: int, found: int, notes: Iterable[str]) -> NotEnoughSharesError:
    """The error that says so.

    Args:
        good: how many good blocks there are.
        needed: how many it takes.
        found: how many different shares are known.
        notes: what happened to the others, the most telling first; each is said once.
    """
    notes = list(dict.fromkeys(notes))
    more = len(notes) - MAX_NOTES
    text = "; ".join(notes[:MAX_NOTES]) + (f"; and {more} more" if more > 0 else "")
    return NotEnoughSharesError(
        f"{good} good shares of {found} found, and {needed} are needed: "
        + (text or "there is no storage server")
    )
