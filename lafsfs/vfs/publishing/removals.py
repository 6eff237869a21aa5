"""Directories that are taken away or moved while others fill them or move those above.

A directory is taken away in one table and filled in another, so no test-and-set covers both.
Whoever takes one away, with all that is in it, looks into it before and after; whoever puts
something into one looks afterwards whether it is still linked, and all above it. In whatever order
the four happen, one of the two sees the other, and links the directory again. What is in one does
not tell that nobody is taking it away: its names need not be removed one by one before. In the same
way whoever has moved a directory looks afterwards whether it can still be reached: two clients may
have moved two directories into each other.

What is yet to be looked at is recorded, from the commit on in which the name that is gone is not:
whoever mounts after a crash looks.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.errors import LafsError, NotEnoughSharesError
from lafsfs.nodes.edits import Base, Done, Kept, SetChild, is_base
from lafsfs.nodes.listing import decoded_metadata
from lafsfs.vfs.api import ROOT_INODE
from lafsfs.vfs.tree.inodes import DirectoryInode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from lafsfs.formats.dirtable import Entry
    from lafsfs.nodes.edits import Outcome
    from lafsfs.nodes.listing import Listing
    from lafsfs.vfs.publishing.flights import Flight
    from lafsfs.vfs.recording.recorder import Recorder
    from lafsfs.vfs.tree.bindings import Binding, Edge
    from lafsfs.vfs.tree.directories import Directory

log = logging.getLogger(__name__)

LOOKS: Final = 8  # removed directories looked into at a time


@dataclass(eq=False, slots=True)
class Look:
    """Something that is yet to be looked at because of what a publish of ``directory`` did.

    With an ``inode``: what is in it, or whether it can be reached. It is not under ``name`` any
    more, where ``entry`` led to it, since it was taken away or moved. Without one: whether
    ``directory``, which was filled, is still linked itself.

    Attributes:
        revival: the edit that brings the inode back, since it is missed.
        error: why it could not be looked at.
        is_over: nothing more is to be done.
    """

    directory: Directory
    name: str = ""
    entry: Entry | None = field(default=None, repr=False)
    inode: DirectoryInode | None = None
    revival: SetChild | None = None
    error: LafsError | None = None
    is_over: bool = False


class Removals:
    """What one directory's publisher looks at because of directories that go."""

    def __init__(self, directory: Directory, recorder: Recorder) -> None:
        self._directory = directory
        self._recorder = recorder
        self._looks: list[Look] = []

    @property
    def is_unfinished(self) -> bool:
        """Whether there is something to be looked at or brought back."""
        return bool(self._looks)

    @property
    def looks(self) -> tuple[Look, ...]:
        """What is yet to be looked at, or to be brought back."""
        return tuple(self._looks)

    @property
    def below(self) -> Iterator[Directory]:
        """The directories that are yet to be looked into."""
        return (look.inode.directory for look in self._looks if look.inode is not None)

    @property
    def revivals(self) -> tuple[SetChild, ...]:
        """Edits that bring directories back that were not empty."""
        return tuple(look.revival for look in self._looks if look.revival is not None)

    def expect(self, look: Look) -> None:
        """There is something to be looked at."""
        if look.inode is not None:
            look.inode.opens += 1  # as long as that is so
            look.inode.directory.looks += 1
        self._looks.append(look)
        self._recorder.changed_look(look)

    async def look_before(self, ready: Iterable[Binding]) -> tuple[set[Binding], LafsError | None]:
        """Keep directories that are about to be taken away and are not empty any more.

        Returns the bindings that cannot go out, since nobody knows, and why.
        """
        unseen: set[Binding] = set()
        errors: list[LafsError] = []
        limiter = trio.CapacityLimiter(LOOKS)

        async def look(binding: Binding, inode: DirectoryInode) -> None:
            try:
                empty = await _is_empty(inode.directory, limiter)
            except LafsError as error:
                binding.failed(error)
                unseen.add(binding)
                errors.append(error)
                return
            if not empty:
                self._keep(binding, inode)

        async with trio.open_nursery() as nursery:
            for binding in ready:
                for inode in binding.left:
                    if isinstance(inode, DirectoryInode) and inode.directory.is_removed:
                        nursery.start_soon(look, binding, inode)
        return unseen, errors[0] if errors else None

    def landed(
        self, binding: Binding, entry: Entry | None, left: Iterable[object], outcome: Outcome
    ) -> None:
        """An edit has landed; ``entry`` and ``left`` are the binding's from before.

        What was kept, too, may have been taken away before: by us, before a crash, or by whoever
        has put something else there.
        """
        if isinstance(outcome, Done):
            left = [inode for inode in left if inode not in binding.left]
        elif not isinstance(outcome, Kept) or not binding.is_removal:
            return
        for inode in left:
            if isinstance(inode, DirectoryInode):
                self.expect(Look(self._directory, binding.name, entry, inode))

    def filled(self, batch: Iterable[Flight]) -> None:
        """A batch has landed in a directory that other clients know."""
        puts = any(isinstance(flight.edit, SetChild) for flight in batch)
        is_below = any(inode.edges for inode in self._directory.inodes.values())
        if puts and is_below and not any(look.inode is None for look in self._looks):
            self.expect(Look(self._directory))

    def revived(self, revivals: Collection[SetChild]) -> None:
        """These have landed."""
        for look in self.looks:
            if look.revival is not None and look.revival in revivals:
                self._end(look)

    def abandon(self) -> None:
        """This directory is gone, and all that was in it."""
        for look in self.looks:
            self._end(look)

    async def look_after(self) -> LafsError | None:
        """Look into what is gone, and whether this directory still is where it was.

        Returns why something cannot be seen: then call it again.
        """
        trouble: LafsError | None = None
        for look in self.looks:
            try:
                if look.inode is None:
                    if await self._look_above():
                        self._end(look)
                elif look.revival is None:
                    await self._look_into(look, look.inode)
            except LafsError as error:
                look.error = trouble = error
        return trouble

    def _end(self, look: Look) -> None:
        look.is_over = True
        if look.inode is not None:
            look.inode.opens -= 1
            look.inode.directory.looks -= 1
        self._looks.remove(look)
        self._recorder.changed_look(look)

    def _keep(self, binding: Binding, inode: DirectoryInode) -> None:
        """Somebody has put something into a directory that we take away: it stays if it is there.

        It is not if it was taken away before.
        """
        log.warning("a directory that was removed stays: another client has put something into it")
        self.expect(Look(self._directory, binding.name, binding.entry, inode))
        if binding.is_removal:
            self._directory.drop(binding)
        else:  # what took its place becomes a conflicting copy
            binding.base, binding.entry, binding.maybe = Base.ABSENT, None, ()
            binding.leaves(())

    async def _look_into(self, look: Look, inode: DirectoryInode) -> None:
        is_missed = await _is_missed(inode)
        if is_missed:
            child = (await self._directory.node.table(0)).get(look.name)
            is_missed = not is_base(child, inode.cap)
            inode.directory.mark_removed(False)
        if not is_missed:
            self._end(look)
            inode.directory.abandon()  # unless somebody has taken it up again meanwhile
            return
        log.warning("a directory that was removed or moved is back under its old name")
        metadata = {} if look.entry is None else decoded_metadata(look.entry.metadata_json)
        look.revival = SetChild(look.name, inode.cap, metadata, base=Base.ABSENT, replace=True)

    async def _look_above(self) -> bool:
        """Link again what others took away while something was put into it.

        Returns whether that is all: what is being published just now is to be looked at again.
        """
        is_over = True
        for inode in tuple(self._directory.inodes.values()):
            with inode.pinned():
                for edge in tuple(inode.edges):
                    for one in tuple(edge.path()):
                        is_over = await _is_there_or_will_be(one) and is_over
        return is_over


async def _is_there_or_will_be(edge: Edge) -> bool:
    """See to it that a name leads to a directory, if it shall; False to see again."""
    binding, cap = edge.binding, edge.inode.cap
    if edge.is_new or cap is None:
        return True
    child = (await binding.directory.node.table(0)).get(binding.name)
    if edge not in binding.edges or edge.is_new or is_base(child, cap):
        return True
    if binding.in_flight is not None:
        return False
    binding.restore()
    return True


async def _is_missed(inode: DirectoryInode) -> bool:
    """Whether it, or what is in it, cannot be reached, though it should.

    Raises:
        LafsError: that cannot be seen.
    """
    directory = inode.directory
    if not directory.is_removed:
        return not await _is_reachable(inode)
    return not await _is_empty(directory, trio.CapacityLimiter(LOOKS))


async def _is_empty(directory: Directory, limiter: trio.CapacityLimiter) -> bool:
    """Whether the grid has nothing in a directory but what was removed, and that is empty, too.

    Directories that were moved to and fro before they were removed may lead to each other.

    Raises:
        LafsError: that cannot be seen.
    """
    seen = {directory}
    filled: list[Directory] = []
    errors: list[LafsError] = []

    async def look(one: Directory) -> None:
        try:
            listing = await _listing(one, limiter)
        except LafsError as error:
            errors.append(error)
            return
        if listing is None or not one.is_left:  # or somebody else has looked, and given it up
            return
        if not one.is_empty(listing):
            filled.append(one)
            return
        for below in one.removed_below():
            if below not in seen:
                seen.add(below)
                nursery.start_soon(look, below)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look, directory)
    if errors and not filled:
        raise errors[0]
    return not filled


async def _listing(directory: Directory, limiter: trio.CapacityLimiter) -> Listing | None:
    """What the grid has in a directory that was removed; None if nobody can read it any more."""
    async with limiter:
        try:
            return await directory.node.table(0)
        except NotEnoughSharesError:
            if not directory.node.is_lost:
                raise
            log.warning("a directory that was removed cannot be read by anybody")
            return None


async def _is_reachable(inode: DirectoryInode) -> bool:
    """Whether the grid has it where it is here, as far as that was published, and all above it.

    Raises:
        LafsError: that cannot be seen.
    """
    while path := _path_of(inode):
        found = await _is_there(path)
        if path == _path_of(inode):  # else something was moved meanwhile
            return found
    return True  # nobody wants it any more


def _path_of(inode: DirectoryInode) -> tuple[tuple[Edge, Binding], ...]:
    """The edges that lead to it, nearest first, and the names that they have."""
    return tuple((edge, edge.binding) for one in inode.edges[:1] for edge in one.path())


async def _is_there(path: Sequence[tuple[Edge, Binding]]) -> bool:
    for edge, binding in path:
        if not edge.is_new:
            listing = await binding.directory.node.table(0)
            if not edge.is_new and not is_base(listing.get(binding.name), binding.base):
                return False
    return path[-1][0].parent.number == ROOT_INODE
