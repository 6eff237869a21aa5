"""Everything that names storage servers, read together: who there is, and what is preferred.

Servers come from the configuration (a NURL, or a table that says more), from ``servers.yaml``, a
Tahoe node's or our own, and from what introducers announced, which is in caches: the node's, and
those of our own subscriber. One server may be named by several of them.

Rules:

- What the user wrote down wins over announcements of the same key, as with stock clients.
- Of two announcements of one key the newer one counts.
- A bare NURL of a server that is also announced adds an address to it.
- Names tell servers apart: where several have one nickname, the key is added.
- Blocking: for worker threads.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lafsfs.crypto import base32
from lafsfs.errors import ConfigError
from lafsfs.gbs.discovery.announcements import short_key
from lafsfs.gbs.discovery.cache import newest, read_cache
from lafsfs.gbs.discovery.static import read_static_servers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from lafsfs.gbs.discovery.announcements import ServerRecord
    from lafsfs.gbs.discovery.cache import Announcement
    from lafsfs.gbs.discovery.furl import Furl
    from lafsfs.gbs.discovery.node_dir import NodeDirectory, NodeSettings

log = logging.getLogger(__name__)

Signature = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class Followed:
    """An introducer that is listened to.

    ``own``: the cache that our subscriber keeps. ``others``: caches that somebody else keeps, to be
    read as well.
    """

    furl: Furl
    own: Path
    others: tuple[Path, ...] = ()

    def is_unheard(self) -> bool:
        """Whether there is no cache yet."""
        return not any(path.exists() for path in (self.own, *self.others))


@dataclass(frozen=True, slots=True)
class Sources:
    """What to read.

    Attributes:
        servers: configured ones, bare NURLs among them.
        files: in the form of ``servers.yaml``; they need not be there.
        introducers: those that announce servers.
        managers: 32-byte keys of the Grid Managers who decide about uploads; empty for none.
        preferred: keys of servers that come first.
    """

    servers: tuple[ServerRecord, ...] = ()
    files: tuple[Path, ...] = ()
    introducers: tuple[Followed, ...] = ()
    managers: tuple[bytes, ...] = field(default=())
    preferred: frozenset[str] = frozenset()

    def with_introducers(self, furls: Iterable[Furl], cache_directory: Path) -> Sources:
        """These sources and introducers, whose announcements are kept in a directory of ours."""
        return self._following(Followed(f, own_cache(cache_directory, f)) for f in furls)

    def with_node(
        self, node: NodeDirectory, settings: NodeSettings, cache_directory: Path
    ) -> Sources:
        """These sources and those of a Tahoe node."""
        introducers = (
            Followed(i.furl, own_cache(cache_directory, i.furl), (i.cache,))
            for i in settings.introducers
        )
        return replace(
            self._following(introducers),
            files=(*self.files, node.servers_file),
            managers=(*self.managers, *settings.grid_managers),
            preferred=self.preferred | settings.preferred,
        )

    def _following(self, more: Iterable[Followed]) -> Sources:
        by_tub = {known.furl.tub_id: known for known in self.introducers}
        for new in more:
            known = by_tub.get(new.furl.tub_id, new)
            others = tuple(dict.fromkeys((*known.others, *new.others)))
            by_tub[new.furl.tub_id] = replace(known, others=others)
        return replace(self, introducers=tuple(by_tub.values()))

    def read(self) -> tuple[ServerRecord, ...]:
        """All servers, each once, those with faults included.

        Raises:
            ConfigError: a file that is not ours is broken; says which line.
        """
        static = [*self.servers]
        for path in self.files:
            static += read_static_servers(path)
        cached: list[Announcement] = []
        for introducer in self.introducers:
            for path in introducer.others:
                cached += read_cache(path)
            try:
                cached += read_cache(introducer.own)
            except ConfigError as error:  # it will be written anew
                log.warning("%s", error)
        records = tuple(merged(static, (item.record() for item in newest(cached))))
        return tuple(distinctly_named(records))

    def signature(self) -> Signature:
        """Changes whenever one of the files does."""
        caches = [path for i in self.introducers for path in (i.own, *i.others)]
        return tuple(_signature(path) for path in (*self.files, *caches))


def own_cache(directory: Path, furl: Furl) -> Path:
    """Where our subscriber keeps what an introducer announces."""
    return directory / f"{base32.encode(furl.tub_id)}.yaml"


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
        yield replace(records[0], nurls=tuple(nurls))
    yield from by_key.values()


def distinctly_named(records: Sequence[ServerRecord]) -> Iterator[ServerRecord]:
    """The same records; a name that several have is followed by the beginning of the key."""
    count = Counter(record.name for record in records)
    for record in records:
        if count[record.name] > 1:
            yield replace(record, name=f"{record.name} ({short_key(record.key)})")
        else:
            yield record


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
