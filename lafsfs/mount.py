"""The composition root: the one place that builds the whole object graph, bottom up.

    servers, broker                             open_servers()    directories, and whoever is found
    secrets, keys, caches                       open_grid()       what the command line needs too
    file system, handlers, session              run_mount()       serves until unmounted

Every part is an async context manager inside the one it needs, so that whatever fails while the
next is built or used, what is open is closed in the opposite order. Nothing here decides anything
but defaults:

- One storage directory is 1-of-1; ``m`` servers are ``ceil(m/2)``-of-``m``, happy when ``k``
  servers took a share. Grids of ten and more that others offer are 3-of-10, as everybody does it.
- The client's two secrets are made at first use and kept 0600 in the configuration's ``private/``,
  under the names and in the form that Tahoe-LAFS uses. A Tahoe node's are read, never made.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets as random
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import trio

from lafsfs.cache.disk import DiskCache
from lafsfs.cache.places import PlaceMemory
from lafsfs.cache.segments import SegmentCache
from lafsfs.caps import DirectoryCap, MutableFormat
from lafsfs.control.server import open_control
from lafsfs.crypto import base32
from lafsfs.errors import (
    ConfigError,
    FormatError,
    NotADirectoryNodeError,
    UsageError,
)
from lafsfs.fuse.arenas import tune_malloc
from lafsfs.fuse.invalidation import Invalidations
from lafsfs.fuse.operations import Deadlines, LafsOperations
from lafsfs.fuse.requests import enlarge_read_ahead
from lafsfs.fuse.serving import Patience, serve
from lafsfs.fuse.session import check_mountpoint, open_session
from lafsfs.gbs.discovery.roster import Roster
from lafsfs.gbs.discovery.sources import Sources
from lafsfs.gbs.discovery.subscription import can_subscribe, introduce, keep_subscribed
from lafsfs.grid.encoding import Encoding
from lafsfs.grid.known import open_directories
from lafsfs.grid.local import LocalServer
from lafsfs.grid.secrets import ClientSecrets
from lafsfs.mutable.contents import ContentsCache
from lafsfs.mutable.keypool import KeyPool
from lafsfs.nodes.maker import Grid, NodeMaker
from lafsfs.vfs.api import VfsSettings
from lafsfs.vfs.filesystem import open_filesystem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from lafsfs.caps import Cap
    from lafsfs.gbs.discovery.node_dir import NodeDirectory
    from lafsfs.grid.api import StorageServer
    from lafsfs.vfs.api import Left
    from lafsfs.vfs.filesystem import FileSystem
    from lafsfs.vfs.recording.replay import Found

log = logging.getLogger(__name__)

SECRET_SIZE = 32  # bytes
COMMON = Encoding(3, 7, 10)  # what stock Tahoe-LAFS does unless it is told otherwise
MEMORY_CACHE_SIZE = 64 << 20  # bytes: a few dozen files being read at once, read-ahead included
DISK_CACHE_SIZE = 1 << 30  # bytes, where shares come over a network
READ_AHEAD = 32 << 20  # bytes that all open files may be ahead, and half of the memory at most
GRACE = 5.0  # seconds beyond the deadline of reads, which say why they fail


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Bounds in bytes of what is kept of files that were read, encrypted.

    Attributes:
        memory: of segments in memory.
        disk: of segments in ``directory``; ``None`` for what suits: nothing where all shares are on
            this machine anyway.
        directory: where share locations are remembered too; ``None`` for no memory across mounts.
    """

    memory: int = MEMORY_CACHE_SIZE
    disk: int | None = None
    directory: Path | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What the grid is built from.

    Attributes:
        storage: directories, each a server of the embedded grid; those that do not exist are made.
        config_directory: the client's secrets are in its ``private/``.
        state_directory: what belongs to this machine: the journals, the root's attributes.
        encoding: ``None`` for what suits the number of servers.
        convergent: whether equal files are stored once; otherwise every upload has a random key.
        sources: what names servers that are not directories here.
        node: the Tahoe node's directory that the secrets are in; ``None`` for our own.
        follow: whether to stay in step with the sources, as only what runs for long needs to.
        caches: what is kept of what was read.
        journal_limit: bytes of what was written and is not on the grid; ``None`` for what suits
            the disk.
    """

    storage: tuple[Path, ...]
    config_directory: Path
    state_directory: Path
    encoding: Encoding | None = None
    convergent: bool = True
    sources: Sources = field(default_factory=Sources)
    node: NodeDirectory | None = None
    follow: bool = False
    caches: CacheSettings = field(default_factory=CacheSettings)
    journal_limit: int | None = None


# Options of mount(8) that the kernel or fusermount3 understands, and those that only concern who
# mounts and when.
_KERNEL_OPTIONS = """
    suid nosuid dev nodev exec noexec atime noatime async dirsync
"""
_IGNORED_OPTIONS = """
    rw defaults auto noauto user nouser users owner group nofail _netdev relatime norelatime
    diratime nodiratime strictatime lazytime
"""
KERNEL_OPTIONS = frozenset(_KERNEL_OPTIONS.split())
IGNORED_OPTIONS = frozenset(_IGNORED_OPTIONS.split())


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What ``-o`` says.

    ``uid``, ``gid`` and ``umask`` are shown instead of what is stored of every file. ``kernel`` is
    for the mount itself. ``deadline``: seconds until a request that only reads fails. ``refresh``:
    seconds after which what others may have changed is looked at again. ``sync``: whether closing
    a file and changing a name wait for the grid (the kernel is not told, or every single write
    would). ``quiet``: seconds that what was written waits
    before it goes there.
    """

    read_only: bool = False
    allow_other: bool = False
    uid: int | None = None
    gid: int | None = None
    umask: int | None = None
    deadline: float = 60.0
    refresh: float = 2.0
    sync: bool = False
    quiet: float = 1.0
    kernel: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def parse(cls, text: str) -> MountOptions:
        """Understand a comma-separated list, as mount(8) and fstab write it.

        Raises:
            UsageError: an option that does not exist, or a number that is none.
        """
        values: dict[str, object] = {}
        kernel: set[str] = set()
        for option in filter(None, text.split(",")):
            name, _, value = option.partition("=")
            if name in ("uid", "gid", "umask"):
                values[name] = _number(name, value, 8 if name == "umask" else 10)
            elif name in ("deadline", "refresh", "quiet"):
                values[name] = _seconds(name, value)
            elif option == "sync":
                values["sync"] = True
            elif option == "ro":
                values["read_only"] = True
            elif option == "allow_other":
                values["allow_other"] = True
            elif option in KERNEL_OPTIONS:
                kernel.add(option)
            elif option not in IGNORED_OPTIONS and not name.startswith(("x-", "comment")):
                raise UsageError(f"there is no mount option {name!r}")
        return cls(kernel=frozenset(kernel), **values)  # type: ignore[arg-type]

    def for_fuse(self) -> frozenset[str]:
        """The options that libfuse is to mount with."""
        chosen = {"default_permissions", "fsname=lafsfs", "subtype=lafsfs", *self.kernel}
        if self.read_only:
            chosen.add("ro")
        if self.allow_other:
            chosen.add("allow_other")
        return frozenset(chosen)


def _number(name: str, value: str, base: int) -> int:
    try:
        number = int(value, base)
    except ValueError:
        number = -1
    if not 0 <= number < (0o1000 if base == 8 else 2**32 - 1):
        raise UsageError(f"mount option {name} needs a number" + " in octal" * (base == 8))
    return number


def _seconds(name: str, value: str) -> float:
    """Seconds, with or without a fraction. A deadline of none at all would fail everything."""
    whole, _, fraction = value.partition(".")
    if not whole.isdecimal() or not whole.isascii() or not (fraction or "0").isdecimal():
        raise UsageError(f"mount option {name} needs a number of seconds")
    seconds = float(value)
    if seconds > 86400 or (name == "deadline" and seconds < 1):
        raise UsageError(f"mount option {name}: {value} seconds make no sense")
    return seconds


# --- the grid -------------------------------------------------------------------------------------


@asynccontextmanager
async def open_grid(settings: Settings) -> AsyncIterator[NodeMaker]:
    """Servers, secrets, keys and caches, for as long as the context lasts.

    Raises:
        ConfigError: a file, a storage directory or a secret is unusable, or no server is known; the
            message names the file.
        ServerUnavailableError: none of the storage directories is there.
        UsageError: a storage directory is named twice.
    """
    secrets = await trio.to_thread.run_sync(_secrets_of, settings)
    async with open_servers(settings) as roster:
        _require_servers(roster)
        async with (
            _in_step(settings, roster),
            KeyPool.open() as key_pool,
            open_caches(settings.caches, secrets, roster.broker.servers) as (segment_cache, places),
        ):
            grid = Grid(
                broker=roster.broker,
                secrets=secrets,
                encoding=settings.encoding or _default_encoding(roster),
                key_pool=key_pool,
                segment_cache=segment_cache,
                contents_cache=ContentsCache(),
                convergence=secrets.convergence_secret if settings.convergent else None,
                places=places,
            )
            yield NodeMaker(grid)


@asynccontextmanager
async def open_servers(settings: Settings) -> AsyncIterator[Roster]:
    """All servers that are configured or can be found, usable or not.

    Raises:
        ConfigError, ServerUnavailableError, UsageError: as :func:`open_grid`.
    """
    config = settings.config_directory
    if settings.storage:
        await trio.to_thread.run_sync(_make_private, config)
    async with open_directories(settings.storage, config / "storage.json") as local:
        await introduce(settings.sources.introducers)
        async with Roster.open(settings.sources, local, config / "servers.json") as roster:
            yield roster


@asynccontextmanager
async def _in_step(settings: Settings, roster: Roster) -> AsyncIterator[None]:
    """Follow what names servers, while something runs that lives for long."""
    if not settings.follow:
        yield
        return
    async with trio.open_nursery() as nursery:
        if can_subscribe():
            for introducer in settings.sources.introducers:
                nursery.start_soon(keep_subscribed, introducer.furl, introducer.own)
        nursery.start_soon(roster.follow)
        yield
        nursery.cancel_scope.cancel()


def _require_servers(roster: Roster) -> None:
    """Raise ConfigError if there is nobody to talk to."""
    if roster.broker.servers:
        return
    faults = [f"{entry.record.name}: {entry.fault}" for entry in roster.entries()]
    reasons = "; ".join(faults[:3]) or "none is configured, and none was announced"
    raise ConfigError(f"there is no storage server that can be used ({reasons})")


def _default_encoding(roster: Roster) -> Encoding:
    count = len(roster.broker.servers)
    others = count - len(roster.local)
    return COMMON if others and count >= COMMON.n else Encoding.for_servers(count)


def _secrets_of(settings: Settings) -> ClientSecrets:
    if settings.node is not None:
        return settings.node.secrets()
    return load_secrets(settings.config_directory / "private")


@asynccontextmanager
async def open_caches(
    settings: CacheSettings, secrets: ClientSecrets, servers: Sequence[StorageServer]
) -> AsyncIterator[tuple[SegmentCache, PlaceMemory]]:
    """The memory of what was read, and the memory of where it was.

    A cache on the disk that cannot be used is done without.
    """
    directory, size = settings.directory, settings.disk
    if size is None:
        is_local = all(isinstance(server, LocalServer) for server in servers)
        size = 0 if is_local else DISK_CACHE_SIZE
    memory_file = None if directory is None else directory / "places"
    async with contextlib.AsyncExitStack() as stack:
        places = await stack.enter_async_context(
            PlaceMemory.open(memory_file, secrets.lease_secret)
        )
        disk = None
        if size and directory is not None:
            try:
                disk = await stack.enter_async_context(
                    DiskCache.open(directory / "segments", secrets.lease_secret, size)
                )
            except ConfigError as error:
                log.warning("going on without a cache on the disk: %s", error)
        yield await stack.enter_async_context(SegmentCache.open(settings.memory, disk)), places


def load_secrets(directory: Path) -> ClientSecrets:
    """The client's secrets, made at first use. For a worker thread.

    Raises:
        ConfigError: the directory or a file in it is unreadable or holds no secret.
    """
    _make_private(directory.parent)
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        return ClientSecrets(
            lease_secret=_load_secret(directory / "secret"),
            convergence_secret=_load_secret(directory / "convergence"),
        )
    except OSError as error:
        raise ConfigError(f"{error.filename or directory}: {error.strerror}") from None


def _load_secret(path: Path) -> bytes:
    """One secret. Two processes that start at once agree on it: the first link wins."""
    if not path.exists():
        draft = path.with_name(f".{path.name}.{random.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(base32.encode(random.token_bytes(SECRET_SIZE)) + "\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            os.unlink(draft)
    try:
        return base32.decode(path.read_text(encoding="ascii").strip(), SECRET_SIZE)
    except (FormatError, UnicodeDecodeError):
        raise ConfigError(f"{path} does not hold a secret of {SECRET_SIZE} bytes") from None


# --- the mount ------------------------------------------------------------------------------------


async def run_mount(
    settings: Settings,
    root: Cap,
    mountpoint: Path,
    options: MountOptions,
    *,
    directory_format: MutableFormat = MutableFormat.SDMF,
    control: Path | None = None,
    ready: Callable[[Sequence[str]], None] = lambda notes: None,
) -> Left | None:
    """Mount ``root`` and serve it until it is unmounted, or SIGTERM or SIGINT arrives.

    ``ready`` is called once, when the root directory has been read and the mount is there, with
    lines that whoever mounts should read.
    ``control``: where commands can reach the mount (:mod:`lafsfs.control`). What is pending at the
    end is brought to the grid before this returns, as far as that can be done
    (:mod:`lafsfs.fuse.serving`); the rest, which stays in the journal, is returned.

    Raises:
        MountError: the mount cannot be made.
        NotADirectoryNodeError: the capability is not of a directory.
        LafsError: the root cannot be read.
    """
    if not isinstance(root, DirectoryCap):
        raise NotADirectoryNodeError(f"this {root.kind} capability is of a file, not of a folder")
    tune_malloc()
    await trio.to_thread.run_sync(check_mountpoint, mountpoint)
    real_mountpoint = await trio.to_thread.run_sync(os.path.realpath, mountpoint)
    await trio.to_thread.run_sync(_make_private, settings.state_directory)
    if not root.can_write:  # then nothing below can be written either
        options = replace(options, read_only=True)
    async with open_grid(replace(settings, follow=True)) as maker:
        directory = maker.directory(root)
        invalidations = Invalidations()
        vfs_settings = VfsSettings(
            staging_directory=settings.state_directory / "staging",
            state_directory=settings.state_directory,
            journal_directory=settings.state_directory / "journal",
            journal_limit=settings.journal_limit,
            read_only=options.read_only,
            uid=options.uid,
            gid=options.gid,
            umask=options.umask,
            directory_format=directory_format.value.lower(),
            changed=invalidations,
            max_age=options.refresh,
            attr_valid=options.refresh / 2,
            entry_valid=options.refresh / 2,
            deadline=options.deadline,
            quiet=options.quiet,
            sync=options.sync,
            read_ahead=min(READ_AHEAD, settings.caches.memory // 2),
        )
        async with open_filesystem(directory, maker, maker.grid.broker, vfs_settings) as fs:
            operations = LafsOperations(
                fs,
                Deadlines(answer=options.deadline + GRACE),
                first_open=partial(enlarge_read_ahead, real_mountpoint),
            )
            patience = Patience()
            async with (
                open_session(operations, mountpoint, options.for_fuse(), invalidations) as session,
                _controlled(control, fs, patience),
            ):
                return await serve(session, fs, patience, lambda: ready(_notes(fs.found)))


def _notes(found: Found) -> tuple[str, ...]:
    """What to say of a journal, also to the log."""
    notes = []
    if found.changes:
        notes.append(f"journal: {found}")
    if found.went_back:
        notes.append(
            "journal: a power failure took what was accepted in the last seconds before it"
        )
    for note in notes:
        log.warning("%s", note)
    return tuple(notes)


def _controlled(
    path: Path | None, fs: FileSystem, patience: Patience
) -> contextlib.AbstractAsyncContextManager[None]:
    if path is None:
        return contextlib.nullcontext()
    return open_control(path, fs, lambda: patience.limit(0.0))


def _make_private(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot use {directory}: {error.strerror}") from None
