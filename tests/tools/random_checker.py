"""A mount and a plain directory side by side: the same is done to both, and has to show.

:mod:`tests.tools.random_ops` says what need not agree.
"""

from __future__ import annotations

import errno
import os
import random
import stat
import zlib
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.tools.folder import Folder

    Call = Callable[["Side"], Any]

NAMES = ("a", "b", "c", "dir", "e\u0301", "long " * 40)
TOP = "t"  # all that happens is below it; what links lead to beside it is looked at too
DEPTH = 3  # directories below each other, most of the time
LONG_AGO = 10**18  # nanoseconds: what is set lies before, what happens by itself behind
REMEMBERED = 300  # operations told when one of them went wrong


class Disagreement(AssertionError):
    """The two sides differ; the message says how it came to that."""


@dataclass(eq=False)
class Side:
    """One of the two trees, with the files that are open in it, by number."""

    root: Path
    files: dict[int, int] = field(default_factory=dict)
    maps: dict[int, mmap.mmap] = field(default_factory=dict)

    def at(self, path: str) -> str:
        return f"{self.root}/{path}"

    def close_all(self) -> None:
        for mapping in self.maps.values():
            mapping.close()
        for descriptor in self.files.values():
            os.close(descriptor)
        self.maps.clear()
        self.files.clear()


class Checker:
    """Both sides, and the random source that everything comes from."""

    def __init__(self, plain: Path, folder: Folder, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.plain = Side(plain)
        self.mounted = Side(folder.path)
        self.done = 0
        self.counts: dict[str, list[int]] = {}
        self.recent: deque[str] = deque(maxlen=REMEMBERED)
        self.mapped: set[int | None] = set()  # inode numbers (plain) whose mtime does not count
        self.paths: list[str] = []
        self.opened = 0
        self.both("begin", f"mkdir {TOP}", lambda side: os.mkdir(side.at(TOP)))
        self.look()

    # --- doing ------------------------------------------------------------------------------------

    def both(self, kind: str, text: str, call: Call) -> bool:
        """Make a call on both sides; whether it succeeded. Raises Disagreement."""
        expected, got = outcome(call, self.plain), outcome(call, self.mounted)
        failed = isinstance(expected, Failed)
        self.recent.append(f"{self.done}: {text} -> {short(expected)}")
        self.counts.setdefault(kind, [0, 0])[failed] += 1
        if got != expected:
            self.disagree(f"{text}: {short(got)} instead of {short(expected)}")
        return not failed

    def disagree(self, how: str) -> None:
        raise Disagreement("\n".join([*self.recent, f"operation {self.done}: {how}"]))

    def step(self, operation: Callable[[Checker], None]) -> None:
        """One operation more."""
        self.done += 1
        operation(self)

    def remount(self, *, by_force: bool = False) -> None:
        """Another process serves the mount. ``by_force``: the one before has no say in it."""
        self.recent.append(f"{self.done}: {'kill' if by_force else 'remount'}")
        self.plain.close_all()
        self.mounted.close_all()
        if by_force:
            self.folder.crash()
        else:
            self.folder.remount()

    # --- choosing ---------------------------------------------------------------------------------

    def path(self) -> str:
        """Mostly something that is there; else a name that may or may not be. Never the top."""
        if self.paths and self.random.random() < 0.75:
            return self.random.choice(self.paths)
        return self.new_path()

    def new_path(self) -> str:
        """A name in some directory, or in what is no directory."""
        parent = self.random.choice((*self.paths, TOP))
        if self.random.random() < 0.9:
            while parent.count("/") >= DEPTH or not os.path.isdir(self.plain.at(parent)):
                parent = os.path.dirname(parent) or TOP
        return f"{parent}/{self.random.choice(NAMES)}"

    def offset(self) -> int:
        most = self.random.choice((10, 5000, 200_000, 200_000, 1_500_000))
        return self.random.randrange(most)

    def data(self) -> bytes:
        size = self.random.choice((0, 1, 40, 56, 3000, 4096, 70_000, 300_000))
        size = self.random.randrange(size + 1)
        pattern = self.random.randbytes(min(size, 997))
        return (pattern * (size // 997 + 1))[:size]

    def an_open_file(self) -> int | None:
        return self.random.choice(list(self.plain.files)) if self.plain.files else None

    def look(self) -> None:
        """Note what there is on the plain side."""
        self.paths = sorted(tree_of(self.plain.root))
        self.paths.remove(TOP)  # it stays

    # --- comparing --------------------------------------------------------------------------------

    def compare(self) -> None:
        """Everything that can be seen of both trees, and of the files that are open."""
        self.look()
        expected = {p: self.seen(self.plain, p) for p in self.paths}
        paths = sorted(set(tree_of(self.mounted.root)) - {TOP})
        if paths != self.paths:
            self.disagree(f"names: {sorted(set(paths) ^ set(self.paths))} are on one side only")
        for path in self.paths:
            got = self.seen(self.mounted, path, self.plain)
            if got != expected[path]:
                self.disagree(f"{path}: {difference(got, expected[path])}")
        self.compare_links()
        for number in self.plain.files:
            if self.of_open(self.plain, number) != self.of_open(self.mounted, number):
                self.disagree(f"file {number}, which is open, differs")

    def seen(self, side: Side, path: str, times: Side | None = None) -> dict[str, Any]:
        """What a program sees of one file. ``times``: the side that says whose mtime counts."""
        full = side.at(path)
        status = os.lstat(full)
        folder, regular = stat.S_ISDIR(status.st_mode), stat.S_ISREG(status.st_mode)
        number = os.lstat(self.plain.at(path)).st_ino
        known = not folder and number not in self.mapped
        return {
            "mode": oct(status.st_mode),
            "owner": (status.st_uid, status.st_gid),
            "rdev": status.st_rdev,
            "nlink": None if folder else status.st_nlink,
            "size": None if folder else status.st_size,
            "mtime": min(status.st_mtime_ns, LONG_AGO) if known else None,
            "xattrs": {
                name: os.getxattr(full, name, follow_symlinks=False)
                for name in os.listxattr(full, follow_symlinks=False)
                if name.startswith("user.")
            },
            "target": os.readlink(full) if stat.S_ISLNK(status.st_mode) else None,
            "contents": contents_of(full) if regular else None,
        }

    def compare_links(self) -> None:
        """The same names are the same files."""
        groups = []
        for side in (self.plain, self.mounted):
            found: dict[int, list[str]] = {}
            for path in self.paths:
                status = os.lstat(side.at(path))
                if not stat.S_ISDIR(status.st_mode):
                    found.setdefault(status.st_ino, []).append(path)
            groups.append(sorted(found.values()))
        if groups[0] != groups[1]:
            self.disagree("hard links differ")

    def of_open(self, side: Side, number: int) -> tuple[int, int, bytes | None]:
        descriptor = side.files[number]
        status = os.fstat(descriptor)
        try:
            contents = os.pread(descriptor, status.st_size + 10, 0)
        except OSError:  # not open for reading, on either side
            contents = None
        return status.st_size, status.st_nlink, contents


@dataclass(frozen=True)
class Failed:
    """An errno as a result."""

    name: str


def outcome(call: Call, side: Side) -> Any:
    try:
        return call(side)
    except OSError as error:
        return Failed(errno.errorcode[error.errno or 0])


def short(result: Any) -> str:
    if isinstance(result, bytes):
        return f"{len(result)} bytes, CRC {zlib.crc32(result):08x}"
    text = result.name if isinstance(result, Failed) else repr(result)
    return text if len(text) < 80 else f"{text[:60]}... ({len(text)})"


def difference(got: dict[str, Any], expected: dict[str, Any]) -> str:
    keys = [key for key in expected if got[key] != expected[key]]
    return ", ".join(f"{key} {short(got[key])} instead of {short(expected[key])}" for key in keys)


def tree_of(root: Path) -> Iterator[str]:
    """The paths of everything below, in no order."""
    below = len(str(root)) + 1
    for directory, folders, files in os.walk(root):
        for name in [*folders, *files]:
            yield f"{directory}/{name}"[below:]


def contents_of(path: str) -> bytes:
    with opened(path, os.O_RDONLY) as descriptor, open(descriptor, "rb", closefd=False) as file:
        return file.read()


@contextmanager
def opened(path: str, flags: int) -> Iterator[int]:
    """A descriptor for a moment; a fifo that nobody reads is an error and not a wait."""
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
