"""The ``lafsfs`` command as a user types it, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from lafsfs.cli.mount_record import MountRecord

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT = 60  # seconds after which a hung command fails its test


class Shell:
    """A user's shell: a home, a mountpoint and the ``lafsfs`` command."""

    def __init__(self, home: Path, mountpoint: Path) -> None:
        self.home = home
        self.mountpoint = mountpoint
        kept = {name: value for name, value in os.environ.items() if "LAFSFS" not in name}
        places = {
            f"LAFSFS_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "STATE")
        }
        self.environment = kept | places | {"HOME": str(home)}

    @property
    def record(self) -> MountRecord:
        return MountRecord(self.home / "state", self.mountpoint)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "lafsfs", *arguments]

    def run(self, *arguments: str, code: int = 0, stdin: str = "") -> str:
        """Run a command; what it printed, or for an expected failure its one line of reason."""
        result = subprocess.run(
            self.command(*arguments),
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert result.returncode == code, (arguments, result.stdout, result.stderr)
        if code == 0:
            return result.stdout
        assert result.stdout == ""
        assert result.stderr.startswith("lafsfs: ")
        assert result.stderr.count("\n") == 1, result.stderr
        return result.stderr

    def mount(self, *arguments: str, code: int = 0, stdin: str = "") -> str:
        return self.run("mount", *arguments, str(self.mountpoint), code=code, stdin=stdin)

    def umount(self, code: int = 0) -> str:
        return self.run("umount", str(self.mountpoint), code=code)
