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
from typing import TYPE_CHECKING

from tests.mounted.harness import REPOSITORY, Mount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = [sys.executable, "-W", "error", "-m", "lafsfs"]
COMMAND_SECONDS = 120.0


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
        places = {f"LAFSFS_{p.upper()}_DIR": p for p in ("config", "data", "state")}
        return os.environ | {name: str(self.directory / p) for name, p in places.items()}

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

    @contextmanager
    def mount(self, what: str, options: str = "rw") -> Iterator[Mount]:
        """Mount for as long as the context lasts; on the way out everything must be in order.

        ``what`` is an alias, with a path or without. When the block has ended, all is on the grid.
        """
        self.mounted += 1
        mountpoint = self.directory / f"mnt{self.mounted}"
        mountpoint.mkdir(parents=True)
        process = subprocess.Popen(
            [*COMMAND, "mount", *self.arguments, "-f", "-o", options, what, str(mountpoint)],
            cwd=REPOSITORY,
            env=self.environment,
            stdin=subprocess.DEVNULL,
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
