"""How the C library keeps memory that Python has given back. Linux, glibc.

Blocks of a megabyte come and go by the dozen here, in the event loop and in worker threads.

glibc gives threads arenas of their own, eight for each core, and each keeps what was freed in it.
With 200 readers that came to 480 MB where 330 MB do with two arenas, which cost nothing that could
be measured.

What is free at the end of an arena, on the other hand, glibc gives back to the kernel as soon as it
is 128 KiB, and large blocks at once: every block then begins with its pages being mapped and
cleared anew. That was a sixth of the processor time of writing, and is gone when each arena may
keep a few megabytes.
"""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1  # of malloc.h
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

ARENAS: Final = 2
KEPT: Final = 16 << 20  # bytes that may stay free at the end of an arena; 32 MiB gain no more
GROWTH: Final = 1 << 20  # bytes that an arena asks for at once
LARGE: Final = 8 << 20  # bytes of a block that is returned at once; reads ahead have up to 6 MiB


def tune_malloc() -> bool:
    """Keep to these bounds from now on; False where that cannot be asked for."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    settings = {
        _M_ARENA_MAX: ARENAS,
        _M_TRIM_THRESHOLD: KEPT,
        _M_TOP_PAD: GROWTH,
        _M_MMAP_THRESHOLD: LARGE,
    }
    return all([bool(mallopt(setting, value)) for setting, value in settings.items()])
