"""Reading, compared: lafsfs, stock Tahoe-LAFS, gocryptfs and the plain disk, as ratios of one run.

Two grids. *Five stock servers*, 3-of-10, over HTTPS on loopback, where stock's own client and a
lafsfs mount read the same files. And the *embedded* grid on this disk, beside gocryptfs on the same
disk. Caches are cold unless a case says otherwise: every measurement has a fresh mount without a
cache on the disk, and the kernel's caches are dropped where we are root.

Run it alone: ``python -m tests.bench.reads [--tahoe PATH] [--megabytes 100] [--rounds 3]
[--only WORD] [--huge]``. Cases whose program is not installed are left out, and said so.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import re
import shutil
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
from urllib.request import Request, urlopen

from tests.bench.sparse import plant
from tests.stock import Grid, Shares, find_tahoe, stock_grid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LAFSFS = [sys.executable, "-m", "lafsfs"]
CHUNK = 1 << 20  # bytes of one read call
PAGE = 4096  # bytes of a random read
TOUCHES = 40  # random reads, each in a segment that was not touched before
BRANCHES = 10  # directories below the root of a tree; the others are in them


@dataclass(frozen=True)
class Row:
    """One line of the table. ``ratio`` is ours to theirs, the larger the better."""

    what: str
    ours: str
    theirs: str
    ratio: float
    goal: float

    def __str__(self) -> str:
        good = "" if self.ratio >= self.goal else " (missed)"
        return (
            f"| {self.what} | {self.ours} | {self.theirs} | {self.ratio:.2f} | {self.goal}{good} |"
        )


# --- measuring ------------------------------------------------------------------------------------


def drop_kernel_caches() -> None:
    """Cold reads: needs root; without it only what a mount cached itself is gone."""
    if os.geteuid() == 0:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_megabytes(pid: int) -> float:
    """The most memory that a process ever had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def read_through(path: Path) -> int:
    """Read a file from one end to the other; its size."""
    total = 0
    with open(path, "rb", buffering=0) as file:
        while data := file.read(CHUNK):
            total += len(data)
    return total


# --- who is measured ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mounted:
    point: Path
    pid: int
    ready: float  # seconds from the start of the command until the mount could be used


class Lafsfs:
    """lafsfs with places of its own, on the grid that ``arguments`` say."""

    def __init__(self, base: Path, *arguments: str) -> None:
        base.mkdir(parents=True)
        self.base = base
        self.arguments = arguments
        places = {f"LAFSFS_{p}_DIR": str(base / p.lower()) for p in ("CONFIG", "DATA", "STATE")}
        self.environment = os.environ | places | {"LAFSFS_CACHE_DISK": "0"}
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def run(self, command: str, *arguments: str, contents: bytes = b"") -> str:
        result = subprocess.run(
            [*LAFSFS, command, *self.arguments, *arguments],
            env=self.environment,
            input=contents,
            stdout=subprocess.PIPE,
            check=True,
        )
        return result.stdout.decode()

    @contextmanager
    def mounted(
        self, what: str = "home:", cap: str = "", *, cold: bool = True
    ) -> Iterator[Mounted]:
        """A fresh mount, its caches empty. ``cap`` is mounted instead if it is given."""
        point = self.base / "mnt"
        point.mkdir(exist_ok=True)
        if cold:
            drop_kernel_caches()
        process = subprocess.Popen(
            [*LAFSFS, "mount", *self.arguments, "-f", "-" if cap else what, str(point)],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        start = time.perf_counter()
        process.stdin.write(cap.encode())
        process.stdin.close()
        if not process.stdout.readline():
            raise RuntimeError("lafsfs did not mount")
        try:
            yield Mounted(point, process.pid, time.perf_counter() - start)
        finally:
            subprocess.run(["fusermount3", "-u", str(point)], check=True)
            process.wait()
            process.stdout.close()


@contextmanager
def gocryptfs(base: Path) -> Iterator[Callable[[], Path]]:
    """A gocryptfs directory; the function that comes out mounts it anew."""
    cipher, point = base / "cipher", base / "gocrypt"
    cipher.mkdir(parents=True)
    point.mkdir()
    (base / "password").write_text("bench\n")
    options = ["-q", "-nosyslog", "-passfile", str(base / "password")]
    subprocess.run(["gocryptfs", "-init", "-scryptn", "10", *options, str(cipher)], check=True)

    def unmount() -> None:
        if os.path.ismount(point):
            subprocess.run(["fusermount3", "-u", str(point)], check=True)

    def mount() -> Path:
        unmount()
        drop_kernel_caches()
        subprocess.run(["gocryptfs", *options, str(cipher), str(point)], check=True)
        return point

    try:
        yield mount
    finally:
        unmount()


@contextmanager
def bound(point: Path, size: int) -> Iterator[Path]:
    """A file in the least file system that FUSE allows: see ``tests/bench/bound.py``."""
    point.mkdir()
    command = [sys.executable, "-m", "tests.bench.bound", str(point), str(size)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    if not process.stdout.readline():
        raise RuntimeError("it did not mount")
    try:
        yield point / "zeros"
    finally:
        subprocess.run(["fusermount3", "-u", str(point)], check=True)
        process.wait()
        process.stdout.close()


@contextmanager
def sshfs(grid: Grid, base: Path, root: str, port: int) -> Iterator[Callable[[], Path]]:
    """sshfs on the stock client's SFTP; the function that comes out mounts it anew."""
    point, key = base / "sshfs", base / "key"
    point.mkdir()
    host_key = Path(grid.client.private) / "ssh_host_rsa_key"
    for path in (key, host_key):
        command = ["ssh-keygen", "-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f", str(path)]
        subprocess.run(command, check=True)
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    (Path(grid.client.private) / "accounts").write_text(f"bench {public} {root}\n")
    settings = {
        "enabled": "true",
        "port": f"tcp:{port}:interface=127.0.0.1",
        "host_pubkey_file": "private/ssh_host_rsa_key.pub",
        "host_privkey_file": "private/ssh_host_rsa_key",
        "accounts.file": "private/accounts",
    }
    grid.client.stop()
    with (Path(grid.client.directory) / "tahoe.cfg").open("a") as file:
        print("\n[sftpd]", *(f"{k} = {v}" for k, v in settings.items()), sep="\n", file=file)
    grid.client.start()
    wait_for_servers(grid)
    ssh = "ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    ssh += " -o PubkeyAcceptedAlgorithms=+ssh-rsa -o HostKeyAlgorithms=+ssh-rsa"

    def unmount() -> None:
        if os.path.ismount(point):
            subprocess.run(["fusermount3", "-u", str(point)], check=True)

    def mount() -> Path:
        unmount()
        drop_kernel_caches()
        options = f"ssh_command={ssh},IdentityFile={key}"
        command = ["sshfs", "-p", str(port), "-o", options, "bench@127.0.0.1:/", str(point)]
        subprocess.run(command, check=True)
        return point

    try:
        yield mount
    finally:
        unmount()


def wait_for_servers(grid: Grid) -> None:
    """Until the client that was started again is connected to all servers."""
    end = time.monotonic() + 90
    while grid.web.connected() < len(grid.servers):
        if time.monotonic() > end:
            raise TimeoutError("the stock client did not come back")
        time.sleep(0.2)


# --- five stock servers ---------------------------------------------------------------------------


class OnFiveServers:
    """What both clients read from the same five servers."""

    def __init__(self, grid: Grid, ours: Lafsfs, megabytes: int, rounds: int) -> None:
        self.grid = grid
        self.ours = ours
        self.size = megabytes * 10**6
        self.rounds = rounds
        self.root = grid.web.make_directory()
        self.film = grid.web.put_child(self.root, "film", contents=os.urandom(self.size))

    def sequential(self) -> Iterator[Row]:
        mine, theirs, my_cpu, their_cpu = [], [], [], []
        process = self.grid.client.process
        assert process is not None
        for _ in range(self.rounds):
            with self.ours.mounted(cap=self.root) as mount:
                before = cpu_seconds(mount.pid)
                mine.append(seconds(lambda: read_through(mount.point / "film")))
                my_cpu.append(cpu_seconds(mount.pid) - before)
            drop_kernel_caches()
            before = cpu_seconds(process.pid)
            theirs.append(seconds(lambda: self.grid.web.get(self.film)))
            their_cpu.append(cpu_seconds(process.pid) - before)
        what = f"sequential {self.size // 10**6} MB, five stock servers, 3-of-10"
        yield compared(what, "s", mine, theirs, "web API", 3)
        yield compared(f"{what}: CPU of the client", "s", my_cpu, their_cpu, "stock client", 5)

    def over_sftp(self, base: Path, port: int) -> Iterator[Row]:
        with sshfs(self.grid, base, self.root, port) as mount_theirs:
            mine, theirs = [], []
            for _ in range(self.rounds):
                with self.ours.mounted(cap=self.root) as mount:
                    mine.append(seconds(lambda: read_through(mount.point / "film")))
                point = mount_theirs()
                theirs.append(seconds(lambda: read_through(point / "film")))  # noqa: B023
        yield compared("the same", "s", mine, theirs, "SFTP and sshfs", 4.5)

    def random_reads(self) -> Iterator[Row]:
        places = random.Random(4).sample(range(self.size >> 20), TOUCHES)
        offsets = [(place << 20) + 5000 for place in places]
        mine, theirs = [], []  # of each round, the milliseconds of every touch
        for _ in range(self.rounds):
            with self.ours.mounted(cap=self.root) as mount:
                mine.append(touch(mount.point / "film", offsets))
            theirs.append([1000 * seconds(lambda: self._range(at)) for at in offsets])  # noqa: B023
        what = "random 4 KiB, first touch of a segment"
        for name, of in ("", statistics.fmean), (", the median of them", statistics.median):
            ours, other = ([of(round) for round in rounds] for rounds in (mine, theirs))
            yield compared(what + name, "ms", ours, other, "web API", 20)

    def _range(self, offset: int) -> bytes:
        url = self.grid.web.url + self.grid.web.path(self.film)
        header = {"Range": f"bytes={offset}-{offset + PAGE - 1}"}
        with urlopen(Request(url, headers=header)) as reply:
            data: bytes = reply.read()
        assert len(data) == PAGE
        return data

    def walking(self, directories: int) -> Iterator[Row]:
        leaves = directories // BRANCHES - 1
        top = self._plant(leaves)
        count = 1 + BRANCHES * (1 + leaves)
        mine, theirs = [], []
        for _ in range(self.rounds):
            with self.ours.mounted(cap=top) as mount:
                mine.append(seconds(lambda: find(mount.point, count)) / count * 1000)
            path = f"{self.grid.web.path(top)}?t=stream-manifest"
            theirs.append(
                seconds(lambda: self.grid.web.request("POST", path)) / count * 1000  # noqa: B023
            )
        yield compared(f"find over {count} directories, each", "ms", mine, theirs, "manifest", 3)

    def _plant(self, leaves: int) -> str:
        """A tree, made through a mount; its capability."""
        top = self.grid.web.make_directory()
        with self.ours.mounted(cap=top) as mount:
            for outer in range(BRANCHES):
                for inner in range(leaves):
                    (mount.point / f"{outer}" / f"{inner}").mkdir(parents=True)
        return top


def touch(path: Path, offsets: list[int]) -> list[float]:
    """Read a page at each offset, and nothing else; milliseconds for each."""
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        return [1000 * seconds(lambda: _page(file.fileno(), offset)) for offset in offsets]  # noqa: B023


def _page(descriptor: int, offset: int) -> None:
    assert len(os.pread(descriptor, PAGE, offset)) == PAGE


def find(point: Path, count: int) -> None:
    found = subprocess.run(["find", str(point)], stdout=subprocess.PIPE, check=True).stdout
    assert found.count(b"\n") == count


# --- the embedded grid ----------------------------------------------------------------------------


class Embedded:
    """The default grid: one directory of this disk."""

    def __init__(self, base: Path, megabytes: int, rounds: int) -> None:
        self.base = base
        self.ours = Lafsfs(base / "lafsfs")
        self.megabytes = megabytes
        self.rounds = rounds

    def write(self, path: Path, megabytes: int) -> None:
        block = os.urandom(10**6)
        with path.open("wb") as file:
            for number in range(megabytes):
                file.write(number.to_bytes(8) + block[8:])

    def sequential(self) -> Iterator[Row]:
        with self.ours.mounted() as mount:
            self.write(mount.point / "big", self.megabytes)
        with gocryptfs(self.base) as mount_theirs:
            self.write(mount_theirs() / "big", self.megabytes)
            mine, theirs = [], []
            for _ in range(self.rounds):
                with self.ours.mounted() as mount:
                    mine.append(seconds(lambda: read_through(mount.point / "big")))
                point = mount_theirs()
                theirs.append(seconds(lambda: read_through(point / "big")))  # noqa: B023
        what = f"sequential {self.megabytes} MB, embedded"
        yield compared(what, "s", mine, theirs, "gocryptfs", 0.5)

    def again(self) -> Iterator[Row]:
        """What the kernel has; only that it is opened and closed makes requests."""
        plain = self.base / "plain"
        with self.ours.mounted() as mount:
            self.write(plain, 200)
            self.write(mount.point / "again", 200)
        with self.ours.mounted() as mount, bound(self.base / "bound", 200 * 10**6) as zeros:
            ours = mount.point / "again"
            for path in (plain, ours, zeros):
                read_through(path)
            mine, theirs, least = [], [], []
            for _ in range(7 * self.rounds):
                mine.append(seconds(lambda: read_through(ours)))
                theirs.append(seconds(lambda: read_through(plain)))
                least.append(seconds(lambda: read_through(zeros)))
        yield compared("second read, 200 MB", "s", mine, theirs, "local disk", 0.95)
        yield compared("the same", "s", mine, least, "FUSE itself", 0.95)

    def readiness(self) -> Iterator[Row]:
        with self.ours.mounted():
            pass  # home: is there from now on
        ready = []
        for _ in range(3 * self.rounds):
            with self.ours.mounted(cold=False) as mount:
                ready.append(mount.ready)
        yield compared("mount ready", "s", ready, [0.5], "goal", 1)

    def huge(self, gigabytes: int) -> Iterator[Row]:
        with self.ours.mounted():
            pass  # the storage directory and home: are there from now on
        cap = plant(self.ours.base / "data" / "storage", gigabytes * 10**9)
        self.ours.run("ln", "home:huge", contents=cap.danger_text().encode())
        with self.ours.mounted() as mount:
            assert read_through(mount.point / "huge") == gigabytes * 10**9
            peak = peak_megabytes(mount.pid)
        yield compared(f"memory, reading {gigabytes} GB", "MB", [peak], [200], "goal", 1)

    def many_readers(self) -> Iterator[Row]:
        with self.ours.mounted() as mount:
            self.write(mount.point / "crowd", 1000)
        script = (
            "import os, sys\n"
            "file = os.open(sys.argv[1], os.O_RDONLY)\n"
            "for number in range(5):\n"
            "    os.pread(file, 1 << 20, int(sys.argv[2]) + (number << 20))\n"
        )
        with self.ours.mounted() as mount:
            path = str(mount.point / "crowd")
            readers = [
                subprocess.Popen([sys.executable, "-c", script, path, str(n * 4_500_000)])
                for n in range(200)
            ]
            for reader in readers:
                assert reader.wait() == 0
            peak = peak_megabytes(mount.pid)
        yield compared("memory, 200 readers", "MB", [peak], [400], "goal", 1)


# --- the table ------------------------------------------------------------------------------------


def compared(
    what: str, unit: str, mine: list[float], theirs: list[float], who: str, goal: float
) -> Row:
    """How many times less than theirs ours is, by the medians."""
    ours, other = statistics.median(mine), statistics.median(theirs)
    ratio = other / max(ours, 1e-9)
    return Row(what, f"{ours:.3g} {unit}", f"{who} {other:.3g} {unit}", ratio, goal)


def embedded_cases(options: argparse.Namespace, base: Path) -> Iterator[tuple[str, object]]:
    embedded = Embedded(base, 10 * options.megabytes, options.rounds)
    if shutil.which("gocryptfs"):
        yield "gocryptfs", embedded.sequential
    else:
        print("left out: gocryptfs is not installed", file=sys.stderr)
    yield "again", embedded.again
    yield "ready", embedded.readiness
    yield "readers", embedded.many_readers
    if options.huge:
        yield "huge", lambda: embedded.huge(10)


@contextmanager
def stock_cases(options: argparse.Namespace, base: Path) -> Iterator[dict[str, object]]:
    shares = Shares(3, 5, 10)
    base.mkdir()
    with stock_grid(options.tahoe, base, servers=5, shares=shares) as grid:
        ours = Lafsfs(base / "lafsfs", "--node-dir", str(grid.client.directory))
        both = OnFiveServers(grid, ours, options.megabytes, options.rounds)
        cases: dict[str, object] = {"stock": both.sequential, "random": both.random_reads}
        cases["find"] = lambda: both.walking(options.directories)
        if shutil.which("sshfs"):
            cases["sshfs"] = lambda: both.over_sftp(base, options.sftp_port)
        else:
            print("left out: sshfs is not installed", file=sys.stderr)
        yield cases


def show(cases: Iterator[tuple[str, object]], only: str | None) -> None:
    for name, case in cases:
        if only in (None, name):
            assert callable(case)
            for row in case():
                print(row, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare how fast things can be read.")
    parser.add_argument("--tahoe", type=Path, default=find_tahoe(), help="the stock command")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--directories", type=int, default=1000, help="in the tree for find")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only", help="one case: stock random find sshfs gocryptfs again ready ..."
    )
    parser.add_argument("--huge", action="store_true", help="also 10 GB, which takes minutes")
    parser.add_argument("--sftp-port", type=int, default=34522)
    options = parser.parse_args()
    today = datetime.now(UTC).date()
    print(f"{today}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| what | lafsfs | against | ratio | goal |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="lafsfs-reads-") as name:
        base = Path(name)
        show(embedded_cases(options, base / "embedded"), options.only)
        if options.tahoe is not None and options.only in (None, "stock", "random", "find", "sshfs"):
            with stock_cases(options, base / "stock") as cases:
                show(iter(cases.items()), options.only)


if __name__ == "__main__":
    main()
