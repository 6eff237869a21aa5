"""Everything below a directory, one object at a time, loops and all.

Directories may contain each other and one object may have many names, so a walk remembers what it
has met (by verify capability, as stock's deep traversal does) and visits each object once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lafsfs.errors import LafsError
from lafsfs.nodes.dirnode import DirectoryNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lafsfs.caps import Cap, DirectoryCap, UnknownCap
    from lafsfs.nodes.listing import Child
    from lafsfs.nodes.maker import NodeMaker


@dataclass(frozen=True, slots=True)
class Step:
    """One object on the way.

    Attributes:
        path: the names that lead to it, outermost first; empty for where the walk began.
        child: the edge it was found through, ``None`` for the beginning.
        error: why a directory could not be read, which the walk survives; else ``None``.
    """

    path: tuple[str, ...]
    cap: Cap | UnknownCap
    child: Child | None
    error: LafsError | None = None


async def walk(maker: NodeMaker, start: DirectoryCap) -> AsyncIterator[Step]:
    """Visit ``start`` and all that can be reached from it, depth first, each object once.

    Objects without a verify capability (literals, unknown ones) cannot be told apart and are
    visited wherever they are met.
    """
    met: set[Cap] = set()
    ahead: list[Step] = [Step((), start, None)]
    while ahead:
        step = ahead.pop()
        verify_cap = step.cap.verify_cap()
        if verify_cap is not None:
            if verify_cap in met:
                continue
            met.add(verify_cap)
        node = maker.node(step.cap)
        if not isinstance(node, DirectoryNode):
            yield step
            continue
        try:
            listing = await node.table()
        except LafsError as error:
            yield Step(step.path, step.cap, step.child, error)
            continue
        yield step
        children = [Step((*step.path, name), child.cap, child) for name, child in listing.items()]
        ahead.extend(reversed(children))
