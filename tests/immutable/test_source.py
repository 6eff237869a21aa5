"""What uploads read from, and where heavy work runs."""

import threading

import pytest
import trio

from lafsfs.grid.cpu import INLINE_LIMIT, work_on
from lafsfs.immutable import BytesSource, SourceChangedError, open_source
from lafsfs.immutable.source import read_exactly


async def test_bytes():
    source = BytesSource(b"0123456789")
    assert source.size == 10
    assert await source.read(2, 3) == b"234"
    assert await source.read(2, 3) == b"234"
    assert await read_exactly(source, 0, 10) == b"0123456789"


async def test_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    async with open_source(path) as source:
        assert source.size == 10
        assert await source.read(0, 4) == b"0123"
        assert await source.read(8, 2) == b"89"
        with path.open("ab") as file:
            file.write(b"more")
        assert source.size == 10
        with path.open("r+b") as file:
            file.truncate(5)
        with pytest.raises(SourceChangedError, match="1 bytes at 4 instead of 3"):
            await read_exactly(source, 4, 3)


async def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        async with open_source(tmp_path / "none"):
            pass


async def test_what_is_short_runs_inline_and_what_is_long_in_a_thread():
    assert await work_on(INLINE_LIMIT, threading.current_thread) is threading.main_thread()
    assert await work_on(INLINE_LIMIT + 1, threading.current_thread) is not threading.main_thread()


async def test_work_is_a_checkpoint():
    with trio.CancelScope() as scope:
        scope.cancel()
        await work_on(1, int)
    assert scope.cancelled_caught
