"""A mount that is killed while a program works on it, beside a local directory that is not.

The program does the same to both, first to the mount. When the mount's process is gone, the local
directory says what was accepted; what was being done at that moment may or may not be.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lafsfs.journal.faultpoints import VARIABLE
from tests.mounted.harness import DiedEarlyError
from tests.mounted.snapshot import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.mounted.harness import Grid, Mount
    from tests.mounted.snapshot import Seen

GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ENODEV)  # of a mount without a process
LARGE = 300_000  # bytes: more than the journal keeps in its database
AFTER_A_KILL = ("from an earlier mount", "is the newest to be had, but")  # is logged


@dataclass(frozen=True)
class Operation:
    """Something to be done below a directory. ``writing``: whose contents are written meanwhile."""

    run: Callable[[Path], None]
    writing: str | None = None


class Program:
    """Random operations that make sense below ``local``."""

    def __init__(self, local: Path, seed: int) -> None:
        self.local = local
        self.random = random.Random(seed)

    def next(self) -> Operation:
        """One more."""
        while True:
            verb = self.random.choice(
                [
                    *[self.write] * 4,
                    *[self.rename] * 3,
                    *[self.unlink] * 2,
                    *[self.chmod, self.mkdir, self.rmdir, self.symlink, self.link, self.append],
                    *[self.setxattr, self.save, self.large],
                ]
            )
            operation = verb()
            if operation is not None:
                return operation

    def _some(self, *, folders: bool = False) -> str | None:
        found = [
            os.path.relpath(os.path.join(directory, name), self.local)
            for directory, names, files in os.walk(self.local)
            for name in (names if folders else files)
            if not os.path.islink(os.path.join(directory, name)) or not folders
        ]
        return self.random.choice(sorted(found)) if found else None

    def _new(self) -> str:
        folder = self._some(folders=True) if self.random.random() < 0.6 else None
        name = f"{self.random.randrange(30)}"
        return os.path.join(folder, name) if folder else name

    def write(self, size: int | None = None) -> Operation | None:
        path, data = self._new(), self.random.randbytes(size or self.random.choice([0, 40, 4000]))
        if not os.path.lexists(self.local / path):
            return Operation(lambda root: _write(root / path, data, "wb"), path)
        if os.path.isfile(self.local / path) and not os.path.islink(self.local / path):
            return Operation(lambda root: _write(root / path, data, "wb"), path)
        return None

    def large(self) -> Operation | None:
        return self.write(LARGE)

    def append(self) -> Operation | None:
        path, data = self._some(), self.random.randbytes(500)
        if path is None or os.path.islink(self.local / path):
            return None
        return Operation(lambda root: _write(root / path, data, "ab"), path)

    def save(self) -> Operation | None:
        path, data = self._some(), self.random.randbytes(1000)
        if path is None or os.path.lexists(self.local / f"{path}~"):
            return None
        return Operation(lambda root: _write(root / f"{path}~", data, "wb"), f"{path}~")

    def rename(self) -> Operation | None:
        source, target = self._some(folders=self.random.random() < 0.3), self._new()
        if source is None or os.path.isdir(self.local / target):
            return None
        if os.path.isdir(self.local / source) and os.path.lexists(self.local / target):
            return None
        if f"{target}/".startswith(f"{source}/"):
            return None
        return Operation(lambda root: os.rename(root / source, root / target))

    def unlink(self) -> Operation | None:
        path = self._some()
        return None if path is None else Operation(lambda root: os.unlink(root / path))

    def chmod(self) -> Operation | None:
        path, mode = self._some(), self.random.choice([0o600, 0o640, 0o755])
        if path is None or os.path.islink(self.local / path):
            return None
        return Operation(lambda root: os.chmod(root / path, mode))

    def setxattr(self) -> Operation | None:
        path, value = self._some(), self.random.randbytes(9)
        if path is None or os.path.islink(self.local / path):
            return None
        return Operation(lambda root: os.setxattr(root / path, "user.note", value))

    def mkdir(self) -> Operation | None:
        path = self._new()
        if os.path.lexists(self.local / path):
            return None
        return Operation(lambda root: os.mkdir(root / path))

    def rmdir(self) -> Operation | None:
        path = self._some(folders=True)
        if path is None or os.listdir(self.local / path):
            return None
        return Operation(lambda root: os.rmdir(root / path))

    def symlink(self) -> Operation | None:
        path, target = self._new(), self.random.randbytes(40).hex()
        if os.path.lexists(self.local / path):
            return None
        return Operation(lambda root: os.symlink(target, root / path))

    def link(self) -> Operation | None:
        path, target = self._some(), self._new()
        if path is None or os.path.lexists(self.local / target):
            return None
        if os.path.islink(self.local / path):
            return None
        return Operation(lambda root: os.link(root / path, root / target))


def _write(path: Path, data: bytes, mode: str) -> None:
    with open(path, mode) as file:
        file.write(data)


class Campaign:
    """One grid, one directory beside it, and mounts that are killed one after the other.

    Each mount first shows what the one before has left, and is then worked on until it dies.
    """

    def __init__(self, grid: Grid, directory: Path, seed: int) -> None:
        directory.mkdir()
        self.grid = grid
        self.local = directory / "local"
        self.before = directory / "before"  # what is there too, if the last operation is not
        self.local.mkdir()
        self.program = Program(self.local, seed)
        self.random = random.Random(seed)
        self.cut_off: Operation | None = None

    def kill(self, operations: int) -> None:
        """Have a mount die at some fault point of so many operations at most, or behind them.

        It may do so before it is ready, and while it is looked at: then another one is tried.
        """
        killed = False
        while not killed:
            fault = f"any:{self.random.randrange(1, 7 * operations)}"
            with suppress(DiedEarlyError), self._mounted(fault) as mount:
                with _dying():
                    self.assert_all_is_shown(mount.path)
                    self._work(mount.path, operations)
                    killed = True
                mount.kill()

    def assert_all_is_back(self) -> None:
        """Everything is shown, gets to the grid, and is seen there by another client."""
        with self.grid.mount() as mount:
            mount.expect_log(*AFTER_A_KILL)
            self.assert_all_is_shown(mount.path)
        with self.grid.mount(state="elsewhere") as mount:
            self.assert_all_is_shown(mount.path)

    def assert_all_is_shown(self, mounted: Path) -> None:
        """The mount shows what was accepted; from here on the local directory has the same."""
        writing = None if self.cut_off is None else self.cut_off.writing
        found = _shown(mounted, writing)
        os.listdir(mounted)  # or else it died meanwhile, and that was not all
        if self.cut_off is not None and found == _shown(self.before, writing):
            shutil.rmtree(self.local)
            shutil.copytree(self.before, self.local, symlinks=True)
            _link_again(self.before, self.local)
        assert found == _shown(self.local, writing), difference(found, _shown(self.local, writing))
        if writing is not None and os.path.isfile(mounted / writing):
            _write(self.local / writing, (mounted / writing).read_bytes(), "wb")
        self.cut_off = None

    def _mounted(self, fault: str) -> AbstractContextManager[Mount]:
        options = "quiet=0.05"
        return self.grid.mount(environment={VARIABLE: fault}, options=options, sync=False)

    def _work(self, mounted: Path, operations: int) -> None:
        for _ in range(operations):
            operation = self.program.next()
            try:
                operation.run(mounted)
            except OSError as error:
                if error.errno not in GONE:
                    raise
                shutil.rmtree(self.before, ignore_errors=True)
                shutil.copytree(self.local, self.before, symlinks=True)
                _link_again(self.local, self.before)
                operation.run(self.local)
                self.cut_off = operation
                return
            operation.run(self.local)


@contextmanager
def _dying() -> Iterator[None]:
    """The mount may die in here."""
    try:
        yield
    except OSError as error:
        if error.errno not in GONE:
            raise


def _link_again(source: Path, copy: Path) -> None:
    """Hard links, which copying has parted."""
    for path, seen in snapshot(source).items():
        first = seen.links[0] if seen.links else path
        if path != first and os.path.isfile(copy / path):
            os.unlink(copy / path)
            os.link(copy / first, copy / path)


def _shown(root: Path, writing: str | None) -> dict[str, object]:
    """What two directories have in common; of a file that was being written, that it is there."""
    return {
        path: None if writing in (path, *seen.links) else _in_common(seen)
        for path, seen in snapshot(root, numbers=False, times=False).items()
    }


def _in_common(seen: Seen) -> tuple[object, ...]:
    return seen.mode, seen.contents, seen.xattrs, seen.links


def difference(one: dict[str, object], other: dict[str, object]) -> str:
    paths = sorted(path for path in one | other if one.get(path) != other.get(path))
    return "\n".join(f"{path}: {one.get(path)} / {other.get(path)}" for path in paths)
