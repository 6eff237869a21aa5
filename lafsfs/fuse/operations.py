"""The request handlers: each translates, calls one verb of the vfs, and translates back.

Rules:

- Only ``FUSEError`` leaves a handler (:mod:`lafsfs.fuse.translate`), which the :func:`handler`
  decorator sees to; no handler catches anything itself.
- pyfuse3 delivers no interrupts, so every request has a deadline: a grid that hangs gives
  ``ETIMEDOUT``, not a process that cannot be killed. Requests that bring data to the grid get the
  longer of the two deadlines, since a big file takes its time. What never asks the grid has none: a
  deadline costs a tenth of a small request.
- The kernel's caches are told how long to believe each answer by what the vfs says of it, never by
  pyfuse3's defaults.
"""

from __future__ import annotations

import functools
import logging
import stat
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

import pyfuse3
import trio

from lafsfs.errors import DeadlineExceededError, NoSuchAttributeError
from lafsfs.fuse.translate import to_fuse_error
from lafsfs.vfs.api import COMPUTED, Caller, SetAttributes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence

    from lafsfs.vfs.api import Attributes, DirectoryEntry, FileSystemAPI, Opened

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds a request may take: ``answer`` those that ask, ``settle`` those that write."""

    answer: float = 120.0  # longer than any server's own time-out and its retries
    settle: float = 3600.0  # a few gigabytes over a home connection


def translated(
    method: Callable[Concatenate[LafsOperations, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[LafsOperations, P], Coroutine[Any, Any, T]]:
    """Make sure that nothing but ``FUSEError`` leaves a handler. It must not ask the grid."""
    name = getattr(method, "__name__", "request")

    @functools.wraps(method)
    async def wrapped(self: LafsOperations, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(self, *args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except BaseException as error:
            raise to_fuse_error(error, name) from None

    return wrapped


def handler(
    *, settles: bool = False
) -> Callable[
    [Callable[Concatenate[LafsOperations, P], Coroutine[Any, Any, T]]],
    Callable[Concatenate[LafsOperations, P], Coroutine[Any, Any, T]],
]:
    """Give a handler its deadline and make sure that nothing but ``FUSEError`` leaves it."""

    def decorate(
        method: Callable[Concatenate[LafsOperations, P], Coroutine[Any, Any, T]],
    ) -> Callable[Concatenate[LafsOperations, P], Coroutine[Any, Any, T]]:
        @functools.wraps(method)
        async def within(self: LafsOperations, /, *args: P.args, **kwargs: P.kwargs) -> T:
            seconds = self.deadlines.settle if settles else self.deadlines.answer
            with trio.move_on_after(seconds):
                return await method(self, *args, **kwargs)
            raise DeadlineExceededError(f"no answer within {seconds:g} seconds")

        return translated(within)

    return decorate


class LafsOperations(pyfuse3.Operations):
    """One mount's handlers."""

    supports_dot_lookup = True
    enable_writeback_cache = False  # the vfs must see writes in order, and errors must be theirs
    enable_acl = True

    def __init__(
        self,
        fs: FileSystemAPI,
        deadlines: Deadlines | None = None,
        first_open: Callable[[], object] | None = None,
    ) -> None:
        """``first_open`` is called once, when the first file is being opened; it must not wait."""
        super().__init__()
        self._fs = fs
        self.deadlines = deadlines or Deadlines()
        self._first_open = first_open

    # names

    @handler()
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return entry_attributes(await self._fs.lookup(parent_inode, name))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        try:
            self._fs.forget(inode_list)
        except Exception:  # there is no request to answer, and the mount must go on
            log.exception("forget")

    @handler(settles=True)
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return entry_attributes(await self._fs.mkdir(parent_inode, name, mode, caller(ctx)))

    @handler(settles=True)
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        made = await self._fs.mknod(parent_inode, name, mode, rdev, caller(ctx))
        return entry_attributes(made)

    @handler(settles=True)
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return entry_attributes(await self._fs.symlink(parent_inode, name, target, caller(ctx)))

    @handler(settles=True)
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return entry_attributes(await self._fs.link(inode, new_parent_inode, new_name))

    @handler(settles=True)
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._fs.unlink(parent_inode, name)

    @handler(settles=True)
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._fs.rmdir(parent_inode, name)

    @handler(settles=True)
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        await self._fs.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags)

    @handler()
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return await self._fs.readlink(inode)

    # attributes

    @handler()
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return entry_attributes(await self._fs.getattr(inode))

    @handler(settles=True)
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        changes = set_attributes(attr, fields)
        return entry_attributes(await self._fs.setattr(inode, changes, caller(ctx), fh))

    @translated
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        if name.startswith(COMPUTED):
            return await self._computed(inode, name, ctx)
        value = self._fs.stored_xattr(inode, name)
        if value is None:  # as the kernel hears before nearly every write, of security.capability
            raise pyfuse3.FUSEError(NoSuchAttributeError.errno)
        return value

    @handler()
    async def _computed(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        return await self._fs.getxattr(inode, name, caller(ctx))

    @handler(settles=True)
    async def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        await self._fs.setxattr(inode, name, value, caller(ctx))

    @handler()
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        return await self._fs.listxattr(inode)

    @handler(settles=True)
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._fs.removexattr(inode, name, caller(ctx))

    @handler()
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        space = await self._fs.statfs()
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = space.block_size
        data.f_blocks = space.blocks
        data.f_bfree = data.f_bavail = space.free
        data.f_files = space.files
        data.f_ffree = data.f_favail = space.files
        data.f_namemax = space.name_max
        return data

    # directories

    @handler()
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        return await self._fs.opendir(inode)

    @handler()
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        given = 0
        entries = cast("AsyncGenerator[DirectoryEntry, None]", self._fs.readdir(fh, start_id))
        try:
            async with aclosing(entries):
                async for entry in entries:
                    attributes = entry_attributes(entry.attributes)
                    if not pyfuse3.readdir_reply(token, entry.name, attributes, entry.next_id):
                        return
                    self._fs.remember(entry.attributes.ino)
                    given += 1
        except Exception:
            if not given:
                raise  # else what was counted must be handed on; the next call meets the error

    @handler(settles=True)
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        await self._fs.fsyncdir(fh)

    @translated
    async def releasedir(self, fh: int) -> None:
        await self._fs.releasedir(fh)

    # files

    @handler(settles=True)
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        if self._first_open is not None:
            first_open, self._first_open = self._first_open, None
            first_open()
        return file_info(await self._fs.open(inode, flags))

    @handler(settles=True)
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        opened, made = await self._fs.create(parent_inode, name, mode, flags, caller(ctx))
        return file_info(opened), entry_attributes(made)

    @handler()
    async def read(self, fh: int, off: int, size: int) -> bytes:
        return await self._fs.read(fh, off, size)

    @translated
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return await self._fs.write(fh, off, buf)

    @handler(settles=True)
    async def flush(self, fh: int) -> None:
        await self._fs.flush(fh)

    @handler(settles=True)
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._fs.fsync(fh)

    @translated
    async def release(self, fh: int) -> None:
        await self._fs.release(fh)


def caller(ctx: pyfuse3.RequestContext) -> Caller:
    """Who asks, as the kernel says."""
    return Caller(uid=ctx.uid, gid=ctx.gid, umask=ctx.umask, pid=ctx.pid)


def entry_attributes(attributes: Attributes) -> pyfuse3.EntryAttributes:
    """Attributes in the kernel's words."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = attributes.ino
    entry.generation = attributes.generation
    entry.st_mode = attributes.mode
    entry.st_nlink = attributes.nlink
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_rdev = attributes.rdev
    entry.st_size = attributes.size
    entry.st_blksize = attributes.block_size
    entry.st_blocks = attributes.blocks
    entry.st_atime_ns = attributes.atime_ns
    entry.st_mtime_ns = attributes.mtime_ns
    entry.st_ctime_ns = attributes.ctime_ns
    entry.attr_timeout = attributes.attr_valid
    entry.entry_timeout = attributes.entry_valid
    return entry


def set_attributes(attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields) -> SetAttributes:
    """What the kernel wants changed."""
    return SetAttributes(
        mode=stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
        uid=attr.st_uid if fields.update_uid else None,
        gid=attr.st_gid if fields.update_gid else None,
        size=attr.st_size if fields.update_size else None,
        atime_ns=attr.st_atime_ns if fields.update_atime else None,
        mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        ctime_ns=attr.st_ctime_ns if fields.update_ctime else None,
    )


def file_info(opened: Opened) -> pyfuse3.FileInfo:
    """An open file in the kernel's words."""
    return pyfuse3.FileInfo(
        fh=opened.handle, keep_cache=opened.keep_cache, direct_io=opened.direct_io
    )
