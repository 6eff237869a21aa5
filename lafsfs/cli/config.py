"""Where lafsfs keeps its things, and what the user told it: flags over environment over file.

One table, :data:`KEYS`, names every setting once: its place in ``config.toml``, its environment
variable and how its text is understood. A key that is not in the table is an error that names the
file, since a misspelt setting that is silently ignored is worse than none.

Where shares go is one choice: whichever of command line, environment and file says anything of it
(:data:`GRID_KEYS`) says all of it. Nothing said is the embedded grid.

Places (``LAFSFS_CONFIG_DIR`` and the like override them):

- configuration: ``$XDG_CONFIG_HOME/lafsfs``: ``config.toml``, ``aliases``, ``private/`` with
  secrets, ``introducers`` that were joined, and a ``servers.yaml`` like a Tahoe node's;
- data: ``$XDG_DATA_HOME/lafsfs``: ``storage``, the embedded grid;
- state: ``$XDG_STATE_HOME/lafsfs``: what may be lost only while nothing is mounted; logs;
- cache: ``$XDG_CACHE_HOME/lafsfs``: what may be lost at any time.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from lafsfs.cli.sizes import parse_size
from lafsfs.errors import ConfigError, UsageError
from lafsfs.fuse.options import MountOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

APP = "lafsfs"
CONFIG_FILE = "config.toml"
NURL_START = "pb://"
SMALLEST_CACHE = 8 << 20  # bytes: segments of a few files that are being read
_HEADER = re.compile(r"\s*\[+\s*([\w.-]+)\s*\]+")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return value


def _number(value: object) -> int:
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("must be a whole number above 0")
    return value


def _size_or_none(value: object) -> int:
    """Bytes: a whole number, or a string such as ``512M`` or ``2 GiB``."""
    if isinstance(value, str):
        value = parse_size(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 60:
        raise ValueError("must be a size, such as 512M or 2G")
    return value


def _size(value: object) -> int:
    size = _size_or_none(value)
    if size < SMALLEST_CACHE:
        raise ValueError("must be at least 8M")
    return size


def _places(value: object) -> tuple[str, ...]:
    """Directories and NURLs. In a variable NURLs are parted by blanks, for they have colons."""
    items = value
    if isinstance(value, str):
        items = value.split() if NURL_START in value else value.split(os.pathsep)
    if items == []:
        raise ValueError("is an empty list: name at least one directory")
    if not isinstance(items, list) or not all(isinstance(item, str) and item for item in items):
        raise ValueError("must be a list of directories")
    return tuple(items)


def _path(value: object) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a directory")
    return Path(value).expanduser().absolute()


def _texts(value: object) -> tuple[str, ...]:
    items = value.split() if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) and item for item in items):
        raise ValueError("must be a list of strings")
    return tuple(items)


def _tables(value: object) -> tuple[dict[str, object], ...]:
    """Tables that describe servers; in a variable, their NURLs."""
    items = [{"nurl": text} for text in value.split()] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError("must be tables: [[grid.servers]]")
    return tuple(items)


def _options(value: object) -> str:
    text = _text(value)
    try:
        MountOptions.parse(text)
    except UsageError as error:
        raise ValueError(f"cannot be used: {error}") from None
    return text


def _one_of(*choices: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return str(value)

    return parse


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: ``section.name`` in the file, ``variable`` in the environment."""

    field: str
    name: str
    parse: Callable[[object], Any]

    @property
    def variable(self) -> str:
        return f"LAFSFS_{self.field.upper()}"


KEYS = (
    Key("storage", "storage", _places),
    Key("node_directory", "grid.node_directory", _path),
    Key("servers", "grid.servers", _tables),
    Key("introducers", "grid.introducers", _texts),
    Key("managers", "grid.managers", _texts),
    Key("preferred", "grid.preferred", _texts),
    Key("needed", "encoding.needed", _number),
    Key("happy", "encoding.happy", _number),
    Key("total", "encoding.total", _number),
    Key("segment_size", "encoding.segment_size", _number),
    Key("convergence", "encoding.convergence", _one_of("client", "random")),
    Key("cache_memory", "cache.memory", _size),
    Key("cache_disk", "cache.disk", _size_or_none),
    Key("journal_limit", "journal.limit", _size),
    Key("directory_format", "encoding.directories", _one_of("sdmf", "mdmf")),
    Key("mount_options", "mount.options", _options),
)
GRID_KEYS = ("storage", "node_directory", "servers", "introducers")


@dataclass(frozen=True, slots=True)
class Places:
    """The three directories; nothing here creates them."""

    config: Path
    data: Path
    state: Path
    cache: Path | None = None  # None: below ``state``

    @classmethod
    def find(cls, environ: Mapping[str, str] = os.environ) -> Places:
        """The XDG places, or what ``LAFSFS_{CONFIG,DATA,STATE,CACHE}_DIR`` say."""

        def place(variable: str, default: str) -> Path:
            return Path(environ.get(variable) or default).expanduser().absolute()

        together = environ.get("LAFSFS_STATE_DIR") and not environ.get("LAFSFS_CACHE_DIR")
        return cls(
            place("LAFSFS_CONFIG_DIR", platformdirs.user_config_dir(APP)),
            place("LAFSFS_DATA_DIR", platformdirs.user_data_dir(APP)),
            place("LAFSFS_STATE_DIR", platformdirs.user_state_dir(APP)),
            None if together else place("LAFSFS_CACHE_DIR", platformdirs.user_cache_dir(APP)),
        )


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that was configured. ``None`` leaves a choice to the layer that makes it.

    ``segment_size`` and ``cache_*`` are in bytes. ``storage`` is empty only where others are named
    who have shares.
    ``servers`` are tables as they were written, ``introducers`` fURLs, ``managers`` keys, and
    ``nurls`` addresses: whoever uses them checks them. ``joined``: whether what was joined and
    ``servers.yaml`` count too.
    """

    places: Places
    storage: tuple[Path, ...]
    nurls: tuple[str, ...] = field(default=(), repr=False)
    node_directory: Path | None = None
    servers: tuple[Mapping[str, object], ...] = field(default=(), repr=False)
    introducers: tuple[str, ...] = field(default=(), repr=False)
    managers: tuple[str, ...] = ()
    preferred: tuple[str, ...] = ()
    joined: bool = False
    needed: int | None = None
    happy: int | None = None
    total: int | None = None
    segment_size: int | None = None
    cache_memory: int | None = None
    cache_disk: int | None = None
    journal_limit: int | None = None
    convergence: str = "client"
    directory_format: str | None = None
    mount_options: str = field(default="")

    @property
    def read_cache(self) -> Path:
        """What may be deleted at any time: segments of files that were read, encrypted."""
        return self.places.cache or self.places.state / "cache"

    @property
    def aliases_file(self) -> Path:
        return self.places.config / "aliases"

    @property
    def servers_file(self) -> Path:
        """Servers that are written down in the form that Tahoe nodes use."""
        return self.places.config / "private" / "servers.yaml"

    @property
    def joined_file(self) -> Path:
        """The fURLs of introducers that were joined, one on a line."""
        return self.places.config / "private" / "introducers"

    @property
    def cache_directory(self) -> Path:
        """What introducers announced."""
        return self.places.state / "introducers"


def load_config(
    places: Places,
    environ: Mapping[str, str] = os.environ,
    storage: Sequence[str | Path] = (),
    node_directory: Path | None = None,
) -> Config:
    """Read the file and the environment.

    ``storage`` (directories and NURLs) and ``node_directory`` come from the command line and win.

    Raises:
        ConfigError: the file is unreadable, not TOML, or has a key or value that makes no sense.
        UsageError: an environment variable makes no sense, or a directory is named twice.
    """
    in_file = _from_file(places.config / CONFIG_FILE)
    in_environment = _from_environment(environ)
    typed: dict[str, Any] = {}
    if storage:
        typed["storage"] = tuple(map(str, storage))
    if node_directory is not None:
        typed["node_directory"] = node_directory.expanduser().absolute()
    chosen = next((level for level in (typed, in_environment) if level.keys() & GRID_KEYS), None)
    values = {**in_file, **in_environment, **typed}
    if chosen is not None:
        values = {k: v for k, v in values.items() if k not in GRID_KEYS or k in chosen}
    return _with_storage(Config(places, **{**values, "storage": ()}, joined=chosen is None), values)


def _with_storage(config: Config, values: Mapping[str, Any]) -> Config:
    """Tell directories from NURLs, and fall back on the embedded grid if nobody has shares."""
    named = values.get("storage", ())
    nurls = tuple(text for text in named if text.startswith(NURL_START))
    storage = tuple(Path(t).expanduser().absolute() for t in named if t not in nurls)
    if len(set(storage)) < len(storage):
        raise UsageError("the same storage directory is named twice")
    others = nurls or config.node_directory or config.servers or config.introducers
    files = (config.joined_file, config.servers_file) if config.joined else ()
    if not storage and not others and not any(path.exists() for path in files):
        storage = (config.places.data / "storage",)
    return replace(config, storage=storage, nurls=nurls)


def _from_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigError(f"{path} is not valid: {error}") from error
    known = {key.name: key for key in KEYS}
    values: dict[str, Any] = {}
    for name, value in _flattened(table):
        where = f"{path}{_line_of(name, text)}"
        if name not in known:
            raise ConfigError(f"{where}: unknown setting {name!r}{_meant(name, known)}")
        try:
            values[known[name].field] = known[name].parse(value)
        except ValueError as error:
            raise ConfigError(f"{where}: {name} {error}") from None
    return values


def _line_of(name: str, text: str) -> str:
    """``, line N``, where a setting is; nothing if it is not written in the usual way."""
    section, _, key = name.rpartition(".")
    setting = re.compile(rf"""\s*["']?{re.escape(key)}["']?\s*=""")
    inside = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        inside = header[1] if header else inside
        if (header and inside == name) or (inside == section and setting.match(line)):
            return f", line {number}"
    return ""


def _meant(name: str, known: Iterable[str]) -> str:
    alike = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {alike[0]!r}?" if alike else ""


def _flattened(table: dict[str, Any]) -> list[tuple[str, object]]:
    items: list[tuple[str, object]] = []
    for name, value in table.items():
        if isinstance(value, dict):
            items += [(f"{name}.{inner}", value[inner]) for inner in value]
        else:
            items.append((name, value))
    return items


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key in KEYS:
        text = environ.get(key.variable)
        if not text:
            continue
        try:
            values[key.field] = key.parse(text)
        except ValueError as error:
            raise UsageError(f"{key.variable} {error}") from None
    return values
