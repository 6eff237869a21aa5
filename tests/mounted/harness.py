"""Real mounts for tests: a grid in a temporary directory and processes that serve it.

The file system runs in a process of its own, so that a crash is seen as one, and so that no request
of the kernel's can ever wait for the process that makes it. A watchdog kills a server whose test
takes too long: the kernel then answers everything with ENOTCONN and the test fails instead of
hanging. Nothing here skips: where FUSE does not work, the tests fail.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from lafsfs.caps import MutableFormat
from lafsfs.mount import Settings, open_grid
from tests.golden_data import GOLDEN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from typing import TypeVar

    from lafsfs.caps import Cap
    from lafsfs.nodes.maker import NodeMaker

    T = TypeVar("T")

ROOT = os.geteuid() == 0  # some calls are root's alone, on any file system
REPOSITORY = Path(__file__).parents[2]
START_TIMEOUT = 120.0  # seconds for a server to say that it is ready
STOP_TIMEOUT = 300.0  # seconds to unmount, everything pending included
PATIENCE = 60.0  # seconds for what happens by itself
WATCHDOG = 1200.0  # seconds that one mount may last


@dataclass
class Grid:
    """An embedded grid, its client's configuration, and a root directory.

    ``directory`` has ``server0``... with the shares, ``config`` and ``state`` below it.
    """

    directory: Path
    servers: int = 1
    cap: str = field(default="", repr=False)
    mounted: int = 0

    @classmethod
    def create(cls, directory: Path, servers: int = 1) -> Grid:
        """A new grid with an empty root directory."""
        grid = cls(directory, servers)
        directory.mkdir(parents=True, exist_ok=True)
        grid.cap = grid.run(_new_root)
        return grid

    @classmethod
    def golden(cls, directory: Path) -> Grid:
        """A copy of what stock Tahoe-LAFS wrote; the root is to be chosen."""
        grid = cls(directory, 5)
        for number in range(5):
            shutil.copytree(GOLDEN / "servers" / f"s{number}", directory / f"server{number}")
        return grid

    @property
    def storage(self) -> tuple[Path, ...]:
        """The servers' directories."""
        return tuple(self.directory / f"server{number}" for number in range(self.servers))

    @property
    def settings(self) -> Settings:
        """For use in this process, while nothing is mounted or beside a mount."""
        return Settings(self.storage, self.directory / "config", self.directory / "state")

    def run(self, function: Callable[[NodeMaker], Awaitable[T]]) -> T:
        """Call ``function`` with this grid's node maker, without a mount."""

        async def call() -> T:
            async with open_grid(self.settings) as maker:
                return await function(maker)

        return trio.run(call)

    @contextmanager
    def mount(
        self,
        cap: str | Cap | None = None,
        options: str = "",
        *,
        sync: bool = True,
        state: str = "state",
        environment: Mapping[str, str] | None = None,
    ) -> Iterator[Mount]:
        """Mount for as long as the context lasts; on the way out everything must be in order.

        ``sync``: with ``-o sync``, so that what a call has done is on the grid when it returns.
        ``state``: the state directory's name, another one for another machine's mount.
        ``environment``: laid over this process's.
        """
        options = ",".join(filter(None, (options, "sync" * sync)))
        self.mounted += 1
        mountpoint = self.directory / f"mnt{self.mounted}"
        mountpoint.mkdir()
        process = self.process(self.text_of(cap), mountpoint, options, state, environment)
        mount = Mount.when_ready(process, mountpoint)
        try:
            yield mount
        except BaseException:
            mount.kill()
            print(mount.log, file=sys.stderr)
            raise
        if not mount.ended:
            mount.stop()

    def try_mount(
        self, cap: str | Cap | None, mountpoint: Path, options: str = ""
    ) -> tuple[int, str]:
        """Start a server that is expected to refuse: its exit code and what it said."""
        process = self.process(self.text_of(cap), mountpoint, options)
        out, said = process.communicate(timeout=START_TIMEOUT)
        assert out == ""
        return process.returncode, said

    def text_of(self, cap: str | Cap | None) -> str:
        """The capability to mount, as text; the grid's root for ``None``."""
        if cap is None:
            return self.cap
        return cap if isinstance(cap, str) else cap.danger_text()

    def process(
        self,
        cap: str,
        mountpoint: Path,
        options: str,
        state: str = "state",
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """A server process that has been told what to do."""
        job = {
            "storage": [str(path) for path in self.storage],
            "config": str(self.directory / "config"),
            "state": str(self.directory / state),
            "cap": cap,
            "mountpoint": str(mountpoint),
            "options": options,
        }
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.mounted.runner"],
            cwd=REPOSITORY,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(job))
        process.stdin.close()
        process.stdin = None
        return process


def eventually(check):
    """Wait until ``check()`` is true."""
    deadline = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.02)


async def _new_root(maker: NodeMaker) -> str:
    return (await maker.create_directory(MutableFormat.SDMF)).cap.danger_text()


class DiedEarlyError(AssertionError):
    """A server killed itself before it was ready."""


class Mount:
    """One mounted file system and the process that serves it."""

    def __init__(self, process: subprocess.Popen[str], path: Path) -> None:
        self.process = process
        self.path = path
        self.ended = False  # by the test itself
        self.expected_log: tuple[str, ...] = ()
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        self._watchdog = threading.Timer(WATCHDOG, process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()

    @classmethod
    def when_ready(
        cls, process: subprocess.Popen[str], mountpoint: Path, says: str = "ready"
    ) -> Mount:
        """Wait until a server says that the mount is there, in a line that begins so."""
        mount = cls(process, mountpoint)
        timer = threading.Timer(START_TIMEOUT, mount.process.terminate)
        timer.start()
        assert mount.process.stdout is not None
        line = mount.process.stdout.readline()
        died = not line and mount.process.wait(START_TIMEOUT) == -signal.SIGKILL
        timer.cancel()
        if not line.startswith(says):
            mount.kill()
            error = DiedEarlyError if died else AssertionError
            raise error(f"the mount did not come up:\n{mount.log}")
        assert os.path.ismount(mountpoint)
        return mount

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def log(self) -> str:
        """What the server has said so far."""
        return "".join(self._lines)

    def expect_log(self, *parts: str) -> None:
        """Allow log lines that have one of these in them; every other line fails the test."""
        self.expected_log += parts

    def stop(self) -> None:
        """Unmount as a user does and see that everything was in order."""
        subprocess.run(["fusermount3", "-u", str(self.path)], check=True)
        self.wait()

    def signal(self, number: int) -> None:
        """End the mount by a signal to the server."""
        self.process.send_signal(number)

    def wait(self) -> None:
        """Wait for the server to end by itself and see that it ended well."""
        try:
            code = self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server did not end:\n{self.log}") from None
        self._close()
        assert code == 0, f"the server ended with {code}:\n{self.log}"
        assert not os.path.ismount(self.path)
        records = re.split(r"\n(?=\S)", self.log.strip("\n"))  # with their tracebacks
        unexpected = [
            record
            for record in records
            if record and not any(part in record for part in self.expected_log)
        ]
        assert not unexpected, "the server said:\n" + "\n".join(unexpected)

    def kill(self) -> None:
        """Make an end of it as a power cut would, whatever the state."""
        self.process.kill()
        self.process.wait()
        subprocess.run(
            ["fusermount3", "-u", "-z", str(self.path)], check=False, capture_output=True
        )
        self._close()

    def _close(self) -> None:
        self.ended = True
        self._watchdog.cancel()
        self._reader.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.append(line)
