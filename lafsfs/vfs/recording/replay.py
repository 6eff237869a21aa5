"""What an earlier mount left pending, back into the tables.

Nothing is done here: the rows become inodes and bindings again, as they were, and the publishers
and the uploader go on with them. A directory's slot that was being made is made again with the same
keys, an upload under way is made again, and an edit that had landed recognises its own work.

Rules:

- All rows are understood, and fit together, or nothing is mounted, and the journal stays as it is.
- A directory that was removed is so again: what is pending in it is published if it comes back.
- A directory that contains something pending is where it was: the names on the way to it are as the
  rows of their places say, until somebody looks (:mod:`lafsfs.vfs.tree.tree`). Without such a row,
  as an older version left them, it is in the table by its number, until it is looked up and joined.
- Of a name in several paths to one directory, one path is known until another is looked up.
- Contents that cannot be read back keep their name and their row, and reading them fails.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from lafsfs.caps import DirectoryCap, MutableWriteCap
from lafsfs.crypto.hashes import KEY_SIZE
from lafsfs.crypto.rsa import SigningKey
from lafsfs.errors import FormatError, JournalFormatError, StagingCorruptError
from lafsfs.nodes.dirnode import DirectoryNode
from lafsfs.nodes.edits import Base
from lafsfs.nodes.filenode import MutableFileNode, UnknownNode
from lafsfs.vfs.api import ROOT_INODE
from lafsfs.vfs.posix import numbers
from lafsfs.vfs.posix.attributes import Kind, Posix
from lafsfs.vfs.publishing.removals import Look
from lafsfs.vfs.publishing.storing import node_of
from lafsfs.vfs.recording.lost import LostContents
from lafsfs.vfs.recording.records import (
    CURRENT,
    BegunRecord,
    InodeRecord,
    LookRecord,
    NameRecord,
    PlaceRecord,
    What,
    unpack,
)
from lafsfs.vfs.staging.kept import Kept
from lafsfs.vfs.tree.bindings import Edge
from lafsfs.vfs.tree.inodes import DirectoryInode, FileInode, LoopInode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lafsfs.caps import Cap, UnknownCap
    from lafsfs.journal import Row
    from lafsfs.nodes.filenode import FileNode
    from lafsfs.nodes.listing import Child
    from lafsfs.vfs.recording.durable import JournalRecorder
    from lafsfs.vfs.staging.staged import StagedContents
    from lafsfs.vfs.tree.bindings import Binding
    from lafsfs.vfs.tree.directories import Directory
    from lafsfs.vfs.tree.inodes import Inode
    from lafsfs.vfs.tree.tree import Tree

log = logging.getLogger(__name__)

AT_ONCE = 200  # rows read before other tasks get their turn, some milliseconds


@dataclass(frozen=True, slots=True)
class Found:
    """What an earlier mount left. ``size``: bytes of contents. ``went_back``: see the journal."""

    changes: int = 0
    size: int = 0
    went_back: bool = False

    def __str__(self) -> str:
        changes = f"{self.changes:,} pending change{'s' * (self.changes != 1)}"
        return f"{changes} ({self.size:,} bytes) from an earlier mount"


async def replay(tree: Tree, recorder: JournalRecorder, rows: Sequence[Row]) -> Found:
    """Have everything that ``rows`` say pending again.

    Raises:
        JournalFormatError: a row is not understood, or does not fit the others.
        JournalError: the journal cannot be read.
    """
    replaying = _Replay(tree, recorder)
    names: list[tuple[Row, NameRecord]] = []
    for number, row in enumerate(rows, 1):
        record = unpack(row.id, row.value)
        if isinstance(record, InodeRecord):
            replaying.expect(row, record)
        elif isinstance(record, NameRecord):
            names.append((row, record))
        else:
            replaying.expect_more(row, record)
        if not number % AT_ONCE:
            await trio.lowlevel.checkpoint()
    await replaying.restore_inodes()
    replaying.restore_names(names)
    return Found(len(names) + replaying.looks, replaying.size)


class _Replay:
    """One replay."""

    def __init__(self, tree: Tree, recorder: JournalRecorder) -> None:
        self._tree = tree
        self._recorder = recorder
        self._rows: dict[int, tuple[Row, InodeRecord]] = {}  # by inode number
        self._inodes: dict[int, Inode] = {}
        self._places: dict[Directory, tuple[Row, Directory, Child]] = {}  # by what is there
        self._looks: list[tuple[Row, LookRecord]] = []
        self._begun: list[tuple[Row, BegunRecord]] = []
        self.size = 0

    def expect(self, row: Row, record: InodeRecord) -> None:
        """There is a row of that inode."""
        if record.number in self._rows or record.number == ROOT_INODE:
            raise _misfit(row, "there is another of that inode")
        self._rows[record.number] = row, record

    @property
    def looks(self) -> int:
        """How many looks are to be taken."""
        return len(self._looks)

    def expect_more(self, row: Row, record: PlaceRecord | LookRecord | BegunRecord) -> None:
        """There is a row of that place, of a look, or of a publish."""
        if isinstance(record, LookRecord):
            self._looks.append((row, record))
        elif isinstance(record, BegunRecord):
            self._begun.append((row, record))
        else:
            self._expect_place(row, record)

    def _expect_place(self, row: Row, record: PlaceRecord) -> None:
        above = self._tree.directory(record.directory)
        child = above.node.child_of(record.name, record.entry)
        if not isinstance(child.cap, DirectoryCap):
            raise _misfit(row, "it leads to no directory")
        directory = self._tree.directory(child.cap)
        if directory in self._places:
            raise _misfit(row, "there is another of that directory")
        self._places[directory] = row, above, child

    async def restore_inodes(self) -> None:
        """Make all inodes, new directories first: their nodes are found by capability then."""
        ordered = sorted(self._rows.values(), key=lambda one: not one[1].is_new_directory)
        for row, record in ordered:
            inode = await self._inode(row, record)
            self._inodes[record.number] = inode
            self._recorder.adopt_inode(inode, row.id, is_new=record.is_new_directory)
            await trio.lowlevel.checkpoint()

    async def _inode(self, row: Row, record: InodeRecord) -> Inode:
        if record.what is What.FILE:
            return await self._file(row, record)
        if not isinstance(record.cap, DirectoryCap):
            raise _misfit(row, "a directory has a directory's capability")
        if record.what is What.LOOP:
            return LoopInode(record.number, record.posix, record.cap, record.target)
        directory = await self._directory(row, record.cap, record.key)
        return DirectoryInode(record.number, record.posix, directory)

    async def _directory(self, row: Row, cap: DirectoryCap, der: bytes | None) -> Directory:
        if der is None:
            return self._tree.directory(cap)
        try:
            key = await trio.to_thread.run_sync(SigningKey.from_der, der)
        except FormatError:
            raise _misfit(row, "its key pair is none") from None
        if not isinstance(cap.backing, MutableWriteCap):
            raise _misfit(row, "a new directory can be written to")
        node = self._tree.maker.restored_directory(cap.backing.format, key)
        if node.cap != cap:
            raise _misfit(row, "its key pair is another's")
        return self._tree.directory(cap)

    async def _file(self, row: Row, record: InodeRecord) -> FileInode:
        inode = FileInode(record.number, record.posix, record.cap)
        inode.superseded = frozenset(record.superseded)
        if inode.is_mutable:
            inode.known_size = record.posix.size
        if row.contents is not None:
            kept = Kept(row.contents, self._beneath(row, record), key=self._file_key(row, record))
            inode.staged = await self._staged(kept)
            self.size += inode.staged.size
        elif inode.cap is None:  # nothing was ever accepted of it but that it exists
            inode.staged = self._tree.area.stage(None, 0)
        return inode

    async def _staged(self, kept: Kept) -> StagedContents:
        area = self._tree.area
        try:
            return await area.restore(kept)
        except StagingCorruptError as error:
            log.error("what was accepted of a file cannot be read back: %s", error)
            return LostContents(area, kept, str(error))

    def _file_key(self, row: Row, record: InodeRecord) -> bytes | None:
        if record.key is not None and len(record.key) != KEY_SIZE:
            raise _misfit(row, "its key is none")
        return record.key

    def _beneath(self, row: Row, record: InodeRecord) -> FileNode | None:
        if record.beneath is None:
            return None
        node = self._tree.maker.node(record.beneath)
        if isinstance(node, DirectoryNode | UnknownNode):
            raise _misfit(row, "it was written over something that is no file")
        return node

    # names, without an await

    def restore_names(self, names: Sequence[tuple[Row, NameRecord]]) -> None:
        """Bind what is wanted under each name. Everything shows from here on."""
        bindings = [self._binding(row, record) for row, record in names]
        for inode in self._inodes.values():
            if isinstance(inode, DirectoryInode):
                self._tree.table.add(inode)
        for (row, record), binding in zip(names, bindings, strict=True):
            self._attach(row, record, binding)
        for (_, record), binding in zip(names, bindings, strict=True):
            found = (self._inodes.get(number) for number in record.left)
            binding.leaves(inode for inode in found if inode is not None)
        for _, one in self._rows.values():
            inode = self._inodes[one.number]
            if one.what is What.REMOVED and isinstance(inode, DirectoryInode):
                inode.directory.mark_removed(True)
        for (row, _), binding in zip(names, bindings, strict=True):
            self._recorder.adopt_name(binding, row.id)
            binding.directory.note(binding)
        for directory in tuple(self._places):
            self._parent(directory)
        for row, look in self._looks:
            self._look(row, look)
        slots = self._slots()
        for row, begun in self._begun:
            slot = slots.get(begun.cap)
            if slot is None:
                self._recorder.adopt_nothing(row.id)  # nothing more is to be published there
            else:
                slot.begun(begun.seqnum)
                self._recorder.adopt_begun(begun.cap, row.id)
        self._recorder.adopted()

    def _slots(self) -> dict[Cap | UnknownCap, DirectoryNode | MutableFileNode]:
        """What something is to be published to."""
        slots: dict[Cap | UnknownCap, DirectoryNode | MutableFileNode] = {}
        for directory in self._tree.outgoing.pending:
            slots[directory.node.cap] = directory.node
        for inode in self._inodes.values():
            if isinstance(inode, FileInode) and inode.is_mutable and inode.is_dirty:
                node = node_of(self._tree, inode)
                if isinstance(node, MutableFileNode):
                    slots[node.cap] = node
        return slots

    def _look(self, row: Row, record: LookRecord) -> None:
        directory = self._tree.directory(record.directory)
        look = Look(directory, record.name, record.entry)
        if record.number is not None:
            inode = self._inodes.get(record.number)
            if not isinstance(inode, DirectoryInode):
                raise _misfit(row, "there is none of what is to be looked at")
            look.inode = inode
        directory.publisher.removals.expect(look)
        directory.note_work()
        self._recorder.adopt_look(look, row.id)
        directory.publisher.kick()

    def _binding(self, row: Row, record: NameRecord) -> Binding:
        directory = self._tree.directory(record.directory)
        if record.name in directory.names:
            raise _misfit(row, "there is another of that name")
        binding = directory.bind(record.name)
        binding.raw_name = record.raw_name
        binding.base, binding.entry, binding.maybe = record.base, record.entry, record.maybe
        binding.made = record.made
        directory.changed = max(directory.changed, record.changed)
        directory.is_doubtful = True  # what was in flight may have landed
        return binding

    def _attach(self, row: Row, record: NameRecord, binding: Binding) -> None:
        if record.edge is None:
            if Base.ABSENT not in binding.expected:
                binding.maybe = (*binding.maybe, Base.ABSENT)  # it may have been in flight
            return
        inode = self._inodes.get(record.edge.number)
        if inode is None:
            raise _misfit(row, "there is none of what it names")
        if self._tree.table.get(inode.number) is None:
            self._tree.table.add(inode)
        if inode.cap is not None and inode.cap not in binding.expected:
            binding.maybe = (*binding.maybe, inode.cap)  # it may have been in flight
        parent = self._parent(binding.directory)
        told = inode.version if record.edge.told == CURRENT else record.edge.told
        Edge(binding, parent, inode, told, record.edge.origin).attach()

    def _parent(self, directory: Directory) -> DirectoryInode:
        """An inode of the directory: where it is, or without a name if that is not known."""
        tree = self._tree
        place = self._places.pop(directory, None)
        if place is not None:
            row, above, child = place
            parent = self._parent(above)
            if child.name not in above.names:
                tree.arrivals.arrive(parent, child)
            self._recorder.adopt_place(directory, row.id)
        for inode in directory.inodes.values():
            return inode
        index = directory.node.cap.storage_index
        assert index is not None
        number = numbers.object_number(index)
        while tree.table.get(number) is not None or number in self._inodes:
            number = numbers.alias_number(number, ROOT_INODE, "")
        inode = DirectoryInode(number, _unnamed(tree), directory)
        tree.table.add(inode)
        return inode


def _unnamed(tree: Tree) -> Posix:
    """The attributes of a directory until somebody looks it up."""
    defaults = tree.defaults
    return Posix(Kind.DIRECTORY, defaults.directory_mode, defaults.uid, defaults.gid, 0, 0, 0, 0)


def _misfit(row: Row, why: str) -> JournalFormatError:
    return JournalFormatError(
        f"row {row.id} of the journal does not fit the others ({why}): nothing is mounted, and"
        " nothing in the journal was changed"
    )
