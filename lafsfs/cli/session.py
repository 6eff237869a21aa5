"""What every command shares: the configuration, the aliases, and a grid for as long as it takes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from lafsfs.cli.aliases import Aliases
from lafsfs.cli.config import Config, Places, load_config
from lafsfs.errors import ChildExistsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lafsfs.caps import Cap, MutableFormat
    from lafsfs.grid.encoding import Encoding
    from lafsfs.mount import CacheSettings, Settings
    from lafsfs.nodes.maker import NodeMaker

P = ParamSpec("P")
T = TypeVar("T")


def with_config(command: Callable[..., T]) -> Callable[..., T]:
    """Give a command ``--storage``, and a :class:`Config` as its first argument."""

    @click.option(
        "--storage",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="DIR",
        help="A directory that holds shares; each is a server. Repeatable. [LAFSFS_STORAGE]",
    )
    @functools.wraps(command)
    def wrapped(storage: tuple[Path, ...], **arguments: Any) -> T:  # noqa: ANN401
        return command(load_config(Places.find(), storage=storage), **arguments)

    return wrapped


def aliases_of(config: Config) -> Aliases:
    """The user's aliases."""
    return Aliases(config.aliases_file)


def run_on_grid(config: Config, work: Callable[[NodeMaker], Awaitable[T]]) -> T:
    """Run ``work`` with a node maker on the configured grid, in a Trio of its own."""
    import trio

    from lafsfs.mount import open_grid

    async def run() -> T:
        async with open_grid(settings_of(config)) as maker:
            return await work(maker)

    return trio.run(run)


def settings_of(config: Config) -> Settings:
    """The configuration in the composition root's terms.

    Raises:
        UsageError: the numbers fit no encoding.
    """
    from lafsfs.mount import Settings

    return Settings(
        storage=config.storage,
        config_directory=config.places.config,
        state_directory=config.places.state,
        encoding=encoding_of(config),
        convergent=config.convergence == "client",
        caches=caches_of(config),
    )


def caches_of(config: Config) -> CacheSettings:
    """What ``[cache]`` says, laid over the defaults."""
    from lafsfs.mount import MEMORY_CACHE_SIZE, CacheSettings

    memory = config.cache_memory or MEMORY_CACHE_SIZE
    return CacheSettings(memory, config.cache_disk, config.read_cache)


def encoding_of(config: Config) -> Encoding | None:
    """What ``[encoding]`` overrides, laid over the default for that many directories."""
    from lafsfs.grid.encoding import Encoding

    given = (config.needed, config.happy, config.total, config.segment_size)
    if given == (None, None, None, None):
        return None
    default = Encoding.for_servers(len(config.storage))
    k = config.needed or default.k
    n = config.total or max(default.n, k)
    happy = config.happy or min(k, n)
    return Encoding(k, happy, n, config.segment_size or default.max_segment_size)


def create_alias(config: Config, name: str, format: MutableFormat) -> Cap:
    """Make a directory on the grid and name it; what it is called is not taken yet.

    Raises:
        ChildExistsError: the name is taken.
    """
    aliases = aliases_of(config)
    if name in aliases:
        raise ChildExistsError(f"there is an alias {name!r} already")

    async def made(maker: NodeMaker) -> Cap:
        return (await maker.create_directory(format)).cap

    cap = run_on_grid(config, made)
    aliases.add(name, cap)
    return cap
