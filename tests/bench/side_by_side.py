"""``make bench``: lafsfs and stock Tahoe-LAFS on one machine, in one run, as ratios.

Both sides store on the same disk, 1-of-1: lafsfs through a real mount of its embedded grid, stock
through its web API on loopback. Contents are random, so nothing is convergent or cached from an
earlier run. Each case is timed in rounds, both sides by turns, and the medians are compared:
absolute figures on shared machines say little, ratios of one run say more.

Run it alone: ``python -m tests.bench.side_by_side --tahoe PATH [--megabytes 100] [--rounds 3]``.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tests.stock import WebClient, find_tahoe, stock_node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LAFSFS = [sys.executable, "-m", "lafsfs"]


@dataclass(frozen=True)
class Case:
    """One comparison: each side does ``count`` things that are called ``unit``."""

    name: str
    count: float
    unit: str
    ours: Callable[[int], None]
    stock: Callable[[int], None]


@contextmanager
def lafsfs_mount(base: Path) -> Iterator[Path]:
    """A mount of a fresh embedded grid, in an environment of its own."""
    mountpoint = base / "mnt"
    mountpoint.mkdir()
    homes = {f"XDG_{kind}_HOME": str(base / kind.lower()) for kind in ("CONFIG", "DATA", "STATE")}
    environment = os.environ | homes | {"XDG_CACHE_HOME": str(base / "cache")}
    subprocess.run(
        [*LAFSFS, "mount", "--storage", str(base / "shares"), "home:", str(mountpoint)],
        env=environment,
        check=True,
    )
    try:
        yield mountpoint
    finally:
        subprocess.run([*LAFSFS, "umount", str(mountpoint)], env=environment, check=True)


def seconds(action: Callable[[int], None], round_: int) -> float:
    start = time.perf_counter()
    action(round_)
    return time.perf_counter() - start


def drop_kernel_caches() -> None:
    """Cold reads: needs root; without it the kernel may answer repeated reads by itself."""
    if os.geteuid() == 0:
        Path("/proc/sys/vm/drop_caches").write_text("3")


def cases(mount: Path, stock: WebClient, megabytes: int, rounds: int) -> list[Case]:
    size = megabytes * 10**6
    blobs = [os.urandom(size) for _ in range(rounds)]
    small = [os.urandom(10_000) for _ in range(50)]
    big_caps: dict[int, str] = {}

    def write_ours(round_: int) -> None:
        (mount / f"big-{round_}").write_bytes(blobs[round_])

    def write_stock(round_: int) -> None:
        big_caps[round_] = stock.put(blobs[round_])

    def read_ours(round_: int) -> None:
        drop_kernel_caches()
        assert (mount / f"big-{round_}").read_bytes() == blobs[round_]

    def read_stock(round_: int) -> None:
        drop_kernel_caches()
        assert stock.get(big_caps[round_]) == blobs[round_]

    def small_ours(round_: int) -> None:
        folder = mount / f"small-{round_}"
        folder.mkdir()
        for i, contents in enumerate(small):
            (folder / f"f{i}").write_bytes(contents + bytes([round_]))

    def small_stock(round_: int) -> None:
        folder = stock.make_directory()
        for i, contents in enumerate(small):
            stock.put_child(folder, f"f{i}", contents=contents + bytes([round_]))

    def mkdir_ours(round_: int) -> None:
        for i in range(20):
            (mount / f"dir-{round_}-{i}").mkdir()

    top = stock.make_directory()

    def mkdir_stock(round_: int) -> None:
        for i in range(20):
            stock.make_child_directory(top, f"dir-{round_}-{i}")

    return [
        Case(f"write {megabytes} MB", megabytes, "MB/s", write_ours, write_stock),
        Case(
            f"read {megabytes} MB, kernel cache dropped", megabytes, "MB/s", read_ours, read_stock
        ),
        Case("50 files of 10 kB into one directory", 50, "files/s", small_ours, small_stock),
        Case("mkdir", 20, "directories/s", mkdir_ours, mkdir_stock),
    ]


def compare(all_cases: list[Case], rounds: int) -> Iterator[str]:
    yield "| case | lafsfs | stock web API | ratio |"
    yield "|---|---|---|---|"
    for case in all_cases:
        ours, theirs = [], []
        for round_ in range(rounds):
            ours.append(seconds(case.ours, round_))
            theirs.append(seconds(case.stock, round_))
        mine, stock = statistics.median(ours), statistics.median(theirs)
        yield (
            f"| {case.name} | {case.count / mine:.1f} {case.unit} "
            f"| {case.count / stock:.1f} {case.unit} | {stock / mine:.1f} x |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare lafsfs with stock Tahoe-LAFS.")
    parser.add_argument("--tahoe", type=Path, default=find_tahoe(), help="the stock command")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.tahoe is None:
        parser.error("no tahoe command found: pass --tahoe or run 'make bench'")
    with tempfile.TemporaryDirectory(prefix="lafsfs-bench-") as name:
        base = Path(name)
        (base / "stock").mkdir()
        (base / "ours").mkdir()
        with stock_node(options.tahoe, base / "stock") as grid, lafsfs_mount(base / "ours") as mnt:
            today = datetime.now(UTC).date()
            print(f"{today}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
            for line in compare(
                cases(mnt, grid.web, options.megabytes, options.rounds), options.rounds
            ):
                print(line, flush=True)


if __name__ == "__main__":
    main()
