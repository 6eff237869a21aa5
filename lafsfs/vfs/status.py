"""What of a mount is pending, as values, and in the words that people read."""

from __future__ import annotations

import enum
from dataclasses import dataclass

MAX_NAMED = 200  # pending files that a status tells one by one


class State(enum.Enum):
    """Where something pending is on its way. The value is what people read."""

    WRITING = "being written"  # and nothing of it was accepted yet
    ACCEPTED = "accepted"
    UPLOADING = "uploading"
    PUBLISHING = "publishing"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PendingFile:
    """A file, or anything else with a name, that the grid does not have as it is.

    ``size``: bytes of contents to upload, 0 where only names or attributes are pending; ``done``:
    how many of these servers have. ``since``: when the oldest pending change was made. ``error``:
    why the last attempt failed.
    """

    path: str
    state: State
    size: int
    done: int
    since: float  # Unix time
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ServerState:
    """A storage server, and how often it failed since it last answered."""

    name: str
    failures: int


@dataclass(frozen=True, slots=True)
class Status:
    """One moment of a mount.

    ``files`` and ``names``: how many files have contents, and how many things have only names or
    attributes, that are not on the grid; ``size`` and ``done``: bytes of these contents, and how
    many of them servers have. ``rate``: bytes a second, of late. ``settled``: the Unix time up to
    which everything is on the grid. ``pending``: at most ``MAX_NAMED`` of them, what is being
    uploaded, what failed and the oldest; what failed comes first. ``journal``: bytes that it takes
    on the local disk.
    """

    now: float
    files: int
    names: int
    failed: int
    size: int
    done: int
    rate: float
    settled: float
    journal: int
    pending: tuple[PendingFile, ...]
    servers: tuple[ServerState, ...]

    @property
    def unnamed(self) -> int:
        """How many are pending and not among ``pending``."""
        return max(0, self.files + self.names - len(self.pending))

    @property
    def is_settled(self) -> bool:
        return not (self.files or self.names)


@dataclass(frozen=True, slots=True)
class Left:
    """What is not on the grid when a mount ends. ``why``: what failed, if anything did."""

    files: int
    names: int
    size: int
    why: str | None = None

    @classmethod
    def of(cls, status: Status, why: str | None) -> Left:
        """What is pending now."""
        return cls(status.files, status.names, status.size, why)

    def __str__(self) -> str:
        why = "" if self.why is None else f" ({self.why})"
        return (
            f"{pending_amount(self.files, self.names, self.size)} not on the grid{why}: "
            "that stays in the journal, and the next mount brings it there"
        )


def pending_amount(files: int, names: int, size: int) -> str:
    """So many files and names, in words."""
    parts = []
    if files:
        parts.append(f"{files} file{'s' * (files > 1)} ({shown_size(size)})")
    if names:
        parts.append(f"{names} change{'s' * (names > 1)} of names or attributes")
    return " and ".join(parts) or "nothing"


def shown_size(size: float) -> str:
    """Bytes, in words."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
