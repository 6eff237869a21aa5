"""What ``-o`` says, as mount(8) and fstab write it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from lafsfs.errors import UsageError

# Options of mount(8) that the kernel or fusermount3 understands, and those that only concern who
# mounts and when.
_KERNEL_OPTIONS = """
    suid nosuid dev nodev exec noexec atime noatime async dirsync
"""
_IGNORED_OPTIONS = """
    rw defaults auto noauto user nouser users owner group nofail _netdev relatime norelatime
    diratime nodiratime strictatime lazytime
"""
KERNEL_OPTIONS = frozenset(_KERNEL_OPTIONS.split())
IGNORED_OPTIONS = frozenset(_IGNORED_OPTIONS.split())


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What ``-o`` says.

    ``uid``, ``gid`` and ``umask`` are shown instead of what is stored of every file. ``kernel`` is
    for the mount itself. ``deadline``: seconds until a request that only reads fails. ``refresh``:
    seconds after which what others may have changed is looked at again. ``sync``: whether closing
    a file and changing a name wait for the grid (the kernel is not told, or every single write
    would). ``quiet``: seconds that what was written waits
    before it goes there.
    """

    read_only: bool = False
    allow_other: bool = False
    uid: int | None = None
    gid: int | None = None
    umask: int | None = None
    deadline: float = 60.0
    refresh: float = 2.0
    sync: bool = False
    quiet: float = 1.0
    kernel: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def parse(cls, text: str) -> MountOptions:
        """Understand a comma-separated list, as mount(8) and fstab write it.

        Raises:
            UsageError: an option that does not exist, or a number that is none.
        """
        values: dict[str, object] = {}
        kernel: set[str] = set()
        for option in filter(None, text.split(",")):
            name, _, value = option.partition("=")
            if name in ("uid", "gid", "umask"):
                values[name] = _number(name, value, 8 if name == "umask" else 10)
            elif name in ("deadline", "refresh", "quiet"):
                values[name] = _seconds(name, value)
            elif option == "sync":
                values["sync"] = True
            elif option == "ro":
                values["read_only"] = True
            elif option == "allow_other":
                values["allow_other"] = True
            elif option in KERNEL_OPTIONS:
                kernel.add(option)
            elif option not in IGNORED_OPTIONS and not name.startswith(("x-", "comment")):
                raise UsageError(f"there is no mount option {name!r}: lafsfs mount --help has them")
        return cls(kernel=frozenset(kernel), **values)  # type: ignore[arg-type]

    def for_fuse(self) -> frozenset[str]:
        """The options that libfuse is to mount with."""
        chosen = {"default_permissions", "fsname=lafsfs", "subtype=lafsfs", *self.kernel}
        if self.read_only:
            chosen.add("ro")
        if self.allow_other:
            chosen.add("allow_other")
        return frozenset(chosen)


def _number(name: str, value: str, base: int) -> int:
    try:
        number = int(value, base)
    except ValueError:
        number = -1
    if not 0 <= number < (0o1000 if base == 8 else 2**32 - 1):
        raise UsageError(f"mount option {name} needs a number" + " in octal" * (base == 8))
    return number


def _seconds(name: str, value: str) -> float:
    """Seconds, with or without a fraction. A deadline of none at all would fail everything."""
    whole, _, fraction = value.partition(".")
    if not whole.isdecimal() or not whole.isascii() or not (fraction or "0").isdecimal():
        raise UsageError(f"mount option {name} needs a number of seconds")
    seconds = float(value)
    if seconds > 86400 or (name == "deadline" and seconds < 1):
        raise UsageError(f"mount option {name}: {value} seconds make no sense")
    return seconds
