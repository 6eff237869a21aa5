"""How long full collections of garbage stop a mount that knows many names: see ``fuse/collecting``.

    python -m tests.bench.collecting [--names 50000]

Lists one directory with the attributes of all that is in it, as ``ls -l`` does, over servers in
memory: once with Python's own settings, once with a mount's. For each generation prints how many
collections there were, the longest, and all of them together.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

import trio

from lafsfs.caps import LiteralCap, MutableFormat
from lafsfs.fuse.collecting import spare_the_old
from tests.fakes import fake_grid
from tests.vfs.conftest import ROOT, WallClock, open_maker, open_world

SETTINGS = ["python", "mount"]


class Pauses:
    """The collections of each generation, in seconds."""

    def __init__(self) -> None:
        self.seconds: list[list[float]] = [[], [], []]
        self._started = 0.0
        gc.callbacks.append(self._collecting)

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._started = time.perf_counter()
        else:
            self.seconds[info["generation"]].append(time.perf_counter() - self._started)

    def __str__(self) -> str:
        return "; ".join(
            f"generation {number}: {len(times)} x, at most {1000 * max(times, default=0):.0f} ms, "
            f"{1000 * sum(times):.0f} ms in all"
            for number, times in enumerate(self.seconds)
        )


async def listing(names: int, settings: str) -> None:
    """Make a directory, and list it."""
    broker = fake_grid(3)
    async with open_maker(broker, WallClock()) as maker:
        children = {f"file {number:06}": (LiteralCap(b"x"), {}) for number in range(names)}
        cap = (await maker.create_directory(MutableFormat.SDMF, children)).cap
    del children
    gc.collect()
    if settings == "mount":
        spare_the_old()
    with tempfile.TemporaryDirectory() as scratch:
        async with open_world(broker, Path(scratch), cap, max_age=1e9) as world:
            pauses, start = Pauses(), time.perf_counter()
            handle = await world.fs.opendir(ROOT)
            async with aclosing(world.fs.readdir(handle, 0)) as entries:
                async for entry in entries:
                    world.fs.remember(entry.attributes.ino)
            print(f"{settings:6} {time.perf_counter() - start:.2f} s; {pauses}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure pauses for garbage.")
    parser.add_argument("--names", type=int, default=50_000)
    parser.add_argument("--settings", choices=SETTINGS, help="in this process, and only these")
    options = parser.parse_args()
    if options.settings:
        trio.run(listing, options.names, options.settings)
        return
    for settings in SETTINGS:  # each in a process of its own: they cannot be taken back
        command = [sys.executable, "-m", "tests.bench.collecting", "--settings", settings]
        subprocess.run([*command, "--names", str(options.names)], check=True)


if __name__ == "__main__":
    main()
