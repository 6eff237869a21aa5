"""``rename`` in all its forms.

- In one directory: one publish links the new name and unlinks the old one.
- Across directories: the new name is linked first, the old one unlinked second. Whatever fails in
  between leaves the child under both names, never under none.
- A file that is not on the grid yet only changes its pending name. What it replaces goes with it:
  the new name's pending edge is based on what the grid has there, and replaces it when the file is
  brought to the grid.
- ``RENAME_EXCHANGE`` in one directory is one publish. Across directories the target is first linked
  beside the source under a passing name, so that it is never without one.

Both directories are locked (:func:`~lafsfs.vfs.directories.locked`), and both edges are steady: no
publish is carrying them. An edge that has landed under its new name is *moved*, so handles, pending
attributes and waiters stay with it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lafsfs.caps import UnknownCap
from lafsfs.errors import (
    ChildExistsError,
    IsADirectoryNodeError,
    NoSuchChildError,
    NotADirectoryNodeError,
)
from lafsfs.nodes.edits import Base, Conflict, Kept, SetChild, Unlink
from lafsfs.vfs.api import RENAME_EXCHANGE, RENAME_NOREPLACE, InvalidRequestError
from lafsfs.vfs.directories import locked
from lafsfs.vfs.inodes import DirectoryInode, FileInode, LoopInode
from lafsfs.vfs.names import raw_name, stored_name
from lafsfs.vfs.publisher import Request, metadata_for, remember_grid, until_free

if TYPE_CHECKING:
    from collections.abc import Callable

    from lafsfs.nodes.edits import Edit, Outcome
    from lafsfs.nodes.listing import Listing
    from lafsfs.vfs.directories import Directory
    from lafsfs.vfs.files import Files
    from lafsfs.vfs.inodes import BaseCap, Edge, Inode
    from lafsfs.vfs.namespace import Namespace
    from lafsfs.vfs.tree import Tree


@dataclass(frozen=True, slots=True)
class Place:
    """Where a name is, or is to be."""

    parent: DirectoryInode
    name: str
    raw_name: bytes | None


class Renaming:
    """The verb ``rename``."""

    def __init__(self, tree: Tree, files: Files, namespace: Namespace) -> None:
        self._tree = tree
        self._files = files
        self._names = namespace

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        """See :meth:`~lafsfs.vfs.api.FileSystemAPI.rename`."""
        if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
            raise InvalidRequestError("rename knows NOREPLACE and EXCHANGE")
        tree = self._tree
        old, new = tree.directory_inode(parent), tree.directory_inode(new_parent)
        tree.require_room_for_names(old)
        tree.require_room_for_names(new)
        async with locked(old.directory, new.directory):
            source, target = await self._both(old, name, new, new_name)
            if flags == RENAME_EXCHANGE:
                await self._exchange(old, name, new, new_name, source, target)
                return
            if target is not None and flags == RENAME_NOREPLACE:
                raise ChildExistsError("there is a child of that name already")
            stored = stored_name(new_name) if target is None else target.name
            place = Place(new, stored, raw_name(new_name, stored))
            await self._rename(source, target, place)

    async def _both(
        self, old: DirectoryInode, name: bytes, new: DirectoryInode, new_name: bytes
    ) -> tuple[Edge, Edge | None]:
        """Both edges, steady at the same moment."""
        while True:
            source = await self._names.steady(old, name)
            target = await self._names.steady_or_none(new, new_name)
            if source.attached and not source.is_busy:
                return source, target

    async def _rename(self, source: Edge, target: Edge | None, place: Place) -> None:
        if target is source:
            self._respell(source, place)
            return
        if target is not None and target.inode is source.inode:
            return  # two names of one file: rename(2) leaves both
        _require_outside(source.inode, place.parent)
        if target is not None:
            await self._require_replaceable(source.inode, target.inode)
        while source.inode.cap is None and source.base is not Base.ABSENT:
            await self._unlink_base(source)  # what it was to replace goes, as it would have
            await until_free(source)
        self._stamp(source.inode)
        if source.base is Base.ABSENT:
            self._move_pending(source, target, place)
        elif source.directory is place.parent.directory:
            await self._move_here(source, target, place)
        else:
            await self._move_across(source, target, place)

    def _respell(self, edge: Edge, place: Place) -> None:
        """The same name in other bytes: only the metadata changes."""
        if edge.raw_name != place.raw_name:
            edge.raw_name = place.raw_name
            self._tree.touch(edge.inode, edge.inode.posix)

    async def _require_replaceable(self, inode: Inode, target: Inode) -> None:
        if isinstance(target, DirectoryInode):
            if not isinstance(inode, DirectoryInode):
                raise IsADirectoryNodeError("a directory is in the way")
            await self._names.require_empty(target)
        elif isinstance(inode, DirectoryInode):
            raise NotADirectoryNodeError("something that is no directory is in the way")

    # a name that the grid does not have

    def _move_pending(self, source: Edge, target: Edge | None, place: Place) -> None:
        base: BaseCap = Base.ABSENT if target is None else target.base
        self._replace(place)
        source.base, source.entry, source.raw_name = base, None, place.raw_name
        source.published = 0
        self._names.changed(source.parent)
        source.move(place.parent.directory, place.parent, place.name)
        self._names.changed(place.parent)
        self._tree.mark_pending(source)

    async def _unlink_base(self, source: Edge) -> None:
        def landed(listing: Listing, outcomes: tuple[Outcome, ...]) -> None:
            source.base = Base.ABSENT

        await source.directory.publisher.submit(
            Request(lambda: [Unlink(source.name, source.base)], landed, claims=(source,))
        )

    # a name that the grid has

    async def _move_here(self, source: Edge, target: Edge | None, place: Place) -> None:
        landing = _Landing(self, source, target, place)
        old_name = source.name

        def build() -> list[Edit]:
            return [landing.link(), Unlink(old_name, source.base)]

        def landed(listing: Listing, outcomes: tuple[Outcome, ...]) -> None:
            others = [e for e in source.directory.all_edges_at(old_name) if e is not source]
            landing.landed(listing, outcomes[0])
            if not isinstance(outcomes[1], Kept):
                for other in others:
                    self._tree.lose(other)

        await source.directory.publisher.submit(Request(build, landed, claims=landing.claims))

    async def _move_across(self, source: Edge, target: Edge | None, place: Place) -> None:
        landing = _Landing(self, source, target, place)
        old, old_name, old_base = source.directory, source.name, source.base

        def build() -> list[Edit]:
            nonlocal old_base
            old_base = source.base
            return [landing.link()]

        def linked(listing: Listing, outcomes: tuple[Outcome, ...]) -> None:
            landing.landed(listing, outcomes[0])

        await place.parent.directory.publisher.submit(Request(build, linked, claims=landing.claims))
        await self._unlink_old(old, old_name, lambda: old_base)

    async def _unlink_old(
        self, directory: Directory, name: str, base: Callable[[], BaseCap]
    ) -> None:
        def unlinked(listing: Listing, outcomes: tuple[Outcome, ...]) -> None:
            if not isinstance(outcomes[0], Kept):
                for edge in directory.all_edges_at(name):
                    self._tree.lose(edge)

        await directory.publisher.submit(
            Request(
                lambda: [Unlink(name, base())],
                unlinked,
                claims=tuple(directory.all_edges_at(name)),
            )
        )

    # exchanging

    async def _exchange(
        self,
        old: DirectoryInode,
        name: bytes,
        new: DirectoryInode,
        new_name: bytes,
        source: Edge,
        target: Edge | None,
    ) -> None:
        while target is not None and (unsaved := _unsaved(source, target)) is not None:
            await self._files.bring(unsaved)
            source, target = await self._both(old, name, new, new_name)
        if target is None:
            raise NoSuchChildError("there is nothing to exchange with")
        if source.inode is target.inode:
            return
        _require_outside(source.inode, new)
        _require_outside(target.inode, old)
        here = Place(old, source.name, raw_name(name, source.name))
        there = Place(new, target.name, raw_name(new_name, target.name))
        self._stamp(source.inode)
        self._stamp(target.inode)
        with source.inode.pinned(), target.inode.pinned():
            if source.directory is target.directory:
                await self._exchange_here(source, target, here, there)
            else:
                await self._exchange_across(source, target, here, there)

    async def _exchange_here(self, source: Edge, target: Edge, here: Place, there: Place) -> None:
        versions = (0, 0)

        def build() -> list[Edit]:
            nonlocal versions
            versions = source.inode.version, target.inode.version
            return [_link(source, there, target.base), _link(target, here, source.base)]

        def landed(listing: Listing, outcomes: tuple[Outcome, ...]) -> None:
            target.detach()
            for edge, place, outcome, version in (
                (source, there, outcomes[0], versions[0]),
                (target, here, outcomes[1], versions[1]),
            ):
                self._settle_at(edge, place, outcome, listing, version)

        await source.directory.publisher.submit(Request(build, landed, claims=(source, target)))

    async def _exchange_across(self, source: Edge, target: Edge, here: Place, there: Place) -> None:
        passing = Place(here.parent, f".lafs-exchange-{secrets.token_hex(8)}", None)
        here_publisher = here.parent.directory.publisher
        there_publisher = there.parent.directory.publisher
        claims = (source, target)
        versions = [0, 0]
        target_cap = target.base

        def link_there() -> list[Edit]:
            versions[0] = source.inode.version
            return [_link(source, there, target.base)]

        def landed_there(listing: Listing, outcomes: tuple[Outcome, ...]) -> None:
            target.detach()
            target.base = source.base  # what its new place has under the name
            self._settle_at(source, there, outcomes[0], listing, versions[0])

        def link_here() -> list[Edit]:
            versions[1] = target.inode.version
            return [_link(target, here, target.base), Unlink(passing.name, target_cap)]

        def landed_here(listing: Listing, outcomes: tuple[Outcome, ...]) -> None:
            for edge in here.parent.directory.all_edges_at(here.name):
                self._tree.lose(edge)
            self._settle_at(target, here, outcomes[0], listing, versions[1])

        await here_publisher.submit(
            Request(lambda: [_link(target, passing, Base.ABSENT)], lambda listing, outcomes: None)
        )
        await there_publisher.submit(Request(link_there, landed_there, claims=claims))
        await here_publisher.submit(Request(link_here, landed_here, claims=claims))

    # settling

    def _settle_at(
        self, edge: Edge, place: Place, outcome: Outcome, listing: Listing, version: int
    ) -> None:
        """An edge has landed at ``place``, or beside it if somebody was there first."""
        name = outcome.name if isinstance(outcome, Conflict) else place.name
        self._names.changed(edge.parent)
        self._names.changed(place.parent)
        if isinstance(edge.inode, LoopInode):
            self._tree.lose(edge)  # where it is now it need not be a loop
            return
        edge.raw_name = None if isinstance(outcome, Conflict) else place.raw_name
        edge.published = version
        edge.move(place.parent.directory, place.parent, name)
        remember_grid(edge, listing)
        self._tree.mark_pending(edge)

    def _replace(self, place: Place) -> None:
        """What was under the name is no more."""
        for edge in place.parent.directory.all_edges_at(place.name):
            self._names.gone(edge)

    def _stamp(self, inode: Inode) -> None:
        inode.posix = replace(inode.posix, ctime=self._tree.now())


class _Landing:
    """The edit that links an edge's child at a new place, and what follows from it."""

    def __init__(self, renaming: Renaming, source: Edge, target: Edge | None, place: Place) -> None:
        self._renaming = renaming
        self._source = source
        self._target = target
        self._place = place
        self._version = 0
        self.claims = (source, *place.parent.directory.all_edges_at(place.name))

    def link(self) -> SetChild:
        """Called when the batch is collected."""
        self._version = self._source.inode.version
        base = Base.ABSENT if self._target is None else self._target.base
        return _link(self._source, self._place, base)

    def landed(self, listing: Listing, outcome: Outcome) -> None:
        """Called when it has landed."""
        if not isinstance(outcome, Conflict):
            self._renaming._replace(self._place)
        self._renaming._settle_at(self._source, self._place, outcome, listing, self._version)


def _link(edge: Edge, place: Place, base: BaseCap) -> SetChild:
    """Link the edge's child at ``place``, with all the metadata that it has where it is."""
    inode = edge.inode
    cap = inode.cap
    assert cap is not None
    latest = edge.directory.node.latest
    child = None if latest is None else latest.get(edge.name)
    metadata = {} if child is None else dict(child.metadata)
    if not isinstance(inode, LoopInode) and not isinstance(cap, UnknownCap):
        metadata.update(metadata_for(inode, place.raw_name))
    return SetChild(place.name, cap, metadata, base=base, replace=True)


def _require_outside(inode: Inode, parent: DirectoryInode) -> None:
    """Raises InvalidRequestError for moving a directory into itself."""
    if isinstance(inode, DirectoryInode):
        index = inode.cap.storage_index
        if any(one is inode or (index and one.cap.storage_index == index) for one in parent.path()):
            raise InvalidRequestError("a directory cannot be moved into itself")


def _unsaved(*edges: Edge) -> FileInode | None:
    """A file that the grid does not have under its name yet."""
    for edge in edges:
        inode = edge.inode
        if isinstance(inode, FileInode) and (inode.cap is None or edge.base is Base.ABSENT):
            return inode
    return None
