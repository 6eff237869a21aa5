"""Directories made operable: a table in a file, read as a listing and changed by edits.

Rules:

- Reading gives an immutable :class:`~lafsfs.nodes.listing.Listing`. It is kept and handed out
  again for as long as the caller's ``max_age`` allows; immutable directories never age.
- All changes go through :meth:`DirectoryNode.edit`, one ``modify()`` of the table for any number of
  edits. The listing afterwards is part of the result, so nobody reads a directory to see what they
  wrote.
- A directory may be *new*: its key pair exists, and with it its capability, but not its slot. It is
  known to be empty without asking anybody. Its first edit, of no edits perhaps, makes the slot with
  the children already in it, and may be repeated after a failure or a crash.
- While an edit is under way, readers who can do with an older listing get it at once rather than
  wait for the grid; only ``max_age=0`` waits.
- Parsing and packing run in threads once the table is big enough to be felt.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from lafsfs.caps import MutableWriteCap
from lafsfs.errors import ReadOnlyCapabilityError
from lafsfs.formats.dirtable import parse_table
from lafsfs.nodes.edits import Circumstances, Done, SetChild, Unlink, apply_edits
from lafsfs.nodes.filenode import MutableFileNode
from lafsfs.nodes.listing import Child, Listing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lafsfs.caps import DirectoryCap
    from lafsfs.crypto.rsa import SigningKey
    from lafsfs.formats.dirtable import DirectoryTable, Entry
    from lafsfs.mutable.file import Before
    from lafsfs.mutable.servermap import Version
    from lafsfs.nodes.edits import Edit, Outcome
    from lafsfs.nodes.filenode import FileNode
    from lafsfs.nodes.health import Health

THREAD_SIZE = 64 << 10  # bytes of table from which parsing takes longer than a thread hop is worth
JUST_LOOKED = 1.0  # seconds: the version asked for a moment ago need not be asked for again


@dataclass(frozen=True, slots=True)
class EditResult:
    """The directory after a batch of edits, and what became of each, in the order given."""

    listing: Listing
    outcomes: tuple[Outcome, ...]


class DirectoryNode:
    """One directory. Ask the node maker for it, so that there is one for each capability."""

    def __init__(
        self,
        cap: DirectoryCap,
        backing: FileNode,
        *,
        host: str,
        clock: Callable[[], float] = time.time,
        key: SigningKey | None = None,
    ) -> None:
        """``key``: what the slot is to be made with, if it does not exist yet."""
        self.cap = cap
        self.can_write = cap.can_write  # whether this node may change the directory
        self.key = key
        self._backing = backing
        self._host = host
        self._clock = clock
        self._lock = trio.Lock()  # held while reading or changing the table
        self._listing: Listing | None = None if key is None else self._listed(parse_table(b""))
        self._contents: bytes = b""  # what the listing was parsed from
        self._version: Version | None = None  # of the contents, where it is known
        self._read_at = -math.inf  # when the grid was asked, on Trio's clock
        self._read = 0  # the number of that question
        self._asked = 0  # of the last question, answered or not

    def __repr__(self) -> str:
        return f"<DirectoryNode {self.cap.kind} {self.cap.digest}>"

    @property
    def is_new(self) -> bool:
        """Whether its slot is yet to be made."""
        return self.key is not None

    @property
    def is_mutable(self) -> bool:
        """Whether the directory can change at all, by whoever holds the write capability."""
        return self.cap.is_mutable

    def require_write(self) -> None:
        """Raises ReadOnlyCapabilityError unless this node may change the directory."""
        if not self.can_write:
            raise ReadOnlyCapabilityError("the capability of this directory reads only")

    def health(self) -> Health | None:
        """The shares of the table seen so far; ``None`` if there are none, or nobody looked."""
        return self._backing.health()

    @property
    def is_lost(self) -> bool:
        """Whether all servers have answered when we last looked, and nothing can be recovered."""
        return isinstance(self._backing, MutableFileNode) and self._backing.is_lost

    @property
    def latest(self) -> Listing | None:
        """The listing last seen, however old, without asking anybody."""
        return self._listing

    async def table(self, max_age: float | None = 0.0) -> Listing:
        """The children, from the grid unless they were read at most ``max_age`` seconds ago.

        ``None`` is for any age.

        Raises:
            NotEnoughSharesError: the table cannot be read.
            FormatError: the table breaks the format.
        """
        if self._listing is not None and (self.is_fresh(max_age) or self._may_lag(max_age)):
            return self._listing
        asked = self._asked
        async with self._lock:
            if self._listing is not None and (self.is_fresh(max_age) or self._read > asked):
                return self._listing  # somebody read it while we waited
            return await self._refresh()

    def begun(self, seqnum: int) -> None:
        """See :meth:`~lafsfs.mutable.file.MutableFile.begun`."""
        if isinstance(self._backing, MutableFileNode):
            self._backing.begun(seqnum)

    async def edit(self, edits: Sequence[Edit], before: Before | None = None) -> EditResult:
        """Apply all ``edits``, in order, in one change of the table, which is made if it is new.

        ``before`` is awaited with the sequence number of a version before any of it is written.

        Raises:
            ReadOnlyCapabilityError: this is not the directory's write capability.
            UncoordinatedWriteError: another writer was ahead every time.
            NotHappyError: too few servers took the change.
        """
        backing = self._backing
        if not isinstance(backing, MutableFileNode) or not isinstance(backing.cap, MutableWriteCap):
            raise ReadOnlyCapabilityError("the capability of this directory reads only")
        batch = _Batch(
            tuple(edits), Circumstances(self._clock(), self._host, backing.cap.write_key)
        )
        async with self._lock:
            if self._listing is not None:
                batch.known = (self._contents, self._listing.table)
            asking = self._ask()
            contents = await self._write(backing, batch, before)
            self.key = None
            self._version = None  # somebody may have published another since
            listing = await self._admit(contents, batch.table_of(contents), asking)
            return EditResult(listing, batch.outcomes)

    def is_fresh(self, max_age: float | None) -> bool:
        """Whether :meth:`latest` is no older than that many seconds, ``None`` for any age."""
        if self._listing is None:
            return False
        if max_age is None or not self.is_mutable or self.is_new:
            return True
        return trio.current_time() - self._read_at <= max_age and max_age > 0

    def _may_lag(self, max_age: float | None) -> bool:
        return max_age != 0 and self._lock.locked()

    async def _write(self, backing: MutableFileNode, batch: _Batch, before: Before | None) -> bytes:
        if self.key is not None:
            contents = batch(b"") or b""
            if await backing.create(self.key, contents, before):
                return contents
        return await backing.modify(batch, before)

    async def _refresh(self) -> Listing:
        asking = self._ask()
        backing = self._backing
        if not isinstance(backing, MutableFileNode):
            contents = await backing.read(0, await backing.size())
            return await self._admit(contents, None, asking)
        if self._listing is None:
            version, contents = await backing.contents()
        else:
            version = await backing.version()
            if version == self._version:
                self._read, self._read_at = asking
                return self._listing
            version, contents = await backing.contents(JUST_LOOKED)
        listing = await self._admit(contents, None, asking)
        self._version = version
        return listing

    def _ask(self) -> tuple[int, float]:
        """The grid is being asked: the number of the question, and when it was put.

        Numbers tell what comes after what even where both are at the same time.
        """
        self._asked += 1
        return self._asked, trio.current_time()

    async def _admit(
        self, contents: bytes, table: DirectoryTable | None, asking: tuple[int, float]
    ) -> Listing:
        """Make ``contents`` what the listing shows; the same listing if they are the same."""
        if self._listing is None or contents != self._contents:
            if table is None:
                table = await _parsed(contents)
            self._listing = self._listed(table)
            self._contents = contents
        self._read, self._read_at = asking  # when it was asked for: it may be older than it came
        return self._listing

    def child_of(self, name: str, entry: Entry) -> Child:
        """The child that an entry of the table is, or was."""
        return Child(name, entry, self._write_key, self.is_mutable)

    def _listed(self, table: DirectoryTable) -> Listing:
        return Listing(table, self._write_key, mutable=self.is_mutable)

    @property
    def _write_key(self) -> bytes | None:
        backing = self.cap.backing
        return backing.write_key if isinstance(backing, MutableWriteCap) else None


class _Batch:
    """A batch of edits as a modifier: pure but for remembering tables it has parsed or packed."""

    def __init__(self, edits: tuple[Edit, ...], circumstances: Circumstances) -> None:
        self._edits = edits
        self._circumstances = circumstances
        self.known: tuple[bytes, DirectoryTable] | None = None
        self.outcomes: tuple[Outcome, ...] = ()

    def __call__(self, contents: bytes) -> bytes | None:
        table = self.table_of(contents) or parse_table(contents)
        changed, self.outcomes = apply_edits(table, self._edits, self._circumstances)
        if changed is None:
            self.known = (contents, table)
            return None
        packed = changed.pack()
        self.known = (packed, changed)
        return packed

    def table_of(self, contents: bytes) -> DirectoryTable | None:
        """The table that ``contents`` are, if it is known without parsing them."""
        return self.known[1] if self.known is not None and self.known[0] == contents else None


async def move(source: DirectoryNode, name: str, target: DirectoryNode, new_name: str) -> Outcome:
    """Move a child with its metadata; in the same directory in one change, else link first.

    A crash in between leaves it under both names, never under none. Whatever ``new_name`` was is
    replaced. The outcome is that of the link.

    Raises:
        NoSuchChildError: there is no such child.
        ReadOnlyCapabilityError: one of the directories cannot be changed.
    """
    source.require_write()
    child = (await source.table()).child(name)
    link = SetChild(new_name, child.cap, child.metadata, replace=True)
    unlink = Unlink(name, base=child.cap)
    if source is target:
        if link.name == unlink.name:
            return Done(changed=False)
        return (await source.edit([link, unlink])).outcomes[0]
    linked = (await target.edit([link])).outcomes[0]
    await source.edit([unlink])
    return linked


async def _parsed(contents: bytes) -> DirectoryTable:
    if len(contents) < THREAD_SIZE:
        return parse_table(contents)
    return await trio.to_thread.run_sync(parse_table, contents)
