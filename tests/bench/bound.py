"""The least that a FUSE file system can cost: ``python -m tests.bench.bound MOUNTPOINT BYTES``.

One file, ``zeros``, whose pages and attributes the kernel may keep for ever. What reading it once
more takes is the kernel's own doing, whatever the file system is written in.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

import pyfuse3
import trio

FOREVER = 1e6  # seconds
ZEROS = 2  # inode


class OneFile(pyfuse3.Operations):
    """No more than it takes to open a file and read it."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.buffer = bytes(1 << 20)

    async def getattr(
        self, inode: int, ctx: pyfuse3.RequestContext | None = None
    ) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = stat.S_IFREG | 0o444 if inode == ZEROS else stat.S_IFDIR | 0o555
        entry.st_size = self.size if inode == ZEROS else 0
        entry.st_uid, entry.st_gid = os.getuid(), os.getgid()
        entry.attr_timeout = entry.entry_timeout = FOREVER
        return entry

    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if name != b"zeros":
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(ZEROS)

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=inode, keep_cache=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return self.buffer[: max(0, min(size, self.size - off))]


def main() -> None:
    pyfuse3.init(OneFile(int(sys.argv[2])), sys.argv[1], {"fsname=bound"})
    print("mounted", flush=True)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main()
