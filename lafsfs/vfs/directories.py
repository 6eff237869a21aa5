"""Directories as the vfs sees them: the newest listing, and the edges that are in use.

A :class:`Directory` is shared by all paths to the same capability. What it shows under a name is
the edge in use, if there is one that holds or agrees with the listing, else the listing's child.

Rules:

- Listings are believed for ``max_age`` seconds. When the grid cannot be asked, the last listing is
  shown and the grid is left alone for as long again: names and attributes that were seen once stay
  visible while servers are away. Only a directory that was never read raises.
- After a publish that failed the next look is at the grid: it may have landed all the same.
- Listings are not compared with the edges in use when they arrive, which would take long for big
  directories, but edge by edge when somebody looks (:mod:`lafsfs.vfs.tree`).
- ``lock`` is held by whoever changes names, for as long as the publish takes. Looking up, reading
  and writing files never need it. Two directories are locked in the order of their ``ordinal``.
"""

from __future__ import annotations

import itertools
import logging
import re
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from lafsfs.errors import FormatError, GridError, ReadOnlyCapabilityError, ServerError
from lafsfs.vfs.attributes import nanoseconds
from lafsfs.vfs.names import is_representable, local_name, may_be_escaped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from lafsfs.nodes.dirnode import DirectoryNode
    from lafsfs.nodes.listing import Listing
    from lafsfs.vfs.inodes import DirectoryInode, Edge
    from lafsfs.vfs.publisher import Publisher

log = logging.getLogger(__name__)

LONGEST_REST: Final = 10.0  # seconds for which a grid that did not answer is left alone
THREAD_CHILDREN: Final = 2000  # children above which going through all of them takes over 2 ms
_LINK_TIME: Final = re.compile(rb'"linkcrtime"\s*:\s*([0-9][0-9.eE+-]{0,30})')
T = TypeVar("T")
_ordinals = itertools.count()


class Directory:
    """One directory, on however many paths."""

    def __init__(self, node: DirectoryNode, publisher: Publisher) -> None:
        self.node = node
        self.publisher = publisher
        self.edges: dict[tuple[str, int], Edge] = {}
        self.inodes: dict[int, DirectoryInode] = {}  # by number: one for each path in use
        self.dirty: dict[Edge, None] = {}  # pending edges, in the order they became so
        self.lock = trio.Lock()
        self.ordinal = next(_ordinals)
        self.is_doubtful = False  # a publish failed: what the grid has must be looked at
        self.changed = 0  # ns: when we last changed a name here, 0 for never
        self._ask_again_at = float("-inf")
        self._newest: tuple[Listing, int] | None = None
        self._escaped: tuple[Listing, dict[bytes, str]] | None = None

    def __repr__(self) -> str:
        return f"<Directory {self.node.cap.digest}>"

    async def listing(self, max_age: float | None) -> Listing:
        """The children on the grid, as of at most ``max_age`` seconds ago if it can be asked.

        Raises:
            LafsError: it cannot be asked and never could.
        """
        latest = self.node.latest
        if latest is not None and trio.current_time() < self._ask_again_at:
            return latest
        try:
            listing = await self.node.table(0 if self.is_doubtful else max_age)
            self.is_doubtful = False
            return listing
        except (GridError, ServerError, FormatError) as error:
            if self.node.latest is None:
                raise
            log.warning("directory %s shown as last seen: %s", self.node.cap.digest, error)
            self._ask_again_at = trio.current_time() + min(max_age or 0.0, LONGEST_REST)
            return self.node.latest

    @property
    def is_in_use(self) -> bool:
        """Whether any path to it is."""
        return bool(self.inodes)

    def edge_at(self, parent: DirectoryInode, name: str) -> Edge | None:
        """The edge in use under ``name`` for the path that leads through ``parent``."""
        return self.edges.get((name, 0)) or self.edges.get((name, parent.number))

    def all_edges_at(self, name: str) -> list[Edge]:
        """The edges in use under ``name`` on all paths."""
        keys = [(name, 0), *((name, number) for number in self.inodes)]
        return [self.edges[key] for key in keys if key in self.edges]

    def unpublished(self) -> list[Edge]:
        """Edges in use that the grid has never heard of."""
        return [edge for edge in self.dirty if edge.is_new]

    def require_writable(self) -> None:
        """Raises ReadOnlyCapabilityError if this directory can only be read."""
        if not self.node.can_write:
            raise ReadOnlyCapabilityError("the capability of this directory reads only")

    async def stored_name_of(self, listing: Listing, local: bytes) -> str | None:
        """Which child is shown under an escaped name."""
        if not may_be_escaped(local):
            return None
        if self._escaped is None or self._escaped[0] is not listing:
            self._escaped = (listing, await _over(listing, _escaped_names))
        return self._escaped[1].get(local)

    @property
    def newest_link(self) -> int | None:
        """When the newest name appeared, in ns; 0 without names, None if that is not known yet."""
        listing = self.node.latest
        if listing is None:
            return None
        if self._newest is None or self._newest[0] is not listing:
            if len(listing) >= THREAD_CHILDREN:
                return None
            self._newest = (listing, _newest_link(listing))
        return max(self.changed, self._newest[1])

    @property
    def newest_seen(self) -> int:
        """The newest time at which a name appeared or went that anybody was shown, in ns."""
        return self.changed if self._newest is None else max(self.changed, self._newest[1])

    async def learn_newest_link(self, max_age: float | None) -> None:
        """Make :attr:`newest_link` known, if the grid can be asked at all."""
        try:
            listing = await self.listing(max_age)
        except (GridError, ServerError, FormatError):
            return
        if self.newest_link is None:
            self._newest = (listing, await _over(listing, _newest_link))


@asynccontextmanager
async def locked(*directories: Directory) -> AsyncIterator[None]:
    """Hold the locks of several directories, in the order that everybody takes them in."""
    ordered = sorted(set(directories), key=lambda directory: directory.ordinal)
    async with AsyncExitStack() as stack:
        for directory in ordered:
            await stack.enter_async_context(directory.lock)
        yield


async def _over(listing: Listing, function: Callable[[Listing], T]) -> T:
    if len(listing) < THREAD_CHILDREN:
        return function(listing)
    return await trio.to_thread.run_sync(function, listing)


def _escaped_names(listing: Listing) -> dict[bytes, str]:
    names = (name for name in listing if not is_representable(name.encode("utf-8", "replace")))
    return {local_name(name): name for name in names}


def _newest_link(listing: Listing) -> int:
    """Finds time stamps without decoding the JSON around them, which would take far longer."""
    newest = 0
    for entry in listing.table.by_name.values():
        found = _LINK_TIME.search(entry.metadata_json)
        if found is not None:
            newest = max(newest, _stamp(found[1]))
    return newest


def _stamp(text: bytes) -> int:
    try:
        return nanoseconds(float(text)) or 0
    except ValueError:
        return 0
