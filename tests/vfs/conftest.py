"""A file system over a grid in memory, driven as the kernel would, on a clock that tests move."""

from __future__ import annotations

import itertools
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import trio

from lafsfs.caps import MutableFormat
from lafsfs.grid.encoding import Encoding
from lafsfs.grid.secrets import ClientSecrets
from lafsfs.immutable import SegmentCache
from lafsfs.mutable.contents import ContentsCache
from lafsfs.mutable.keypool import KeyPool
from lafsfs.nodes.maker import Grid, NodeMaker
from lafsfs.vfs.api import Attributes, Caller, Changed, VfsSettings
from lafsfs.vfs.filesystem import FileSystem, open_filesystem
from tests.fakes import fake_grid
from tests.patience import PatientClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SECRETS = ClientSecrets(b"l" * 32, b"c" * 32)
ME = Caller(uid=1000, gid=1000, umask=0o022)
ROOT = 1
NEVER = 1e9  # seconds: nothing happens by itself unless a test says so


@dataclass
class WallClock:
    """The time of day, as tests set it."""

    ns: int = 1_700_000_000_000_000_000

    def __call__(self) -> int:
        self.ns += 1_000_000
        return self.ns

    def seconds(self) -> float:
        return self() / 1e9


@dataclass
class World:
    """One client's file system, with shorthands that do what the kernel does for a system call."""

    fs: FileSystem
    maker: NodeMaker
    clock: WallClock
    changes: list[Changed] = field(default_factory=list)
    waits: bool = True  # at each close, for everything to be on the grid
    directory: Path | None = None

    @property
    def tree(self):
        return self.fs._tree

    def publishes(self, ino: int = ROOT) -> int:
        """How often that directory has been published."""
        return self.tree.directory_inode(ino).directory.publisher.publishes

    async def path(self, path: str) -> Attributes:
        """Look a path up from the root."""
        found = await self.fs.getattr(ROOT)
        for name in filter(None, path.encode().split(b"/")):
            found = await self.fs.lookup(found.ino, name)
        return found

    async def split(self, path: str) -> tuple[int, bytes]:
        parent, _, name = path.rpartition("/")
        return (await self.path(parent)).ino, name.encode()

    async def write(self, path: str, data: bytes, mode: int = 0o644) -> Attributes:
        """Create or overwrite a file, and close it."""
        parent, name = await self.split(path)
        opened, found = await self.fs.create(
            parent, name, mode, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, ME
        )
        try:
            await self.fs.write(opened.handle, 0, data)
            await self.flush(opened.handle)
        finally:
            await self.fs.release(opened.handle)
        return found

    async def flush(self, handle: int) -> None:
        """What the kernel does at each close."""
        await self.fs.flush(handle)
        if self.waits:
            await self.fs._files.bring(self.fs._files._handle(handle).inode)

    async def bring(self, ino: int) -> None:
        """Have a file on the grid, contents and names."""
        await self.fs._files.bring(self.tree.table[ino])

    async def read(self, path: str) -> bytes:
        """Open a file, read all of it and close it."""
        return await self.read_ino((await self.path(path)).ino)

    async def read_ino(self, ino: int) -> bytes:
        opened = await self.fs.open(ino, os.O_RDONLY)
        try:
            parts = []
            while data := await self.fs.read(opened.handle, sum(map(len, parts)), 1 << 17):
                parts.append(data)
            return b"".join(parts)
        finally:
            await self.fs.release(opened.handle)

    async def mkdir(self, path: str, mode: int = 0o755) -> Attributes:
        return await self.fs.mkdir(*await self.split(path), mode, ME)

    async def symlink(self, path: str, target: bytes) -> Attributes:
        return await self.fs.symlink(*await self.split(path), target, ME)

    async def unlink(self, path: str) -> None:
        await self.fs.unlink(*await self.split(path))

    async def rename(self, old: str, new: str, flags: int = 0) -> None:
        await self.fs.rename(*await self.split(old), *await self.split(new), flags)

    async def listdir(self, path: str = "") -> list[bytes]:
        return [entry.name for entry in await self.entries(path)]

    async def entries(self, path: str = ""):
        handle = await self.fs.opendir((await self.path(path)).ino)
        entries = [entry async for entry in self.fs.readdir(handle, 0)]
        await self.fs.releasedir(handle)
        return entries

    async def settled(self) -> None:
        """Wait until nothing is pending."""
        assert await self.fs.flush_all() == ()

    async def on_grid(self, path: str = ""):
        """What another client would see listed in a directory now."""
        cap = self.tree.directory_inode((await self.path(path)).ino).cap
        async with open_maker(self.maker.grid.broker, self.clock) as maker:
            return await maker.directory(cap).table(0)


@asynccontextmanager
async def open_maker(
    broker,
    clock: WallClock,
    host: str = "desk",
    *,
    key_pool: KeyPool | None = None,
    max_segment_size: int = 1 << 20,
    convergence: bytes | None = SECRETS.convergence_secret,
) -> AsyncIterator[NodeMaker]:
    """A client of a grid: one of several, perhaps, that share a key pool."""
    async with KeyPool.open(1) as own, SegmentCache.open(1 << 22) as segments:
        pool = own if key_pool is None else key_pool
        grid = Grid(
            broker=broker,
            secrets=SECRETS,
            encoding=Encoding(2, 2, 3, max_segment_size),
            key_pool=pool,
            segment_cache=segments,
            contents_cache=ContentsCache(1 << 22),
            convergence=convergence,
        )
        yield NodeMaker(grid, host=host, clock=clock.seconds)


_journals: set[Path] = set()  # of the worlds that are open


def _free_journal(directory: Path) -> Path:
    """Where the journals of one of several mounts beside each other are."""
    names = itertools.chain(["journal"], (f"journal{number}" for number in itertools.count(2)))
    return next(path for name in names if (path := directory / name) not in _journals)


@asynccontextmanager
async def open_world(
    broker, directory, root_cap=None, *, host: str = "desk", key_pool=None, **settings
) -> AsyncIterator[World]:
    """Mount a root, a new one if none is given."""
    clock = settings.pop("clock", None) or WallClock()
    recorder = settings.pop("recorder", None)
    waits = settings.pop("waits", "sync" not in settings)
    convergence = settings.pop("convergence", SECRETS.convergence_secret)
    changes: list[Changed] = []
    journal = _free_journal(directory)
    async with open_maker(broker, clock, host, key_pool=key_pool, convergence=convergence) as maker:
        if root_cap is None:
            root_cap = (await maker.create_directory(MutableFormat.SDMF)).cap
        vfs_settings = VfsSettings(
            staging_directory=directory / "staging",
            state_directory=directory / "state",
            journal_directory=journal,
            owner_uid=1000,
            owner_gid=1000,
            changed=changes.append,
            now=clock,
            **{"max_age": 0.0, "quiet": NEVER, "retry_first": NEVER, **settings},
        )
        root = maker.directory(root_cap)
        async with open_filesystem(root, maker, broker, vfs_settings, recorder) as fs:
            _journals.add(journal)
            try:
                yield World(fs, maker, clock, changes, waits, directory)
            finally:
                _journals.remove(journal)


@pytest.fixture
def broker():
    return fake_grid(3)


@pytest.fixture
def servers(broker):
    return broker.servers


@pytest.fixture
async def world(broker, tmp_path):
    async with open_world(broker, tmp_path) as world:
        yield world


@pytest.fixture
async def calm(broker, tmp_path):
    """Listings are believed for long, as between two requests of one program."""
    async with open_world(broker, tmp_path, max_age=1e6) as world:
        await world.mkdir("d")
        await world.mkdir("e")
        await world.write("d/f", b"first")
        await world.write("d/g", b"other")
        await world.settled()
        yield world


@pytest.fixture
async def other(calm, broker):
    """Another client's view of the directory d."""
    async with open_maker(broker, calm.clock, host="laptop") as maker:
        yield maker.directory(calm.tree.directory_inode((await calm.path("d")).ino).cap)


@pytest.fixture
async def root(broker, tmp_path):
    """A root with a file in a folder, and nothing pending."""
    async with open_world(broker, tmp_path) as world:
        await world.mkdir("d")
        await world.write("d/f", b"first")
        await world.write("g", b"other")
        await world.settled()
        return world.tree.directory_inode(ROOT).cap


@pytest.fixture
def mount(broker, tmp_path, root):
    """One mount of it after the other, of which none brings anything to the grid by itself."""
    return lambda **settings: open_world(
        broker, tmp_path, root, **{"sync": False, "max_age": 1e6, **settings}
    )


@pytest.fixture
def running_clock(autojump_clock):
    """A virtual clock that runs on when nothing else happens, worker threads included."""
    autojump_clock.autojump_threshold = 0.03
    return autojump_clock


@pytest.fixture
def patient_clock() -> PatientClock:
    """A virtual clock that runs on when nothing else happens, and waits for worker threads."""
    return PatientClock(idle=0.0)


async def eventually(condition) -> None:
    """Wait until something is so."""
    with trio.fail_after(1000):
        while not condition():  # noqa: ASYNC110 - many different things are waited for
            await trio.sleep(5)
