"""Waiting until something is on the grid: whose turn is it, and when is it over?

What waits for contents that are not uploaded is not waited for: that is for whoever uploads them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lafsfs.errors import LafsError

if TYPE_CHECKING:
    from lafsfs.vfs.publishing.publisher import Outgoing, Publisher
    from lafsfs.vfs.tree.bindings import Binding, Edge
    from lafsfs.vfs.tree.directories import Directory


async def settle_name(binding: Binding) -> None:
    """Wait until the grid has what is wanted under a name now, and the directories above it.

    Raises:
        LafsError: it has not; it stays pending.
    """
    told = [(edge, edge.inode.version) for edge in binding.edges]
    while binding in binding.directory.dirty and not _has_told(binding, told):
        publisher = _next_publisher(binding, set())
        if publisher is None or not await publisher.attempt():
            return
    for edge, _ in told:
        if edge.is_attached and edge.parent.edges:
            await settle_name(edge.parent.edges[0].binding)


async def settle_all(outgoing: Outgoing) -> dict[Directory, LafsError]:
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
