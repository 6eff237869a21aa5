"""The recorder that writes down: what is pending goes into the journal's rows, and leaves them.

Theory. The journal is an image of what is pending (docs/decisions/0005): one row for each name that
*holds* (:class:`~lafsfs.vfs.tree.bindings.Binding`), and one for each inode that such a name leads
to, or that is a directory which such a name led to; one for each name on the way to those
(:mod:`lafsfs.vfs.recording.places`), and one for each look that is yet to be taken
(:mod:`lafsfs.vfs.publishing.removals`). :meth:`JournalRecorder.accept` makes the rows
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
- That a version of a slot was begun is recorded before any of it is written, with its number, until
  one has gone well: it could turn up when servers are back that are away at the next mount, and
  what was done then would be lost if it had the same number, or a lower one.
- The key pair of a directory is in its row as long as its slot may not exist.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from lafsfs.errors import JournalError, JournalFullError
from lafsfs.journal import Put
from lafsfs.vfs.recording.describing import (
    concerned_by,
    inode_record,
    inside_of,
    is_recorded,
    look_record,
    name_record,
    needs_of,
)
from lafsfs.vfs.recording.places import PlacePlan, Places
from lafsfs.vfs.recording.records import BegunRecord
from lafsfs.vfs.tree.inodes import DirectoryInode, FileInode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lafsfs.caps import Cap
    from lafsfs.journal import Journal
    from lafsfs.vfs.publishing.removals import Look
    from lafsfs.vfs.staging.kept import Kept
    from lafsfs.vfs.staging.staged import StagedContents
    from lafsfs.vfs.tree.bindings import Binding
    from lafsfs.vfs.tree.directories import Directory
    from lafsfs.vfs.tree.inodes import Inode

log = logging.getLogger(__name__)

LAZILY: Final = 0.1  # seconds until what nobody waits for is recorded
TRY_AGAIN: Final = 1.0  # seconds after a commit that failed
Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class _Row:
    """The row of a name or of a look: its id, the inodes whose rows it needs, and the directories
    whose places it needs."""

    id: int
    needs: tuple[Inode, ...]
    inside: tuple[Directory, ...]


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
    names: dict[Binding, _Row | None] = field(default_factory=dict)
    looks: dict[Look, _Row | None] = field(default_factory=dict)
    inodes: dict[Inode, _InodeRow | None] = field(default_factory=dict)
    users: Counter[Inode] = field(default_factory=Counter)  # by how much there are more
    inside: Counter[Directory] = field(default_factory=Counter)  # the same
    places: PlacePlan | None = None
    begun: dict[Cap, int | None] = field(default_factory=dict)
    kept: list[tuple[StagedContents, Kept]] = field(default_factory=list)


class JournalRecorder:
    """Keeps what is pending in a journal. Start :meth:`run` in a nursery."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._changed: dict[Inode, None] = {}
        self._changed_names: dict[Binding, None] = {}
        self._changed_looks: dict[Look, None] = {}
        self._name_rows: dict[Binding, _Row] = {}
        self._look_rows: dict[Look, _Row] = {}
        self._begun: dict[Cap, int | None] = {}  # changed
        self._begun_rows: dict[Cap, int] = {}
        self._orphans: list[int] = []
        self._inode_rows: dict[Inode, _InodeRow] = {}
        self._places = Places(journal.new_row)
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

    def changed_look(self, look: Look) -> None:
        """See :class:`~lafsfs.vfs.recording.recorder.Recorder`."""
        self._changed_looks[look] = None
        self._wake.set()

    def begun(self, cap: Cap, seqnum: int | None) -> None:
        """See :class:`~lafsfs.vfs.recording.recorder.Recorder`."""
        self._begun[cap] = seqnum
        self._wake.set()

    async def accept(self) -> None:
        """Record all that has changed, in one commit.

        Raises:
            JournalError: the local disk does not take it. It is tried again.
        """
        await self._journal.ready()
        if self._changed or self._changed_names or self._changed_looks or self._begun:
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

    def adopt_place(self, directory: Directory, row: int) -> None:
        """A row is of the place of this directory, if it is there now."""
        if not self._places.adopt(directory, row):
            self.adopt_nothing(row)

    def adopt_name(self, binding: Binding, row: int) -> None:
        """A row is of this name, as it is now."""
        self._name_rows[binding] = self._adopted(_Row(row, needs_of(binding), inside_of(binding)))

    def adopt_look(self, look: Look, row: int) -> None:
        """A row is of this look."""
        self._look_rows[look] = self._adopted(_Row(row, *concerned_by(look)))

    def adopt_begun(self, cap: Cap, row: int) -> None:
        """A row is of what was begun to be published to this slot."""
        self._begun_rows[cap] = row

    def adopt_nothing(self, row: int) -> None:
        """A row that nobody needs: it goes with the next commit."""
        self._orphans.append(row)

    def _adopted(self, row: _Row) -> _Row:
        for inode in row.needs:
            self._inode_rows[inode].users += 1
        self._places.adopt_inside(row.inside)
        return row

    def adopted(self) -> None:
        """What is now is what the rows say."""
        self._changed.clear()
        self._changed_names.clear()
        self._changed_looks.clear()
        self._begun.clear()

    # one commit

    def _commit(self) -> None:
        step = _Step()
        changed, names = self._changed, self._changed_names
        for binding in (*names, *self._names_of_changed()):
            self._plan_name(step, binding)
        for look in self._changed_looks:
            self._plan_look(step, look)
        needed = (inode for inode, more in step.users.items() if more)
        for inode in dict.fromkeys((*changed, *needed, *self._not_new_any_more(step))):
            self._plan_inode(step, inode)
        self._plan_places(step)
        for cap, seqnum in self._begun.items():
            self._plan_begun(step, cap, seqnum)
        step.deletes += self._orphans
        if step.puts or step.deletes:
            try:
                self._journal.commit(step.puts, step.deletes, step.blobs)
            except JournalError as error:
                self._error = error
                self._wake.set()
                raise
            self._error = None
            self._take_note(step)
        self._changed, self._changed_names, self._changed_looks, self._begun = {}, {}, {}, {}

    def _names_of_changed(self) -> dict[Binding, None]:
        """Names that begin or cease to hold because of what they lead to."""
        return {
            edge.binding: None
            for inode in self._changed
            for edge in inode.edges
            if edge.binding not in self._changed_names
            and (edge.binding in self._name_rows) != is_recorded(edge.binding)
        }

    def _plan_name(self, step: _Step, binding: Binding) -> None:
        before = self._name_rows.get(binding)
        after = None
        if is_recorded(binding):
            row = self._journal.new_row() if before is None else before.id
            after = _Row(row, needs_of(binding), inside_of(binding))
            step.puts[row] = Put(name_record(binding).pack())
        step.names[binding] = after
        _count(step, before, after)

    def _plan_look(self, step: _Step, look: Look) -> None:
        before = self._look_rows.get(look)
        after = None
        if not look.is_over:
            row = self._journal.new_row() if before is None else before.id
            after = _Row(row, *concerned_by(look))
            step.puts[row] = Put(look_record(look).pack())
        step.looks[look] = after
        _count(step, before, after)

    def _plan_begun(self, step: _Step, cap: Cap, seqnum: int | None) -> None:
        row = self._begun_rows.get(cap)
        if seqnum is not None:
            step.begun[cap] = row = self._journal.new_row() if row is None else row
            step.puts[row] = Put(BegunRecord(cap, seqnum).pack())
        elif row is not None:
            step.begun[cap] = None
            step.deletes.append(row)

    def _plan_places(self, step: _Step) -> None:
        changed = [*self._changed, *(edge.inode for one in step.names for edge in one.edges)]
        below = [inode.below for inode in changed if inode.below is not None]
        step.places = self._places.plan(step.inside, below)
        step.deletes += self._places.deletes(step.places)
        for row, value in self._places.puts(step.places).items():
            step.puts[row] = Put(value)

    def _not_new_any_more(self, step: _Step) -> dict[Inode, None]:
        """Directories whose rows have key pairs and whose slots have been made since.

        Their rows change with those of what has been published in them: a new directory's contents
        are known without asking the grid.
        """
        concerned = {
            inode
            for binding in step.names
            for inode in (*binding.directory.inodes.values(), *needs_of(binding))
            if isinstance(inode, DirectoryInode) and not inode.directory.node.is_new
        }
        rows = self._inode_rows
        return {inode: None for inode in concerned if inode in rows and rows[inode].is_new}

    def _plan_inode(self, step: _Step, inode: Inode) -> None:
        row = self._inode_rows.get(inode)
        users = step.users[inode] + (0 if row is None else row.users)
        if users > 0:
            record, kept = inode_record(inode)
            if row is None:
                row = _InodeRow(self._journal.new_row())
            row = _InodeRow(row.id, users, record.is_new_directory)
            step.inodes[inode] = row
            step.puts[row.id] = Put(record.pack(), None if kept is None else kept.ref)
            if kept is not None and isinstance(inode, FileInode) and inode.staged is not None:
                step.blobs.update(kept.blobs)
                step.kept.append((inode.staged, kept))
        elif row is not None:
            step.inodes[inode] = None
            step.deletes.append(row.id)

    def _take_note(self, step: _Step) -> None:
        _update(self._name_rows, step.names)
        _update(self._look_rows, step.looks)
        _update(self._inode_rows, step.inodes)
        _update(self._begun_rows, step.begun)
        self._orphans = []
        if step.places is not None:
            self._places.take_note(step.places)
        for staged, kept in step.kept:
            staged.accepted(kept)


def _update(rows: dict[Key, Value], changes: Mapping[Key, Value | None]) -> None:
    """None is for those that go."""
    for key, value in changes.items():
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value


def _count(step: _Step, before: _Row | None, after: _Row | None) -> None:
    """Note what one row more, or less, needs."""
    if after is None and before is not None:
        step.deletes.append(before.id)
    for row, count in ((before, Counter.subtract), (after, Counter.update)):
        if row is not None:
            count(step.users, row.needs)
            count(step.inside, row.inside)
