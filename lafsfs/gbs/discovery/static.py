"""``servers.yaml``: servers that somebody wrote down, as stock clients read them.

    storage:
      KEY:
        ann: {nickname, anonymous-storage-FURL, anonymous-storage-NURLs, ...}
        connections: {tcp: tcp}

A Tahoe node has one in ``private/``, and so may we; what ``lafsfs serve`` writes has this form too.
Blocking: for worker threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lafsfs.errors import ConfigError
from lafsfs.gbs.discovery.announcements import record_of
from lafsfs.gbs.discovery.located import read_yaml

if TYPE_CHECKING:
    from pathlib import Path

    from lafsfs.gbs.discovery.announcements import ServerRecord
    from lafsfs.gbs.discovery.located import Located


def read_static_servers(path: Path) -> list[ServerRecord]:
    """The servers in a file; none if it is not there.

    Raises:
        ConfigError: it is no mapping of servers; says which line.
    """
    top = read_yaml(path)
    listed = None if top is None else top.get("storage")
    if listed is None or listed.is_nothing():
        return []
    return [_record(key, value) for key, value in listed.items()]


def _record(key: Located, value: Located) -> ServerRecord:
    announced = value.get("ann")
    if announced is None:
        raise ConfigError(f"{value.where}: this server has no ann")
    values = announced.value()
    if not isinstance(values, dict):
        raise ConfigError(f"{announced.where}: ann is not a mapping")
    handlers = value.get("connections")
    if handlers is not None and not handlers.is_nothing():
        for hint, handler in handlers.items():
            if hint.text() == "tcp" and handler.text().lower() != "tcp":
                raise ConfigError(f"{handler.where}: lafsfs connects over plain TCP only")
    return record_of(key.text(), values, key.where)
