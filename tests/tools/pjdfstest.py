"""``make test-pjdfstest PJDFSTEST=DIRECTORY``: the POSIX test suite pjd/pjdfstest on a real mount.

The suite is not part of this repository: clone and build it (``autoreconf -ifs && ./configure &&
make``) and say where it is. It has to run as root, on a mount with ``allow_other``. Every file of
it is run in a directory of its own, a few at a time; what it prints is TAP.

What fails is compared with ``pjdfstest-expected.txt`` beside this module, each line of which is a
file of the suite, the numbers of its checks that cannot hold, and why. Any difference, in either
direction, is a failure: what fails unexpectedly, and what holds by now.

The suite asks ``df`` for the file system's type, and asks less of those that it does not know. Ours
is tested as if it were ext4.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mounted.harness import Grid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

EXPECTED = Path(__file__).with_name("pjdfstest-expected.txt")
PATIENCE = 1800.0  # seconds for one file of the suite; the largest has 1,300 checks
DF = """#!/bin/sh
echo 'Filesystem Type 1024-blocks Used Available Capacity Mounted on'
echo 'lafsfs ext4 1 0 1 0% /'
"""
CHECK = re.compile(r"(not )?ok (\d+)(.*)")
PLAN = re.compile(r"1\.\.(\d+)")


@dataclass(frozen=True)
class Result:
    """What one file of the suite said. ``failed``: a line of explanation by number of the check."""

    checks: int
    failed: Mapping[int, str] = field(default_factory=dict)


def parse_tap(text: str) -> Result:
    """Read TAP. Checks that were planned and not run have failed; those marked TODO have not.

    Raises:
        ValueError: there is no plan.
    """
    planned: int | None = None
    seen: set[int] = set()
    failed: dict[int, str] = {}
    for line in text.splitlines():
        if plan := PLAN.match(line):
            planned = int(plan[1])
        elif check := CHECK.match(line):
            number = int(check[2])
            seen.add(number)
            if check[1] and "# TODO" not in check[3]:
                failed[number] = check[3].removeprefix(" - ").strip()
    if planned is None:
        raise ValueError("no plan in what the test printed")
    failed |= {number: "did not run" for number in range(1, planned + 1) if number not in seen}
    return Result(planned, failed)


def parse_expected(text: str) -> dict[str, frozenset[int]]:
    """The checks that are expected to fail, by file of the suite.

    Raises:
        ValueError: a line that is not ``FILE NUMBERS REASON``.
    """
    expected: dict[str, frozenset[int]] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        parts = line.split(maxsplit=2)
        if len(parts) < 3 or parts[0] in expected:
            raise ValueError(f"not a file, numbers and a reason, or twice: {line}")
        expected[parts[0]] = numbers_of(parts[1])
    return expected


def numbers_of(ranges: str) -> frozenset[int]:
    """``3,5-7`` is 3, 5, 6 and 7."""
    numbers: set[int] = set()
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        numbers |= set(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def ranges_of(numbers: Iterable[int]) -> str:
    """The other way round."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def run_file(path: Path, directory: Path, tools: Path) -> Result:
    """Run one file of the suite in ``directory``, which is made for it, with our ``df``."""
    directory.mkdir(mode=0o755)
    done = subprocess.run(
        ["/bin/sh", str(path)],
        cwd=directory,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=PATIENCE,
        check=False,
    )
    try:
        return parse_tap(done.stdout)
    except ValueError:
        return Result(1, {1: f"no plan: {done.stdout[-200:]!r}"})


def run(suite: Path, names: list[str], jobs: int) -> dict[str, Result]:
    """Run files of the suite on a fresh mount of a grid of one server."""

    def one(name: str) -> Result:
        result = run_file(suite / name, mount.path / re.sub(r"\W", "_", name), tools)
        print(f"{name:32} {result.checks - len(result.failed):5} of {result.checks}", flush=True)
        return result

    with tempfile.TemporaryDirectory(prefix="lafsfs-pjdfstest-") as scratch:
        os.chmod(scratch, 0o755)  # checks run as other users too
        tools = Path(scratch) / "tools"
        tools.mkdir()
        (tools / "df").write_text(DF)
        (tools / "df").chmod(0o755)
        grid = Grid.create(Path(scratch) / "grid")
        with (
            grid.mount(options="allow_other", sync=False) as mount,
            ThreadPoolExecutor(jobs) as pool,
        ):
            os.chmod(mount.path, 0o755)
            return dict(zip(names, pool.map(one, names), strict=True))


def differences(results: Mapping[str, Result], expected: Mapping[str, frozenset[int]]) -> list[str]:
    """What failed and should not have, and what should have and did not; one line each."""
    lines = []
    for name, result in results.items():
        allowed = expected.get(name, frozenset())
        lines += [
            f"{name} {number}: {text}"
            for number, text in sorted(result.failed.items())
            if number not in allowed
        ]
        if held := allowed - result.failed.keys():
            lines.append(f"{name} {ranges_of(held)}: expected to fail, and did not")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suite", type=Path, help="the built working tree of pjd/pjdfstest")
    parser.add_argument("only", nargs="*", help="names of files or directories: chmod, open/03.t")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="files at a time")
    arguments = parser.parse_args()
    suite = arguments.suite / "tests"
    if os.geteuid() != 0 or not os.access(arguments.suite / "pjdfstest", os.X_OK):
        parser.error("needs root, and a suite that was built")
    names = [str(path.relative_to(suite)) for path in sorted(suite.rglob("*.t"))]
    wanted = tuple(arguments.only) or ("",)
    names = [name for name in names if name.startswith(wanted)]
    results = run(suite, names, arguments.jobs)
    found = differences(results, parse_expected(EXPECTED.read_text(encoding="utf-8")))
    checks = sum(result.checks for result in results.values())
    failed = sum(len(result.failed) for result in results.values())
    print("\n".join(found))
    print(f"{checks} checks, {failed} failed, {len(found)} differences from what is expected")
    return 1 if found or not checks else 0


if __name__ == "__main__":
    sys.exit(main())
