"""A mount's status in lines for people. Pure."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from lafsfs.vfs.status import State, pending_amount, shown_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lafsfs.vfs.status import PendingFile, Status

NAMED: Final = 10  # files that are told one by one


def shown(mountpoint: str, status: Status, *, everything: bool = False) -> Iterator[str]:
    """What ``lafsfs status`` prints of one mount, line by line."""
    if status.is_settled:
        yield f"{mountpoint}: everything is on the grid"
    else:
        amount = pending_amount(status.files, status.names, status.size)
        yield f"{mountpoint}: {amount} not on the grid yet"
        yield from _progress(status)
        named = status.pending if everything else status.pending[:NAMED]
        yield from (f"  {line}" for file in named for line in _file(file))
        others = status.files + status.names - len(named)
        if others > 0:
            yield f"  and {others} more"
        if status.journal:
            yield f"  the journal takes {shown_size(status.journal)} on this machine"
    away = [server.name for server in status.servers if server.failures]
    if away:
        yield f"  not answering: {', '.join(away)} ({len(away)} of {len(status.servers)} servers)"


def _progress(status: Status) -> Iterator[str]:
    age = duration(status.now - status.settled)
    clock = time.strftime("%H:%M:%S", time.localtime(status.settled))
    yield f"  settled up to {clock}, {age} ago" + (
        f"; {status.failed} failed" * bool(status.failed)
    )
    if status.rate > 0 and status.size > 0:
        left = duration((status.size - status.done) / status.rate)
        yield (
            f"  {shown_size(status.done)} of {shown_size(status.size)} placed, "
            f"{shown_size(status.rate)}/s, about {left} to go"
        )


def _file(file: PendingFile) -> Iterator[str]:
    size = shown_size(file.size) if file.size else ""
    if file.state is State.UPLOADING and file.size:
        size = f"{100 * file.done // file.size}% of {size}"
    yield f"{file.state.value:<13}  {size:>14}  {file.path}"
    if file.error is not None:
        yield f"{'':<13}  {file.error}"


def duration(seconds: float) -> str:
    """A length of time, in words."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    return f"{whole // 3600} h" if whole < 172800 else f"{whole // 86400} days"
