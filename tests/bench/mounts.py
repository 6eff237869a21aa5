"""What is written to, on both sides, and what it costs: seconds by the clock and by processors.

A :class:`Target` is a mount with the processes that serve it. It is *settled* when nothing of what
was written is pending any more. Ours is brought there by ``lafsfs flush``, or by ``lafsfs umount``
where there is no such command yet. The processes of commands (``rsync``, ``tar``) are not counted:
they do the same on both sides.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tarfile import TarFile
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

from tests.bench.cases import Cost, processor_seconds
from tests.stock import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.profiling import Profiler
    from tests.bench.reads import Lafsfs

PYFUSE3 = "pyfuse3"


class Target(Protocol):
    """A directory to write to."""

    @property
    def point(self) -> Path:
        """Where it is mounted."""

    def processor(self) -> float:
        """Seconds of processor time that its processes have used so far."""

    def settle(self) -> None:
        """Return when nothing is pending."""

    def renew(self) -> None:
        """Mount it again if it had to be unmounted to be settled."""


class Meter:
    """What it costs from now on."""

    def __init__(self, target: Target) -> None:
        os.sync()  # or the disk would still be busy with what was there before
        self._target = target
        self._processor = target.processor()
        self._start = time.perf_counter()

    def read(self) -> Cost:
        """The cost so far."""
        seconds = time.perf_counter() - self._start
        return Cost(seconds, self._target.processor() - self._processor)


# --- ours -----------------------------------------------------------------------------------------


class OurMount:
    """A mount of ours in the foreground; ``cap`` is mounted, ``home:`` if it is empty."""

    def __init__(self, lafsfs: Lafsfs, cap: str, profiler: Profiler) -> None:
        self._lafsfs = lafsfs
        self._cap = cap
        self._profiler = profiler
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = 0.0  # seconds of processor time of processes that are gone
        self.point = lafsfs.base / "written"
        self.point.mkdir(exist_ok=True)

    def renew(self) -> None:
        """Mount it, unless it is mounted."""
        if self._process is not None:
            return
        arguments = ["mount", *self._lafsfs.arguments, "-f", "-" if self._cap else "home:"]
        process = self._process = subprocess.Popen(
            [*self._profiler.python(), "-m", "lafsfs", *arguments, str(self.point)],
            env=self._lafsfs.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(self._cap.encode())
        process.stdin.close()
        process.stdin = None
        if not process.stdout.readline():
            raise RuntimeError("lafsfs did not mount")
        self._profiler.attach(process.pid)

    def processor(self) -> float:
        return self._ended + (processor_seconds(self._process.pid) if self._process else 0.0)

    def settle(self) -> None:
        if has_flush():
            self._command("flush")
        else:
            self.end()

    def end(self) -> None:
        """Unmount, and wait until the process has ended. Nothing if that was done before."""
        process, self._process = self._process, None
        if process is None:
            return
        self._profiler.detach()
        self._command("umount")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self._ended += usage.ru_utime + usage.ru_stime
        assert process.stdout is not None
        process.stdout.close()
        if process.returncode:
            raise RuntimeError(f"lafsfs ended with {process.returncode}")

    def kill(self) -> None:
        """End the process at once, whatever is pending, and take the mount away."""
        process, self._process = self._process, None
        if process is not None:
            self._profiler.detach()
            process.kill()
            process.communicate()
            run(["fusermount3", "-u", "-z", str(self.point)], allowed=(0, 1))

    def _command(self, name: str) -> None:
        command = [sys.executable, "-m", "lafsfs", name, str(self.point)]
        run(command, environment=self._lafsfs.environment)


@functools.cache
def has_flush() -> bool:
    """Whether there is a ``lafsfs flush``."""
    command = [sys.executable, "-m", "lafsfs", "flush", "--help"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def our_mount(lafsfs: Lafsfs, cap: str, profiler: Profiler) -> Iterator[Target]:
    """A mount for as long as the block lasts."""
    mount = OurMount(lafsfs, cap, profiler)
    try:
        mount.renew()
        yield mount
    except BaseException:
        mount.kill()
        raise
    mount.end()


# --- theirs ---------------------------------------------------------------------------------------


class TheirMount:
    """Somebody else's mount. ``disk``: what is to be written out for it to be settled, if any."""

    def __init__(self, point: Path, pids: Callable[[], list[int]], disk: Path | None) -> None:
        self.point = point
        self._pids = pids
        self._disk = disk

    def processor(self) -> float:
        return sum(processor_seconds(pid) for pid in self._pids())

    def settle(self) -> None:
        if self._disk is not None:
            run(["sync", "-f", str(self._disk)])

    def renew(self) -> None:
        """It stays mounted."""


@contextmanager
def tmpfs_example(program: Path, base: Path) -> Iterator[Target]:
    """A mount of pyfuse3's own example that keeps everything in memory."""
    point = base / "tmpfs"
    point.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen([sys.executable, str(program), str(point)])
    try:
        wait_until(lambda: os.path.ismount(point), "the example is mounted", every=0.02)
        yield TheirMount(point, lambda: [process.pid], None)
    finally:
        run(["fusermount3", "-u", str(point)])
        process.wait()


def fetch_tmpfs_example(directory: Path) -> Path:
    """The example of the pyfuse3 that is installed, out of its sources. Needs pip's network.

    Raises:
        RuntimeError: pip cannot get the sources, or they have no such example.
    """
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", PYFUSE3]
    with TemporaryDirectory() as name:
        run([*pip, "-d", name, f"{PYFUSE3}=={version(PYFUSE3)}"])
        (archive,) = Path(name).iterdir()
        with TarFile.open(archive) as sources:
            for member in sources:
                file = sources.extractfile(member)
                if member.name.endswith("/examples/tmpfs.py") and file is not None:
                    target = directory / "tmpfs.py"
                    target.write_bytes(file.read())
                    return target
    raise RuntimeError(f"the sources of {PYFUSE3} have no examples/tmpfs.py")


# --- processes ------------------------------------------------------------------------------------


def processes_naming(*words: Path) -> list[int]:
    """The processes on whose command line one of these paths is."""
    wanted = [os.fsencode(word) for word in words]
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
        except OSError:  # it has ended
            continue
        if any(word in line for word in wanted):
            found.append(int(entry.name))
    return found


def run(
    command: list[str],
    *,
    allowed: tuple[int, ...] = (0,),
    environment: dict[str, str] | None = None,
) -> str:
    """Run a command that is to end with one of the ``allowed`` codes: what it printed.

    Raises:
        RuntimeError: it ended with another; the message has the end of what it said.
    """
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode not in allowed:
        said = (result.stderr or result.stdout)[-2000:]
        raise RuntimeError(f"{command[0]} ended with {result.returncode}: {said}")
    return result.stdout
