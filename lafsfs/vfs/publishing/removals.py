"""Directories that are taken away or moved while others fill them or move those above.

A directory is taken away in one table and filled in another, so no test-and-set covers both.
Whoever takes one away looks into it before and after; whoever puts the first things into one looks
afterwards whether it is still linked. In whatever order the four happen, one of the two sees the
other, and links the directory again. In the same way whoever has moved a directory looks afterwards
whether it can still be reached: two clients may have moved two directories into each other.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.errors import LafsError
from lafsfs.nodes.edits import Base, Done, SetChild, is_base
from lafsfs.nodes.listing import decoded_metadata
from lafsfs.vfs.api import ROOT_INODE
from lafsfs.vfs.tree.inodes import DirectoryInode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lafsfs.formats.dirtable import Entry
    from lafsfs.nodes.edits import Outcome
    from lafsfs.nodes.listing import Listing
    from lafsfs.vfs.publishing.flights import Flight
    from lafsfs.vfs.tree.bindings import Binding
    from lafsfs.vfs.tree.directories import Directory

log = logging.getLogger(__name__)

LOOKS: Final = 8  # removed directories looked into at a time


@dataclass(frozen=True, slots=True)
class _Gone:
    """A directory that is not under ``name`` any more: taken away or moved."""

    name: str
    entry: Entry | None
    inode: DirectoryInode


class Removals:
    """What one directory's publisher looks at because of directories that go.

    Attributes:
        revivals: edits that bring directories back that were not empty.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._gone: list[_Gone] = []
        self._is_filled = False
        self.revivals: list[SetChild] = []

    @property
    def is_unfinished(self) -> bool:
        """Whether there is something to be looked at or brought back."""
        return bool(self._gone or self.revivals) or self._is_filled

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
                binding.failed(error, trio.current_time())
                unseen.add(binding)
                errors.append(error)
                return
            if not empty:
                _keep(binding, inode)

        async with trio.open_nursery() as nursery:
            for binding in ready:
                for inode in binding.left:
                    if isinstance(inode, DirectoryInode) and inode.directory.is_removed:
                        nursery.start_soon(look, binding, inode)
        return unseen, errors[0] if errors else None

    def landed(
        self, binding: Binding, entry: Entry | None, left: Iterable[object], outcome: Outcome
    ) -> None:
        """An edit has landed; ``entry`` and ``left`` are the binding's from before."""
        if isinstance(outcome, Done):
            self._gone += [
                _Gone(binding.name, entry, inode)
                for inode in left
                if isinstance(inode, DirectoryInode) and inode not in binding.left
            ]

    def filled(self, batch: Iterable[Flight], listing: Listing) -> None:
        """A batch has landed in a directory that other clients know."""
        put = {flight.binding.name for flight in batch if isinstance(flight.edit, SetChild)}
        self._is_filled = self._is_filled or (bool(put) and not set(listing) - put)

    async def look_after(self) -> None:
        """Look into what is gone, and whether this directory still is where it was.

        Raises:
            LafsError: that cannot be seen; call it again.
        """
        while self._gone:
            gone = self._gone[0]
            if await self._is_missed(gone.inode):
                log.warning("a directory that was removed or moved is back under its old name")
                gone.inode.directory.mark_removed(False)
                metadata = {} if gone.entry is None else decoded_metadata(gone.entry.metadata_json)
                cap = gone.inode.cap
                self.revivals.append(
                    SetChild(gone.name, cap, metadata, base=Base.ABSENT, replace=True)
                )
            self._gone.remove(gone)
        if self._is_filled:
            await self._look_above()
            self._is_filled = False

    async def _is_missed(self, inode: DirectoryInode) -> bool:
        """Whether it, or what is in it, cannot be reached, though it should."""
        directory = inode.directory
        if not directory.is_removed:
            return bool(inode.edges) and not await _is_reachable(inode)
        if not await _is_empty(directory, trio.CapacityLimiter(LOOKS)):
            return True
        directory.abandon()
        return False

    async def _look_above(self) -> None:
        for inode in tuple(self._directory.inodes.values()):
            for edge in tuple(inode.edges):
                above = edge.binding
                listing = await above.directory.node.table(0)
                if edge.is_attached and not above.holds and above.name not in listing:
                    above.restore()


async def _is_empty(directory: Directory, limiter: trio.CapacityLimiter) -> bool:
    """Whether the grid has nothing in a directory but what was removed, and that is empty, too.

    Raises:
        LafsError: that cannot be seen.
    """
    async with limiter:
        listing = await directory.node.table(0)
    if not directory.is_empty(listing):
        return False
    found: list[bool | LafsError] = []

    async def look(below: Directory) -> None:
        try:
            found.append(await _is_empty(below, limiter))
        except LafsError as error:
            found.append(error)

    async with trio.open_nursery() as nursery:
        for below in directory.removed_below():
            nursery.start_soon(look, below)
    for error in found:
        if isinstance(error, LafsError):
            raise error
    return all(found)


async def _is_reachable(inode: DirectoryInode) -> bool:
    """Whether the grid has it where it is here, as far as that was published, and all above it."""
    while inode.number != ROOT_INODE:
        if not inode.edges:
            return False
        edge = inode.edges[0]
        listing = await edge.binding.directory.node.table(0)
        if not edge.is_new and not is_base(listing.get(edge.binding.name), inode.cap):
            return False
        inode = edge.parent
    return True


def _keep(binding: Binding, inode: DirectoryInode) -> None:
    """Another client has put something into a directory that we took away: it stays."""
    log.warning("a directory that was removed stays: another client has put something into it")
    inode.directory.mark_removed(False)
    if binding.is_removal:
        binding.directory.drop(binding)
    else:  # what took its place becomes a conflicting copy
        binding.base, binding.entry, binding.maybe = Base.ABSENT, None, ()
        binding.leaves(())
