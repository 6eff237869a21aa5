"""Which storage servers the configuration names, in the terms of those who look for them.

What was typed or written is checked here, and refused with where it stands.

A table of ``[[grid.servers]]``:

    nurl = "pb://..."    or nurls = [...]: where the server is
    name = "attic"       what to call it
    id = "..."           its tub id, if that of its certificate is not right
    key = "v0-..."       what it signs announcements with
    seed = "..."         permutation-seed-base32, if it announces one

The last three make the same server of it for everybody who also knows it in another way. A whole
announcement can be written into ``private/servers.yaml`` instead.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from lafsfs.errors import ConfigError, FormatError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lafsfs.cli.config import Config
    from lafsfs.gbs.discovery.announcements import ServerRecord
    from lafsfs.gbs.discovery.furl import Furl
    from lafsfs.gbs.discovery.node_dir import NodeDirectory, NodeSettings
    from lafsfs.gbs.discovery.sources import Sources

T = TypeVar("T")

TYPED = "--storage or the configuration"
SERVER_KEYS = frozenset({"nurl", "nurls", "name", "id", "key", "seed"})


def node_of(config: Config) -> NodeDirectory | None:
    """The Tahoe node whose grid this is, if it is one's."""
    from lafsfs.gbs.discovery.node_dir import NodeDirectory

    return None if config.node_directory is None else NodeDirectory(config.node_directory)


def node_settings_of(config: Config) -> NodeSettings | None:
    """What that node's configuration says. Raises ConfigError."""
    node = node_of(config)
    return None if node is None else node.settings()


def sources_of(config: Config) -> Sources:
    """All that names servers.

    Raises:
        UsageError: a NURL, fURL or key that is none.
        ConfigError: a server's table or a file makes no sense.
    """
    from lafsfs.crypto.ed25519 import parse_verifying_key
    from lafsfs.gbs.discovery.announcements import bare_record
    from lafsfs.gbs.discovery.sources import Sources
    from lafsfs.gbs.nurl import parse_nurl

    nurls = _checked("storage", parse_nurl, config.nurls)
    sources = Sources(
        servers=(
            *(bare_record([nurl], TYPED) for nurl in nurls),
            *(_server(table, place) for place, table in enumerate(config.servers, 1)),
        ),
        files=(config.servers_file,) if config.joined else (),
        managers=tuple(_checked("grid.managers", parse_verifying_key, config.managers)),
        preferred=frozenset(config.preferred),
    ).with_introducers(introducers_of(config), config.cache_directory)
    node, settings = node_of(config), node_settings_of(config)
    if node is None or settings is None:
        return sources
    return sources.with_node(node, settings, config.cache_directory)


def introducers_of(config: Config) -> list[Furl]:
    """The introducers that are configured or were joined."""
    from lafsfs.gbs.discovery.furl import parse_furl

    configured = _checked("grid.introducers", parse_furl, config.introducers)
    return configured + (joined_introducers(config) if config.joined else [])


def joined_introducers(config: Config) -> list[Furl]:
    """The introducers that were joined. Raises ConfigError."""
    from lafsfs.gbs.discovery.furl import parse_furl
    from lafsfs.gbs.discovery.located import read_text

    text = read_text(config.joined_file) or ""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            found.append(parse_furl(line.strip()))
        except FormatError as error:
            raise ConfigError(f"{config.joined_file}, line {number}: {error}") from None
    return found


def join(config: Config, furl: Furl) -> bool:
    """Write an introducer down as joined, or that it moved; False if it was. Raises ConfigError."""
    from lafsfs.gbs.discovery.located import write_private

    if furl in introducers_of(config):
        return False
    others = [known for known in joined_introducers(config) if known.tub_id != furl.tub_id]
    text = "".join(f"{known.danger_text()}\n" for known in (*others, furl))
    write_private(config.joined_file, text)
    return True


def _checked(name: str, parse: Callable[[str], T], texts: Iterable[str]) -> list[T]:
    try:
        return [parse(text) for text in texts]
    except FormatError as error:
        raise UsageError(f"{name}: {error}") from None


def _server(table: Mapping[str, object], place: int) -> ServerRecord:
    """The server that the ``place``-th table of [[grid.servers]] describes."""
    where = f"[[grid.servers]], number {place}"
    unknown = sorted(table.keys() - SERVER_KEYS)
    if unknown:
        raise ConfigError(f"{where}: unknown setting {unknown[0]!r}")
    try:
        return _record(table, where)
    except FormatError as error:
        raise ConfigError(f"{where}: {error}") from None


def _record(table: Mapping[str, object], where: str) -> ServerRecord:
    from lafsfs.crypto import base32
    from lafsfs.crypto.ed25519 import parse_verifying_key
    from lafsfs.gbs.discovery.announcements import bare_record
    from lafsfs.gbs.nurl import parse_nurl
    from lafsfs.grid.identity import SERVER_ID_SIZE

    several = table.get("nurls", [table.get("nurl")])
    if not isinstance(several, list) or not several or ("nurl" in table and "nurls" in table):
        raise FormatError("nurl, or a list nurls, is needed")
    if not all(isinstance(text, str) for text in several):
        raise FormatError("nurl, or a list nurls, is needed")
    record = bare_record([parse_nurl(text) for text in several], where, _text(table, "name"))
    key, server_id, seed = (_text(table, name) for name in ("key", "id", "seed"))
    seeds = [base32.decode(seed)] if seed else [parse_verifying_key(key)] if key else [None]
    return replace(
        record,
        key=key or record.key,
        server_id=base32.decode(server_id, SERVER_ID_SIZE) if server_id else None,
        permutation_seed=seeds[0],
    )


def _text(table: Mapping[str, object], name: str) -> str | None:
    value = table.get(name)
    if value is not None and not isinstance(value, str):
        raise FormatError(f"{name} must be a string")
    return value
