"""Keeping Python's collector of cyclic garbage from holding up requests.

A full collection looks at every object there is, with the world standing still: with 50,000 names
known to the kernel that is half a second, six times while they are being listed. What lives that
long here is freed when nobody refers to it any more, as nearly everything is: the cycles that
there are are made and dropped within a request, and the collections of young objects find them. So
full collections become a hundred times rarer, and what was there before the first request is left
out of them. ``tests/bench/collecting.py`` measures both.
"""

from __future__ import annotations

import gc
from typing import Final

RARELY: Final = 1000  # collections of the middle generation for one of everything; usually 10


def spare_the_old() -> None:
    """Collect everything rarely from now on, and what exists now never."""
    gc.set_threshold(*gc.get_threshold()[:2], RARELY)
    gc.freeze()
