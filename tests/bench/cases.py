"""What is timed on both sides, and the table that comes of it."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.stock import WebClient

SMALL_FILES = 50
SMALL_SIZE = 10_000  # bytes
DIRECTORIES = 20

TICKS = os.sysconf("SC_CLK_TCK")  # per second, of processor time in /proc


@dataclass(frozen=True)
class Case:
    """One comparison: each side does ``count`` things that are called ``unit``."""

    name: str
    count: float
    unit: str
    ours: Callable[[int], None]
    stock: Callable[[int], None]


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, and processor seconds of the client's process."""

    seconds: float
    processor: float


def cases(mount: Path, stock: WebClient, megabytes: int, rounds: int) -> list[Case]:
    """The same four things done by each side, with contents that are new in every round.

    Both sides have other contents. They may be the same client of the same grid, with one
    convergence secret: what one has uploaded the other would find there, and send nothing.
    """
    size = megabytes * 10**6
    our_blobs = [os.urandom(size) for _ in range(rounds)]
    stock_blobs = [b"stock" + blob[5:] for blob in our_blobs]
    big_caps: dict[int, str] = {}

    def write_ours(round_: int) -> None:
        (mount / f"big-{round_}").write_bytes(our_blobs[round_])

    def write_stock(round_: int) -> None:
        big_caps[round_] = stock.put(stock_blobs[round_])

    def read_ours(round_: int) -> None:
        assert (mount / f"big-{round_}").read_bytes() == our_blobs[round_]

    def read_stock(round_: int) -> None:
        assert stock.get(big_caps[round_]) == stock_blobs[round_]

    return [
        Case(f"write {megabytes} MB", megabytes, "MB/s", write_ours, write_stock),
        Case(f"read {megabytes} MB, caches dropped", megabytes, "MB/s", read_ours, read_stock),
        *small_cases(mount, stock, rounds, lambda: None),
    ]


def small_cases(
    mount: Path, stock: WebClient, rounds: int, settle: Callable[[], None]
) -> list[Case]:
    """Small files and directories, until ``settle`` has returned."""
    small = [
        [os.urandom(SMALL_SIZE - 16) for _ in range(SMALL_FILES)] for _ in range(rounds)
    ]  # new each time: the two tables are made on one grid

    def small_ours(round_: int) -> None:
        folder = mount / f"small-{round_}"
        folder.mkdir()
        for i, contents in enumerate(small[round_]):
            (folder / f"f{i}").write_bytes(contents + b"what ours writes")
        settle()

    def small_stock(round_: int) -> None:
        folder = stock.make_directory()
        for i, contents in enumerate(small[round_]):
            stock.put_child(folder, f"f{i}", contents=contents + b"what they write ")

    def mkdir_ours(round_: int) -> None:
        for i in range(DIRECTORIES):
            (mount / f"dir-{round_}-{i}").mkdir()
        settle()

    top = stock.make_directory()

    def mkdir_stock(round_: int) -> None:
        for i in range(DIRECTORIES):
            stock.make_child_directory(top, f"dir-{round_}-{i}")

    folder = f"{SMALL_FILES} files of {SMALL_SIZE // 1000} kB into one directory"
    return [
        Case(folder, SMALL_FILES, "files/s", small_ours, small_stock),
        Case("mkdir", DIRECTORIES, "directories/s", mkdir_ours, mkdir_stock),
    ]


def compare(all_cases: list[Case], rounds: int, ours: int, stock: int) -> Iterator[str]:
    """The lines of a table. ``ours`` and ``stock``: the ids of the two clients' processes."""
    yield "| case | lafsfs | stock web API | times as fast | CPU lafsfs | CPU stock | of it |"
    yield "|---|---|---|---|---|---|---|"
    for case in all_cases:
        mine, theirs = [], []
        for round_ in range(rounds):
            mine.append(cost_of(case.ours, round_, ours))
            theirs.append(cost_of(case.stock, round_, stock))
        us, them = median(mine), median(theirs)
        yield (
            f"| {case.name} | {case.count / us.seconds:.1f} {case.unit} "
            f"| {case.count / them.seconds:.1f} {case.unit} | {them.seconds / us.seconds:.1f} x "
            f"| {us.processor:.2f} s | {them.processor:.2f} s "
            f"| {us.processor / max(them.processor, 1 / TICKS):.0%} |"
        )


def cost_of(action: Callable[[int], None], round_: int, process: int) -> Cost:
    """What one round costs the client's ``process``."""
    drop_kernel_caches()
    before, start = processor_seconds(process), time.perf_counter()
    action(round_)
    return Cost(time.perf_counter() - start, processor_seconds(process) - before)


def median(costs: list[Cost]) -> Cost:
    """Of both figures by themselves."""
    return Cost(
        statistics.median(cost.seconds for cost in costs),
        statistics.median(cost.processor for cost in costs),
    )


def processor_seconds(process: int) -> float:
    """What a process and its threads have used so far, in user and in kernel mode."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def drop_kernel_caches() -> None:
    """Cold reads: needs root; without it the kernel may answer repeated reads by itself."""
    if os.geteuid() == 0:
        Path("/proc/sys/vm/drop_caches").write_text("3")
