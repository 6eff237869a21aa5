"""Where heavy work on bytes runs: inline while it is short, in a worker thread once it is not.

Rule: below :data:`INLINE_LIMIT` bytes the hop to a thread (about 75 us) costs more than it gives
the event loop back; above it, hashing and erasure coding (0.4 to 2 GB/s, without the interpreter's
lock) would hold up every other request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

INLINE_LIMIT = 128 << 10  # bytes: about 1 ms of encrypting, hashing and encoding 3-of-10


async def work_on(size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a pure function that works through ``size`` bytes; always a checkpoint."""
    if size <= INLINE_LIMIT:
        await trio.lowlevel.checkpoint()
        return function(*args, **kwargs)
    return await trio.to_thread.run_sync(lambda: function(*args, **kwargs))
