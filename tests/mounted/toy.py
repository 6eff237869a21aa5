"""A file system of five files, to try the FUSE adapter with: ``python -m tests.mounted.toy POINT``.

counter   how often it has been read; the kernel may keep its pages and attributes for ever
hang      reading it never ends, nor does asking for a computed attribute
bug       reading it runs into a bug
poke      writing to it makes the vfs announce that ``counter`` changed
many      a directory of 3000 entries that shrinks while it is read
"""

from __future__ import annotations

import logging
import os
import stat
import sys
from pathlib import Path

import trio

from lafsfs.errors import NoSuchChildError, NotSupportedError
from lafsfs.fuse.invalidation import Invalidations
from lafsfs.fuse.operations import Deadlines, LafsOperations
from lafsfs.fuse.session import open_session
from lafsfs.vfs.api import Attributes, Changed, DirectoryEntry, Opened, StatFS

FILES = {b"counter": 2, b"hang": 3, b"bug": 4, b"poke": 5}
MANY = 6
FOREVER = 1e6  # seconds


class Toy:
    """The verbs that the tests need; every other one says that it is not supported."""

    def __init__(self, changed):
        self.changed = changed
        self.reads = 0
        self.pokes = 0
        self.lookups = 0

    def __getattr__(self, verb):
        async def refuse(*args):
            raise NotSupportedError(verb)

        return refuse

    def attributes(self, ino):
        folder = ino in (1, MANY)
        return Attributes(
            ino=ino,
            mode=(stat.S_IFDIR if folder else stat.S_IFREG) | 0o777,
            nlink=1,
            uid=os.getuid(),
            gid=os.getgid(),
            rdev=0,
            size=0 if folder else 10,
            atime_ns=0,
            mtime_ns=self.pokes,
            ctime_ns=0,
            attr_valid=FOREVER,
            entry_valid=FOREVER,
        )

    async def lookup(self, parent, name):
        self.lookups += 1
        if name == b"many":
            return self.attributes(MANY)
        if name not in FILES:
            raise NoSuchChildError("no")
        return self.attributes(FILES[name])

    async def getattr(self, ino):
        return self.attributes(ino)

    def remember(self, ino):
        self.lookups += 1

    def forget(self, counts):
        self.lookups -= sum(count for _, count in counts)

    async def opendir(self, ino):
        return ino

    async def readdir(self, handle, start):
        if handle == MANY:
            for number in range(start, 3000):
                if number == 2000:
                    raise ZeroDivisionError("a bug in the middle")
                name = b"entry %d" % number
                yield DirectoryEntry(name, self.attributes(1000 + number), number + 1)
            return
        for number, (name, ino) in list(enumerate(FILES.items()))[start:]:
            yield DirectoryEntry(name, self.attributes(ino), number + 1)

    async def releasedir(self, handle):
        pass

    async def open(self, ino, flags):
        return Opened(ino, keep_cache=True)

    async def read(self, handle, offset, size):
        if handle == FILES[b"hang"]:
            await trio.sleep_forever()
        if handle == FILES[b"bug"]:
            return 1 // 0
        self.reads += 1
        return b"%10d" % self.reads

    async def getxattr(self, ino, name, caller):
        await trio.sleep_forever()

    def stored_xattr(self, ino, name):
        return None

    async def write(self, handle, offset, data):
        self.pokes += 1
        self.changed(Changed(FILES[b"counter"], contents=True))
        self.changed(Changed(1, name=b"counter"))
        self.changed(Changed(12345))  # the kernel has never heard of it
        return len(data)

    async def flush(self, handle):
        pass

    async def release(self, handle):
        pass

    async def statfs(self):
        return StatFS(4096, 2, 1, 0)


async def main(mountpoint: Path) -> None:
    invalidations = Invalidations()
    operations = LafsOperations(Toy(invalidations), Deadlines(answer=1, settle=1))
    options = {"fsname=toy", "default_permissions"}
    async with open_session(operations, mountpoint, options, invalidations) as session:
        print("ready", flush=True)
        await session.serve()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    trio.run(main, Path(sys.argv[1]))
