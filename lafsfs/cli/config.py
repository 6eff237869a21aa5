"""Where lafsfs keeps its things, and what the user told it: flags over environment over file.

One table, :data:`KEYS`, names every setting once: its place in ``config.toml``, its environment
variable and how its text is understood. A key that is not in the table is an error that names the
file, since a misspelt setting that is silently ignored is worse than none.

Places (``LAFSFS_CONFIG_DIR`` and the like override them):

- configuration: ``$XDG_CONFIG_HOME/lafsfs``: ``config.toml``, ``aliases``, ``private/``;
- data: ``$XDG_DATA_HOME/lafsfs``: ``storage``, the embedded grid;
- state: ``$XDG_STATE_HOME/lafsfs``: what may be lost only while nothing is mounted; logs;
- cache: ``$XDG_CACHE_HOME/lafsfs``: what may be lost at any time.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from lafsfs.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

APP = "lafsfs"
CONFIG_FILE = "config.toml"
SMALLEST_CACHE = 8 << 20  # bytes: segments of a few files that are being read
_SIZE = re.compile(r"([0-9]{1,18})\s*(?:([KMGTkmgt])i?B?)?")


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
    """Bytes: a whole number, or a string such as ``512M`` or ``2 GiB``. Powers of 1024."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is not None:
            power = "KMGT".find(match[2].upper()) + 1 if match[2] else 0
            value = int(match[1]) << (10 * power)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 60:
        raise ValueError("must be a size, such as 512M or 2G")
    return value


def _size(value: object) -> int:
    size = _size_or_none(value)
    if size < SMALLEST_CACHE:
        raise ValueError("must be at least 8M")
    return size


def _paths(value: object) -> tuple[Path, ...]:
    items = value.split(os.pathsep) if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) and item for item in items):
        raise ValueError("must be a list of directories")
    return tuple(Path(item).expanduser() for item in items)


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
    Key("storage", "storage", _paths),
    Key("needed", "encoding.needed", _number),
    Key("happy", "encoding.happy", _number),
    Key("total", "encoding.total", _number),
    Key("segment_size", "encoding.segment_size", _number),
    Key("convergence", "encoding.convergence", _one_of("client", "random")),
    Key("cache_memory", "cache.memory", _size),
    Key("cache_disk", "cache.disk", _size_or_none),
    Key("directory_format", "encoding.directories", _one_of("sdmf", "mdmf")),
    Key("mount_options", "mount.options", _text),
)


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

    ``segment_size`` and ``cache_*`` are in bytes. ``storage`` is never empty: the embedded grid is
    the default.
    """

    places: Places
    storage: tuple[Path, ...]
    needed: int | None = None
    happy: int | None = None
    total: int | None = None
    segment_size: int | None = None
    cache_memory: int | None = None
    cache_disk: int | None = None
    convergence: str = "client"
    directory_format: str = "sdmf"
    mount_options: str = field(default="")

    @property
    def read_cache(self) -> Path:
        """What may be deleted at any time: segments of files that were read, encrypted."""
        return self.places.cache or self.places.state / "cache"

    @property
    def aliases_file(self) -> Path:
        return self.places.config / "aliases"


def load_config(
    places: Places, environ: Mapping[str, str] = os.environ, storage: tuple[Path, ...] = ()
) -> Config:
    """Read the file and the environment; ``storage`` comes from the command line and wins.

    Raises:
        ConfigError: the file is unreadable, not TOML, or has a key or value that makes no sense.
        UsageError: an environment variable makes no sense.
    """
    values = _from_file(places.config / CONFIG_FILE)
    values.update(_from_environment(environ))
    if storage:
        values["storage"] = storage
    values.setdefault("storage", (places.data / "storage",))
    values["storage"] = tuple(path.absolute() for path in values["storage"])
    if not values["storage"]:
        raise ConfigError("storage is an empty list: name at least one directory")
    if len(set(values["storage"])) < len(values["storage"]):
        raise UsageError("the same storage directory is named twice")
    return Config(places, **values)


def _from_file(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigError(f"{path} is not valid: {error}") from error
    known = {key.name: key for key in KEYS}
    values: dict[str, Any] = {}
    for name, value in _flattened(table):
        if name not in known:
            raise ConfigError(f"{path}: unknown setting {name!r}")
        try:
            values[known[name].field] = known[name].parse(value)
        except ValueError as error:
            raise ConfigError(f"{path}: {name} {error}") from None
    return values


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
