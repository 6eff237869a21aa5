"""Mountpoints: whose mount is there, whether it lives, and taking it away.

Nothing here touches what is mounted without need: it may be hung.
"""

from __future__ import annotations

import errno
import os
import pwd
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lafsfs.cli.mount_table import find_mount
from lafsfs.errors import MountError

if TYPE_CHECKING:
    from lafsfs.cli.mount_record import MountRecord


def typed(*arguments: str) -> str:
    """How this user types a ``lafsfs`` command, for a shell."""
    program = Path(sys.argv[0])
    if shutil.which("lafsfs"):
        command = ["lafsfs"]
    elif program.name == "__main__.py":
        command = [sys.executable, "-m", "lafsfs"]
    else:
        command = [str(program.absolute())]
    return shlex.join((*command, *arguments))


def absolute(path: Path) -> Path:
    """Where a mountpoint is, without touching what is mounted there: it may be dead or hung."""
    there = path.parent.resolve() / path.name
    return there if find_mount(there) is not None else path.resolve()


def died(mountpoint: Path) -> str:
    """What to say of a mount whose process has ended."""
    return (
        f"the process of the mount on {mountpoint} has ended: mount it again, and what was accepted"
        " is brought to the grid"
    )


def require_ours(mountpoint: Path) -> None:
    """Raise MountError if the mount there is another user's, and we are not root."""
    entry = find_mount(mountpoint)
    if entry is None or entry.owner is None or os.geteuid() in (0, entry.owner):
        return
    raise MountError(f"the mount on {mountpoint} is another user's ({_name(entry.owner)})")


def clear_dead(mountpoint: Path, record: MountRecord) -> bool:
    """Take away a mount whose process has ended; whether there was one.

    Raises:
        MountError: a mount of ours that lives is there, or a dead one is in use.
    """
    if find_mount(mountpoint) is None:
        return False
    require_ours(mountpoint)
    if record.is_held() or not _is_dead(mountpoint):
        raise MountError(
            f"lafsfs is mounted on {mountpoint} already: {typed('umount', str(mountpoint))} ends"
            " that"
        )
    detach(mountpoint)
    return True


def detach(mountpoint: Path, *, lazy: bool = False) -> None:
    """Take the mount away from the tree.

    Raises:
        MountError: it is in use, or it is somebody else's.
    """
    require_ours(mountpoint)
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), str(mountpoint)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MountError("there is no fusermount3: install the package fuse3") from None
    if result.returncode == 0:
        return
    if "busy" in result.stderr:
        raise MountError(
            f"{mountpoint} is in use: close what is open there, or leave it (cd); --lazy detaches"
            " it all the same"
        )
    reason = result.stderr.strip().removeprefix("fusermount3: ").splitlines()
    raise MountError(f"cannot unmount {mountpoint}: {(reason or ['no reason given'])[-1]}")


def _is_dead(mountpoint: Path) -> bool:
    """Whether the kernel says that nobody serves what is mounted there."""
    try:
        os.stat(mountpoint)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
