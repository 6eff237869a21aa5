"""From which size on work on bytes is worth a worker thread: what sets ``INLINE_LIMIT``.

    python -m tests.bench.inline_limit

Work that stays on the event loop holds up every other request for as long as it takes. Work that
goes to a thread costs the loop the hop: handing it over, being woken, fetching the result. So the
hop pays from where it costs the loop less than :data:`SHARE` of the work that it takes off it, and
that is well before the work takes as long as a whole request (some 200 us). Prints both for each
kind of work, best of several rounds, and the size from which the hop pays.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING

import trio

from lafsfs.crypto import aes, erasure
from lafsfs.crypto.hashes import block_hash
from lafsfs.grid.cpu import INLINE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 15
HOPS = 100
SHARE = 0.5  # of the work; the hop also costs its request some 40 us of waiting
SIZES = [4 << 10 << step for step in range(11)]  # 4 KiB to 4 MiB


def best(function: Callable[[], object], repeat: int) -> float:
    """Seconds of processor time for one call."""
    results = []
    for _ in range(ROUNDS):
        started = time.thread_time()
        for _ in range(repeat):
            function()
        results.append((time.thread_time() - started) / repeat)
    return min(results)


def hop() -> float:
    """Seconds of the event loop's thread for sending nothing to a worker thread and back."""

    async def measure() -> float:
        results = []
        for _ in range(ROUNDS):
            started = time.thread_time()
            for _ in range(HOPS):
                await trio.to_thread.run_sync(int)
            results.append((time.thread_time() - started) / HOPS)
        return min(results)

    return trio.run(measure)


def works(size: int) -> dict[str, Callable[[], object]]:
    """What readers and writers do with ``size`` bytes."""
    data = os.urandom(size)
    pieces = [data[: size // 3]] * 3
    blocks = dict(enumerate(erasure.encode(pieces, 3, 10)))
    some = {shnum: blocks[shnum] for shnum in (2, 7, 9)}
    return {
        "hash": partial(block_hash, data),
        "decrypt": partial(aes.ctr, bytes(16), data),
        "decode 3-of-10": partial(erasure.decode, some, 3, 10),
        "encode 3-of-10": partial(erasure.encode, pieces, 3, 10),
    }


def main() -> None:
    """Print the table."""
    cost = hop()
    print(f"hop to a thread and back: {cost * 1e6:.0f} us of the event loop")
    kinds = list(works(SIZES[0]))
    print(f"{'KiB':>6}" + "".join(f"{kind:>18}" for kind in kinds))
    pays: dict[str, int] = {}
    for size in SIZES:
        times = {kind: best(work, max(1, (1 << 20) // size)) for kind, work in works(size).items()}
        print(f"{size >> 10:6}" + "".join(f"{times[kind] * 1e6:15.0f} us" for kind in kinds))
        for kind in kinds:
            if cost < SHARE * times[kind]:
                pays.setdefault(kind, size)
    for kind in kinds:
        limit = pays.get(kind)
        print(f"{kind}: the hop pays from {limit >> 10} KiB" if limit else f"{kind}: never pays")
    print(f"INLINE_LIMIT is {INLINE_LIMIT >> 10} KiB, counted in bytes to hash")


if __name__ == "__main__":
    main()
