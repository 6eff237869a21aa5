"""Directories as the vfs sees them: the newest listing, and the names that are in use.

A :class:`Directory` is shared by all paths to the same capability. What it shows under a name is
what the binding in use leads to, if there is one that holds or agrees with the listing, else the
listing's child (:mod:`lafsfs.vfs.tree.bindings`, :mod:`lafsfs.vfs.tree.tree`).

Rules:

- Listings are believed for ``max_age`` seconds. When the grid cannot be asked, the last listing is
  shown and the grid is left alone for as long again: names and attributes that were seen once stay
  visible while servers are away. Only a directory that was never read raises.
- After a publish that failed the next look is at the grid: it may have landed all the same.
- Listings are not compared with the bindings in use when they arrive, which would take long for big
  directories, but name by name when somebody looks.
- Whoever changes what is wanted under a name, or learns what the grid has there, says so with
  :meth:`Directory.note`, between the same two awaits.
- A directory that was removed keeps what is pending in it to itself: whether it is empty depends on
  that. It is published no more unless the removal turns out not to be.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from lafsfs.errors import FormatError, GridError, ReadOnlyCapabilityError, ServerError
from lafsfs.vfs.posix.attributes import nanoseconds
from lafsfs.vfs.posix.names import is_representable, local_name, may_be_escaped
from lafsfs.vfs.publishing.publisher import Publisher
from lafsfs.vfs.tree.bindings import Binding
from lafsfs.vfs.tree.paths import shown_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from lafsfs.nodes.dirnode import DirectoryNode
    from lafsfs.nodes.listing import Child, Listing
    from lafsfs.vfs.publishing.publisher import Outgoing
    from lafsfs.vfs.tree.inodes import DirectoryInode, Inode

log = logging.getLogger(__name__)

LONGEST_REST: Final = 10.0  # seconds for which a grid that did not answer is left alone
THREAD_CHILDREN: Final = 2000  # children above which going through all of them takes over 2 ms
_LINK_TIME: Final = re.compile(rb'"linkcrtime"\s*:\s*([0-9][0-9.eE+-]{0,30})')
T = TypeVar("T")


class Directory:
    """One directory, on however many paths."""

    def __init__(self, node: DirectoryNode, outgoing: Outgoing) -> None:
        self.node = node
        self.publisher = Publisher(self, outgoing)
        self.names: dict[str, Binding] = {}  # the bindings in use, by stored name
        self.inodes: dict[int, DirectoryInode] = {}  # by number: one for each path in use
        self.dirty: dict[Binding, float] = {}  # those that are pending, and since when: loop time
        self.is_removed = False  # we took away its name, and nothing is to be published
        self.left_at: dict[Binding, None] = {}  # where it is, or was, among what is left
        self.looks = 0  # that are yet to be taken into it, since a name of it has gone
        self._outgoing = outgoing
        self.is_doubtful = False  # a publish failed: what the grid has must be looked at
        self.changed = 0  # ns: when we last changed a name here, 0 for never
        self._ask_again_at = float("-inf")
        self._newest: tuple[Listing, int] | None = None
        self._escaped: tuple[Listing, dict[bytes, str]] | None = None

    def __repr__(self) -> str:
        return f"<Directory {self.node.cap.digest}>"

    @property
    def shown(self) -> str:
        """How to name it in messages: by the first path that it is in use on."""
        inode = next(iter(self.inodes.values()), None)
        if inode is None:
            return f"directory {self.node.cap.digest}"
        return f"folder {shown_path(inode)}" if inode.edges else "the mounted folder"

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
            log.warning("%s is shown as last seen: %s", self.shown, error)
            self._ask_again_at = trio.current_time() + min(max_age or 0.0, LONGEST_REST)
            return self.node.latest

    @property
    def is_in_use(self) -> bool:
        """Whether any path to it is."""
        return bool(self.inodes)

    @property
    def has_work(self) -> bool:
        """Whether the grid has yet to hear of something."""
        if self.is_removed:
            return False
        return bool(self.dirty) or self.node.is_new or self.publisher.is_unfinished

    def has_work_below(self, inode: Inode) -> bool:
        """Whether the grid has yet to hear of something in ``inode`` or further down."""
        pending = [one for other in self._outgoing.pending for one in other.inodes.values()]
        if any(above is inode for one in pending for above in one.path()):
            return True
        return inode.below is not None and inode.below._has_contents_below()

    def _has_contents_below(self) -> bool:
        """Whether a file in it, or further down, has contents that the grid has not."""
        seen = {self}
        ahead = [self]
        while ahead:
            one = ahead.pop()
            for inode in (edge.inode for binding in one.names.values() for edge in binding.edges):
                if inode.is_dirty:
                    return True
                if inode.below is not None and inode.below not in seen:
                    seen.add(inode.below)
                    ahead.append(inode.below)
        return False

    @property
    def first_to_make(self) -> Directory:
        """Itself, or the new directory below it that is to be made before it."""
        if self.node.is_new:
            for binding in self.dirty:
                inode = binding.edges[0].inode if binding.edges else None
                below = None if inode is None else inode.below
                if below is not None and below.node.is_new and not below.publisher.is_failing:
                    return below.first_to_make
        return self

    def bind(self, name: str) -> Binding:
        """The binding of a stored name, a new one if it is not in use."""
        binding = self.names.get(name)
        if binding is None:
            binding = self.names[name] = Binding(self, name)
        return binding

    def note(self, binding: Binding) -> None:
        """What is wanted under a name, or what the grid has there, has changed."""
        self._outgoing.recorder.changed_name(binding)
        if binding.is_pending:
            self.dirty.setdefault(binding, trio.current_time())
            self.publisher.kick()
            self.note_work()
        elif binding.edges:
            self._clean(binding)
        else:
            self.drop(binding)

    def mark_removed(self, removed: bool) -> None:
        """It has lost its last name here, or has one (again)."""
        self.is_removed = removed
        self.note_work()
        if self.has_work:
            self.publisher.kick()

    @property
    def is_left(self) -> bool:
        """Whether the grid may still have it where it is not wanted any more.

        So it is until whoever takes it away has looked into it again. That may be in a directory
        that was removed itself, and is left; those that are left in each other only, are not.
        """
        seen = {self}
        ahead = [self]
        while ahead:
            one = ahead.pop()
            left_in = one._left_in()
            if one.looks or not all(above.is_removed for above in left_in):
                return True
            ahead += left_in - seen
            seen |= left_in
        return False

    def _left_in(self) -> set[Directory]:
        self.left_at = {one: None for one in self.left_at if one.has_left(self)}
        return {one.directory for one in self.left_at}

    def abandon(self) -> None:
        """What was pending in it is over, if it was removed and nobody has to know any more."""
        if self.is_removed and not self.is_left:
            below = self.removed_below()
            for binding in tuple(self.dirty):
                self.drop(binding)
            self.publisher.removals.abandon()
            for directory in below:
                directory.abandon()

    def removed_below(self) -> list[Directory]:
        """Directories that were removed from it, which the grid may still have in it."""
        found = [inode.below for binding in self.names.values() for inode in binding.left]
        found += self.publisher.removals.below
        return [below for below in found if below is not None and below.is_removed]

    def drop(self, binding: Binding) -> None:
        """Think no more of a name, whatever was wanted there."""
        if binding in self.dirty:
            self._outgoing.recorder.changed_name(binding)
            self._clean(binding)
        if self.names.get(binding.name) is binding:
            del self.names[binding.name]

    def _clean(self, binding: Binding) -> None:
        """Nothing is pending of a name any more, and nobody needs to wait for it."""
        self.dirty.pop(binding, None)
        self.note_work()
        self._outgoing.moved_on()

    def note_work(self) -> None:
        """Keep in mind whether the grid has yet to hear of something."""
        if self.has_work:
            self._outgoing.pending[self] = None
        else:
            self._outgoing.pending.pop(self, None)

    @property
    def is_being_filled(self) -> bool:
        """Whether there will be something in it, by our doing alone."""
        latest = self.node.latest
        if latest is None or latest.table.unreadable:
            return False
        if not any(edge.is_new for binding in self.dirty for edge in binding.edges):
            return False
        return all(self._is_removed(child) for child in latest.values())

    def is_empty(self, listing: Listing) -> bool:
        """Whether there is nothing in it, not even what cannot be shown or has yet to come back."""
        if listing.table.unreadable or any(b.edges and b.holds for b in self.names.values()):
            return False
        if self.publisher.removals.revivals:
            return False
        return all(self._is_removed(child) for child in listing.values())

    def _is_removed(self, child: Child) -> bool:
        binding = self.names.get(child.name)
        return binding is not None and binding.is_removal and binding.hides(child)

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
