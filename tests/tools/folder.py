"""A folder mounted as users mount theirs, with ``lafsfs mount`` and ``lafsfs umount``.

What is tested here is what programs see and nothing else: whether ``close`` waits for the grid or
only for a journal makes no difference to them. A remount is an ``umount``, which waits until
everything is stored, and a ``mount`` by a new process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from lafsfs.cli.mount_record import MountRecord
from lafsfs.cli.mount_table import find_mount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 300.0  # seconds for one command of ours
AFTER_A_CRASH = ("from an earlier mount", "is the newest to be had, but")


class Folder:
    """A mount with a home of its own: configuration, state and an embedded grid of one server."""

    def __init__(self, home: Path, options: str = "", watchdog: float = 1200.0) -> None:
        self.home = home
        self.path = home / "mnt"
        self.path.mkdir(parents=True)
        self._options = ("-o", options) if options else ()
        self._patience = watchdog
        self._watchdog: threading.Timer | None = None
        self._expected: tuple[str, ...] = ()  # parts of log lines that may be
        self._log = home / "state" / "lafsfs.log"
        self._record = MountRecord(home / "state", self.path)
        places = {f"LAFSFS_{kind}_DIR": str(home / kind.lower()) for kind in _PLACES}
        kept = {name: value for name, value in os.environ.items() if "LAFSFS" not in name}
        self._environment = kept | places | {"HOME": str(home), "PYTHONWARNINGS": "error"}

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def mount(self) -> None:
        """Mount; a watchdog kills the server if it is not unmounted in time, so nothing hangs."""
        self._lafsfs("mount", *self._options, str(self.path))
        record = self._record.read()
        assert record is not None
        self._watchdog = threading.Timer(self._patience, os.kill, (record.pid, signal.SIGKILL))
        self._watchdog.daemon = True
        self._watchdog.start()

    def umount(self) -> None:
        """Unmount, and see that the server had nothing to say."""
        self._lafsfs("umount", str(self.path))
        self._call_off()
        said = [
            line
            for line in self.log().splitlines()
            if not any(part in line for part in self._expected)
        ]
        assert not said, "the server said:\n" + "\n".join(said)

    def remount(self) -> None:
        """Unmount and mount again, by another process."""
        self.umount()
        self.mount()

    def crash(self) -> None:
        """Kill the server, whatever it is doing, and mount again by another process."""
        self._expected = AFTER_A_CRASH
        self.kill()
        self._record.wait()
        self.mount()

    def log(self) -> str:
        """What the servers have logged."""
        return self._log.read_text(encoding="utf-8") if self._log.exists() else ""

    def kill(self) -> None:
        """Make an end of it, whatever the state."""
        self._call_off()
        record = self._record.read()
        if record is not None and self._record.is_held():
            os.kill(record.pid, signal.SIGKILL)
        if find_mount(self.path) is not None:
            subprocess.run(["fusermount3", "-u", "-z", str(self.path)], check=False)

    def _call_off(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()

    def _lafsfs(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "lafsfs", *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}{self.log()}"


_PLACES = ("CONFIG", "DATA", "STATE", "CACHE")


@contextlib.contextmanager
def mounted(home: Path, options: str = "", watchdog: float = 1200.0) -> Iterator[Folder]:
    """A folder, mounted for as long as the context lasts; on the way out all must be in order."""
    folder = Folder(home, options, watchdog)
    try:
        folder.mount()
        yield folder
        folder.umount()
    except BaseException:
        print(folder.log(), file=sys.stderr)
        folder.kill()
        raise
