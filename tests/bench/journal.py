"""What accepting costs: what sets ``INLINE_LIMIT`` of small contents, the page size and the cipher.

    python -m tests.bench.journal [DIRECTORY]

Everything is processor time, of the event loop's thread or (*all*) of all threads, best of several
rounds: the time for which others wait, and the work that there is.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from Crypto.Cipher import AES
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from lafsfs.immutable.source import begin_hash
from lafsfs.journal import ContentsRef, Entry, Journal, Kind, Put
from lafsfs.vfs.staging.area import StagingArea
from lafsfs.vfs.staging.small import INLINE_LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from lafsfs.immutable.source import Hashed

ROUNDS = 5
FILES = 200
KEY = bytes(range(32))
SIZES = [1 << 10, 4 << 10, 16 << 10, 64 << 10, 128 << 10, 256 << 10, 1 << 20]
INODE, NAME = os.urandom(300), os.urandom(150)  # rows of one file


async def timed(work: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """Seconds of this thread, and of all."""
    mine, all = time.thread_time(), time.process_time()
    await work()
    return time.thread_time() - mine, time.process_time() - all


@asynccontextmanager
async def opened(
    directory: Path, hashed: Callable[[], Hashed] | None
) -> AsyncIterator[tuple[Journal, StagingArea]]:
    """A journal and what stages into it."""
    async with (
        Journal.open(directory, KEY) as journal,
        StagingArea.over(journal, hashed=hashed) as area,
    ):
        yield journal, area


async def small_file(journal: Journal, area: StagingArea, data: bytes) -> None:
    """What create, write and close come to."""
    inode, name = journal.new_row(), journal.new_row()
    journal.commit({inode: Put(INODE), name: Put(NAME)})
    contents = area.stage(None, 0)
    await contents.write(0, data)
    await contents.seal()
    kept = contents.describe()
    await journal.ready()
    journal.commit({inode: Put(INODE, kept.ref)}, blobs=kept.blobs)
    contents.accepted(kept)


async def one_commit(journal: Journal, area: StagingArea, data: bytes) -> None:
    """Two rows, as a rename has."""
    journal.commit({1: Put(INODE), 2: Put(NAME)})


async def inline(journal: Journal, area: StagingArea, data: bytes) -> None:
    """Contents as a blob."""
    id = journal.new_contents()
    await journal.ready()
    journal.commit({journal.new_row(): Put(INODE, ContentsRef(id))}, blobs={id: data})


async def logged(journal: Journal, area: StagingArea, data: bytes) -> None:
    """Contents as a log."""
    log = journal.hold(journal.new_contents())
    await journal.append(log, [Entry(Kind.BEGIN, 0), Entry(Kind.WRITE, 0, data)])
    journal.commit({journal.new_row(): Put(INODE, ContentsRef(log.number, log.end))})
    journal.let_go(log.number)


async def each(
    work: Callable[[Journal, StagingArea, bytes], Awaitable[None]], size: int, where: Path
) -> tuple[float, float]:
    """Seconds for one, of this thread and of all."""
    data = os.urandom(size)
    results: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(dir=where) as directory:
            async with opened(Path(directory), None) as (journal, area):

                async def many() -> None:
                    for _ in range(FILES):
                        await work(journal, area, data)

                results.append(await timed(many))
    return min(mine for mine, _ in results) / FILES, min(all for _, all in results) / FILES


async def large_file(where: Path, chunk: int, hashing: bool) -> tuple[float, float]:
    """100 MiB written in order and accepted."""
    data = os.urandom(chunk)
    hashed = partial(begin_hash, 3, 10, (1 << 20) + 2, KEY) if hashing else None
    results: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(dir=where) as directory:
            async with opened(Path(directory), hashed) as (journal, area):

                async def write() -> None:
                    contents = area.stage(None, 0)
                    for offset in range(0, 100 << 20, chunk):
                        await contents.write(offset, data)
                        await trio.lowlevel.checkpoint()
                    await contents.seal()
                    journal.commit({1: Put(INODE, contents.describe().ref)})

                results.append(await timed(write))
    return min(mine for mine, _ in results), min(all for _, all in results)


def pages(where: Path, page: int, size: int) -> float:
    """Seconds of one transaction with two rows and a blob, by SQLite alone."""
    best = float("inf")
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(dir=where) as directory:
            connection = sqlite3.connect(Path(directory) / "db", isolation_level=None)
            for pragma in (f"page_size={page}", "journal_mode=wal", "synchronous=normal"):
                connection.execute(f"pragma {pragma}")
            connection.execute("pragma wal_autocheckpoint=0")
            connection.execute("create table rows (id integer primary key, value blob)")
            connection.execute("create table blobs (id integer primary key, value blob)")
            blob = os.urandom(size)
            started = time.thread_time()
            for id in range(FILES):
                connection.execute("begin immediate")
                connection.execute("insert or replace into rows values (?, ?)", (2 * id, INODE))
                connection.execute("insert or replace into rows values (?, ?)", (2 * id + 1, NAME))
                connection.execute("insert into blobs values (?, ?)", (id, blob))
                connection.execute("commit")
            best = min(best, (time.thread_time() - started) / FILES)
            connection.close()
    return best


def ciphers(size: int) -> dict[str, float]:
    """GB/s of each way to seal, with the key set up already where that is possible."""
    data, key, nonce = os.urandom(size), os.urandom(32), os.urandom(12)
    gcm, chacha = AESGCM(key), ChaCha20Poly1305(key)

    def ctr_and_hash() -> None:
        hashlib.sha256(AES.new(key, AES.MODE_CTR, nonce=b"").encrypt(data)).digest()

    works: dict[str, Callable[[], object]] = {
        "AES-256-GCM": lambda: gcm.encrypt(nonce, data, b""),
        "ChaCha20-Poly1305": lambda: chacha.encrypt(nonce, data, b""),
        "AES-CTR, SHA-256": ctr_and_hash,
    }
    found: dict[str, float] = {}
    repeat = max(1, (8 << 20) // size)
    for name, work in works.items():
        best = float("inf")
        for _ in range(ROUNDS):
            started = time.thread_time()
            for _ in range(repeat):
                work()
            best = min(best, (time.thread_time() - started) / repeat)
        found[name] = size / best / 1e9
    return found


def main(where: Path) -> None:
    """Print everything."""
    print("sealing, GB/s")
    for size in (300, 4096, 64 << 10, 1 << 20):
        rates = ", ".join(f"{name} {rate:.2f}" for name, rate in ciphers(size).items())
        print(f"{size:>9} bytes: {rates}")
    print("one transaction by SQLite alone, us, by page size")
    for size in (0, 4096, 64 << 10):
        times = ", ".join(f"{page}: {pages(where, page, size) * 1e6:.0f}" for page in
                          (4096, 8192, 16384, 65536))  # fmt: skip
        print(f"{size:>9} bytes: {times}")
    mine, _ = trio.run(each, one_commit, 0, where)
    print(f"two rows committed: {mine * 1e6:.0f} us")
    print("contents as a blob, and as a log (us of the event loop; of all)")
    for size in SIZES:
        blob, all_blob = trio.run(each, inline, size, where)
        log, all_log = trio.run(each, logged, size, where)
        print(
            f"{size >> 10:>5} KiB: {blob * 1e6:5.0f} ({all_blob * 1e6:5.0f})"
            f" {log * 1e6:5.0f} ({all_log * 1e6:5.0f})"
        )
    print(f"INLINE_LIMIT is {INLINE_LIMIT >> 10} KiB")
    print("create, write, close; two transactions (us of the event loop)")
    for size in (100, 4096, 64 << 10):
        mine, _ = trio.run(each, small_file, size, where)
        print(f"{size:>9} bytes: {mine * 1e6:.0f}")
    print("100 MiB accepted (ms of the event loop; of all)")
    for chunk in (128 << 10, 1 << 20):
        for hashing in (False, True):
            mine, all = trio.run(large_file, where, chunk, hashing)
            print(
                f"{chunk >> 10:>5} KiB a write, {'' if hashing else 'not '}hashing:"
                f" {mine * 1e3:.0f} ({all * 1e3:.0f})"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.gettempdir()))
