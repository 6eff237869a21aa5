"""What is mounted where, by the kernel's own account (``proc(5)``, mountinfo)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
_OWNER = re.compile(r"(?:^|,)user_id=([0-9]+)(?:,|$)")


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One mount: where it is, the kind and name its file system gave itself, and whose it is.

    ``owner``: the user id of whoever made it, as FUSE file systems tell.
    """

    mountpoint: str
    kind: str
    source: str
    owner: int | None = None

    @property
    def is_ours(self) -> bool:
        """Whether lafsfs made it."""
        return self.kind == "fuse.lafsfs"


def parse_mountinfo(text: str) -> list[MountEntry]:
    """The mounts in a ``mountinfo`` file, later ones above earlier ones. Odd lines are left out."""
    entries = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if separator and len(fields) >= 5 and len(rest) >= 2:
            owner = _OWNER.search(rest[-1])
            names = _unescaped(fields[4]), rest[0], _unescaped(rest[1])
            entries.append(MountEntry(*names, int(owner[1]) if owner else None))
    return entries


def find_mount(mountpoint: Path) -> MountEntry | None:
    """Our mount on exactly that absolute path, if the topmost one there is ours."""
    entries = parse_mountinfo(MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape"))
    there = [entry for entry in entries if entry.mountpoint == str(mountpoint)]
    return there[-1] if there and there[-1].is_ours else None


def _unescaped(field: str) -> str:
    """Undo the octal escapes of spaces, tabs, newlines and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
