"""Everything that names storage servers, read together: who there is, and what is preferred.

Servers come from the configuration (a NURL, or a table that says more), from a Tahoe node's
``servers.yaml``, and from what introducers announced, which is in caches: the node's, and those of
our own subscriber. One server may be named by several of them.

Rules:

- What the user wrote down wins over announcements of the same key, as with stock clients.
- Of two announcements of one key the newer one counts.
- A bare NURL of a server that is also announced adds an address to it.
- Blocking: for worker threads.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lafsfs.crypto import base32
from lafsfs.errors import ConfigError
from lafsfs.gbs.discovery.announcements import bare_record
from lafsfs.gbs.discovery.cache import newest, read_cache

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from lafsfs.gbs.discovery.announcements import ServerRecord
    from lafsfs.gbs.discovery.furl import Furl
    from lafsfs.gbs.discovery.node_dir import NodeDirectory, NodeSettings

log = logging.getLogger(__name__)

Signature = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class Sources:
    """What to read.

    Attributes:
        servers: configured ones, bare NURLs among them.
        introducers: to subscribe to, the node's included.
        managers: 32-byte keys of the Grid Managers who decide about uploads; empty for none.
        preferred: keys of servers that come first.
        cache_directory: where our own subscriber keeps what introducers announce.
        node: a Tahoe node's directory, whose servers are used too.
    """

    servers: tuple[ServerRecord, ...] = ()
    introducers: tuple[Furl, ...] = ()
    managers: tuple[bytes, ...] = field(default=())
    preferred: frozenset[str] = frozenset()
    cache_directory: Path | None = None
    node: NodeDirectory | None = None
    node_caches: tuple[Path, ...] = ()

    def with_node(self, node: NodeDirectory, settings: NodeSettings) -> Sources:
        """These sources and those of a node."""
        furls = {furl.tub_id: furl for furl in self.introducers}
        furls |= {introducer.furl.tub_id: introducer.furl for introducer in settings.introducers}
        return replace(
            self,
            introducers=tuple(furls.values()),
            managers=(*self.managers, *settings.grid_managers),
            preferred=self.preferred | settings.preferred,
            node=node,
            node_caches=tuple(introducer.cache for introducer in settings.introducers),
        )

    @property
    def is_empty(self) -> bool:
        """Whether no server can ever come from here."""
        return not (self.servers or self.introducers or self.node)

    def cache_of(self, furl: Furl) -> Path | None:
        """Where our subscriber keeps what this introducer announces."""
        if self.cache_directory is None:
            return None
        return self.cache_directory / f"{base32.encode(furl.tub_id)}.yaml"

    def own_caches(self) -> list[Path]:
        """The caches of our own subscriber."""
        return [path for furl in self.introducers if (path := self.cache_of(furl)) is not None]

    def read(self) -> tuple[ServerRecord, ...]:
        """All servers, each once, those with faults included.

        Raises:
            ConfigError: a file of the node is broken; says which line.
        """
        static = [*self.servers, *(self.node.static_servers() if self.node else ())]
        cached = [item for path in self.node_caches for item in read_cache(path)]
        for path in self.own_caches():
            try:
                cached += read_cache(path)
            except ConfigError as error:  # it will be written anew
                log.warning("%s", error)
        return tuple(merged(static, (item.record() for item in newest(cached))))

    def signature(self) -> Signature:
        """Changes whenever one of the files does."""
        files = [*self.node_caches, *self.own_caches()]
        if self.node is not None:
            files.append(self.node.servers_file)
        return tuple(_signature(path) for path in files)


def merged(
    static: Iterable[ServerRecord], announced: Iterable[ServerRecord]
) -> Iterator[ServerRecord]:
    """Each server once, by the rules of this module."""
    by_key: dict[str, ServerRecord] = {}
    bare: dict[bytes, list[ServerRecord]] = {}
    for record in static:
        if record.is_bare:
            bare.setdefault(record.nurls[0].pin, []).append(record)
        else:
            by_key.setdefault(record.key, record)
    for record in announced:
        by_key.setdefault(record.key, record)
    for key, record in by_key.items():
        for pin in {nurl.pin for nurl in record.nurls} & bare.keys():
            more = [nurl for other in bare.pop(pin) for nurl in other.nurls]
            by_key[key] = replace(record, nurls=tuple(dict.fromkeys((*more, *record.nurls))))
    for records in bare.values():
        nurls = dict.fromkeys(nurl for record in records for nurl in record.nurls)
        yield bare_record(tuple(nurls), records[0].origin, records[0].name)
    yield from by_key.values()


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
