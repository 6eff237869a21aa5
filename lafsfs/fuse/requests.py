"""Letting the kernel read ahead by larger requests. Linux, and root's privilege.

Theory. Whoever reads on in a file is read ahead for, and of a FUSE file system the kernel asks for
128 KiB at once, whatever the file system could give. A request costs us about as much as decrypting
a megabyte does, so four times as much in each halves what reading costs here. What FUSE itself
agrees on at the start can lower that limit but not raise it; the setting of the mount's *backing
device* can, afterwards, and belongs to root. Everybody else does without.

Random reads are not read ahead for, and stay as short as they are.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Final

MOUNTINFO: Final = Path("/proc/self/mountinfo")
DEVICES: Final = Path("/sys/class/bdi")
READ_AHEAD: Final = 512 << 10  # bytes; 1 MiB gains no more, and faults of mapped files bring it all

log = logging.getLogger(__name__)


def enlarge_read_ahead(
    mountpoint: str, *, mountinfo: Path = MOUNTINFO, devices: Path = DEVICES
) -> bool:
    """Let the kernel read :data:`READ_AHEAD` bytes ahead on this mount; whether it may be asked to.

    Makes no request to the mount. Before the first request has come it would be undone again.

    Args:
        mountpoint: absolute, and free of symbolic links, as the kernel says it.
    """
    try:
        text = mountinfo.read_text(encoding="utf-8", errors="surrogateescape")
        device = _device_of(mountpoint, text)
        if device is None:
            return False
        (devices / device / "read_ahead_kb").write_text(f"{READ_AHEAD >> 10}\n", encoding="ascii")
    except OSError as error:
        log.debug("the kernel reads ahead as it likes: %s", error.strerror)
        return False
    return True


def _device_of(mountpoint: str, mountinfo: str) -> str | None:
    """``major:minor`` of what is mounted there, the topmost if there are several."""
    found = None
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) > 4 and _unescaped(fields[4]) == mountpoint:
            found = fields[2]
    return found if found and re.fullmatch(r"\d+:\d+", found) else None


def _unescaped(field: str) -> str:
    """Undo the octal escapes of spaces, tabs, newlines and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
