"""Random operations on a mount and on a plain directory, which must stay the same.

    python -m tests.tools.random_ops --operations 100000 --seed 7

Every operation is made up from the seed and from what the plain directory holds, and made on both
sides; its result, or its errno, has to agree. After each batch everything that programs can see has
to agree: names, types, modes, owners, sizes, link counts, times that were set, extended attributes
and contents. Now and then the mount is unmounted and mounted again, or its process is killed: all
that was closed has to be there afterwards.

What two file systems need not agree on is left out: inode numbers, the sizes and link counts of
directories, and times that nobody set. Those have to be recent where the plain directory's are; and
a change of names has to move the mtime of the mount's directory. Pages of a shared mapping reach a
FUSE file system when the kernel likes: the mtime of such a file counts again once it was set after
the mapping has gone.

As root the kernel is made to forget the mount's files now and then.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import mmap
import os
import random
import shutil
import signal
import stat
import sys
import tempfile
import zlib
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.tools.folder import mounted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.tools.folder import Folder

    Call = Callable[["Side"], Any]

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
MS_NOSUID, MS_NODEV, MS_REMOUNT = 2, 4, 32  # mount(2)
ROOT = os.geteuid() == 0

NAMES = ("a", "b", "c", "dir", "e\u0301", "long " * 40)
TOP = "t"  # all that happens is below it; what links lead to beside it is looked at too
DEPTH = 3  # directories below each other, most of the time
MOST_OPEN = 12  # files that stay open at a time
MOST_MAPPED = 3
LONG_AGO = 10**18  # nanoseconds: what is set lies before, what happens by itself behind
REMEMBERED = 300  # operations told when one of them went wrong
MODES = (0o600, 0o644, 0o755, 0o4711, 0o2755, 0o1777, 0o400)
RENAME_FLAGS = (0, 0, 0, 0, 1, 2)  # mostly plain; NOREPLACE; EXCHANGE


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

    def step(self) -> None:
        """One random operation."""
        self.done += 1
        (operation,) = self.random.choices(OPERATIONS, WEIGHTS)
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


# --- operations on contents -----------------------------------------------------------------------


def create(check: Checker) -> None:
    path, data, r = check.new_path(), check.data(), check.random
    extra = r.choice((0, os.O_TRUNC, os.O_EXCL))

    def call(side: Side) -> int:
        with opened(side.at(path), os.O_WRONLY | os.O_CREAT | extra) as descriptor:
            return os.write(descriptor, data)

    changing_names(check, "create", f"create {path} {extra} {len(data)}", call, path)


def write_at(check: Checker) -> None:
    path = check.path()
    parts = [(check.data(), check.offset()) for _ in range(check.random.randrange(1, 4))]

    def call(side: Side) -> bytes:
        with opened(side.at(path), os.O_RDWR) as descriptor:
            for data, offset in parts:
                os.pwrite(descriptor, data, offset)
            return os.pread(descriptor, 1000, max(0, parts[0][1] - 10))

    said = [(len(data), offset) for data, offset in parts]
    check.both("write", f"write {path} {said}", call)


def append(check: Checker) -> None:
    path, data = check.path(), check.data()

    def call(side: Side) -> int:
        with opened(side.at(path), os.O_WRONLY | os.O_APPEND) as descriptor:
            return os.write(descriptor, data)

    check.both("append", f"append {path} {len(data)}", call)


def rewrite(check: Checker) -> None:
    path, data = check.path(), check.data()

    def call(side: Side) -> int:
        with opened(side.at(path), os.O_WRONLY | os.O_TRUNC) as descriptor:
            return os.write(descriptor, data)

    check.both("rewrite", f"rewrite {path} {len(data)}", call)


def truncate(check: Checker) -> None:
    path, size = check.path(), check.offset()
    if stat.S_ISFIFO(mode_of(check, path)):
        return
    check.both("truncate", f"truncate {path} {size}", lambda side: os.truncate(side.at(path), size))


def read(check: Checker) -> None:
    path, offset = check.path(), check.offset()

    def call(side: Side) -> bytes:
        with opened(side.at(path), os.O_RDONLY) as descriptor:
            return os.pread(descriptor, 50_000, offset)

    if not stat.S_ISFIFO(mode_of(check, path)):
        check.both("read", f"read {path} {offset}", call)


def write_mapped(check: Checker) -> None:
    """Write through a shared mapping that goes at once, synchronised or not."""
    path, data, where = check.path(), check.data(), check.random.random()
    synchronise = check.random.random() < 0.5
    number = number_of(check, path)

    def call(side: Side) -> int:
        with opened(side.at(path), os.O_RDWR) as descriptor:
            size = os.fstat(descriptor).st_size
            if not size or not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return 0
            with mmap.mmap(descriptor, size) as mapping:
                part = data[:size]
                start = int(where * (size - len(part)))
                mapping[start : start + len(part)] = part
                if synchronise:
                    mapping.flush()
                return size

    if check.both("mmap", f"mmap {path} {len(data)} {synchronise}", call):
        check.mapped.add(number)


# --- operations on files that stay open -----------------------------------------------------------


def open_file(check: Checker) -> None:
    path = check.path()
    if len(check.plain.files) >= MOST_OPEN or not stat.S_ISREG(
        mode_of(check, path) or stat.S_IFREG
    ):
        return
    flags = check.random.choice((os.O_RDWR, os.O_RDWR, os.O_RDONLY, os.O_WRONLY | os.O_APPEND))
    flags |= check.random.choice((0, 0, os.O_CREAT, os.O_TRUNC))
    check.opened += 1
    number = check.opened

    def call(side: Side) -> None:
        side.files[number] = os.open(side.at(path), flags | os.O_NONBLOCK, 0o640)

    check.both("open", f"open {path} {flags:o} as {number}", call)
    check.look()


def close_file(check: Checker) -> None:
    number = check.an_open_file()
    if number is None:
        return

    def call(side: Side) -> None:
        if number in side.maps:
            side.maps.pop(number).close()
        os.close(side.files.pop(number))

    check.both("close", f"close {number}", call)


def on_open(
    kind: str, make: Callable[[Checker], tuple[str, Callable[[int], Any]]]
) -> Callable[[Checker], None]:
    """An operation on the descriptor of a file that is open."""

    def operation(check: Checker) -> None:
        number = check.an_open_file()
        if number is None:
            return
        text, call = make(check)
        check.both(kind, f"{text} of {number}", lambda side: call(side.files[number]))

    return operation


def _write_open(check: Checker) -> tuple[str, Callable[[int], Any]]:
    data, offset = check.data(), check.offset()
    return f"pwrite {len(data)} at {offset}", lambda fd: os.pwrite(fd, data, offset)


def _append_open(check: Checker) -> tuple[str, Callable[[int], Any]]:
    data = check.data()
    return f"write {len(data)}", lambda fd: (os.write(fd, data), os.lseek(fd, 0, os.SEEK_CUR))


def _read_open(check: Checker) -> tuple[str, Callable[[int], Any]]:
    offset = check.offset()
    return f"pread at {offset}", lambda fd: (os.pread(fd, 5000, offset), os.fstat(fd).st_size)


def _truncate_open(check: Checker) -> tuple[str, Callable[[int], Any]]:
    size = check.offset()
    return f"ftruncate to {size}", lambda fd: os.ftruncate(fd, size)


def _chmod_open(check: Checker) -> tuple[str, Callable[[int], Any]]:
    mode = check.random.choice(MODES)
    return f"fchmod {mode:o}", lambda fd: os.fchmod(fd, mode)


def _sync_open(check: Checker) -> tuple[str, Callable[[int], Any]]:
    call = check.random.choice((os.fsync, os.fdatasync))
    return call.__name__, call


def map_open(check: Checker) -> None:
    """Map an open file and keep the mapping."""
    number = check.an_open_file()
    if number is None or number in check.plain.maps or len(check.plain.maps) >= MOST_MAPPED:
        return
    status = os.fstat(check.plain.files[number])

    def call(side: Side) -> None:
        if status.st_size:
            side.maps[number] = mmap.mmap(side.files[number], status.st_size)

    if check.both("map", f"map {status.st_size} of {number}", call):
        check.mapped.add(status.st_ino)


def use_map(check: Checker) -> None:
    """Write through a mapping that is kept, and read what others wrote."""
    if not check.plain.maps:
        return
    number = check.random.choice(list(check.plain.maps))
    status = os.fstat(check.plain.files[number])
    size = min(len(check.plain.maps[number]), status.st_size)  # behind the end is SIGBUS
    data, where, sync = check.data()[:size], check.random.random(), check.random.random() < 0.3
    start = int(where * (size - len(data)))

    def call(side: Side) -> bytes:
        mapping = side.maps[number]
        mapping[start : start + len(data)] = data
        if sync:
            mapping.flush()
        return mapping[max(0, start - 1000) : size][:5000]

    check.both("use map", f"use map of {number} {len(data)} at {start} {sync}", call)
    check.mapped.add(status.st_ino)


# --- operations on names --------------------------------------------------------------------------


def changing_names(check: Checker, kind: str, text: str, call: Call, *paths: str) -> None:
    """Make a call, after which directories in which names have changed have later mtimes."""
    parents = sorted({os.path.dirname(path) for path in paths})
    before = {p: (mtime_of(check, p), listed(check, p)) for p in parents}
    if not check.both(kind, text, call):
        return
    for parent, (mtime, names) in before.items():
        if mtime is None or (after := mtime_of(check, parent)) is None:
            continue
        if names != listed(check, parent) and after <= mtime:
            check.disagree(f"{text}: the mtime of {parent} did not move: {mtime}, {after}")
    check.look()


def mkdir(check: Checker) -> None:
    path = check.new_path()
    changing_names(check, "mkdir", f"mkdir {path}", lambda s: os.mkdir(s.at(path), 0o755), path)


def rmdir(check: Checker) -> None:
    path = check.path()
    changing_names(check, "rmdir", f"rmdir {path}", lambda side: os.rmdir(side.at(path)), path)


def unlink(check: Checker) -> None:
    path = check.path()
    changing_names(check, "unlink", f"unlink {path}", lambda side: os.unlink(side.at(path)), path)


def rename(check: Checker) -> None:
    old = check.path()
    new = check.path() if check.random.random() < 0.5 else check.new_path()
    flags = check.random.choice(RENAME_FLAGS)

    def call(side: Side) -> None:
        paths = os.fsencode(side.at(old)), os.fsencode(side.at(new))
        if LIBC.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], flags):
            raise OSError(ctypes.get_errno(), "renameat2")

    changing_names(check, "rename", f"rename {old} {new} {flags}", call, old, new)


def link(check: Checker) -> None:
    old, new = check.path(), check.new_path()

    def call(side: Side) -> None:
        os.link(side.at(old), side.at(new), follow_symlinks=False)

    changing_names(check, "link", f"link {old} {new}", call, new)


def symlink(check: Checker) -> None:
    path, r = check.new_path(), check.random
    target = r.choice(
        (r.choice(NAMES), f"../{r.choice(NAMES)}", f"dir/{r.choice(NAMES)}", "x" * 999)
    )

    def call(side: Side) -> None:
        os.symlink(target, side.at(path))

    changing_names(check, "symlink", f"symlink {path} to {target}", call, path)


def mkfifo(check: Checker) -> None:
    path = check.new_path()
    changing_names(check, "mkfifo", f"mkfifo {path}", lambda s: os.mkfifo(s.at(path), 0o604), path)


def list_directory(check: Checker) -> None:
    path = check.path()
    check.both("list", f"list {path}", lambda side: sorted(os.listdir(side.at(path))))


def look_up(check: Checker) -> None:
    """``..`` of what may have been renamed is the directory that it is in."""
    path = check.path()

    def call(side: Side) -> tuple[bool, bool]:
        full = side.at(path)
        return os.path.samefile(f"{full}/..", os.path.dirname(full)), os.path.isdir(f"{full}/.")

    check.both("..", f".. of {path}", call)


# --- operations on attributes ---------------------------------------------------------------------


def chmod(check: Checker) -> None:
    path, mode = check.path(), check.random.choice(MODES)
    check.both("chmod", f"chmod {path} {mode:o}", lambda side: os.chmod(side.at(path), mode))


def chown(check: Checker) -> None:
    path = check.path()
    owner = check.random.choice(((0, 0), (1234, 5678))) if ROOT else (os.getuid(), os.getgid())

    def call(side: Side) -> None:
        os.chown(side.at(path), *owner, follow_symlinks=False)

    check.both("chown", f"chown {path} {owner}", call)


def utime(check: Checker) -> None:
    path = check.path()
    number = number_of(check, path)
    atime, mtime = (check.random.randrange(-(10**17), LONG_AGO) for _ in range(2))

    def call(side: Side) -> None:
        os.utime(side.at(path), ns=(atime, mtime), follow_symlinks=False)

    check.both("utime", f"utime {path} {mtime}", call)
    mapped = {os.fstat(check.plain.files[one]).st_ino for one in check.plain.maps}
    if number is not None and number not in mapped:
        check.mapped.discard(number)


def set_xattr(check: Checker) -> None:
    path, name = check.path(), check.random.choice(("user.one", "user.two"))
    value = check.random.randbytes(check.random.randrange(200))

    def call(side: Side) -> None:
        os.setxattr(side.at(path), name, value)

    check.both("setxattr", f"setxattr {path} {name} {len(value)}", call)


def remove_xattr(check: Checker) -> None:
    path, name = check.path(), check.random.choice(("user.one", "user.two"))
    check.both("removexattr", f"removexattr {path}", lambda s: os.removexattr(s.at(path), name))


def sync_directory(check: Checker) -> None:
    path = check.path()

    def call(side: Side) -> None:
        with opened(side.at(path), os.O_RDONLY | os.O_DIRECTORY) as descriptor:
            os.fsync(descriptor)

    check.both("fsyncdir", f"fsync directory {path}", call)


# --- the kernel's memory --------------------------------------------------------------------------


def forget(check: Checker) -> None:
    """Have the kernel forget all it can of the mount, as it does when memory is short."""
    path = os.fsencode(check.mounted.root)
    if not LIBC.mount(None, path, None, MS_REMOUNT | MS_NOSUID | MS_NODEV, None):
        check.recent.append(f"{check.done}: forget")
    elif ctypes.get_errno() != errno.EPERM:  # which is what those get who are not root
        raise OSError(ctypes.get_errno(), "remounting in the kernel")


# --- odds and ends --------------------------------------------------------------------------------


def mode_of(check: Checker, path: str) -> int:
    """Of what a path leads to on the plain side; 0 for nothing."""
    try:
        return os.stat(check.plain.at(path)).st_mode
    except OSError:
        return 0


def number_of(check: Checker, path: str) -> int | None:
    try:
        return os.stat(check.plain.at(path)).st_ino
    except OSError:
        return None


def mtime_of(check: Checker, directory: str) -> int | None:
    """Of a directory on the mount, if it is one by itself."""
    try:
        status = os.lstat(check.mounted.at(directory))
    except OSError:
        return None
    return status.st_mtime_ns if stat.S_ISDIR(status.st_mode) else None


def listed(check: Checker, directory: str) -> list[str]:
    """The names on the plain side, and which files they are."""
    try:
        with os.scandir(check.plain.at(directory)) as entries:
            return sorted(f"{entry.inode()} {entry.name}" for entry in entries)
    except OSError:
        return []


WEIGHTED: dict[Callable[[Checker], None], int] = {
    create: 12,
    write_at: 12,
    append: 6,
    rewrite: 4,
    truncate: 5,
    read: 5,
    write_mapped: 4,
    open_file: 7,
    close_file: 6,
    on_open("write open", _write_open): 8,
    on_open("append open", _append_open): 3,
    on_open("read open", _read_open): 4,
    on_open("truncate open", _truncate_open): 3,
    on_open("fchmod", _chmod_open): 1,
    on_open("fsync", _sync_open): 3,
    map_open: 2,
    use_map: 4,
    mkdir: 3,
    rmdir: 3,
    unlink: 6,
    rename: 12,
    link: 4,
    symlink: 2,
    mkfifo: 1,
    list_directory: 3,
    look_up: 3,
    chmod: 3,
    chown: 2,
    utime: 4,
    set_xattr: 2,
    remove_xattr: 1,
    sync_directory: 1,
    forget: 1,
}
OPERATIONS = tuple(WEIGHTED)
WEIGHTS = tuple(WEIGHTED.values())


def run(directory: Path, operations: int, seed: int, batch: int, remounts: int) -> Checker:
    """Do ``operations`` in batches, with a remount after each ``remounts`` of them.

    Every second remount is because the process was killed.

    Raises:
        Disagreement: the sides differ.
    """
    os.umask(0o022)
    plain = directory / "plain"
    plain.mkdir()
    with mounted(directory / "home") as folder:
        check = Checker(plain, folder, seed)
        try:
            while check.done < operations:
                before = check.done
                for _ in range(min(batch, operations - check.done)):
                    check.step()
                check.compare()
                if before // remounts != check.done // remounts:
                    check.remount(by_force=check.done // remounts % 2 == 1)
                    check.compare()
            check.remount()
            check.compare()
        finally:
            check.plain.close_all()
            check.mounted.close_all()
    return check


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--batch", type=int, default=100, help="operations between comparisons")
    parser.add_argument("--remount", type=int, default=2000, help="operations between remounts")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # not without an unmount
    directory = Path(tempfile.mkdtemp(prefix="lafsfs-random-"))
    try:
        check = run(
            directory, arguments.operations, arguments.seed, arguments.batch, arguments.remount
        )
    except Disagreement as error:
        print(error)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    for kind, (done, failed) in sorted(check.counts.items()):
        print(f"{kind:14} {done:8} done {failed:8} refused")
    print(f"{check.done} operations, no difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
