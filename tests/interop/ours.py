"""lafsfs as a user of a stock client node runs it: by its command, with ``--node-dir``.

Mounts are processes in the foreground, watched and ended like those of ``tests.mounted``; whatever
one says beyond what a test expects fails the test.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import DEVNULL
from typing import TYPE_CHECKING

from tests.mounted.harness import REPOSITORY, Mount
from tests.stock import Service, answers, free_ports, started, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = [sys.executable, "-W", "error", "-m", "lafsfs"]
COMMAND_SECONDS = 120.0


def environment_below(directory: Path) -> dict[str, str]:
    """An environment in which lafsfs keeps its things below ``directory``."""
    places = {f"LAFSFS_{p.upper()}_DIR": str(directory / p) for p in ("config", "data", "state")}
    return os.environ | places


class Served(Service):
    """``lafsfs serve`` of a directory."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.storage = directory / "storage"
        self.port = port
        serve = ["serve", "--storage", str(self.storage), "--listen", f"127.0.0.1:{port}"]
        super().__init__(
            [*COMMAND, *serve, "--nickname", directory.name],
            directory.with_suffix(".log"),
            environment_below(directory),
        )

    def wait(self) -> None:
        """Wait until it can be used, and has written down how."""
        told = self.storage / "announcement.yaml"
        wait_until(
            lambda: told.exists() and answers(self.port),
            f"{self.directory.name} answers",
            why_not=self.last_words,
        )

    @property
    def announcement(self) -> str:
        """What stock clients are to be given, as YAML."""
        return (self.storage / "announcement.yaml").read_text()

    @property
    def nurl(self) -> str:
        """What lafsfs clients are to be given."""
        return (self.storage / "nurl").read_text().strip()


@contextmanager
def serving(base: Path, count: int) -> Iterator[list[Served]]:
    """Servers of ours, each with a new directory."""
    servers = [Served(base / f"ours{n}", port) for n, port in enumerate(free_ports(count))]
    for server in servers:
        server.directory.mkdir(parents=True)
    with started(*servers):
        for server in servers:
            server.wait()
        yield servers


@dataclass
class Ours:
    """lafsfs with a configuration of its own, on the grid that ``arguments`` say.

    ``directory`` has ``config``, ``data``, ``state`` and mountpoints below it.
    """

    directory: Path
    arguments: tuple[str, ...]
    mounted: int = 0

    @property
    def environment(self) -> dict[str, str]:
        """Where this user's things are."""
        return environment_below(self.directory)

    def run(self, command: str, *arguments: str, contents: bytes = b"") -> bytes:
        """One command that is to succeed: what it printed. ``contents`` is its standard input."""
        result = subprocess.run(
            [*COMMAND, command, *self.arguments, *arguments],
            cwd=REPOSITORY,
            env=self.environment,
            input=contents,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert result.returncode == 0, result.stderr.decode()
        return result.stdout

    def flush(self, mount: Mount) -> None:
        """Have all that was written to a mount on the grid."""
        flush = [*COMMAND, "flush", str(mount.path)]
        subprocess.run(flush, cwd=REPOSITORY, env=self.environment, stdout=DEVNULL, check=True)

    @contextmanager
    def mount(self, what: str, options: str = "sync") -> Iterator[Mount]:
        """Mount for as long as the context lasts; on the way out everything must be in order.

        ``what`` is an alias, with a path or without. When the block has ended, all is on the grid;
        with ``sync``, so is what a call has done when it returns, for the other side to look at.
        """
        self.mounted += 1
        mountpoint = self.directory / f"mnt{self.mounted}"
        mountpoint.mkdir(parents=True)
        process = subprocess.Popen(
            [*COMMAND, "mount", *self.arguments, "-f", "-o", options, what, str(mountpoint)],
            cwd=REPOSITORY,
            env=self.environment,
            stdin=DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        mount = Mount.when_ready(process, mountpoint, says=f"{what} is mounted on ")
        try:
            yield mount
        except BaseException:
            mount.kill()
            print(mount.log, file=sys.stderr)
            raise
        if not mount.ended:
            mount.stop()
