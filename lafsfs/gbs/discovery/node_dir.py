"""The directory of a Tahoe client node, read and never written.

What a Tahoe user already has, as stock 1.20 reads it (``docs/configuration.rst``):

    tahoe.cfg                             [client] shares.*, mutable.format, peers.preferred,
                                          introducer.furl; [grid_managers]; what forbids plain TCP
    private/secret, private/convergence   the client's secrets, base32
    private/aliases, private/root_dir.cap capabilities
    private/introducers.yaml              introducers: PETNAME: furl
    private/introducer_PETNAME_cache.yaml what each introducer last announced
    private/servers.yaml                  storage: KEY: ann; wins over announcements of that key

Rules:

- Whatever is broken or missing is a :class:`~lafsfs.errors.ConfigError` with the file and, where
  there is one, the line. Nothing is made up for a secret that is not there: another one would lose
  every lease.
- A node that was told to hide its address (``reveal-IP-address = false``, or Tor in
  ``[connections]``) is refused: what is here connects over plain TCP.
- Blocking: for worker threads.
"""

from __future__ import annotations

import configparser
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lafsfs.crypto import base32, ed25519
from lafsfs.errors import ConfigError, FormatError, UsageError
from lafsfs.gbs.discovery.furl import Furl, parse_furl
from lafsfs.gbs.discovery.located import read_text, read_yaml
from lafsfs.grid.encoding import Encoding
from lafsfs.grid.secrets import ClientSecrets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What stock uses where tahoe.cfg says nothing.
DEFAULT_NEEDED, DEFAULT_HAPPY, DEFAULT_TOTAL = 3, 7, 10

_SEGMENT_SIZE = "shares._max_immutable_segment_size_for_testing"
_SECTION = re.compile(r"\s*\[(?P<name>[^]]+)\]")


@dataclass(frozen=True, slots=True)
class Introducer:
    """An introducer of the node, and the file in which the node keeps what it announced."""

    name: str
    furl: Furl
    cache: Path


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What ``tahoe.cfg`` and ``private/introducers.yaml`` say.

    Attributes:
        encoding: of new files.
        mutable_format: ``sdmf`` or ``mdmf``.
        grid_managers: their 32-byte keys; empty where uploads may go anywhere.
        preferred: keys of the servers that come first in every order.
    """

    encoding: Encoding
    mutable_format: str
    grid_managers: tuple[bytes, ...]
    preferred: frozenset[str]
    introducers: tuple[Introducer, ...] = field(default=())


class NodeDirectory:
    """A Tahoe client node's directory. Every method reads the files anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.private = path / "private"

    def __repr__(self) -> str:
        return f"NodeDirectory({str(self.path)!r})"

    @property
    def aliases_file(self) -> Path:
        return self.private / "aliases"

    @property
    def root_cap_file(self) -> Path:
        """An alias ``tahoe`` in a file of its own, as very old nodes have it."""
        return self.private / "root_dir.cap"

    @property
    def servers_file(self) -> Path:
        return self.private / "servers.yaml"

    def settings(self) -> NodeSettings:
        """Raises ConfigError: not a node's directory, or a setting that makes no sense."""
        config = _TahoeConfig.read(self.path / "tahoe.cfg")
        config.require_plain_tcp()
        return NodeSettings(
            encoding=config.encoding(),
            mutable_format=config.mutable_format(),
            grid_managers=tuple(config.grid_managers()),
            preferred=config.preferred(),
            introducers=tuple(self._introducers(config)),
        )

    def secrets(self) -> ClientSecrets:
        """The secrets of the node, which its leases were made with.

        Raises:
            ConfigError: one is missing or unreadable.
        """
        return ClientSecrets(
            lease_secret=self._secret("secret"), convergence_secret=self._secret("convergence")
        )

    def _secret(self, name: str) -> bytes:
        path = self.private / name
        text = read_text(path)
        if text is None:
            raise ConfigError(f"{path} is missing: a node makes it when it is first started")
        try:
            secret = base32.decode(text.strip())
        except FormatError:
            secret = b""
        if not secret:
            raise ConfigError(f"{path}, line 1: not a secret in base32")
        return secret

    def _introducers(self, config: _TahoeConfig) -> Iterator[Introducer]:
        path = self.private / "introducers.yaml"
        named: dict[str, Furl] = {}
        top = read_yaml(path)
        listed = None if top is None else top.get("introducers")
        if listed is not None and not listed.is_nothing():
            for name, value in listed.items():
                furl = value.get("furl")
                if furl is None:
                    raise ConfigError(f"{value.where}: this introducer has no furl")
                named[name.text()] = _furl(furl.text(), furl.where)
        old = config.value("client", "introducer.furl")
        if old:
            where = config.where("client", "introducer.furl")
            furl_there = _furl(old, where)
            if "default" in named:
                raise ConfigError(f"{where}: {path} has a default introducer too")
            named["default"] = furl_there
        for petname, parsed in named.items():
            if "/" in petname or "\0" in petname:
                raise ConfigError(f"{path}: an introducer's name cannot have a slash in it")
            cache = self.private / f"introducer_{petname}_cache.yaml"
            yield Introducer(petname, parsed, cache)


def _furl(text: str, where: str) -> Furl:
    try:
        return parse_furl(text.strip())
    except FormatError as error:
        raise ConfigError(f"{where}: {error}") from None


def _line_of(error: configparser.ParsingError) -> int:
    """Where the first fault is; since Python 3.13 some kinds have a line and no list."""
    errors: list[tuple[int, str]] = getattr(error, "errors", [])
    return errors[0][0] if errors else getattr(error, "lineno", 0)


class _TahoeConfig:
    """``tahoe.cfg``, with the lines of its settings."""

    def __init__(self, path: Path, text: str, parser: configparser.ConfigParser) -> None:
        self._path = path
        self._text = text
        self._parser = parser

    @classmethod
    def read(cls, path: Path) -> _TahoeConfig:
        text = read_text(path)
        if text is None:
            raise ConfigError(f"{path.parent} is not the directory of a Tahoe node: no tahoe.cfg")
        parser = configparser.ConfigParser(strict=False)
        try:
            parser.read_string(text)
        except configparser.MissingSectionHeaderError as error:
            raise ConfigError(f"{path}, line {error.lineno}: no [section] before it") from None
        except configparser.ParsingError as error:
            raise ConfigError(f"{path}, line {_line_of(error)}: not NAME = VALUE") from None
        except configparser.Error:
            raise ConfigError(f"{path}: not a configuration file") from None
        return cls(path, text, parser)

    def value(self, section: str, option: str) -> str | None:
        """A setting, or None. Raises ConfigError for a stray ``%``."""
        try:
            return self._parser.get(section, option, fallback=None)
        except configparser.InterpolationError:
            raise ConfigError(f"{self.where(section, option)}: a % must be written %%") from None

    def where(self, section: str, option: str) -> str:
        """``FILE, line N`` of a setting; the last one counts, as for the parser."""
        found, current = 0, None
        for number, line in enumerate(self._text.splitlines(), 1):
            header = _SECTION.match(line)
            if header is not None:
                current = header["name"]
            elif current == section and re.match(rf"{re.escape(option)}\s*[=:]", line, re.I):
                found = number
        return f"{self._path}, line {found}" if found else str(self._path)

    def require_plain_tcp(self) -> None:
        """Raises ConfigError if the node was told not to connect the way we do."""
        if self._boolean("node", "reveal-IP-address") is False:
            where = self.where("node", "reveal-IP-address")
            raise ConfigError(
                f"{where}: reveal-IP-address = false, and lafsfs would reveal it: it has no Tor"
            )
        handler = self.value("connections", "tcp")
        if handler is not None and handler.strip().lower() != "tcp":
            where = self.where("connections", "tcp")
            raise ConfigError(f"{where}: lafsfs connects over plain TCP only")

    def encoding(self) -> Encoding:
        try:
            numbers = {
                "k": self._number("shares.needed", DEFAULT_NEEDED),
                "happy": self._number("shares.happy", DEFAULT_HAPPY),
                "n": self._number("shares.total", DEFAULT_TOTAL),
            }
            size = self._number(_SEGMENT_SIZE, 0)
            return Encoding(**numbers, max_segment_size=size) if size else Encoding(**numbers)
        except UsageError as error:
            where = self.where("client", "shares.needed")
            raise ConfigError(f"{where}: shares.*: {error}") from None

    def mutable_format(self) -> str:
        text = self.value("client", "mutable.format") or "SDMF"
        return "mdmf" if text.strip().upper() == "MDMF" else "sdmf"

    def preferred(self) -> frozenset[str]:
        text = self.value("client", "peers.preferred") or ""
        return frozenset(filter(None, (part.strip() for part in text.split(","))))

    def grid_managers(self) -> Iterator[bytes]:
        if not self._parser.has_section("grid_managers"):
            return
        for name in self._parser.options("grid_managers"):
            text = self.value("grid_managers", name) or ""
            try:
                yield ed25519.parse_verifying_key(text.strip())
            except FormatError as error:
                where = self.where("grid_managers", name)
                raise ConfigError(f"{where}: {error}") from None

    def _number(self, option: str, default: int) -> int:
        text = self.value("client", option)
        if text is None:
            return default
        try:
            return int(text)
        except ValueError:
            where = self.where("client", option)
            raise ConfigError(f"{where}: {option} is not a whole number") from None

    def _boolean(self, section: str, option: str) -> bool | None:
        text = self.value(section, option)
        if text is None:
            return None
        states = configparser.ConfigParser.BOOLEAN_STATES
        if text.strip().lower() not in states:
            raise ConfigError(f"{self.where(section, option)}: {option} is neither true nor false")
        return states[text.strip().lower()]
