"""Where heavy work on bytes runs: inline while it is short, in a worker thread once it is not.

Rule: :data:`INLINE_LIMIT` counts bytes of hashing (2 GB/s). Up to there the work holds up every
other request for at most 65 us, and the hop to a thread would cost the event loop half as much;
from there on the loop gains. ``tests/bench/inline_limit.py`` measures both; callers whose work is
quicker or slower than hashing say so by the size they give. All of it releases the interpreter's
lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

INLINE_LIMIT = 128 << 10  # bytes


async def work_on(size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a pure function that works through ``size`` bytes; always a checkpoint."""
    if size <= INLINE_LIMIT:
        await trio.lowlevel.checkpoint()
        return function(*args, **kwargs)
    return await trio.to_thread.run_sync(lambda: function(*args, **kwargs))
