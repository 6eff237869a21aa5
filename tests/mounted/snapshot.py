"""Everything that programs can see of a tree, as a value that compares."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Seen:
    """One file, by its path below the root.

    ``links``: the paths that are the same file, this one included. ``contents``: a hash, a link's
    target, or None. ``number`` (the inode's) is left out where trees of two file systems are
    compared.
    """

    mode: int
    uid: int
    gid: int
    size: int | None
    mtime_ns: int
    nlink: int | None
    rdev: int
    contents: str | None
    xattrs: tuple[tuple[str, bytes], ...]
    links: tuple[str, ...]
    number: int | None


def snapshot(root: Path, *, numbers: bool = True, times: bool = True) -> dict[str, Seen]:
    """Look at everything below ``root``, in the order of the paths.

    A directory's size and link count say nothing that two file systems need to agree on.
    """
    paths = {}
    for directory, folders, files in os.walk(root, followlinks=False):
        for name in [*folders, *files]:
            path = os.path.join(directory, name)
            paths[os.path.relpath(path, root)] = os.lstat(path)
    same: dict[int, list[str]] = {}
    for path, status in sorted(paths.items()):
        same.setdefault(status.st_ino, []).append(path)
    return {
        path: _seen(root, path, status, tuple(same[status.st_ino]), numbers, times)
        for path, status in sorted(paths.items())
    }


def _seen(
    root: Path,
    path: str,
    status: os.stat_result,
    links: tuple[str, ...],
    numbers: bool,
    times: bool,
) -> Seen:
    full = os.path.join(root, path)
    folder = stat.S_ISDIR(status.st_mode)
    return Seen(
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        size=None if folder else status.st_size,
        mtime_ns=status.st_mtime_ns if times else 0,
        nlink=None if folder else status.st_nlink,
        rdev=status.st_rdev,
        contents=_contents(full, status),
        xattrs=tuple(
            (name, os.getxattr(full, name, follow_symlinks=False))
            for name in sorted(os.listxattr(full, follow_symlinks=False))
            if not name.startswith("user.lafs.")
        ),
        links=links,
        number=status.st_ino if numbers else None,
    )


def _contents(path: str, status: os.stat_result) -> str | None:
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path)
    if not stat.S_ISREG(status.st_mode):
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
