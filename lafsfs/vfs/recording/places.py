"""Where directories are in which something is recorded: rows for the names that lead to them.

What is pending in a directory may depend on where that is: whether others have removed it
meanwhile, whether it can be reached (:mod:`lafsfs.vfs.publishing.removals`). After a crash nobody
has looked the way down to it. So each name on that way has a row: its own if something of it is
pending, else a *place*, which says what the grid has there.

A row counts for the directories that it is *inside*: the one that the name is in, and others whose
place matters. A place counts for the directory above, and is there as long as something counts for
the directory that it leads to; of several paths to that, one has a row. A place that others have
changed meanwhile is no harm: the tree follows the grid when it is looked up.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lafsfs.caps import DirectoryCap
from lafsfs.vfs.recording.records import PlaceRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lafsfs.vfs.tree.directories import Directory


@dataclass(frozen=True, slots=True)
class Place:
    """The row of a place: its id, what it says, and the directory above."""

    row: int
    record: PlaceRecord
    above: Directory


@dataclass(frozen=True, slots=True)
class PlacePlan:
    """Which places there are to be. ``inside``: by how many rows more count for a directory."""

    inside: Counter[Directory]
    places: dict[Directory, Place | None] = field(default_factory=dict)


class Places:
    """The rows of places, by the directory that they lead to."""

    def __init__(self, new_row: Callable[[], int]) -> None:
        self._new_row = new_row
        self._places: dict[Directory, Place] = {}
        self._inside: Counter[Directory] = Counter()

    def plan(self, inside: Mapping[Directory, int], changed: Iterable[Directory]) -> PlacePlan:
        """What follows if so many more rows count for directories, and others have changed."""
        plan = PlacePlan(Counter(inside))
        todo = [*inside, *changed]
        while todo:
            directory = todo.pop()
            before = plan.places.get(directory, self._places.get(directory))
            after = None
            if self._inside[directory] + plan.inside[directory] > 0:
                after = self._place_of(directory)
            if after == before:
                continue
            plan.places[directory] = after
            for place, more in ((before, -1), (after, 1)):
                if place is not None:
                    plan.inside[place.above] += more
                    todo.append(place.above)
        return plan

    def puts(self, plan: PlacePlan) -> dict[int, bytes]:
        """The values of rows to be put."""
        return {
            place.row: place.record.pack()
            for directory, place in plan.places.items()
            if place is not None and place != self._places.get(directory)
        }

    def deletes(self, plan: PlacePlan) -> list[int]:
        """The ids of rows to be deleted."""
        gone = (self._places.get(one) for one, place in plan.places.items() if place is None)
        return [place.row for place in gone if place is not None]

    def take_note(self, plan: PlacePlan) -> None:
        """The plan is committed."""
        for directory, place in plan.places.items():
            if place is None:
                self._places.pop(directory, None)
            else:
                self._places[directory] = place
        for directory, more in plan.inside.items():
            self._inside[directory] += more
            if not self._inside[directory]:
                del self._inside[directory]

    def adopt(self, directory: Directory, row: int) -> bool:
        """Take a row for that of the place of ``directory``; False if that has none now."""
        place = self._place_of(directory, row)
        if place is None:
            return False
        self._places[directory] = place
        self._inside[place.above] += 1
        return True

    def adopt_inside(self, directories: Iterable[Directory]) -> None:
        """A row that there is counts for these."""
        self._inside.update(directories)

    def _place_of(self, directory: Directory, row: int | None = None) -> Place | None:
        """Where it is, if that needs a row of its own."""
        bindings = [edge.binding for one in directory.inodes.values() for edge in one.edges]
        for binding in bindings:
            above, entry = binding.directory, binding.entry
            cap = above.node.cap
            if binding.holds or entry is None or not isinstance(cap, DirectoryCap):
                return None
            if row is None:
                known = self._places.get(directory)
                row = self._new_row() if known is None else known.row
            return Place(row, PlaceRecord(cap, binding.name, entry), above)
        return None
