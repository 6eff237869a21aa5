"""The composition root: the one place that builds the whole object graph, bottom up.

    servers, broker                             open_servers()    directories, and whoever is found
    secrets, keys, caches                       open_grid()       what the command line needs too
    file system, handlers, session              run_mount()       serves until unmounted

Every part is an async context manager inside the one it needs, so that whatever fails while the
next is built or used, what is open is closed in the opposite order. Nothing here decides anything
but defaults:

- One storage directory is 1-of-1; ``m`` servers are ``ceil(m/2)``-of-``m``, happy when ``k``
  servers took a share. Grids of ten and more that others offer are 3-of-10, as everybody does it.
- The client's two secrets are in the configuration's ``private/`` and made at first use. A Tahoe
  node's are read, never made.
"""

from __future__ import annotations

import contextlib
import logging
import os
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
from lafsfs.errors import ConfigError, NotADirectoryNodeError
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
from lafsfs.grid.private import load_secrets, make_private
from lafsfs.mutable.contents import ContentsCache
from lafsfs.mutable.keypool import RESTED_SIZE, KeyPool
from lafsfs.nodes.maker import Grid, NodeMaker
from lafsfs.vfs.api import VfsSettings
from lafsfs.vfs.filesystem import open_filesystem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from lafsfs.caps import Cap
    from lafsfs.fuse.options import MountOptions
    from lafsfs.gbs.discovery.node_dir import NodeDirectory
    from lafsfs.grid.api import StorageServer
    from lafsfs.grid.secrets import ClientSecrets
    from lafsfs.vfs.api import Changed
    from lafsfs.vfs.filesystem import FileSystem
    from lafsfs.vfs.recording.replay import Found
    from lafsfs.vfs.status import Left

log = logging.getLogger(__name__)

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
            KeyPool.open(rested_size=RESTED_SIZE) as key_pool,
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
        await trio.to_thread.run_sync(make_private, config)
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
    await trio.to_thread.run_sync(make_private, settings.state_directory)
    if not root.can_write:  # then nothing below can be written either
        options = replace(options, read_only=True)
    async with open_grid(replace(settings, follow=True)) as maker:
        if not options.read_only:
            await maker.grid.key_pool.expect()
        directory = maker.directory(root)
        invalidations = Invalidations()
        chosen = _vfs_settings(settings, options, directory_format, invalidations)
        async with open_filesystem(directory, maker, maker.grid.broker, chosen) as fs:
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
                return await serve(session, fs, patience, partial(_tell, fs.found, ready))


def _tell(found: Found, ready: Callable[[Sequence[str]], None]) -> None:
    """Say what was found in the journal, and then to the log, which is a file by now perhaps."""
    notes = _notes(found)
    ready(notes)
    for note in notes:
        log.warning("%s", note)


def _vfs_settings(
    settings: Settings,
    options: MountOptions,
    directory_format: MutableFormat,
    changed: Callable[[Changed], None],
) -> VfsSettings:
    state = settings.state_directory
    return VfsSettings(
        staging_directory=state / "staging",
        state_directory=state,
        journal_directory=state / "journal",
        journal_limit=settings.journal_limit,
        read_only=options.read_only,
        uid=options.uid,
        gid=options.gid,
        umask=options.umask,
        directory_format=directory_format.value.lower(),
        changed=changed,
        max_age=options.refresh,
        attr_valid=options.refresh / 2,
        entry_valid=options.refresh / 2,
        deadline=options.deadline,
        quiet=options.quiet,
        sync=options.sync,
        read_ahead=min(READ_AHEAD, settings.caches.memory // 2),
    )


def _notes(found: Found) -> tuple[str, ...]:
    """What to say of a journal."""
    notes = []
    if found.changes:
        notes.append(f"journal: {found}")
    if found.went_back:
        notes.append(
            "journal: a power failure took what was accepted in the last seconds before it"
        )
    return tuple(notes)


def _controlled(
    path: Path | None, fs: FileSystem, patience: Patience
) -> contextlib.AbstractAsyncContextManager[None]:
    if path is None:
        return contextlib.nullcontext()
    return open_control(path, fs, lambda: patience.limit(0.0))
