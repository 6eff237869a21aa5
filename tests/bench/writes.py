"""Writing, compared: lafsfs, stock Tahoe-LAFS, gocryptfs and a file system in memory.

*Accepted*: the command that wrote has returned. *Settled*: nothing of it is pending any more, for
ours once ``lafsfs flush`` has returned (``lafsfs umount`` where there is no such command), with the
time that the command itself takes. Both sides write by turns, each round into a fresh mount and
with contents that are new, and the medians are compared; after the last round everything is read
back through another mount and compared with what was written.

Run it alone: ``python -m tests.bench.writes [--tahoe PATH] [--tmpfs PATH] [--rounds 3]
[--only ROW] [--json] [--profile]``. Rows whose program is not installed are left out, and said so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.comparing import (
    ACCEPTED,
    AGAIN,
    HEAD,
    SETTLED,
    Comparison,
    Opened,
    Plan,
    Result,
    Row,
    compare,
    on_mount,
    tell,
    told,
)
from tests.bench.mounts import (
    Meter,
    Target,
    TheirMount,
    fetch_tmpfs_example,
    our_mount,
    processes_naming,
    tmpfs_example,
)
from tests.bench.profiling import NoProfiler, profiler
from tests.bench.reads import Lafsfs, gocryptfs, sshfs
from tests.bench.works import Copy, Create, Rsync, Untar
from tests.stock import Grid, Shares, find_tahoe, free_ports, stock_grid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.bench.profiling import Profiler
    from tests.bench.works import Work

SHARES = Shares(3, 5, 10)
SMALL = 10_000  # bytes of a small file that is copied
TINY = 4_000  # bytes of a file of an archive, which is what sources are like
CREATED = 500  # files of one round of "create"
ROWS = ("create", "copy", "untar", "rested", "rsync", "upload")
REST = 70.0  # seconds until a mount that nobody uses has all its keys (mutable/keypool.py)
ON_STOCK = ("rsync", "upload")

# --- the embedded grid ----------------------------------------------------------------------------


class Embedded:
    """The default grid, in one directory of this disk, beside gocryptfs and beside memory."""

    def __init__(self, base: Path, options: argparse.Namespace, watcher: Profiler) -> None:
        base.mkdir(parents=True)
        self._base = base
        self._options = options
        self._numbers = count()
        self._ours: Opened = partial(our_mount, Lafsfs(base / "lafsfs"), "", watcher)

    def comparison(self, name: str) -> Comparison | None:
        """None if the other side is not to be had."""
        if name == "create":
            return self._create()
        if shutil.which("gocryptfs") is None:
            tell(f"left out: {name}, because gocryptfs is not installed")
            return None
        if name == "copy":
            return self._copy()
        return self._untar(rested=name == "rested")

    def _source(self) -> Path:
        sources = self._base / "sources"
        sources.mkdir(exist_ok=True)
        return sources / f"source-{next(self._numbers)}"

    def _create(self) -> Comparison | None:
        program = self._options.tmpfs
        if program is None:
            tell("fetching the sources of pyfuse3 for its example")
            try:
                program = fetch_tmpfs_example(self._base)
            except RuntimeError as error:
                tell(f"left out: create, because there is no example of pyfuse3's: {error}")
                return None
        what = "create, write and close a small file, accepted"
        plan = Plan(ACCEPTED, what, "pyfuse3's tmpfs example", 0.4, each=CREATED)

        def work(theirs: bool) -> Work:
            return Create(self._source().name, CREATED, TINY)

        theirs = partial(on_mount, partial(tmpfs_example, program, self._base))
        return Comparison((plan,), work, self._ours, theirs)

    def _copy(self) -> Comparison:
        size = self._options.megabytes * 10**6
        what = f"cp of a file of {self._options.megabytes} MB, accepted"
        plan = Plan(ACCEPTED, what, "gocryptfs", 0.7)

        def work(theirs: bool) -> Work:
            return Copy(self._source(), size)

        return Comparison((plan,), work, self._ours, self._gocryptfs())

    def _untar(self, *, rested: bool) -> Comparison:
        """``rested``: by a mount that had time to make keys for the directories."""
        files, directories = self._options.archived, max(1, self._options.archived // 25)
        what = f"untar of {files} small files in {directories} directories"
        what += ", by a mount at rest" * rested
        plans = (
            Plan(ACCEPTED, f"{what}, accepted", "gocryptfs", 0.4),
            Plan(SETTLED, "the same until settled", "gocryptfs and sync", None),
        )

        def work(theirs: bool) -> Work:
            return Untar(self._source(), directories, files, TINY)

        return Comparison(plans, work, self._rested if rested else self._ours, self._gocryptfs())

    @contextmanager
    def _rested(self) -> Iterator[Target]:
        with self._ours() as target:
            time.sleep(REST)
            yield target

    def _gocryptfs(self) -> Callable[[Work], Result]:
        base = self._base / f"gocryptfs-{next(self._numbers)}"

        @contextmanager
        def opened() -> Iterator[Target]:
            with ExitStack() as stack:
                place = base / str(next(self._numbers))
                point = stack.enter_context(gocryptfs(place))()
                yield TheirMount(point, lambda: processes_naming(point), place)

        return partial(on_mount, opened)


# --- the grid of stock servers --------------------------------------------------------------------


class OnFiveServers:
    """Five stock servers, written to through a mount and through the stock client."""

    def __init__(
        self, base: Path, grid: Grid, options: argparse.Namespace, watcher: Profiler
    ) -> None:
        self._base = base
        self._grid = grid
        self._options = options
        self._numbers = count()
        lafsfs = Lafsfs(base / "lafsfs", "--node-dir", str(grid.client.directory))
        self._ours: Opened = partial(our_mount, lafsfs, grid.web.make_directory(), watcher)
        self._sshfs: Callable[[], Path] | None = None

    @contextmanager
    def comparison(self, name: str) -> Iterator[Comparison | None]:
        """None if the other side is not to be had."""
        if name == "upload":
            yield self._upload()
        elif shutil.which("sshfs") is None or shutil.which("rsync") is None:
            tell("left out: rsync, because sshfs or rsync is not installed")
            yield None
        else:
            root, (port,) = self._grid.web.make_directory(), free_ports(1)
            with sshfs(self._grid, self._base, root, port) as mounted:
                yield self._rsync(mounted)

    def _source(self) -> Path:
        return self._base / f"source-{next(self._numbers)}"

    def _stock_client(self) -> int:
        process = self._grid.client.process
        assert process is not None
        return process.pid

    def _rsync(self, mounted: Callable[[], Path]) -> Comparison:
        files = self._options.files
        what, who = f"rsync -a of {files} small files in 5 directories", "SFTP and sshfs"
        plans = (
            Plan(ACCEPTED, f"{what}, accepted", who, 300),
            Plan(SETTLED, "the same until settled", who, 40),
            Plan(AGAIN, "rsync -a again, nothing changed", who, 500),
        )

        @contextmanager
        def theirs() -> Iterator[Target]:
            point = mounted()
            names = (point, self._base / "key")
            yield TheirMount(point, lambda: [self._stock_client(), *processes_naming(*names)], None)

        def work(theirs: bool) -> Work:
            return Rsync(self._source(), files, SMALL, lenient=theirs)

        return Comparison(plans, work, self._ours, partial(on_mount, theirs))

    def _upload(self) -> Comparison:
        size = self._options.megabytes * 10**6
        what = f"{self._options.megabytes} MB until settled, five stock servers, 3-of-10"
        plan = Plan(SETTLED, what, "web API", 1.7)

        def theirs(work: Work) -> Result:
            assert isinstance(work, Copy)
            meter = Meter(TheirMount(self._base, lambda: [self._stock_client()], None))
            self._grid.web.put(work.contents)
            return Result({SETTLED: told(SETTLED, meter)})

        def work(theirs: bool) -> Work:
            return Copy(self._source(), size)

        return Comparison((plan,), work, self._ours, theirs)


# --- the table ------------------------------------------------------------------------------------


@contextmanager
def comparisons(
    options: argparse.Namespace, base: Path, watcher: Profiler
) -> Iterator[Callable[[str], AbstractContextManager[Comparison | None]]]:
    """What makes a comparison by its name. The grids are there as long as the block lasts."""
    embedded = Embedded(base / "embedded", options, watcher)
    with ExitStack() as stack:
        grids: list[OnFiveServers] = []

        def on_stock() -> OnFiveServers:
            if not grids:
                tell("starting five stock servers")
                place = base / "stock"
                place.mkdir()
                grid = stack.enter_context(
                    stock_grid(options.tahoe, place, servers=5, shares=SHARES)
                )
                grids.append(OnFiveServers(place, grid, options, watcher))
            return grids[0]

        @contextmanager
        def make(name: str) -> Iterator[Comparison | None]:
            if name not in ON_STOCK:
                yield embedded.comparison(name)
            elif options.tahoe is None:
                tell(f"left out: {name}, because stock Tahoe-LAFS is not installed")
                yield None
            else:
                with on_stock().comparison(name) as comparison:
                    yield comparison

        yield make


def profile(name: str, comparison: Comparison, watcher: Profiler) -> None:
    """One round of our side, watched."""
    tell(f"{name}, while it is watched")
    on_mount(comparison.ours, comparison.work(False))
    for line in watcher.report():
        print(line)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare how fast things can be written.")
    parser.add_argument("--tahoe", type=Path, default=find_tahoe(), help="the stock command")
    tmpfs = os.environ.get("PYFUSE3_TMPFS")
    parser.add_argument(
        "--tmpfs",
        type=Path,
        default=Path(tmpfs) if tmpfs else None,
        help="pyfuse3's examples/tmpfs.py, $PYFUSE3_TMPFS; fetched with pip if it is not given",
    )
    parser.add_argument("--only", choices=ROWS, help="one comparison")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=100, help="of rsync")
    parser.add_argument("--megabytes", type=int, default=100, help="of the large file")
    parser.add_argument("--archived", type=int, default=5000, help="files in the archive")
    parser.add_argument("--json", action="store_true", help="a list of rows instead of the table")
    parser.add_argument(
        "--profile",
        nargs="?",
        const="auto",
        choices=("auto", "py-spy", "cprofile"),
        help="show where our side spends its time, by py-spy if it is installed",
    )
    options = parser.parse_args()
    if options.profile and not options.only:
        parser.error("say which row to profile, with --only")
    return options


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or mounts and servers would stay
    options = parsed()
    rows: list[Row] = []
    if not options.json and not options.profile:
        today = datetime.now(UTC).date()
        print(f"{today}, {os.cpu_count()} cores, Python {platform.python_version()}\n\n{HEAD}")
    with tempfile.TemporaryDirectory(prefix="lafsfs-writes-") as directory:
        base = Path(directory)
        watcher = profiler(options.profile, base) if options.profile else NoProfiler()
        with comparisons(options, base, watcher) as make:
            for name in (options.only,) if options.only else ROWS:
                with make(name) as comparison:
                    if comparison is None:
                        continue
                    if options.profile:
                        profile(name, comparison, watcher)
                        continue
                    for row in compare(name, comparison, options.rounds):
                        rows.append(row)
                        if not options.json:
                            print(row, flush=True)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
