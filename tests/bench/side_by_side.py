"""``make bench``: lafsfs and stock Tahoe-LAFS on one machine, in one run, as ratios.

Tables and a figure:

- the embedded grid against one stock node, both 1-of-1 on the same disk;
- five stock servers, 3-of-10: a mount against the stock client's web API, both of the same client;
- the small things of that once more;
- one connection of ours to one of these servers.

The web API answers once what was written is on the grid. So does a mount with ``-o sync``, one call
after the other, and all but the small things are measured with that. Those are also measured as a
mount does them by default: many at once, and they count as done when ``lafsfs flush`` has returned.

Contents are random, so nothing is convergent or cached from an earlier run. Each case is timed in
rounds, both sides by turns, and the medians are compared: absolute figures on shared machines say
little, ratios of one run say more. Clients and servers share the machine's processors, so the
processor seconds of the two clients say what the ratio would be elsewhere.

Run it alone: ``python -m tests.bench.side_by_side --tahoe PATH [--megabytes 100] [--rounds 3]``.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from tests.bench.cases import cases, compare, small_cases
from tests.bench.wire import read_rate
from tests.interop.ours import Ours
from tests.stock import Shares, find_tahoe, stock_grid, stock_node

if TYPE_CHECKING:
    from collections.abc import Iterable

GRID = Shares(needed=3, happy=3, total=10)
SERVERS = 5


def embedded(options: argparse.Namespace, base: Path) -> None:
    """The embedded grid against one stock node."""
    ours = Ours(base / "ours", ("--storage", str(base / "shares")))
    with stock_node(options.tahoe, base) as grid, ours.mount("home:", "sync") as mount:
        assert grid.client.process is not None
        todo = cases(mount.path, grid.web, options.megabytes, options.rounds)
        show(compare(todo, options.rounds, mount.process.pid, grid.client.process.pid))


def five_servers(options: argparse.Namespace, base: Path) -> None:
    """A mount of a stock grid against the stock client of that grid."""
    with stock_grid(options.tahoe, base, servers=SERVERS, shares=GRID) as grid:
        root = grid.web.make_directory()
        (grid.client.private / "aliases").write_text(f"tahoe: {root}\n")
        ours = Ours(base / "ours", ("--node-dir", str(grid.client.directory)))
        assert grid.client.process is not None
        stock = grid.client.process.pid
        with ours.mount("tahoe:", "sync") as mount:
            todo = cases(mount.path, grid.web, options.megabytes, options.rounds)
            show(compare(todo, options.rounds, mount.process.pid, stock))
        print("\nUntil settled, as by default\n", flush=True)
        other = grid.web.make_directory()
        (grid.client.private / "aliases").write_text(f"tahoe: {root}\nother: {other}\n")
        with ours.mount("other:", "") as mount:
            settle = partial(ours.flush, mount)
            todo = small_cases(mount.path, grid.web, options.rounds, settle)
            show(compare(todo, options.rounds, mount.process.pid, stock))
        cap = grid.web.put(os.urandom(options.megabytes * 10**6))
        rate = trio.run(read_rate, grid.client.directory, cap, base)
        print(f"\nOne server, ranges of 1 MiB one after the other: {rate / 1e6:.0f} MB/s")


def show(lines: Iterable[str]) -> None:
    """Print each line as soon as it is known."""
    for line in lines:
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare lafsfs with stock Tahoe-LAFS.")
    parser.add_argument("--tahoe", type=Path, default=find_tahoe(), help="the stock command")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.tahoe is None:
        parser.error("no tahoe command found: pass --tahoe or run 'make bench'")
    today = datetime.now(UTC).date()
    print(f"{today}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="lafsfs-bench-") as name:
        for title, bench in (
            ("The embedded grid, and one stock node; 1-of-1", embedded),
            (f"{SERVERS} stock servers; {GRID.needed}-of-{GRID.total}", five_servers),
        ):
            print(f"\n{title}\n", flush=True)
            base = Path(name) / bench.__name__
            base.mkdir()
            bench(options, base)


if __name__ == "__main__":
    main()
