"""Handlers without a kernel: deadlines, errors, and what goes through."""

from __future__ import annotations

import errno
import stat

import pyfuse3
import pytest
import trio

from lafsfs.errors import IsADirectoryNodeError
from lafsfs.fuse.operations import Deadlines, LafsOperations, entry_attributes, set_attributes
from lafsfs.vfs.api import Attributes, Opened, SetAttributes

ATTRIBUTES = Attributes(
    ino=2**63 + 5,
    mode=stat.S_IFREG | 0o4751,
    nlink=3,
    uid=1000,
    gid=1001,
    rdev=7,
    size=2**40 + 1,
    atime_ns=-1,
    mtime_ns=1_000_000_000_123_456_789,
    ctime_ns=5,
    attr_valid=1.5,
    entry_valid=2.5,
)


class Vfs:
    """A file system that does what the test says, whatever it is asked."""

    def __init__(self, answer):
        self.answer = answer
        self.forgotten = None

    def __getattr__(self, verb):
        async def call(*args):
            return await self.answer(verb, *args)

        return call

    def forget(self, counts):
        raise ValueError("a bug")


class Fields:
    update_atime = update_mtime = update_ctime = update_mode = False
    update_uid = update_gid = update_size = False

    def __init__(self, *names):
        for name in names:
            setattr(self, f"update_{name}", True)


async def hangs(verb, *args):
    await trio.sleep_forever()


@pytest.mark.parametrize(("verb", "seconds"), [("read", 10), ("flush", 100)])
async def test_a_grid_that_hangs_is_a_time_out(verb, seconds, autojump_clock):
    operations = LafsOperations(Vfs(hangs), Deadlines(10, 100))
    started = trio.current_time()
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await getattr(operations, verb)(*{"read": (1, 0, 5), "flush": (1,)}[verb])
    assert caught.value.errno == errno.ETIMEDOUT
    assert trio.current_time() - started == seconds


async def test_being_cancelled_is_no_error(autojump_clock):
    operations = LafsOperations(Vfs(hangs))
    with trio.move_on_after(1) as scope:
        await operations.read(1, 0, 5)
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (IsADirectoryNodeError("no"), errno.EISDIR),
        (ExceptionGroup("", [IsADirectoryNodeError("no")]), errno.EISDIR),
        (AttributeError("a bug"), errno.EIO),
    ],
)
async def test_errors_are_translated(error, number):
    async def fails(verb, *args):
        raise error

    operations = LafsOperations(Vfs(fails))
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await operations.read(1, 0, 5)
    assert caught.value.errno == number


async def test_forgetting_never_raises(caplog):
    await LafsOperations(Vfs(hangs)).forget([(1, 2)])
    assert "a bug" in caplog.text


def test_attributes_there_and_back():
    entry = entry_attributes(ATTRIBUTES)
    assert entry.st_ino == ATTRIBUTES.ino
    assert (entry.st_mode, entry.st_nlink, entry.st_rdev) == (ATTRIBUTES.mode, 3, 7)
    assert (entry.attr_timeout, entry.entry_timeout) == (1.5, 2.5)
    assert entry.st_blocks == (2**40 + 512) // 512
    changes = set_attributes(entry, Fields("mode", "uid", "gid", "size", "atime", "mtime"))
    assert changes == SetAttributes(
        mode=0o4751,
        uid=1000,
        gid=1001,
        size=2**40 + 1,
        atime_ns=-1,
        mtime_ns=1_000_000_000_123_456_789,
    )
    assert set_attributes(entry, Fields()) == SetAttributes()


async def test_the_first_file_that_is_opened_is_told_of_once():
    async def opened(verb, *args):
        assert told == ["open"]
        return Opened(5)

    told = []
    operations = LafsOperations(Vfs(opened), first_open=lambda: told.append("open"))
    for _ in range(3):
        assert (await operations.open(1, 0, None)).fh == 5
    assert told == ["open"]
