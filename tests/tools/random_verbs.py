"""The operations that a mount and a plain directory are compared by, and how often each is made."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
from typing import TYPE_CHECKING, Any

from tests.tools.random_checker import LONG_AGO, NAMES, opened

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.tools.random_checker import Call, Checker, Side

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
MS_NOSUID, MS_NODEV, MS_REMOUNT = 2, 4, 32  # mount(2)
ROOT = os.geteuid() == 0

MOST_OPEN = 12  # files that stay open at a time
MOST_MAPPED = 3
MODES = (0o600, 0o644, 0o755, 0o4711, 0o2755, 0o1777, 0o400)
RENAME_FLAGS = (0, 0, 0, 0, 1, 2)  # mostly plain; NOREPLACE; EXCHANGE


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
