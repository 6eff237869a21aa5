"""Keeping the C library from holding on to memory that Python has given back. Linux, glibc.

glibc gives threads arenas of their own, eight for each core, and each keeps what was freed in it.
Blocks of a megabyte come and go in dozens of worker threads here: with 200 readers that came to
480 MB where 330 MB do with two arenas, which cost nothing that could be measured.
"""

from __future__ import annotations

import ctypes
from typing import Final

_M_ARENA_MAX: Final = -8  # of malloc.h
ARENAS: Final = 2


def bound_arenas() -> bool:
    """Let there be no more than two arenas from now on; False where that cannot be asked for."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_ARENA_MAX, ARENAS))
