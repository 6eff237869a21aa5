"""The tree without FUSE: from locations to nodes, and the changes the commands make.

Everything here goes through :class:`~lafsfs.nodes.maker.NodeMaker` and its directories' ``edit``,
with the base of each edit, so that the commands and a mount may work on one tree at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lafsfs.errors import (
    ChildExistsError,
    DirectoryNotEmptyError,
    IsADirectoryNodeError,
    NoSuchChildError,
    NotADirectoryNodeError,
    ReadOnlyCapabilityError,
    UsageError,
)
from lafsfs.nodes.dirnode import DirectoryNode, move
from lafsfs.nodes.edits import Base, Conflict, Kept, SetChild, Unlink, normalized

if TYPE_CHECKING:
    from lafsfs.caps import Cap, MutableFormat, UnknownCap
    from lafsfs.cli.locations import Location
    from lafsfs.nodes.edits import Outcome
    from lafsfs.nodes.listing import Child
    from lafsfs.nodes.maker import NodeMaker


@dataclass(frozen=True, slots=True)
class Slot:
    """A name in a directory, and the child that it leads to, if any."""

    directory: DirectoryNode
    name: str
    child: Child | None
    where: Location

    @property
    def base(self) -> Base | Cap | UnknownCap:
        """What an edit of this name is based on."""
        return Base.ABSENT if self.child is None else self.child.cap


async def find_cap(maker: NodeMaker, where: Location) -> Cap | UnknownCap:
    """The capability at a location.

    Raises:
        NoSuchChildError: the path leads nowhere.
        NotADirectoryNodeError: the path goes through something that is not a directory.
    """
    if not where.path:
        return where.root
    slot = await find_slot(maker, where)
    return existing(slot).cap


async def find_directory(maker: NodeMaker, where: Location) -> DirectoryNode:
    """The directory at a location. Raises as :func:`find_cap`, and if it is something else."""
    cap = await find_cap(maker, where)
    if not cap.is_directory:
        raise NotADirectoryNodeError(f"{where.shown} is not a directory")
    return maker.directory(cap)


async def find_slot(maker: NodeMaker, where: Location) -> Slot:
    """The name at the end of a location, taken or free; the directory must exist.

    Raises:
        UsageError: the location is the root of a tree, which has no name.
        NoSuchChildError, NotADirectoryNodeError: as :func:`find_cap`.
    """
    parent = where.parent
    directory = await find_directory(maker, parent)
    name = normalized(where.path[-1])
    listing = await directory.table()
    return Slot(directory, name, listing.get(name), where)


def existing(slot: Slot) -> Child:
    """The child there. Raises NoSuchChildError."""
    if slot.child is None:
        raise NoSuchChildError(f"{slot.where.shown} does not exist")
    return slot.child


def require_write(slot: Slot) -> None:
    """Find out before anything is uploaded. Raises ReadOnlyCapabilityError."""
    if not slot.directory.can_write:
        raise ReadOnlyCapabilityError(
            f"the capability of the directory of {slot.where.shown} reads only"
        )


async def find_target(maker: NodeMaker, where: Location, name: str | None) -> Slot:
    """Where to put something called ``name``: in the directory at ``where``, or under that name.

    As with cp and mv: an existing directory takes things in, anything else is replaced.
    """
    if where.path:
        slot = await find_slot(maker, where)
        if slot.child is None or not slot.child.read_cap.is_directory:
            return slot
    if name is None:
        raise UsageError(f"{where.shown} is a directory: say what to call it there")
    slot = await find_slot(maker, where.child(name))
    if slot.child is not None and slot.child.read_cap.is_directory:
        raise IsADirectoryNodeError(f"{slot.where.shown} is a directory and is not replaced")
    return slot


async def link(slot: Slot, cap: Cap | UnknownCap) -> Outcome:
    """Make the name lead to ``cap``. A Conflict says where it went if someone was faster."""
    edit = SetChild(slot.name, cap, base=slot.base)
    return (await slot.directory.edit([edit])).outcomes[0]


async def make_directory(
    maker: NodeMaker, where: Location, format: MutableFormat | None, *, parents: bool
) -> Outcome | None:
    """Make an empty directory, an immutable one if ``format`` is None.

    With ``parents`` missing directories on the way are made too, and one that is there already is
    fine (the result is None then).

    Raises:
        ChildExistsError: the name is taken.
    """
    if parents and where.path and where.parent.path:
        await make_directory(maker, where.parent, format, parents=True)
    if parents and not where.path:
        return None
    slot = await find_slot(maker, where)
    if slot.child is not None:
        if parents and slot.child.read_cap.is_directory:
            return None
        raise ChildExistsError(f"{where.shown} exists already")
    require_write(slot)
    if format is None:
        made = await maker.create_immutable_directory({})
    else:
        made = await maker.create_directory(format)
    return await link(slot, made.cap)


async def remove(maker: NodeMaker, where: Location, *, recursive: bool) -> bool:
    """Unlink a name; what it led to stays on the grid for whoever has other ways to it.

    False if somebody changed the name meanwhile, so that it was kept.

    Raises:
        NoSuchChildError: nothing there.
        DirectoryNotEmptyError: a directory with children, and not ``recursive``.
    """
    slot = await find_slot(maker, where)
    child = existing(slot)
    if (
        child.read_cap.is_directory
        and not recursive
        and len(await maker.directory(child.cap).table())
    ):
        raise DirectoryNotEmptyError(f"{where.shown} is not empty; rm -r removes it all the same")
    result = await slot.directory.edit([Unlink(slot.name, base=child.cap)])
    return not isinstance(result.outcomes[0], Kept)


async def rename(maker: NodeMaker, source: Location, target: Location) -> Outcome:
    """Move a child with its metadata: link first, unlink second, so that it is never lost.

    Raises:
        NoSuchChildError: nothing at ``source``.
        UsageError: a directory would go into itself.
        IsADirectoryNodeError: a directory is in the way.
    """
    from_slot = await find_slot(maker, source)
    child = existing(from_slot)
    to_slot = await find_target(maker, target, from_slot.name)
    if child.read_cap.is_directory:
        await _refuse_loop(maker, child, to_slot)
        if to_slot.child is not None:
            raise ChildExistsError(f"{to_slot.where.shown} is in the way")
    return await move(from_slot.directory, from_slot.name, to_slot.directory, to_slot.name)


async def _refuse_loop(maker: NodeMaker, child: Child, target: Slot) -> None:
    """A directory that was moved below itself could not be reached any more."""
    moved = child.cap.verify_cap()
    above: Location = target.where
    while above.path and moved is not None:
        above = above.parent
        if (await find_cap(maker, above)).verify_cap() == moved:
            raise UsageError("a directory cannot be moved into itself")


def conflict_message(outcome: Outcome | None, where: Location) -> str | None:
    """What to tell the user if an edit met somebody else's."""
    if isinstance(outcome, Conflict):
        return f"{where.shown} was changed by somebody else meanwhile; yours is {outcome.name!r}"
    return None
