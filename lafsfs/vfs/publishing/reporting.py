"""What is pending in a mount, as values for whoever shows it."""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.vfs.publishing.pending import (
    has_pending_names,
    pending_inodes,
    pending_looks,
    pending_removals,
)
from lafsfs.vfs.status import MAX_NAMED, PendingFile, ServerState, State, Status
from lafsfs.vfs.tree.inodes import FileInode
from lafsfs.vfs.tree.paths import path_in, removed_path, shown_path

if TYPE_CHECKING:
    from lafsfs.errors import LafsError
    from lafsfs.grid.broker import Broker
    from lafsfs.vfs.publishing.removals import Look
    from lafsfs.vfs.publishing.uploader import Queued, Uploader
    from lafsfs.vfs.tree.bindings import Binding
    from lafsfs.vfs.tree.inodes import Inode
    from lafsfs.vfs.tree.tree import Tree

AT_ONCE: Final = 500  # inodes looked at before other tasks get their turn, about a millisecond
ON_THE_GRID: Final = "on the grid"


@dataclass(frozen=True, slots=True)
class PendingName:
    """What is known of a name that the grid does not have as it is. ``since``: Unix time."""

    is_publishing: bool
    since: float
    error: LafsError | None = None


async def status_of(tree: Tree, uploader: Uploader, broker: Broker) -> Status:
    """What is pending, and how that is going."""
    now = time.time() if tree.settings.now is None else tree.settings.now() / 1e9
    files = size = done = failed = 0
    ages: list[tuple[bool, float, int, Inode]] = []  # what failed first, then the oldest
    for number, inode in enumerate(pending_inodes(tree)):
        queued = uploader.get(inode) if isinstance(inode, FileInode) else None
        if queued is not None:
            files += 1
            size += queued.inode.size
            done += queued.placed if queued.is_uploading else 0
        has_failed = _state_of(inode, queued) is State.FAILED
        failed += has_failed
        ages.append((not has_failed, _since(inode, queued, now), number, inode))
        if not number % AT_ONCE:
            await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
    removals = [_removal(binding, now) for binding in pending_removals(tree)]
    removals += [_look(look, now) for look in pending_looks(tree)]
    return Status(
        now=now,
        files=files,
        names=len(ages) - files + len(removals),
        failed=failed + sum(removal.state is State.FAILED for removal in removals),
        size=size,
        done=done,
        rate=uploader.rate.per_second,
        settled=min(
            (*(since for _, since, *_ in ages), *(removal.since for removal in removals)),
            default=now,
        ),
        journal=tree.area.journal.room.used,
        pending=(
            *(pending_file(inode, uploader, now) for *_, inode in heapq.nsmallest(MAX_NAMED, ages)),
            *removals,
        )[:MAX_NAMED],
        servers=tuple(
            ServerState(server.name, broker.health(server).failures) for server in broker.servers
        ),
    )


def pending_file(inode: Inode, uploader: Uploader, now: float) -> PendingFile:
    """One inode of which something is pending."""
    queued = uploader.get(inode) if isinstance(inode, FileInode) else None
    error = name_of(inode).error if queued is None else queued.error
    return PendingFile(
        path=shown_path(inode),
        state=_state_of(inode, queued),
        size=0 if queued is None else queued.inode.size,
        done=queued.placed if queued is not None and queued.is_uploading else 0,
        since=_since(inode, queued, now),
        error=_told(error),
    )


def _removal(binding: Binding, now: float) -> PendingFile:
    """A name that was taken away."""
    error, state = binding.error, State.ACCEPTED
    if binding.in_flight is not None:
        state = State.PUBLISHING
    elif error is not None:
        state = State.FAILED
    changed = binding.directory.changed / 1e9
    path = f"{removed_path(binding)} (removed)"
    return PendingFile(path, state, 0, 0, min(changed, now) if changed else now, _told(error))


def _look(look: Look, now: float) -> PendingFile:
    """A directory that is gone or was filled, and has yet to be looked at."""
    path = f"{path_in(look.directory, look.name)} ({'removed' if look.name else 'filled'})"
    changed = look.directory.changed / 1e9
    state = State.ACCEPTED if look.error is None else State.FAILED
    return PendingFile(path, state, 0, 0, min(changed, now) if changed else now, _told(look.error))


def _told(error: LafsError | None) -> str | None:
    return None if error is None else str(error) or type(error).__name__


def _since(inode: Inode, queued: Queued | None, now: float) -> float:
    if queued is None:
        return name_of(inode).since
    return now - (trio.current_time() - queued.since)


def _state_of(inode: Inode, queued: Queued | None) -> State:
    if queued is None:
        name = name_of(inode)
        if name.is_publishing:
            return State.PUBLISHING
        return State.ACCEPTED if name.error is None else State.FAILED
    if queued.is_uploading:
        return State.UPLOADING
    if queued.error is not None:
        return State.FAILED
    return State.WRITING if queued.inode.writers and not queued.accepted else State.ACCEPTED


def state_of(inode: Inode, uploader: Uploader) -> str:
    """``user.lafs.state``: where a file, or anything else with a name, is on its way."""
    if not inode.is_dirty and not has_pending_names(inode):
        return ON_THE_GRID
    state = _state_of(inode, uploader.get(inode) if isinstance(inode, FileInode) else None)
    return {State.PUBLISHING: State.UPLOADING, State.FAILED: State.ACCEPTED}.get(state, state).value


def name_of(inode: Inode) -> PendingName:
    """What is known of the names of ``inode``, which has one that is pending."""
    bindings = [edge.binding for edge in inode.edges]
    errors = [one.error for one in bindings]
    if inode.below is not None and inode.below.node.is_new:  # it can only be named when it is made
        errors.append(inode.below.publisher.error)
    return PendingName(
        is_publishing=any(binding.in_flight is not None for binding in bindings),
        since=inode.posix.ctime / 1e9,
        error=next((error for error in errors if error is not None), None),
    )
