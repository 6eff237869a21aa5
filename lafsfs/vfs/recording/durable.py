"""The recorder that writes down: what is pending goes into the journal's rows, and leaves them.

Theory. The journal is an image of what is pending (docs/decisions/0005): one row for each name that
*holds* (:class:`~lafsfs.vfs.tree.bindings.Binding`), and one for each inode that such a name leads
to, or that is a directory which such a name led to. :meth:`JournalRecorder.accept` makes the rows
of whatever has changed the same as what is wanted now, in one commit: a verb is one step for
whoever reads the journal, and a row that nothing needs any more goes with the first commit behind
that.

Rules:

- Rows are put together and committed without an await in between: a commit is a consistent view,
  and no older row ever comes after a newer one.
- What is changed stays marked as changed until a commit that has it went well. If one fails, who
  waits for it is told; nothing new begins (:meth:`JournalRecorder.require_room`) as long as the
  disk is full; and it is tried again, with or without them.
- What nobody accepts, as what a publish has settled, is recorded ``LAZILY`` seconds later.
- That something is in flight is no reason for a commit: an edit that is made again recognises its
  own work, and the replay takes the capability that an inode has for one that may have landed under
  its names. A name's row that is put meanwhile, for whatever reason, says what is in flight: then
  something else may be wanted.
- The key pair of a directory is in its row as long as its slot may not exist.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.caps import DirectoryCap
from lafsfs.errors import JournalError, JournalFullError
from lafsfs.journal import Put
from lafsfs.vfs.recording.records import (
    CURRENT,
    NEW,
    OLDER,
    EdgeRecord,
    InodeRecord,
    NameRecord,
    What,
)
from lafsfs.vfs.tree.inodes import DirectoryInode, FileInode, LoopInode

if TYPE_CHECKING:
    from lafsfs.journal import Journal
    from lafsfs.vfs.staging.area import Kept, StagedContents
    from lafsfs.vfs.tree.bindings import Binding, Edge
    from lafsfs.vfs.tree.inodes import Inode

log = logging.getLogger(__name__)

LAZILY: Final = 0.1  # seconds until what nobody waits for is recorded
TRY_AGAIN: Final = 1.0  # seconds after a commit that failed


@dataclass(frozen=True, slots=True)
class _NameRow:
    """The row of a name: its id, and the inodes whose rows it needs."""

    id: int
    needs: tuple[Inode, ...]


@dataclass(eq=False, slots=True)
class _InodeRow:
    """The row of an inode: its id, and how many names need it."""

    id: int
    users: int = 0
    is_new: bool = False  # a directory whose key pair it has


@dataclass(slots=True)
class _Step:
    """What one commit is to do, and what is so when it is done."""

    puts: dict[int, Put] = field(default_factory=dict)
    deletes: list[int] = field(default_factory=list)
    blobs: dict[int, bytes] = field(default_factory=dict)
    names: dict[Binding, _NameRow | None] = field(default_factory=dict)
    inodes: dict[Inode, _InodeRow | None] = field(default_factory=dict)
    users: dict[Inode, int] = field(default_factory=dict)  # by how much there are more
    kept: list[tuple[StagedContents, Kept]] = field(default_factory=list)


class JournalRecorder:
    """Keeps what is pending in a journal. Start :meth:`run` in a nursery."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._changed: dict[Inode, None] = {}
        self._changed_names: dict[Binding, None] = {}
        self._name_rows: dict[Binding, _NameRow] = {}
        self._inode_rows: dict[Inode, _InodeRow] = {}
        self._error: JournalError | None = None  # of the last commit
        self._wake = trio.Event()

    # for whoever changes something

    def require_room(self) -> None:
        """Raises JournalFullError while the disk is full."""
        if isinstance(self._error, JournalFullError):
            raise JournalFullError(str(self._error))

    def changed(self, inode: Inode) -> None:
        """See :class:`~lafsfs.vfs.recording.recorder.Recorder`."""
        self._changed[inode] = None
        self._wake.set()

    def changed_name(self, binding: Binding) -> None:
        """See :class:`~lafsfs.vfs.recording.recorder.Recorder`."""
        self._changed_names[binding] = None
        self._wake.set()

    async def accept(self) -> None:
        """Record all that has changed, in one commit.

        Raises:
            JournalError: the local disk does not take it. It is tried again.
        """
        await self._journal.ready()
        if self._changed or self._changed_names:
            self._commit()

    async def sync(self) -> None:
        """As :meth:`accept`, and bring it to the disk."""
        await self.accept()
        await self._journal.sync()

    async def run(self) -> None:
        """Record what nobody accepts, for ever."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await trio.sleep(LAZILY)
            try:
                await self.accept()
            except JournalError as error:
                log.warning("what was changed is not in the journal: %s", error)
                await trio.sleep(TRY_AGAIN)
                self._wake.set()

    # for the replay

    def adopt_inode(self, inode: Inode, row: int, *, is_new: bool) -> None:
        """A row is of this inode. ``is_new``: it has a key pair."""
        self._inode_rows[inode] = _InodeRow(row, is_new=is_new)

    def adopt_name(self, binding: Binding, row: int) -> None:
        """A row is of this name, as it is now."""
        needs = _needs(binding)
        self._name_rows[binding] = _NameRow(row, needs)
        for inode in needs:
            self._inode_rows[inode].users += 1

    def adopted(self) -> None:
        """What is now is what the rows say."""
        self._changed.clear()
        self._changed_names.clear()

    # one commit

    def _commit(self) -> None:
        step = _Step()
        changed, names = self._changed, self._changed_names
        for binding in (*names, *self._names_of_changed()):
            self._plan_name(step, binding)
        needed = (inode for inode, more in step.users.items() if more)
        for inode in dict.fromkeys((*changed, *needed, *self._not_new_any_more(step))):
            self._plan_inode(step, inode)
        if step.puts or step.deletes:
            try:
                self._journal.commit(step.puts, step.deletes, step.blobs)
            except JournalError as error:
                self._error = error
                self._wake.set()
                raise
            self._error = None
            self._take_note(step)
        self._changed, self._changed_names = {}, {}

    def _names_of_changed(self) -> dict[Binding, None]:
        """Names that begin or cease to hold because of what they lead to."""
        return {
            edge.binding: None
            for inode in self._changed
            for edge in inode.edges
            if edge.binding not in self._changed_names
            and (edge.binding in self._name_rows) != _is_recorded(edge.binding)
        }

    def _plan_name(self, step: _Step, binding: Binding) -> None:
        row = self._name_rows.get(binding)
        before = () if row is None else row.needs
        if _is_recorded(binding):
            needs = _needs(binding)
            row = _NameRow(self._journal.new_row() if row is None else row.id, needs)
            step.names[binding] = row
            step.puts[row.id] = Put(_name_record(binding).pack())
        else:
            needs = ()
            step.names[binding] = None
            if row is not None:
                step.deletes.append(row.id)
        if needs != before:
            for inode in needs:
                step.users[inode] = step.users.get(inode, 0) + 1
            for inode in before:
                step.users[inode] = step.users.get(inode, 0) - 1

    def _not_new_any_more(self, step: _Step) -> dict[Inode, None]:
        """Directories whose rows have key pairs and whose slots have been made since.

        Their rows change with those of what has been published in them: a new directory's contents
        are known without asking the grid.
        """
        concerned = {
            inode
            for binding in step.names
            for inode in (*binding.directory.inodes.values(), *_needs(binding))
            if isinstance(inode, DirectoryInode) and not inode.directory.node.is_new
        }
        rows = self._inode_rows
        return {inode: None for inode in concerned if inode in rows and rows[inode].is_new}

    def _plan_inode(self, step: _Step, inode: Inode) -> None:
        row = self._inode_rows.get(inode)
        users = step.users.get(inode, 0) + (0 if row is None else row.users)
        if users > 0:
            record, kept = _inode_record(inode)
            if row is None:
                row = _InodeRow(self._journal.new_row())
            row = _InodeRow(row.id, users, record.key is not None)
            step.inodes[inode] = row
            step.puts[row.id] = Put(record.pack(), None if kept is None else kept.ref)
            if kept is not None and isinstance(inode, FileInode) and inode.staged is not None:
                step.blobs.update(kept.blobs)
                step.kept.append((inode.staged, kept))
        elif row is not None:
            step.inodes[inode] = None
            step.deletes.append(row.id)

    def _take_note(self, step: _Step) -> None:
        for binding, name_row in step.names.items():
            if name_row is None:
                self._name_rows.pop(binding, None)
            else:
                self._name_rows[binding] = name_row
        for inode, inode_row in step.inodes.items():
            if inode_row is None:
                self._inode_rows.pop(inode, None)
            else:
                self._inode_rows[inode] = inode_row
        for staged, kept in step.kept:
            staged.accepted(kept)


def _is_recorded(binding: Binding) -> bool:
    """Whether there is to be a row for a name."""
    return binding.directory.names.get(binding.name) is binding and binding.holds


def _edge_of(binding: Binding) -> Edge | None:
    """The edge that the row tells of: of several, which are paths to one directory, one that the
    grid has yet to hear of."""
    edges = binding.edges
    return next((edge for edge in edges if edge.is_pending), edges[0] if edges else None)


def _needs(binding: Binding) -> tuple[Inode, ...]:
    """The inodes that must be known to make sense of a name's row."""
    edge = _edge_of(binding)
    left = (inode for inode in binding.left if isinstance(inode, DirectoryInode))
    return tuple(dict.fromkeys((*left, *(() if edge is None else (edge.inode,)))))


def _name_record(binding: Binding) -> NameRecord:
    edge, in_flight = _edge_of(binding), binding.in_flight
    maybe = binding.maybe
    if in_flight is not None and in_flight.puts not in binding.expected:
        maybe = (*maybe, in_flight.puts)
    cap = binding.directory.node.cap
    assert isinstance(cap, DirectoryCap)
    return NameRecord(
        cap,
        binding.name,
        binding.raw_name,
        None if edge is None else EdgeRecord(edge.inode.number, _told(edge), edge.origin),
        binding.base,
        binding.entry,
        maybe,
        tuple(inode.number for inode in binding.left),
        binding.made,
        binding.directory.changed,
    )


def _told(edge: Edge) -> int:
    if edge.is_new:
        return NEW
    return OLDER if edge.is_pending else CURRENT


def _inode_record(inode: Inode) -> tuple[InodeRecord, Kept | None]:
    """The record, and what is kept of staged contents."""
    if isinstance(inode, FileInode):
        return _file_record(inode)
    if isinstance(inode, DirectoryInode):
        node = inode.directory.node
        what = What.REMOVED if inode.directory.is_removed else What.DIRECTORY
        key = None if node.key is None else node.key.der
        return InodeRecord(inode.number, what, inode.posix, node.cap, key=key), None
    assert isinstance(inode, LoopInode)
    record = InodeRecord(inode.number, What.LOOP, inode.posix, inode.cap, target=inode.target)
    return record, None


def _file_record(inode: FileInode) -> tuple[InodeRecord, Kept | None]:
    staged, posix = inode.staged, inode.posix
    kept = beneath = None
    if staged is not None:
        kept = staged.describe()
        beneath = None if kept.base is None else kept.base.cap
    if inode.is_mutable:
        posix = replace(posix, size=inode.known_size)
    record = InodeRecord(
        inode.number,
        What.FILE,
        posix,
        inode.cap,
        beneath,
        tuple(sorted(inode.superseded)),
    )
    return record, kept
