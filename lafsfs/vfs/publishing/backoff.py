"""How long to leave alone what has failed."""

from __future__ import annotations

_MOST_DOUBLINGS = 30  # beyond which a float would have no end


def back_off(failures: int, first: float, most: float) -> float:
    """Seconds to wait after so many failures in a row, at least one: twice as long each time."""
    return min(most, first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS))
