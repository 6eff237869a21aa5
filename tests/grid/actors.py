"""Other processes that use a storage directory: ``python -m tests.grid.actors ACTOR DIRECTORY``.

Each actor prints one line when it has come as far as its test wants to see, and exits with a
traceback when something is not as it must be.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import trio

from lafsfs.errors import ServerFullError, ServerReadOnlyError
from lafsfs.grid.api import ReadVector, TestVector, TestWriteVectors, WriteVector
from lafsfs.grid.identity import Identity
from lafsfs.grid.local import LocalServer
from tests.grid.contract import (
    IMMUTABLE,
    LEASE,
    MUTABLE,
    OTHER_LEASE,
    OTHER_SI,
    SECRET,
    SI,
    SLOT,
    store,
    writing,
)

ME = Identity.of(b"i" * 20)
INCREMENTS = 25
SLOT_SIZE = 300_000  # bytes: long enough to be killed in the middle of
NOBODY = 65534


def patterned(letter: bytes) -> dict[int, TestWriteVectors]:
    """Two shares, each all of one letter."""
    data = letter * SLOT_SIZE
    return {shnum: writing(data, new_length=SLOT_SIZE) for shnum in (0, 1)}


async def increment(server: LocalServer) -> None:
    """Count up a number in share 0 with test-and-set, as long as others do the same."""
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(INCREMENTS):
        while True:
            found = await server.read_test_write(SI, SLOT, {}, (ReadVector(0, 8),))
            old = found.reads[0][0]
            new = b"%08d" % (int(old) + 1)
            vector = TestWriteVectors((TestVector(0, 8, old),), (WriteVector(0, new),))
            if (await server.read_test_write(SI, SLOT, {0: vector}, ())).success:
                break


async def rewrite(server: LocalServer) -> None:
    """Write a slot of all As, all Bs, all As, ... until killed."""
    while True:
        for letter in (b"A", b"B"):
            await server.read_test_write(SI, SLOT, patterned(letter), ())
            print(letter.decode(), flush=True)


async def upload(server: LocalServer) -> None:
    """Begin an upload, and wait to be killed."""
    await server.allocate(SI, frozenset({0}), 10, SECRET, LEASE)
    await server.write_share(SI, 0, SECRET, 0, b"01234")
    print("half", flush=True)
    await trio.sleep_forever()


async def fill(server: LocalServer) -> None:
    """Run out of room in the middle of each kind of write; nothing half-written may be seen."""
    assert (await server.read_test_write(SI, SLOT, {0: writing(b"as it was")}, ())).success
    answer = await server.allocate(OTHER_SI, frozenset({0}), 600_000, SECRET, LEASE)
    assert answer.allocated == {0}
    vectors = {0: writing(b"x" * 100), 1: writing(b"y" * 2_000_000)}
    await expect(ServerFullError, server.read_test_write(SI, SLOT, vectors, ()))
    assert await server.list_shares(MUTABLE, SI) == {0}
    assert await server.read_share(MUTABLE, SI, 0, 0, 99) == b"as it was"
    names = os.listdir(next(server._directory.shares.glob("aa/*")))
    assert names == ["0"], names
    assert (await server.read_test_write(SI, SLOT, {5: writing(bytes(400_000))}, ())).success
    limit_file_size(300_000)
    await expect(ServerFullError, server.add_lease(SI, OTHER_LEASE))
    names = os.listdir(next(server._directory.shares.glob("aa/*")))
    assert sorted(names) == ["0", "5"], names
    await expect(
        ServerFullError, server.write_share(OTHER_SI, 0, SECRET, 0, bytes(range(250)) * 2400)
    )
    assert await server.list_shares(IMMUTABLE, OTHER_SI) == frozenset()
    await server.abort_share(OTHER_SI, 0, SECRET)
    await store(server, b"small enough", si=OTHER_SI)
    assert await server.read_share(IMMUTABLE, OTHER_SI, 0, 0, 99) == b"small enough"
    print("full", flush=True)


async def fill_limited(server: LocalServer) -> None:
    """The same with a limit on the size of files, which needs no file system of its own."""
    limit_file_size(1_000_000)
    await fill(server)


def limit_file_size(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def unwritable(server: LocalServer) -> None:
    """Use a directory that may only be read; when root, as nobody."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    assert (await server.version()).available_space == 0
    assert await server.read_share(IMMUTABLE, OTHER_SI, 0, 0, 9) == b"immutable"[:9]
    assert (await server.read_test_write(SI, SLOT, {}, (ReadVector(0, 9),))).reads == {
        0: (b"slot",)
    }
    shnums = frozenset({1})
    await expect(ServerReadOnlyError, server.allocate(OTHER_SI, shnums, 4, SECRET, LEASE))
    await expect(ServerReadOnlyError, server.read_test_write(SI, SLOT, {0: writing(b"x")}, ()))
    await expect(ServerReadOnlyError, server.add_lease(SI, LEASE))
    await server.advise_corrupt_share(IMMUTABLE, OTHER_SI, 0, "a note that cannot be left")
    again = await LocalServer.open(server._directory.path, create=False)
    assert again.server_id == server.server_id
    print("read", flush=True)


async def expect(kind: type[Exception], awaitable) -> None:
    try:
        await awaitable
    except kind:
        return
    raise AssertionError(f"no {kind.__name__}")


async def main(actor: str, directory: str) -> None:
    """Run one actor over a server on the directory."""
    await globals()[actor](LocalServer(Path(directory), ME))


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
