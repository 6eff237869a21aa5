"""What every command shares: the configuration, the aliases, and a grid for as long as it takes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from lafsfs.cli.aliases import HOME, ROOT_ALIAS, Aliases
from lafsfs.cli.config import NURL_START, Config, Places, load_config
from lafsfs.cli.logs import log_messages
from lafsfs.cli.servers import node_of, node_settings_of, sources_of
from lafsfs.errors import ChildExistsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lafsfs.caps import Cap, MutableFormat
    from lafsfs.grid.encoding import Encoding
    from lafsfs.mount import CacheSettings, Settings
    from lafsfs.nodes.maker import NodeMaker

P = ParamSpec("P")
T = TypeVar("T")


def with_config(command: Callable[..., T]) -> Callable[..., T]:
    """Give a command ``--storage`` and ``--node-dir``, and a :class:`Config` as first argument."""

    @click.option(
        "--storage",
        multiple=True,
        metavar="DIR|NURL",
        help="A directory that holds shares, or a storage server's NURL; each is a server. "
        "Repeatable. [LAFSFS_STORAGE]",
    )
    @click.option(
        "--node-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="A Tahoe client node's directory, such as ~/.tahoe: its grid, secrets, encoding and "
        "aliases. It is only read. [LAFSFS_NODE_DIRECTORY]",
    )
    @functools.wraps(command)
    def wrapped(storage: tuple[str, ...], node_dir: Path | None, **arguments: Any) -> T:  # noqa: ANN401
        if any(text.startswith(NURL_START) for text in storage):
            click.echo(
                "lafsfs: warning: others can see a NURL on the command line; "
                "[[grid.servers]] in the configuration keeps it private",
                err=True,
            )
        config = load_config(Places.find(), storage=storage, node_directory=node_dir)
        node_settings_of(config)  # a directory that is no node's is the first thing to be told
        return command(config, **arguments)

    return wrapped


def aliases_of(config: Config) -> Aliases:
    """The user's aliases, or the node's where it is a node's grid."""
    node = node_of(config)
    if node is None:
        return Aliases(config.aliases_file)
    return Aliases(node.aliases_file, read_only=True, root_cap=node.root_cap_file)


def default_alias(config: Config) -> str:
    """What is meant where nothing is said: ``home:``, or a Tahoe node's ``tahoe:``."""
    return f"{HOME if config.node_directory is None else ROOT_ALIAS}:"


def directory_format_of(config: Config) -> str:
    """How tables of new directories are stored: ``sdmf`` or ``mdmf``. Raises ConfigError."""
    node = node_settings_of(config)
    return config.directory_format or (node.mutable_format if node else "sdmf")


def run_on_grid(config: Config, work: Callable[[NodeMaker], Awaitable[T]]) -> T:
    """Run ``work`` with a node maker on the configured grid, in a Trio of its own."""
    import trio

    from lafsfs.mount import open_grid

    async def run() -> T:
        async with open_grid(settings_of(config)) as maker:
            return await work(maker)

    log_messages()
    return trio.run(run)


def settings_of(config: Config) -> Settings:
    """The configuration in the composition root's terms.

    Raises:
        UsageError: the numbers fit no encoding, or a server is named by something that is none.
        ConfigError: a file that names servers makes no sense.
    """
    from lafsfs.mount import Settings

    return Settings(
        sources=sources_of(config),
        node=node_of(config),
        storage=config.storage,
        config_directory=config.places.config,
        state_directory=config.places.state,
        encoding=encoding_of(config),
        convergent=config.convergence == "client",
        caches=caches_of(config),
        journal_limit=config.journal_limit,
    )


def caches_of(config: Config) -> CacheSettings:
    """What ``[cache]`` says, laid over the defaults."""
    from lafsfs.mount import MEMORY_CACHE_SIZE, CacheSettings

    memory = config.cache_memory or MEMORY_CACHE_SIZE
    return CacheSettings(memory, config.cache_disk, config.read_cache)


def encoding_of(config: Config) -> Encoding | None:
    """What ``[encoding]`` overrides, laid over what the node says, or suits so many servers."""
    from lafsfs.grid.encoding import Encoding

    node = node_settings_of(config)
    given = (config.needed, config.happy, config.total, config.segment_size)
    if given == (None, None, None, None):
        return node.encoding if node else None
    count = len(config.storage) + len(config.nurls) + len(config.servers)
    default = node.encoding if node else Encoding.for_servers(count)
    k = config.needed or default.k
    n = config.total or max(default.n, k)
    happy = config.happy or (min(max(k, default.happy), n) if node else min(k, n))
    try:
        return Encoding(k, happy, n, config.segment_size or default.max_segment_size)
    except UsageError as error:
        raise UsageError(f"encoding (needed, happy, total): {error}") from None


def create_alias(config: Config, name: str, format: MutableFormat) -> Cap:
    """Make a directory on the grid and name it; what it is called is not taken yet.

    Raises:
        ChildExistsError: the name is taken.
    """
    aliases = aliases_of(config)
    aliases.require_writable()
    if name in aliases:
        raise ChildExistsError(f"there is an alias {name!r} already")

    async def made(maker: NodeMaker) -> Cap:
        return (await maker.create_directory(format)).cap

    cap = run_on_grid(config, made)
    aliases.add(name, cap)
    return cap
