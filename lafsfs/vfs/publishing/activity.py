"""Whether programs are busy, so that what goes to the grid by itself keeps out of their way.

Uploads and publishes take the same processors as the calls of a program that unpacks an archive,
and what they would bring may be renamed over in a moment. So while call follows call, each within
the quiet period of the last, what is due waits, for ``HELD`` seconds at most: who writes for hours
has it brought up all the while. Unpacking five thousand files cost 16 seconds of processor time
until all was accepted, and 27 when uploads began within it. What somebody waits for is never held.
"""

from __future__ import annotations

from typing import Final

import trio

HELD: Final = 30.0  # seconds


class Activity:
    """When a program last had something accepted. Times are the event loop's."""

    def __init__(self, quiet: float) -> None:
        """``quiet``: seconds after a call, until nobody is busy any more."""
        self._quiet = quiet
        self._until = float("-inf")  # when it is quiet, if nothing follows

    def note(self) -> None:
        """Something is being accepted."""
        self._until = trio.current_time() + self._quiet

    @property
    def is_going_on(self) -> bool:
        """Whether it is likely that more follows."""
        return trio.current_time() < self._until

    def start_of(self, due: float) -> float:
        """When what is due at ``due`` may begin, as far as is known now."""
        return max(due, min(self._until, due + HELD))
