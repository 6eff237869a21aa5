"""Where a mount spends its time while something is written to it.

Two ways. ``py-spy``, if it is installed (``pip install py-spy``), samples all threads of the mount
from outside, from when it is mounted until it is settled, and hardly slows it down. ``cProfile``
is always there; it counts every call of the event loop's thread from the start of the process to
its end, leaves worker threads out, and makes small functions look slower than they are.

Both end in one table: seconds in a function *itself*, and *with* all that it called.
"""

from __future__ import annotations

import pstats
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RATE = 200  # samples a second
SHOWN = 30  # functions in each table
# Functions that wait when they call nothing: for the kernel, for worker threads, for work.
WAITING = ("EpollIOManager.get_events ", "WorkerThread._work ", "<method 'poll' of 'select.epoll'")


class Profiler(Protocol):
    """Watches the mounts of one run."""

    def python(self) -> list[str]:
        """The interpreter to start a mount with, and its options."""

    def attach(self, pid: int) -> None:
        """The mount is there: watch it."""

    def detach(self) -> None:
        """It is about to be unmounted."""

    def report(self) -> Iterator[str]:
        """The lines of the tables, when all mounts are gone."""


class NoProfiler:
    """Nothing is watched."""

    def python(self) -> list[str]:
        return [sys.executable]

    def attach(self, pid: int) -> None:
        """Nothing to do."""

    def detach(self) -> None:
        """Nothing to do."""

    def report(self) -> Iterator[str]:
        return iter(())


@dataclass(frozen=True)
class Spent:
    """Seconds in one function, and how often it was called if that was counted."""

    function: str
    itself: float
    below: float
    calls: int | None = None

    def __str__(self) -> str:
        calls = "" if self.calls is None else str(self.calls)
        return f"{self.itself:9.2f} {self.below:9.2f} {calls:>9}  {self.function}"


class Sampler:
    """py-spy."""

    def __init__(self, program: str, directory: Path) -> None:
        self._program = program
        self._directory = directory
        self._outputs: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None

    def python(self) -> list[str]:
        return [sys.executable]

    def attach(self, pid: int) -> None:
        output = self._directory / f"samples-{len(self._outputs)}"
        options = ["--format", "raw", "--function", "--threads", "--duration", "unlimited"]
        where = ["--rate", str(RATE), "--pid", str(pid), "--output", str(output)]
        command = [self._program, "record", *options, *where]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it samples from here on
        self._outputs.append(output)

    def detach(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT)
        said = process.communicate()[0].decode(errors="replace")
        if not self._outputs[-1].exists():
            raise RuntimeError(f"py-spy wrote nothing: {said[-1000:]}")

    def report(self) -> Iterator[str]:
        lines = (line for path in self._outputs for line in path.read_text().splitlines())
        yield f"py-spy, {RATE} samples a second of every thread that was busy"
        yield from tables(sampled(lines, RATE))


def sampled(lines: Iterable[str], rate: int) -> list[Spent]:
    """What stacks say, one in each line, from the outside in: ``thread;frame;frame samples``."""
    itself: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        frames = [shortened(frame) for frame in stack.split(";")]
        if frames[-1].startswith(WAITING):
            continue
        itself[frames[-1]] += int(count)
        for frame in set(frames):
            below[frame] += int(count)
    return [Spent(name, itself[name] / rate, below[name] / rate) for name in below]


class Tracer:
    """cProfile."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._outputs: list[Path] = []

    def python(self) -> list[str]:
        self._outputs.append(self._directory / f"profile-{len(self._outputs)}")
        return [sys.executable, "-m", "cProfile", "-o", str(self._outputs[-1])]

    def attach(self, pid: int) -> None:
        """It watches itself."""

    def detach(self) -> None:
        """It writes down what it saw when it ends."""

    def report(self) -> Iterator[str]:
        yield "cProfile, the event loop's thread from the start of the process to its end"
        yield from tables(traced([str(path) for path in self._outputs]))


def traced(paths: list[str]) -> list[Spent]:
    """What files of cProfile's say."""
    entries: dict[tuple[str, int, str], tuple[int, int, float, float, object]]
    entries = vars(pstats.Stats(*paths))["stats"]
    return [
        Spent(shortened(f"{name} ({file}:{line})"), itself, below, calls)
        for (file, line, name), (_, calls, itself, below, _) in entries.items()
        if not name.startswith(WAITING)
    ]


def tables(spent: list[Spent]) -> Iterator[str]:
    """The functions that cost most by themselves, and those of ours that cost most in all."""
    head = f"{'itself s':>9} {'with s':>9} {'calls':>9}  function"
    yield f"\n{head}"
    yield from map(str, sorted(spent, key=lambda s: -s.itself)[:SHOWN])
    ours = [entry for entry in spent if re.search(r"\(lafsfs/(?!cli/|__main__)", entry.function)]
    yield f"\n{head}, of lafsfs alone"
    yield from map(str, sorted(ours, key=lambda s: -s.below)[:SHOWN])


def shortened(frame: str) -> str:
    """``function (file:line)``, its path from the package on; threads of one kind are alike."""
    frame = re.sub(r"^thread \(\d+\): (.*?)\s*\d*$", r"[thread \1]", frame)
    return re.sub(r"\((?:.*/site-packages/|.*/(?=lafsfs/\w+(?:/|\.py)))", "(", frame)


def profiler(which: str, directory: Path) -> Profiler:
    """``py-spy``, ``cprofile``, or ``auto`` for the first of them that is there.

    Raises:
        RuntimeError: py-spy was wanted and is not installed.
    """
    beside = Path(sys.executable).with_name("py-spy")
    found = shutil.which("py-spy") or (str(beside) if beside.exists() else None)
    if which == "cprofile" or (which == "auto" and found is None):
        return Tracer(directory)
    if found is None:
        raise RuntimeError("py-spy is not installed")
    return Sampler(found, directory)
