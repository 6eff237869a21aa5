"""``rename`` in all its forms.

An edge that is renamed *moves*: the same inode under another binding, with its handles, its pending
attributes and the metadata that other clients gave it. Where it was, a removal stays behind if the
grid has something there; what it replaces leaves its name. All that is one step, accepted as one.

The publishers follow (:mod:`lafsfs.vfs.tree.bindings`): in one directory the new name and the
removal of the old one go out together; across directories the new name goes first. Only what
changes places across directories (``RENAME_EXCHANGE``) cannot be both: between the two publishes
other clients see one of the two under both names, and the other, which is accepted and on the grid,
under none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lafsfs.caps import slots_of
from lafsfs.errors import (
    ChildExistsError,
    IsADirectoryNodeError,
    NoSuchChildError,
    NotADirectoryNodeError,
    NotPermittedError,
)
from lafsfs.vfs.api import RENAME_EXCHANGE, RENAME_NOREPLACE, InvalidRequestError
from lafsfs.vfs.posix.names import raw_name, stored_name
from lafsfs.vfs.tree.inodes import DirectoryInode

if TYPE_CHECKING:
    from lafsfs.vfs.tree.bindings import Binding, Edge
    from lafsfs.vfs.tree.inodes import Inode
    from lafsfs.vfs.tree.tree import Tree
    from lafsfs.vfs.verbs.namespace import Namespace


class Renaming:
    """The verb ``rename``."""

    def __init__(self, tree: Tree, namespace: Namespace) -> None:
        self._tree = tree
        self._names = namespace

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        """See :meth:`~lafsfs.vfs.api.FileSystemAPI.rename`."""
        if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
            raise InvalidRequestError("rename knows NOREPLACE and EXCHANGE")
        tree = self._tree
        old, new = tree.directory_inode(parent), tree.directory_inode(new_parent)
        source, target = await self._both(old, name, new, new_name, flags)
        tree.require_room_for_names(old)
        tree.require_room_for_names(new)
        if target is not None and _are_one(source, target):
            binding = source.binding
            if target is source and flags != RENAME_EXCHANGE:
                self._respell(binding, new_name)
            await tree.accept(binding)  # two names of one file: rename(2) leaves both
            return
        _require_movable(source.inode, new)
        if flags == RENAME_EXCHANGE:
            assert target is not None
            _require_movable(target.inode, old)
            changed = self._exchange((source, old, name), (target, new, new_name))
        else:
            stored = stored_name(new_name) if target is None else target.binding.name
            changed = self._replace(source, new, stored, raw_name(new_name, stored))
        await tree.accept(*changed)

    async def _both(
        self, old: DirectoryInode, name: bytes, new: DirectoryInode, new_name: bytes, flags: int
    ) -> tuple[Edge, Edge | None]:
        """Both edges, of the same moment, once they may be renamed to each other."""
        tree = self._tree
        while True:
            tree.require_room_for_names(old)
            tree.require_room_for_names(new)
            source = await tree.find(old, name)
            target = await self._names.find_or_none(new, new_name)
            if target is None:
                if flags == RENAME_EXCHANGE:
                    raise NoSuchChildError("there is nothing to exchange with")
            elif flags == RENAME_NOREPLACE:
                raise ChildExistsError("there is a child of that name already")
            elif flags == 0 and not _are_one(source, target):
                _require_outside(source.inode, new)
                await self._require_replaceable(source.inode, target.inode)
            if source.is_attached and (target is None or target.is_attached):
                return source, target

    async def _require_replaceable(self, inode: Inode, target: Inode) -> None:
        if isinstance(target, DirectoryInode):
            if not isinstance(inode, DirectoryInode):
                raise IsADirectoryNodeError("a directory is in the way")
            await self._names.require_empty(target)
        elif isinstance(inode, DirectoryInode):
            raise NotADirectoryNodeError("something that is no directory is in the way")

    def _respell(self, binding: Binding, name: bytes) -> None:
        """The same name in other bytes: only the metadata changes."""
        raw = raw_name(name, binding.name)
        if binding.raw_name != raw:
            binding.raw_name = raw
            inode = binding.edges[0].inode
            self._tree.touch(inode, inode.posix)

    def _replace(
        self, source: Edge, parent: DirectoryInode, name: str, raw: bytes | None
    ) -> tuple[Binding, Binding]:
        before, old_parent = source.binding, source.parent
        self._prepare(source, parent, name)
        self._names.remove(parent.directory.bind(name))
        source.leave()
        self._enter(source, parent, name, raw)
        self._names.changed(old_parent)
        return source.binding, before

    def _exchange(
        self, one: tuple[Edge, DirectoryInode, bytes], other: tuple[Edge, DirectoryInode, bytes]
    ) -> tuple[Binding, Binding]:
        """Each is an edge, with the directory and the local name that the caller knows it by.

        The edge of a file may be one on another path to the same directory.
        """
        (source, old, name), (target, new, new_name) = one, other
        here, there = source.binding.name, target.binding.name
        self._prepare(source, new, there)
        self._prepare(target, old, here)
        source.leave()
        target.leave()
        self._enter(source, new, there, raw_name(new_name, there))
        self._enter(target, old, here, raw_name(name, here))
        return source.binding, target.binding

    def _prepare(self, edge: Edge, parent: DirectoryInode, name: str) -> None:
        """An edge will be under another name: what it shows on this path, alone, goes there."""
        for other in tuple(edge.binding.edges):
            if other is not edge:
                self._tree.lose(other)
        self._tree.arrivals.unloop(edge, parent, name)
        edge.inode.posix = replace(edge.inode.posix, ctime=self._tree.now())
        self._tree.recorder.changed(edge.inode)

    def _enter(self, edge: Edge, parent: DirectoryInode, name: str, raw: bytes | None) -> None:
        edge.enter(parent, name)
        edge.binding.raw_name = raw
        edge.binding.made = self._names.changed(parent)


def _are_one(one: Edge, other: Edge) -> bool:
    """Whether two names are of one file, or one name is meant that is reached on two paths."""
    return one.inode is other.inode or one.binding is other.binding


def _require_movable(inode: Inode, parent: DirectoryInode) -> None:
    """Raises an error for what cannot be linked in ``parent``."""
    _require_outside(inode, parent)
    if inode.cap is not None and slots_of(inode.cap) == (None, None):
        raise NotPermittedError("this child can be kept where it is, but not linked elsewhere")


def _require_outside(inode: Inode, parent: DirectoryInode) -> None:
    """Raises InvalidRequestError for moving a directory into itself."""
    if isinstance(inode, DirectoryInode):
        index = inode.cap.storage_index
        if any(one is inode or (index and one.cap.storage_index == index) for one in parent.path()):
            raise InvalidRequestError("a directory cannot be moved into itself")
