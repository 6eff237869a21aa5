"""Attributes, extended attributes and space.

Changes of attributes touch the inode, whose names are pending from then on, and are accepted; those
of a file that is open for writing with the next commit, which is at ``close`` or a moment later.
The root's attributes go to a local file.

``user.lafs.*`` names are computed: ``cap``, ``readcap``, ``verifycap``, ``kind``. They are shown to
the mount's owner alone, since a capability is all it takes to read or change the object. ``health``
may cost a question to every server, so everybody may ask for it. None of them is listed: copying a
file with its attributes neither copies its capabilities nor asks the servers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.caps import CHKCap, DirectoryCap, UnknownCap
from lafsfs.errors import (
    IsADirectoryNodeError,
    NoSuchAttributeError,
    NotPermittedError,
)
from lafsfs.grid.api import ShareKind
from lafsfs.nodes.filenode import UnknownNode
from lafsfs.nodes.health import look
from lafsfs.vfs.api import (
    BLOCK_SIZE,
    COMPUTED,
    ROOT_INODE,
    AttributeTooBigError,
    InvalidRequestError,
    OwnerOnlyError,
    StatFS,
)
from lafsfs.vfs.posix import acl
from lafsfs.vfs.posix.attributes import MAX_XATTR_NAME, MAX_XATTR_SPACE, Kind, Posix, clamped
from lafsfs.vfs.tree.inodes import DirectoryInode, FileInode, LoopInode

if TYPE_CHECKING:
    from lafsfs.grid.broker import Broker
    from lafsfs.vfs.api import Attributes, Caller, SetAttributes
    from lafsfs.vfs.recording.rootfile import RootFile
    from lafsfs.vfs.tree.inodes import Inode
    from lafsfs.vfs.tree.tree import Tree
    from lafsfs.vfs.verbs.files import Files

HEALTH: Final = COMPUTED + b"health"
SPACE_AGE: Final = 5.0  # seconds that an answer about space is good for; df asks several times
_FILES: Final = 1 << 32  # how many files there can be, for programs that want to know


class Metadata:
    """The verbs on attributes."""

    def __init__(self, tree: Tree, files: Files, root_file: RootFile, broker: Broker) -> None:
        self._broker = broker
        self._tree = tree
        self._files = files
        self._root_file = root_file
        self._space: tuple[float, StatFS] | None = None

    async def getattr(self, ino: int) -> Attributes:
        """What stat(2) shows, after a look at the grid where that is due."""
        tree = self._tree
        inode = tree.table[ino]
        with inode.pinned():
            await tree.refresh(inode)
            if isinstance(inode, DirectoryInode):
                tree.prefetch.used(inode.directory)
                await inode.directory.learn_newest_link(tree.settings.max_age)
            elif isinstance(inode, FileInode) and inode.is_mutable and not inode.is_dirty:
                await self._files.try_learn_size(inode)
            return tree.present(inode)

    async def setattr(
        self, ino: int, changes: SetAttributes, caller: Caller, handle: int | None
    ) -> Attributes:
        """Change attributes, or the size of a file."""
        tree = self._tree
        inode = tree.table[ino]
        self._require_changeable(inode)
        with inode.pinned():
            if isinstance(inode, DirectoryInode):
                await inode.directory.learn_newest_link(tree.settings.max_age)
            if changes.size is not None:
                await self._files.truncate(_file(inode), changes.size)
            await self._change(inode, self._changed(inode, changes))
            if changes.size is not None and handle is None and not _file(inode).writers:
                await self._files.accept(_file(inode))
            return tree.present(inode)

    def _changed(self, inode: Inode, changes: SetAttributes) -> Posix:
        now = self._tree.now()
        posix = inode.posix if changes.mode is None else inode.posix.with_mode(changes.mode)
        if changes.mtime_ns is not None and isinstance(inode, DirectoryInode):
            # later than every name that is there, even if the clock went backwards
            posix = replace(posix, mtime_set=max(now, inode.directory.newest_link or 0))
        return replace(
            posix,
            uid=_or(changes.uid, posix.uid),
            gid=_or(changes.gid, posix.gid),
            atime=clamped(_or(changes.atime_ns, posix.atime)),
            mtime=clamped(_or(changes.mtime_ns, posix.mtime)),
            ctime=clamped(_or(changes.ctime_ns, now)),
        )

    async def _change(self, inode: Inode, posix: Posix) -> None:
        if inode.number == ROOT_INODE:
            await self._root_file.save(posix)
        tree = self._tree
        tree.touch(inode, posix)
        if isinstance(inode, FileInode) and inode.writers and not tree.settings.sync:
            tree.activity.note()  # it is accepted when it is closed, as what is written to it
        else:
            await tree.accept(*(edge.binding for edge in inode.edges))

    def _require_changeable(self, inode: Inode) -> None:
        self._tree.require_writable(inode)
        if isinstance(inode, LoopInode) or isinstance(inode.cap, UnknownCap):
            raise NotPermittedError("this is shown only, and has no attributes to change")

    # extended attributes

    async def getxattr(self, ino: int, name: bytes, caller: Caller) -> bytes:
        """The value of an extended attribute, from memory; only ``user.lafs.health`` may wait."""
        await trio.lowlevel.checkpoint()
        if name == HEALTH:
            value = await self._health(self._tree.table[ino])
        elif name.startswith(COMPUTED):
            value = self._computed(self._tree.table[ino], caller).get(name)
        else:
            value = self.stored_xattr(ino, name)
        if value is None:
            raise NoSuchAttributeError("no such extended attribute")
        return value

    def stored_xattr(self, ino: int, name: bytes) -> bytes | None:
        """The value of an extended attribute that is not computed; None if there is none."""
        return self._tree.table[ino].posix.xattrs.get(name)

    async def listxattr(self, ino: int) -> tuple[bytes, ...]:
        """The names of all extended attributes but the computed ones (see the module).

        Not even where another client has stored one of that name: it would be listed, and copied.
        """
        inode = self._tree.table[ino]
        await trio.lowlevel.checkpoint()
        return tuple(name for name in inode.posix.xattrs if not name.startswith(COMPUTED))

    async def setxattr(self, ino: int, name: bytes, value: bytes, caller: Caller) -> None:
        """Set or replace an extended attribute."""
        inode = self._tree.table[ino]
        self._require_xattr(inode, name, caller)
        if not 0 < len(name) <= MAX_XATTR_NAME:
            raise InvalidRequestError("an extended attribute needs a name of at most 255 bytes")
        if len(value) > MAX_XATTR_SPACE:
            raise AttributeTooBigError("an extended attribute has at most 64 KiB")
        if name == acl.DEFAULT and not isinstance(inode, DirectoryInode):
            raise NotPermittedError("only directories have default access control lists")
        posix = inode.posix.with_xattr(name, value)
        await self._change(inode, replace(posix, ctime=self._tree.now()))

    async def removexattr(self, ino: int, name: bytes, caller: Caller) -> None:
        """Remove an extended attribute."""
        inode = self._tree.table[ino]
        self._require_xattr(inode, name, caller)
        if name not in inode.posix.xattrs:
            raise NoSuchAttributeError("no such extended attribute")
        posix = inode.posix.without_xattr(name)
        await self._change(inode, replace(posix, ctime=self._tree.now()))

    def _require_xattr(self, inode: Inode, name: bytes, caller: Caller) -> None:
        if name.startswith(COMPUTED):
            raise NotPermittedError("user.lafs attributes are computed")
        self._require_changeable(inode)
        if inode.posix.kind is Kind.SYMLINK and name.startswith((b"user.", b"system.")):
            raise NotPermittedError("symbolic links have no such attributes")
        owners = (0, inode.posix.uid, self._tree.settings.owner_uid)
        if name in (acl.ACCESS, acl.DEFAULT) and caller.uid not in owners:
            raise OwnerOnlyError("only its owner may change who has access")

    def _computed(self, inode: Inode, caller: Caller) -> dict[bytes, bytes]:
        if caller.uid != self._tree.settings.owner_uid or inode.cap is None:
            return {}
        cap = inode.cap
        verify_cap = cap.verify_cap()
        texts = {
            b"cap": cap.danger_text(),
            b"readcap": cap.read_cap().danger_text(),
            b"verifycap": "" if verify_cap is None else verify_cap.danger_text(),
            b"kind": cap.kind,
        }
        return {COMPUTED + key: text.encode() for key, text in texts.items() if text}

    async def _health(self, inode: Inode) -> bytes | None:
        """What is known of the shares; the servers are asked if that is nothing."""
        cap, maker = inode.cap, self._tree.maker
        if cap is None or isinstance(cap, UnknownCap) or cap.storage_index is None:
            return None
        node = maker.node(cap)
        seen = None if isinstance(node, UnknownNode) else node.health()
        if seen is None:
            file = cap.backing if isinstance(cap, DirectoryCap) else cap
            is_chk = isinstance(file, CHKCap)
            k, n = (file.k, file.n) if isinstance(file, CHKCap) else (0, 0)
            kind = ShareKind.IMMUTABLE if is_chk else ShareKind.MUTABLE
            seen = await look(self._broker, kind, cap.storage_index, k, n)
        return seen.text.encode()

    # space

    async def statfs(self) -> StatFS:
        """Space on the grid for contents, after the encoding has taken its share."""
        now = trio.current_time()
        if self._space is None or now - self._space[0] > SPACE_AGE:
            space = await self._broker.space()
            encoding = self._tree.maker.grid.encoding
            blocks = space.total * encoding.k // encoding.n // BLOCK_SIZE
            free = space.available * encoding.k // encoding.n // BLOCK_SIZE
            self._space = (now, StatFS(BLOCK_SIZE, blocks, min(free, blocks), _FILES))
        return self._space[1]


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _file(inode: Inode) -> FileInode:
    if isinstance(inode, DirectoryInode):
        raise IsADirectoryNodeError("a directory has no size to set")
    if not isinstance(inode, FileInode) or inode.posix.kind is not Kind.FILE:
        raise InvalidRequestError("only regular files have a size to set")
    return inode
