"""The cache of an introducer's announcements, in the form that stock clients keep it in.

A YAML list of ``{key_s: v0-..., ann: {...}}``. Stock writes it into its node directory
(``private/introducer_PETNAME_cache.yaml``), our own subscriber into the state directory. What is in
it was verified by whoever wrote it: signatures are not kept.

Rules:

- A file that is no such list is a :class:`~lafsfs.errors.ConfigError` with its line. A single entry
  that makes no sense is another's announcement, and becomes a record with a fault or is skipped.
- Blocking: for worker threads.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import yaml

from lafsfs.errors import ConfigError
from lafsfs.gbs.discovery.announcements import (
    STORAGE_SERVICE,
    ServerRecord,
    record_of,
    verifying_key_of,
)
from lafsfs.gbs.discovery.located import Located, read_yaml, write_private

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

_SEQNUM = "seqnum"


@dataclass(frozen=True, slots=True)
class Announcement:
    """A verified announcement: the key that signed it, and what it says.

    ``values`` hold the swissnums of the server.
    """

    key: str
    values: Mapping[str, Any] = field(repr=False)
    origin: str = field(default="", compare=False)

    @property
    def service(self) -> str:
        """What is announced."""
        return str(self.values.get("service-name"))

    @property
    def seqnum(self) -> int | None:
        """Grows with every announcement of one server; None where it is missing."""
        value = self.values.get(_SEQNUM)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def record(self) -> ServerRecord:
        """What it says of a storage server."""
        return replace(record_of(self.key, self.values, self.origin), announced=True)

    def replaces(self, other: Announcement) -> bool:
        """Whether it is newer. An old one that is said again is a replay, or late."""
        if other.seqnum is None:
            return self.values != other.values
        return self.seqnum is not None and self.seqnum > other.seqnum


def read_cache(path: Path) -> list[Announcement]:
    """The storage servers in a cache; none if there is no such file.

    Raises:
        ConfigError: it cannot be read, or is no list of announcements; says which line.
    """
    top = read_yaml(path)
    if top is None:
        return []
    found = []
    for element in top.elements():
        try:
            announcement = _announcement(element)
        except ConfigError as error:
            log.warning("an announcement is left out: %s", error)
            continue
        if announcement.service == STORAGE_SERVICE:
            found.append(announcement)
    return found


def _announcement(element: Located) -> Announcement:
    key, values = element.get("key_s"), element.get("ann")
    if key is None or values is None:
        raise ConfigError(f"{element.where}: an announcement needs key_s and ann")
    text = key.text()
    if verifying_key_of(text) is None:
        raise ConfigError(f"{key.where}: key_s is not v0- and a key")
    announced = values.value()
    if not isinstance(announced, dict):
        raise ConfigError(f"{values.where}: ann is not a mapping")
    return Announcement(text, announced, element.where)


def write_cache(path: Path, announcements: Iterable[Announcement]) -> None:
    """Replace a cache. Raises ConfigError if it cannot be written."""
    entries = [{"ann": dict(item.values), "key_s": item.key} for item in announcements]
    write_private(path, yaml.safe_dump(entries))


def newest(announcements: Iterable[Announcement]) -> list[Announcement]:
    """One announcement of each server: where there are several, the newest."""
    best: dict[str, Announcement] = {}
    for announcement in announcements:
        known = best.get(announcement.key)
        if known is None or announcement.replaces(known):
            best[announcement.key] = announcement
    return list(best.values())
