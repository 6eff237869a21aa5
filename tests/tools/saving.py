"""How programs save a file: the system calls they were seen to make (strace), in that order.

Each function saves ``contents`` to ``path`` as one program does, when nobody else is about. They
are what is tested where the program itself is not installed, and beside it where it is. A function
returns the names that the program leaves in the directory beside the file's own.

================  ================================================================================
vim 9.0           swap file, probe ``4913``, the old file renamed to a backup that is removed again
vim, copying      the same with ``backupcopy=yes``: the old contents are copied, the file rewritten
nano 7.2          lock file, backup copied and kept, file rewritten
emacs 28          lock as a dangling symbolic link, old file renamed to a backup that is kept
sed 4.9           ``sed -i``: a new file beside the old one, renamed over it
rsync 3.2         ``.NAME.XXXXXX``, attributes set before the rename
git 2.39          ``index.lock`` renamed; objects are linked to their name, and the first removed
================  ================================================================================

Not recorded here but as their sources and documents describe them: LibreOffice (``.~lock.NAME#``
and a ``lu*.tmp`` that is patched, synchronised and renamed), Firefox (an empty file under the final
name, ``.part`` renamed over it, where from as an extended attribute), and GLib's
``g_file_replace`` (``.goutputstream-*``, a hard link as backup).
"""

from __future__ import annotations

import os
import stat
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Save = Callable[[Path, bytes], tuple[str, ...]]

NEW = os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
PIECE = 8192  # bytes that programs write at a time


@contextmanager
def opened(path: Path, flags: int, mode: int = 0o666) -> Iterator[int]:
    descriptor = os.open(path, flags, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_all(descriptor: int, contents: bytes) -> None:
    for start in range(0, len(contents), PIECE):
        os.write(descriptor, contents[start : start + PIECE])


def access_list(mode: int) -> bytes:
    """The access control list that says the same as a mode; programs set it when they copy one."""
    entries = ((1, mode >> 6 & 7), (4, mode >> 3 & 7), (0x20, mode & 7))
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, rights, 0xFFFFFFFF) for tag, rights in entries
    )


def copy_attributes(descriptor: int, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, mode)
    os.setxattr(descriptor, "system.posix_acl_access", access_list(mode))


@contextmanager
def vim_swap(path: Path) -> Iterator[None]:
    """Vim's swap file: made, removed and made again to learn what the file system can do."""
    swap, probe = (path.with_name(f".{path.name}.{end}") for end in ("swp", "swx"))
    with opened(swap, os.O_RDWR | NEW, 0o600), opened(probe, os.O_RDWR | NEW, 0o600):
        pass
    probe.unlink()
    swap.unlink()
    with opened(swap, os.O_RDWR | NEW | os.O_NOFOLLOW, 0o600) as descriptor:
        os.write(descriptor, b"b0VIM 9.0".ljust(4096, b"\0"))
        swap.chmod(0o644)
        for block in (2, 1):
            os.pwrite(descriptor, bytes([block]) * 4096, 4096 * block)
        os.fsync(descriptor)
        yield
    swap.unlink()


def vim(path: Path, contents: bytes) -> tuple[str, ...]:
    status, backup = path.stat(), path.with_name(f"{path.name}~")
    with vim_swap(path):
        with opened(path.with_name("4913"), os.O_WRONLY | NEW, 0o100644) as descriptor:
            os.fchown(descriptor, status.st_uid, status.st_gid)
        path.with_name("4913").unlink()
        backup.unlink(missing_ok=True)
        path.rename(backup)
        with opened(path, os.O_WRONLY | os.O_CREAT, 0o644) as descriptor:
            os.ftruncate(descriptor, 0)
            write_all(descriptor, contents)
            os.fsync(descriptor)
            copy_attributes(descriptor, status)
        backup.unlink()
    return ()


def vim_copying(path: Path, contents: bytes) -> tuple[str, ...]:
    status, backup = path.stat(), path.with_name(f"{path.name}~")
    with vim_swap(path):
        old = path.read_bytes()
        backup.unlink(missing_ok=True)
        with opened(backup, os.O_WRONLY | NEW | os.O_NOFOLLOW, 0o644) as descriptor:
            write_all(descriptor, old)
        os.utime(backup, ns=(status.st_atime_ns, status.st_mtime_ns))
        with opened(path, os.O_WRONLY | os.O_CREAT, 0o644) as descriptor:
            os.ftruncate(descriptor, 0)
            write_all(descriptor, contents)
            os.fsync(descriptor)
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
    return (backup.name,)


def nano(path: Path, contents: bytes) -> tuple[str, ...]:
    status, backup = path.stat(), path.with_name(f"{path.name}~")
    lock = path.with_name(f".{path.name}.swp")
    for _ in range(2):  # when it opens the file, and when it is first changed
        lock.unlink(missing_ok=True)
        with opened(lock, os.O_WRONLY | NEW) as descriptor:
            os.write(descriptor, b"b0nano 7.2".ljust(1024, b"\0"))
    backup.unlink(missing_ok=True)
    with opened(backup, os.O_WRONLY | NEW, 0o600) as descriptor:
        os.fchown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
        write_all(descriptor, path.read_bytes())
        os.fsync(descriptor)
        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
        write_all(descriptor, contents)
        os.fsync(descriptor)
    lock.unlink()
    return (backup.name,)


def emacs(path: Path, contents: bytes) -> tuple[str, ...]:
    status, backup = path.stat(), path.with_name(f"{path.name}~")
    lock = path.with_name(f".#{path.name}")
    lock.symlink_to("user@host.4711:1700000000")
    path.rename(backup)
    with pytest.raises(FileExistsError):
        lock.symlink_to("user@host.4711:1700000000")
    assert os.readlink(lock) == "user@host.4711:1700000000"
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
        write_all(descriptor, contents)
    with opened(path, os.O_WRONLY) as descriptor:
        os.fsync(descriptor)
    lock.unlink()
    mode = stat.S_IMODE(status.st_mode)
    path.chmod(mode)
    os.setxattr(path, "system.posix_acl_access", access_list(mode))
    return (backup.name,)


def sed(path: Path, contents: bytes) -> tuple[str, ...]:
    passing = path.with_name("sedZ9qL2x")
    with opened(path, os.O_RDONLY), opened(passing, os.O_RDWR | NEW, 0o600) as descriptor:
        copy_attributes(descriptor, path.stat())
        write_all(descriptor, contents)
    passing.rename(path)
    return ()


def rsync(path: Path, contents: bytes) -> tuple[str, ...]:
    passing = path.with_name(f".{path.name}.vd4c3V")
    status = path.stat()
    with opened(passing, os.O_RDWR | NEW | os.O_NOFOLLOW, 0o600) as descriptor:
        os.fchmod(descriptor, 0o600)
        write_all(descriptor, contents)
    os.chown(passing, status.st_uid, status.st_gid)
    os.utime(passing, ns=(status.st_atime_ns, 10**18))
    passing.chmod(stat.S_IMODE(status.st_mode))
    passing.rename(path)
    return ()


def git(path: Path, contents: bytes) -> tuple[str, ...]:
    lock, passing = path.with_name(f"{path.name}.lock"), path.with_name("tmp_obj_Xq1")
    name = path.with_name(f"object{len(contents)}")
    with opened(passing, os.O_RDWR | NEW, 0o444) as descriptor:
        write_all(descriptor, contents[::-1])
    passing.chmod(0o444)
    os.link(passing, name)
    passing.unlink()
    with opened(lock, os.O_RDWR | NEW) as descriptor:
        write_all(descriptor, contents)
        os.fchmod(descriptor, stat.S_IMODE(path.stat().st_mode))
    with pytest.raises(FileExistsError):
        os.open(lock, os.O_RDWR | NEW)
    lock.rename(path)
    assert name.read_bytes() == contents[::-1]
    assert name.stat().st_nlink == 1
    name.unlink()
    return ()


def libreoffice(path: Path, contents: bytes) -> tuple[str, ...]:
    lock, passing = path.with_name(f".~lock.{path.name}#"), path.with_name("lu48712abc.tmp")
    with opened(lock, os.O_RDWR | NEW) as descriptor:
        os.write(descriptor, b",user,host,20.11.2026 12:00,file:///home/user/.config;")
    with opened(passing, os.O_RDWR | NEW, 0o600) as descriptor:
        os.write(descriptor, bytes(30))  # a header whose sizes are filled in at the end
        write_all(descriptor, contents[30:])
        os.pwrite(descriptor, contents[:30], 0)
        os.ftruncate(descriptor, len(contents))
        os.fchmod(descriptor, stat.S_IMODE(path.stat().st_mode))
        os.fsync(descriptor)
    passing.rename(path)
    lock.unlink()
    return ()


def browser(path: Path, contents: bytes) -> tuple[str, ...]:
    mode = stat.S_IMODE(path.stat().st_mode)
    path.unlink()
    part = path.with_name(f"{path.name}.part")
    with opened(path, os.O_WRONLY | NEW, mode):
        pass
    with opened(part, os.O_WRONLY | NEW, 0o600) as descriptor:
        write_all(descriptor, contents)
    with opened(part, os.O_WRONLY | os.O_APPEND):
        pass
    part.chmod(mode)
    part.rename(path)
    os.setxattr(path, "user.xdg.origin.url", b"https://example.org/file")
    return ()


def glib(path: Path, contents: bytes) -> tuple[str, ...]:
    passing, backup = path.with_name(".goutputstream-K1XQ"), path.with_name(f"{path.name}~")
    with opened(passing, os.O_RDWR | NEW, 0o600) as descriptor:
        os.fchmod(descriptor, stat.S_IMODE(path.stat().st_mode))
        write_all(descriptor, contents)
        os.fsync(descriptor)
    backup.unlink(missing_ok=True)
    os.link(path, backup)
    passing.rename(path)
    return (backup.name,)


SEQUENCES: dict[str, Save] = {
    save.__name__: save
    for save in (
        vim,
        vim_copying,
        nano,
        emacs,
        sed,
        rsync,
        git,
        libreoffice,
        browser,
        glib,
    )
}
