"""What is pending in a mount, as values for whoever shows it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.vfs.publishing.removals import Look
from lafsfs.vfs.status import MAX_NAMED, PendingFile, ServerState, State, Status
from lafsfs.vfs.tree.bindings import Binding
from lafsfs.vfs.tree.inodes import FileInode
from lafsfs.vfs.tree.paths import path_in, removed_path, shown_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lafsfs.errors import LafsError
    from lafsfs.grid.broker import Broker
    from lafsfs.vfs.publishing.queued import Queued
    from lafsfs.vfs.publishing.uploader import Uploader
    from lafsfs.vfs.tree.directories import Directory
    from lafsfs.vfs.tree.inodes import Inode
    from lafsfs.vfs.tree.tree import Tree

AT_ONCE: Final = 300  # things looked at before other tasks get their turn: 2 ms, if all pend
ON_THE_GRID: Final = "on the grid"
_NAMED_FIRST: Final = {State.UPLOADING: 0, State.FAILED: 1}  # however young


@dataclass(frozen=True, slots=True)
class PendingName:
    """What is known of a name that the grid does not have as it is."""

    is_publishing: bool
    error: LafsError | None = None


@dataclass(slots=True)
class _Tally:
    """What was found to be pending, as far as it was looked at.

    ``named``: what is to be told one by one, and as much again: what it sorts by, and what makes a
    record of it.
    """

    files: int = 0
    names: int = 0
    failed: int = 0
    size: int = 0
    done: int = 0
    settled: float = float("inf")
    named: list[tuple[int, float, int, Callable[[], PendingFile]]] = field(default_factory=list)

    def add(
        self,
        state: State,
        since: float,
        record: Callable[[], PendingFile],
        queued: Queued | None = None,
    ) -> None:
        """One more. ``queued``: its contents, if they are to be uploaded."""
        if queued is None:
            self.names += 1
        else:
            self.files += 1
            self.size += queued.inode.size
            self.done += queued.placed if queued.is_uploading else 0
        self.failed += state is State.FAILED
        self.settled = min(self.settled, since)
        rank = _NAMED_FIRST.get(state, len(_NAMED_FIRST))
        self.named.append((rank, since, self.files + self.names, record))
        if len(self.named) >= 2 * MAX_NAMED:
            self._cut()

    def records(self) -> tuple[PendingFile, ...]:
        """What is told one by one."""
        self._cut()
        records = [record() for *_, record in self.named]
        return tuple(sorted(records, key=lambda one: (one.state is not State.FAILED, one.since)))

    def _cut(self) -> None:
        self.named.sort(key=lambda one: one[:3])
        del self.named[MAX_NAMED:]


async def status_of(tree: Tree, uploader: Uploader, broker: Broker) -> Status:
    """What is pending, and how that is going. Others get their turn while that is counted."""
    now = time.time() if tree.settings.now is None else tree.settings.now() / 1e9
    tally = _Tally()
    for number, thing in enumerate(_all_things(tree), 1):
        _count(tally, thing, uploader, now)
        if not number % AT_ONCE:
            await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
    return Status(
        now=now,
        files=tally.files,
        names=tally.names,
        failed=tally.failed,
        size=tally.size,
        done=tally.done,
        rate=uploader.rate.per_second,
        settled=min(now, tally.settled),
        journal=tree.area.journal.room.used,
        pending=tally.records(),
        servers=tuple(
            ServerState(server.name, broker.health(server).failures) for server in broker.servers
        ),
    )


def _all_things(tree: Tree) -> Iterator[Inode | Binding | Look]:
    """Everything of which something may be pending, whether or not it is."""
    yield from tree.table
    for directory in tuple(tree.outgoing.pending):
        yield from tuple(directory.dirty)
        yield from tuple(directory.publisher.removals.looks)


def _count(tally: _Tally, thing: Inode | Binding | Look, uploader: Uploader, now: float) -> None:
    if isinstance(thing, Binding):
        if thing.is_removal and thing in thing.directory.dirty:
            since = _since_removed(thing, now)
            tally.add(_removal_state(thing), since, partial(_removal, thing, now))
    elif isinstance(thing, Look):
        since = _since_in(thing.directory, now)
        tally.add(_look_state(thing), since, partial(_look, thing, now))
    elif thing.is_pending:
        queued = uploader.get(thing) if isinstance(thing, FileInode) else None
        state, since = _state_of(thing, queued), _since(thing, queued, now)
        tally.add(state, since, partial(pending_file, thing, uploader, now), queued)


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
    path = f"{removed_path(binding)} (removed)"
    since, error = _since_removed(binding, now), _told(binding.error)
    return PendingFile(path, _removal_state(binding), 0, 0, since, error)


def _removal_state(binding: Binding) -> State:
    if binding.in_flight is not None:
        return State.PUBLISHING
    return State.ACCEPTED if binding.error is None else State.FAILED


def _look(look: Look, now: float) -> PendingFile:
    """A directory that is gone or was filled, and has yet to be looked at."""
    path = f"{path_in(look.directory, look.name)} ({'removed' if look.name else 'filled'})"
    since, error = _since_in(look.directory, now), _told(look.error)
    return PendingFile(path, _look_state(look), 0, 0, since, error)


def _look_state(look: Look) -> State:
    return State.ACCEPTED if look.error is None else State.FAILED


def _since_removed(binding: Binding, now: float) -> float:
    return min(_since_in(binding.directory, now), _noticed(binding, now))


def _since_in(directory: Directory, now: float) -> float:
    """When a name in it was last changed."""
    changed = directory.changed / 1e9
    return min(changed, now) if changed else now


def _told(error: LafsError | None) -> str | None:
    return None if error is None else str(error) or type(error).__name__


def _since(inode: Inode, queued: Queued | None, now: float) -> float:
    """Where an earlier mount left it, the last change is older than what is known here."""
    known = [_noticed(edge.binding, now) for edge in inode.edges]
    if queued is not None:
        known.append(now - (trio.current_time() - queued.since))
    return min(inode.posix.ctime / 1e9, *known)


def _noticed(binding: Binding, now: float) -> float:
    """Since when a name has been pending in this mount."""
    at = binding.directory.dirty.get(binding)
    return now if at is None else now - (trio.current_time() - at)


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
    if not inode.is_dirty and not inode.has_pending_names:
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
        error=next((error for error in errors if error is not None), None),
    )
