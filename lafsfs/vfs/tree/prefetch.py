"""Directory tables fetched ahead of who walks a tree.

Theory. A program that walks a tree lists a directory and then opens its subdirectories one after
the other, waiting for the grid each time. So when a listing is handed out, the tables of the first
subdirectories in it are fetched, several at once, and each time that one of them is opened the next
ones follow. Who only looks at one directory costs the grid :data:`WINDOW` tables and no more; who
walks on finds every table there.

Rules:

- Only what is in use by the kernel is fetched: inodes are neither made nor kept for it.
- At most :data:`PARALLEL` fetches are under way in all, each from a task in the mount's nursery. A
  fetch that fails is forgotten: whoever opens that directory meets the error himself.
- :data:`MAX_LISTINGS` listings are remembered, the ones least recently walked in are given up.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary, ref

from lafsfs.errors import LafsError

if TYPE_CHECKING:
    import trio

    from lafsfs.vfs.tree.directories import Directory

log = logging.getLogger(__name__)

WINDOW: Final = 32  # tables ahead of the walker: four of his steps for each of ours at 100 ms away
PARALLEL: Final = 16  # fetches at once: more than that keeps two cores busy, and servers too
MAX_LISTINGS: Final = 64  # walked in at once: a deep tree, or a few programs in shallow ones


class _Listing:
    """The subdirectories of one directory, in the order in which they were handed out."""

    def __init__(self, directory: ref[Directory]) -> None:
        self.directory = directory
        self.children: list[ref[Directory]] = []
        self.started = 0  # how many were looked at
        self.wanted = WINDOW  # how many should be


class TablePrefetch:
    """One for each mount. ``max_age``: seconds for which a table is as good as a fresh one."""

    def __init__(self, nursery: trio.Nursery, max_age: float) -> None:
        self._nursery = nursery
        self._max_age = max_age
        self._listings: OrderedDict[ref[Directory], _Listing] = OrderedDict()  # latest walked last
        self._places: WeakKeyDictionary[Directory, tuple[_Listing, int]] = WeakKeyDictionary()
        self._running = 0

    def begin(self, parent: Directory) -> None:
        """``parent`` is about to be listed from its beginning."""
        self._listings[ref(parent)] = _Listing(ref(parent))
        self._listings.move_to_end(ref(parent))
        while len(self._listings) > MAX_LISTINGS:
            self._listings.popitem(last=False)

    def handed_out(self, parent: Directory, child: Directory) -> None:
        """``child`` is the next subdirectory in the listing of ``parent``."""
        listing = self._listings.get(ref(parent))
        if listing is None or self._max_age <= 0:
            return
        self._places[child] = (listing, len(listing.children))
        listing.children.append(ref(child))
        self._go_on()

    def used(self, directory: Directory) -> None:
        """Somebody looks into ``directory``: those after it are likely to be next."""
        place = self._places.get(directory)
        if place is not None:
            listing, position = place
            listing.wanted = max(listing.wanted, position + 1 + WINDOW)
            if self._listings.get(listing.directory) is listing:
                self._listings.move_to_end(listing.directory)
            self._go_on()

    def _go_on(self) -> None:
        """Start what is due, for the most recent listing first: a walker goes down before on."""
        for listing in reversed(self._listings.values()):
            while listing.started < min(listing.wanted, len(listing.children)):
                if self._running >= PARALLEL:
                    return
                child = listing.children[listing.started]()
                listing.started += 1
                if child is not None and child.is_in_use and not child.node.is_fresh(self._max_age):
                    self._running += 1
                    self._nursery.start_soon(self._fetch, child)

    async def _fetch(self, directory: Directory) -> None:
        try:
            await directory.listing(self._max_age)
        except LafsError as error:
            log.debug("not fetched ahead: %s", error)
        except Exception:  # nobody waits for it, and the mount must go on
            log.exception("fetching a directory ahead")
        finally:
            self._running -= 1
        self._go_on()
