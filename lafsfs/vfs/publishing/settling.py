"""Bringing to the grid what is pending now, and waiting until it is there.

One name (:func:`settle_name`): whose turn is it to publish, and when is it over? What waits for
contents that are not uploaded is not waited for: that is for whoever uploads them.

Everything (:func:`settle_everything`): all uploads are due at once. A directory is published when
the files that it names are on the grid, or have failed, and the directories that it names are
published: so each is published once, a new one with all that is in it, and does not wait for other
directories' files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from lafsfs.errors import LafsError
from lafsfs.vfs.tree.inodes import DirectoryInode, FileInode
from lafsfs.vfs.tree.paths import depth_of

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from lafsfs.vfs.publishing.publisher import Outgoing, Publisher
    from lafsfs.vfs.publishing.uploader import Uploader
    from lafsfs.vfs.tree.bindings import Binding, Edge
    from lafsfs.vfs.tree.directories import Directory
    from lafsfs.vfs.tree.inodes import Inode
    from lafsfs.vfs.tree.tree import Tree


# --- names ----------------------------------------------------------------------------------------


async def settle_name(binding: Binding) -> None:
    """Wait until the grid has what is wanted under a name now, and the directories above it.

    Raises:
        LafsError: it has not; it stays pending.
    """
    seen = {binding}
    ahead = [binding]
    while ahead:
        for edge in await _settle_one(ahead.pop()):
            above = edge.parent.edges[0].binding if edge.is_attached and edge.parent.edges else None
            if above is not None and above not in seen:
                seen.add(above)
                ahead.append(above)


async def _settle_one(binding: Binding) -> list[Edge]:
    """Wait until the grid has what is wanted under a name now; what led from there."""
    told = [(edge, edge.inode.version) for edge in binding.edges]
    while binding in binding.directory.dirty and not _has_told(binding, told):
        publisher = _next_publisher(binding, set())
        if publisher is None or not await publisher.attempt():
            return []
    return [edge for edge, _ in told]


async def settle_names(outgoing: Outgoing) -> dict[Directory, LafsError]:
    """Bring to the grid what can be brought there; what stood in the way, by directory."""
    errors: dict[Directory, LafsError] = {}
    going = True

    async def attempt(directory: Directory) -> None:
        nonlocal going
        try:
            taken = await directory.publisher.attempt()
            going = going or taken
        except LafsError as error:
            errors[directory] = error

    while going:
        going = False
        async with trio.open_nursery() as nursery:
            for directory in tuple(outgoing.pending):
                if directory not in errors:
                    nursery.start_soon(attempt, directory)
    return errors


def _has_told(binding: Binding, told: list[tuple[Edge, int]]) -> bool:
    """Whether the grid has heard of all that was wanted under a name."""
    return bool(told) and all(
        edge.published >= version for edge, version in told if edge in binding.edges
    )


def _next_publisher(binding: Binding, seen: set[Binding]) -> Publisher | None:
    """Whose turn it is before a pending binding is on the grid; None for nobody's."""
    seen.add(binding)
    if binding.in_flight is not None:
        return binding.directory.publisher
    for edge in binding.edges:
        below = edge.inode.below
        if below is not None and below.node.is_new:
            return below.first_to_make.publisher
        if not edge.inode.is_linkable:
            return None
    for edge in binding.awaited():
        if edge.binding not in seen:
            first = _next_publisher(edge.binding, seen)
            if first is None or first is not binding.directory.publisher:
                return first
    return binding.directory.publisher


# --- everything -----------------------------------------------------------------------------------


async def settle_everything(tree: Tree, uploader: Uploader) -> tuple[LafsError, ...]:
    """One attempt; an error for each inode of which something is still pending."""
    return await _Settling(tree, uploader).run()


@dataclass(eq=False, slots=True)
class _Group:
    """What is pending of the inodes that one directory names. ``depth``: directories above."""

    inodes: list[Inode] = field(default_factory=list)
    depth: int = 0
    done: trio.Event = field(default_factory=trio.Event)

    def add(self, inode: Inode) -> None:
        self.inodes.append(inode)
        self.depth = max(self.depth, depth_of(inode))


class _Settling:
    """One attempt at everything."""

    def __init__(self, tree: Tree, uploader: Uploader) -> None:
        self._tree = tree
        self._uploader = uploader
        self._errors: dict[Inode, LafsError] = {}

    async def run(self) -> tuple[LafsError, ...]:
        groups: dict[Directory, _Group] = {}
        for inode in (one for one in self._tree.table if one.is_pending):
            for directory in {edge.binding.directory for edge in inode.edges}:
                groups.setdefault(directory, _Group()).add(inode)
        self._uploader.hurry()
        async with trio.open_nursery() as nursery:
            for group in groups.values():
                nursery.start_soon(self._bring, group, groups)
        # What has no inode: names that were taken away.
        others = await settle_names(self._tree.outgoing)
        return tuple(dict.fromkeys((*self._errors.values(), *others.values())))

    async def _bring(self, group: _Group, groups: dict[Directory, _Group]) -> None:
        """What one directory names: the contents, then the names."""
        try:
            for inode in group.inodes:  # all are on their way at once
                if isinstance(inode, FileInode):
                    await self._attempt(inode, self._uploader.bring(inode))
                elif isinstance(inode, DirectoryInode):
                    below = groups.get(inode.directory)
                    if below is not None and below.depth > group.depth:  # so nobody waits in a ring
                        await below.done.wait()
            async with trio.open_nursery() as nursery:
                for inode in group.inodes:
                    if inode not in self._errors:
                        nursery.start_soon(self._attempt, inode, self._tree.settle(inode))
        finally:
            group.done.set()

    async def _attempt(self, inode: Inode, work: Awaitable[None]) -> None:
        try:
            await work
        except LafsError as error:
            self._errors[inode] = error
