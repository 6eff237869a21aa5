"""A mount that random things are done to, photographed at every place where it could be killed.

A :class:`Story` keeps the list of *states*: all that the mount showed, one after each verb. An
:class:`Image` is what a killed process leaves, the journal's directory and the grid, with the
states that may be found in it. :func:`developed` mounts an image and sees that it shows one of
them, and that the grid has the same once everything is settled.
"""

from __future__ import annotations

import os
import random
import shutil
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from lafsfs.grid.broker import Broker
from lafsfs.journal.faultpoints import watch
from lafsfs.vfs.api import RENAME_EXCHANGE, ROOT_INODE, SetAttributes
from lafsfs.vfs.posix.attributes import Kind
from tests.fakes import FakeServer, FakeShare
from tests.vfs.conftest import ME, World, open_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from lafsfs.caps import Cap
    from lafsfs.mutable.keypool import KeyPool

LARGE = 200_000  # bytes: more than the journal keeps in its database


@dataclass(frozen=True)
class Node:
    """What is seen of one file or directory. ``mtime``: None of directories, whose differ."""

    kind: Kind
    mode: int
    contents: bytes = b""
    mtime: int | None = None
    nlink: int = 1
    xattrs: tuple[tuple[bytes, bytes], ...] = ()

    def __repr__(self) -> str:
        return f"{self.kind.value} {self.mode:o} {len(self.contents)} {self.contents[:6]!r}"


State = dict[str, Node]  # by path


async def seen(world: World) -> State:
    """Everything that a mount shows."""
    state: State = {}
    await _look(world, ROOT_INODE, "", state)
    return state


async def _look(world: World, ino: int, path: str, state: State) -> None:
    fs = world.fs
    handle = await fs.opendir(ino)
    entries = [entry async for entry in fs.readdir(handle, 0)]
    await fs.releasedir(handle)
    for entry in entries:
        if entry.name in (b".", b".."):
            continue
        found = await fs.lookup(ino, entry.name)
        name = f"{path}/{entry.name.decode()}"
        kind = Kind.of_mode(found.mode)
        assert kind is not None
        contents = b""
        if kind is Kind.FILE:
            contents = await world.read_ino(found.ino)
            assert len(contents) == found.size
        elif kind is Kind.SYMLINK:
            contents = await fs.readlink(found.ino)
        names = await fs.listxattr(found.ino)
        xattrs = [
            (one, await fs.getxattr(found.ino, one, ME)) for one in names if b"lafs" not in one
        ]
        is_directory = kind is Kind.DIRECTORY
        mtime = None if is_directory else found.mtime_ns
        state[name] = Node(
            kind,
            found.mode & 0o7777,
            contents,
            mtime,
            found.nlink * (not is_directory),
            tuple(sorted(xattrs)),
        )
        if is_directory:
            await _look(world, found.ino, name, state)
        fs.forget([(found.ino, 1)])


@dataclass
class Image:
    """What is left of a process that was killed at ``place``.

    ``first`` and ``last``: between which of the story's states it may show. ``writing``: a path
    whose contents may be anything that was being written, as those of what was open then may.
    ``is_older``: it may show any moment since the first of them, and also what was being written
    then.
    """

    place: str
    directory: Path
    broker: Broker
    first: int
    last: int
    writing: str | None = None
    is_older: bool = False


def copied_grid(broker: Broker) -> Broker:
    """Other servers that hold the same."""
    servers = []
    for server in broker.servers:
        copy = FakeServer(server.name)
        for key, share in list(server.shares.items()):
            copy.shares[key] = FakeShare(
                share.kind, bytearray(share.data), share.write_enabler, dict(share.leases)
            )
        servers.append(copy)
    return Broker(servers)


def copied_directory(directory: Path, target: Path) -> Path:
    """A mount's directory as a killed process leaves it."""
    shutil.copytree(directory, target, ignore=shutil.ignore_patterns("*-shm"))
    return target


@dataclass
class Story:
    """Random verbs on one mount. ``states[-1]`` is what is shown now."""

    world: World
    random: random.Random
    directory: Path
    album: Path
    states: list[State] = field(default_factory=list)
    written: list[str | None] = field(default_factory=list)  # before each state
    open: list[frozenset[str]] = field(default_factory=list)  # in each state: being written to
    images: list[Image] = field(default_factory=list)
    accepted: int = 0  # index of the newest state that was accepted whole
    writing: str | None = None
    every: int = 1  # photograph every so many places
    _places: int = 0
    _held: tuple[int, int] | None = None  # number and handle of a file that is kept open
    _waits: bool = False  # the verb has changed nothing but a file that is kept open

    # the camera

    def photograph(self, place: str) -> None:
        """A place is reached, in the event loop or in a thread."""
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            trio.from_thread.run_sync(self._photograph, place)
        else:
            self._photograph(place)

    def _photograph(self, place: str) -> None:
        self._places += 1
        if (
            not self.states
            or self._places % self.every
            or (self.random.random() < 0.7 and place.startswith("server."))
        ):
            return
        target = copied_directory(self.directory, self.album / str(len(self.images)))
        broker = copied_grid(self.world.maker.grid.broker)
        self.images.append(
            Image(place, target, broker, self.accepted, len(self.states), self.writing)
        )

    # what happens

    async def act(self) -> None:
        """One random thing."""
        verbs = (
            *[self.make] * 3,
            *[self.rest] * 4,
            *[self.rename, self.unlink, self.rewrite] * 2,
            *[self.append, self.large, self.mkdir, self.symlink, self.exchange, self.rmdir],
            *[self.chmod, self.utimens, self.link, self.setxattr, self.truncate, self.save],
            *[self.hold, self.scribble, self.let_go],
        )
        verb = self.random.choice(verbs)
        await verb()
        await self.done()
        await trio.sleep(self.random.choice([0, 0, 0.2, 0.6]))

    async def done(self) -> None:
        """What was done is accepted, or will be with what comes next."""
        self.states.append(await seen(self.world))
        self.written.append(self.writing)
        self.open.append(frozenset(self._paths_of_held()))
        does_nothing = self.states[-1:] == self.states[-2:-1]  # so nothing was accepted either
        if not self._waits and not does_nothing:
            self.accepted = len(self.states) - 1
        self.writing, self._waits = None, False
        # what a place was reached in may have come to just this state
        for image in self.images:
            image.last = min(image.last, len(self.states) - 1)

    def allowed(self, image: Image) -> Iterator[tuple[State, frozenset[str | None]]]:
        """The states that an image may show, with paths whose contents may be anything."""
        for at in range(image.first, image.last + 1):
            state, held = self.states[at], self.open[at]
            if at:
                held |= self.open[at - 1]  # which it was until it was closed
            yield state, held | {image.writing}
            if image.is_older:  # than what was accepted: between this state and its neighbours
                yield state, held | {self.written[at]}
                if at < image.last:
                    yield state, held | {self.written[at + 1]}

    @property
    def now(self) -> State:
        return self.states[-1] if self.states else {}

    def _paths(self, *kinds: Kind) -> list[str]:
        return sorted(path for path, node in self.now.items() if node.kind in kinds)

    def _some(self, *kinds: Kind) -> str | None:
        paths = self._paths(*kinds)
        return self.random.choice(paths) if paths else None

    def _new(self) -> str:
        parent = self.random.choice(["", *self._paths(Kind.DIRECTORY)])
        free = [f"{parent}/{letter}" for letter in "abcdefgh"]
        free = [path for path in free if path not in self.now]
        return self.random.choice(free) if free else f"{parent}/{self.random.getrandbits(40):x}"

    def _data(self) -> bytes:
        return self.random.randbytes(self.random.choice([0, 10, 100, 5000]))

    async def make(self) -> None:
        self.writing = self._new()
        await self.world.write(self.writing, self._data(), self.random.choice([0o600, 0o644]))

    async def rewrite(self) -> None:
        path = self._some(Kind.FILE)
        if path is not None:
            self.writing = path
            await self.world.write(path, self._data())

    async def large(self) -> None:
        self.writing = self._some(Kind.FILE) if self.random.random() < 0.5 else None
        self.writing = self.writing or self._new()
        await self.world.write(self.writing, self.random.randbytes(LARGE))

    async def append(self) -> None:
        """Open, write in the middle and behind the end, close."""
        path = self._some(Kind.FILE)
        if path is None:
            return
        self.writing = path
        fs, found = self.world.fs, await self.world.path(path)
        opened = await fs.open(found.ino, 1)
        try:
            await fs.write(opened.handle, found.size // 2, self._data())
            await fs.write(opened.handle, found.size + 7, self._data())
            await fs.flush(opened.handle)
        finally:
            await fs.release(opened.handle)

    async def truncate(self) -> None:
        path = self._some(Kind.FILE)
        if path is not None:
            self.writing = path
            await self._set(path, size=self.random.choice([0, 3, 300]))

    async def save(self) -> None:
        """As an editor does: another file, renamed over."""
        path = self._some(Kind.FILE)
        if path is None:
            return
        self.writing = path + "~"
        await self.world.write(self.writing, self._data())
        await self.done()
        await self.world.rename(path + "~", path)

    async def mkdir(self) -> None:
        await self.world.mkdir(self._new(), self.random.choice([0o755, 0o700]))

    async def symlink(self) -> None:
        await self.world.symlink(self._new(), self.random.randbytes(20).hex().encode())

    async def rename(self) -> None:
        source = self._some(Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK)
        if source is None:
            return
        target = self._new()
        if self.random.random() < 0.4 and self.now[source].kind is not Kind.DIRECTORY:
            target = self._some(Kind.FILE, Kind.SYMLINK) or target
        if not f"{target}/".startswith(f"{source}/"):
            await self.world.rename(source, target)

    async def exchange(self) -> None:
        one, other = self._some(Kind.FILE, Kind.SYMLINK), self._some(Kind.FILE, Kind.DIRECTORY)
        if one is not None and other is not None and not one.startswith(f"{other}/"):
            await self.world.rename(one, other, RENAME_EXCHANGE)

    async def unlink(self) -> None:
        path = self._some(Kind.FILE, Kind.SYMLINK)
        if path is not None:
            await self.world.unlink(path)

    async def rmdir(self) -> None:
        empty = [
            path
            for path in self._paths(Kind.DIRECTORY)
            if not any(other.startswith(f"{path}/") for other in self.now)
        ]
        if empty:
            await self.world.fs.rmdir(*await self.world.split(self.random.choice(empty)))

    async def link(self) -> None:
        path = self._some(Kind.FILE)
        if path is not None:
            parent, name = await self.world.split(self._new())
            await self.world.fs.link((await self.world.path(path)).ino, parent, name)

    async def chmod(self) -> None:
        path = self._some(Kind.FILE, Kind.DIRECTORY)
        if path is not None:
            await self._set(path, mode=self.random.choice([0o640, 0o750, 0o711]))

    async def utimens(self) -> None:
        path = self._some(Kind.FILE, Kind.SYMLINK)
        if path is not None:
            await self._set(path, mtime_ns=self.random.randrange(10**18))

    async def setxattr(self) -> None:
        path = self._some(Kind.FILE, Kind.DIRECTORY)
        if path is not None:
            ino = (await self.world.path(path)).ino
            await self.world.fs.setxattr(ino, b"user.note", self.random.randbytes(9), ME)
            self._waits = self._held is not None and ino == self._held[0]

    async def hold(self) -> None:
        """Make a file, or open one, write to it, and keep it open."""
        await self.let_go()
        existing = self._some(Kind.FILE)
        path = existing if existing and self.random.random() < 0.3 else self._new()
        parent, name = await self.world.split(path)
        opened, found = await self.world.fs.create(parent, name, 0o600, os.O_WRONLY, ME)
        self._held = found.ino, opened.handle
        await self.scribble()
        self._waits = True

    async def scribble(self) -> None:
        """Write to the file that is open."""
        if self._held is not None:
            data = self.random.randbytes(self.random.choice([10, 5000, LARGE]))
            await self.world.fs.write(self._held[1], self.random.choice([0, 100]), data)
            self._waits = True

    async def let_go(self) -> None:
        """Close it."""
        if self._held is not None:
            (_, handle), self._held = self._held, None
            await self.world.fs.flush(handle)
            await self.world.fs.release(handle)
            await self.done()

    def _paths_of_held(self) -> Iterator[str]:
        if self._held is not None:
            for edge in self.world.tree.table[self._held[0]].edges:
                names = [one.binding.name for one in edge.path()]
                yield "".join(f"/{name}" for name in reversed(names))

    async def rest(self) -> None:
        await trio.sleep(self.random.choice([1.2, 1.5, 2.5, 20.0]))

    async def _set(self, path: str, **changes) -> None:
        ino = (await self.world.path(path)).ino
        await self.world.fs.setattr(ino, SetAttributes(**changes), ME)
        self._waits = self._held is not None and ino == self._held[0]


# --- afterwards -----------------------------------------------------------------------------------


async def developed(
    image: Image, story: Story, root: Cap, pool: KeyPool, *, again: bool = False
) -> None:
    """Mount what was left; it shows what was accepted, and brings it to the grid.

    ``again``: and what is left if that mount is killed at any place does so, too.
    """
    later: list[Image] = []
    async with mounted(image, root, pool) as world:
        state = await seen(world)
        if not any(fits(state, one, paths) for one, paths in story.allowed(image)):
            raise AssertionError(explained(state, story, image))
        with watch(lambda place: _keep(later, place, image, world) if again else None):
            assert await world.fs.flush_all() == ()
        settled = await seen(world)
        if settled != state:
            raise AssertionError(
                f"{image.place}: it was not so before:\n{difference(settled, state)}"
            )
    elsewhere = image.directory.with_name(f"{image.directory.name}-elsewhere")
    async with open_world(image.broker, elsewhere, root, key_pool=pool, sync=False) as world:
        there = await seen(world)
        assert there == state, f"{image.place}: the grid has something else\n" + difference(
            there, state
        )
    async with mounted(image, root, pool) as world:
        assert world.fs.found.changes == 0
    for one in later:
        async with mounted(one, root, pool) as world:
            assert await seen(world) == state, one.place
            assert await world.fs.flush_all() == ()
            assert await seen(world) == state, one.place


def mounted(image: Image, root: Cap, pool: KeyPool):
    """The next mount of what was left, which does nothing by itself."""
    return open_world(image.broker, image.directory, root, key_pool=pool, sync=False)


def _keep(images: list[Image], place: str, image: Image, world: World) -> None:
    """In the event loop, or in a thread while that goes on."""
    if len(images) < 12:
        target = image.directory.with_name(f"{image.directory.name}-{len(images)}")
        copied_directory(image.directory, target)
        broker = copied_grid(world.maker.grid.broker)
        images.append(Image(f"{image.place}, {place}", target, broker, 0, 0))


def fits(state: State, wanted: State, writing: frozenset[str | None]) -> bool:
    """Whether it is that state; what was being written may be anything."""
    return _masked(state, writing) == _masked(wanted, writing)


def _masked(state: State, writing: frozenset[str | None]) -> State:
    return {
        path: Node(node.kind, node.mode) if path in writing else node
        for path, node in state.items()
    }


def explained(state: State, story: Story, image: Image) -> str:
    lines = [image.place]
    lines += [
        f"-- against one, writing {paths}:\n{difference(state, one)}"
        for one, paths in story.allowed(image)
    ]
    return "\n".join(lines)


def difference(state: State, other: State) -> str:
    paths = sorted(path for path in state | other if state.get(path) != other.get(path))
    return "\n".join(f"  {path}: {state.get(path)} / {other.get(path)}" for path in paths)


@asynccontextmanager
async def storied(
    broker: Broker, tmp_path: Path, seed: int, pool: KeyPool, **settings
) -> AsyncIterator[Story]:
    """A story of a new mount."""
    directory = tmp_path / "mount"
    settings = {"quiet": 1.0, "retry_first": 1.0, "max_age": 0.0, "sync": False, **settings}
    async with open_world(broker, directory, key_pool=pool, **settings) as world:
        story = Story(world, random.Random(seed), directory, tmp_path / "album")
        await story.done()
        for server in broker.servers:
            server.before_call = lambda call: story.photograph("server." + call.verb)
        yield story
        for server in broker.servers:
            server.before_call = None
