"""Who a storage directory is: the id that its slots' write enablers are made with.

A server is known by 20 bytes, the SHA-1 of its certificate (DER), as a Tahoe node's tub id is.
Write enablers and lease secrets are derived with it, so it must come out the same however the
directory is reached later: by this program, by a stock node that serves it, or after the
certificate is lost. In this order, therefore:

1. ``node.pem`` in the directory: our own key and certificate.
2. ``server-id`` in the directory: the id once found by 3., in base32.
3. What most of the mutable containers in ``shares/`` have recorded.
4. ``../private/node.pem``, where the directory is the ``storage`` of a Tahoe node.
5. A new ``node.pem``.

Runs in worker threads; ``OSError`` comes through and is translated by the caller.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lafsfs.crypto import base32, x509
from lafsfs.errors import ConfigError, FormatError
from lafsfs.formats import containers
from lafsfs.grid import disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NODE_PEM = "node.pem"
SERVER_ID = "server-id"
SERVER_ID_SIZE = 20
ENOUGH_SLOTS = 200  # containers to look into; shares moved in from elsewhere are the exception


@dataclass(frozen=True, slots=True)
class Identity:
    """A server's 20-byte id, and what its place in the permuted order is computed from."""

    server_id: bytes
    permutation_seed: bytes

    @classmethod
    def of(cls, server_id: bytes) -> Identity:
        """The identity of a server that has announced no seed: its id is the seed."""
        return cls(server_id, server_id)


def load_identity(directory: Path) -> Identity | None:
    """The identity a storage directory has, or None if it never had one.

    Raises:
        ConfigError: an identity file is there and cannot be understood.
        OSError: the directory cannot be read.
    """
    return _from_files(directory) or _from_containers(directory) or _from_node(directory)


def ensure_identity(directory: Path) -> Identity:
    """The identity a storage directory has, written down if it was not, or else a new one.

    On a medium that cannot be written, a directory without slots gets an id from its path, which
    serves to order servers.
    """
    if (known := _from_files(directory)) is not None:
        return known
    found = _from_containers(directory)
    try:
        if found is not None:
            text = base32.encode(found.server_id) + "\n"
            disk.write_file(directory / SERVER_ID, text.encode("ascii"))
        elif (found := _from_node(directory)) is None:
            disk.write_file(directory / NODE_PEM, x509.make_node_certificate())
            found = _from_files(directory)
    except OSError:
        if os.access(directory, os.W_OK):
            raise
    if found is None:
        path = os.fsencode(directory.resolve())
        return Identity.of(hashlib.sha1(path, usedforsecurity=False).digest())
    return found


def _from_files(directory: Path) -> Identity | None:
    own = directory / NODE_PEM
    if own.exists():
        return _from_pem(own)
    recorded = directory / SERVER_ID
    try:
        text = recorded.read_text(encoding="ascii").strip()
        return Identity.of(base32.decode(text, SERVER_ID_SIZE))
    except FileNotFoundError:
        return None
    except (FormatError, UnicodeDecodeError):
        raise ConfigError(f"{recorded} does not hold the id of a server") from None


def _from_pem(path: Path) -> Identity:
    try:
        return Identity.of(x509.server_id_of(path.read_bytes()))
    except (FormatError, ValueError):
        raise ConfigError(f"{path} does not hold a certificate") from None


def _from_node(directory: Path) -> Identity | None:
    path = directory.parent / "private" / NODE_PEM
    if directory.name != "storage" or not os.access(path, os.R_OK):
        return None
    return _from_pem(path)


def _from_containers(directory: Path) -> Identity | None:
    recorded = itertools.islice(_recorded_ids(directory / "shares"), ENOUGH_SLOTS)
    most = Counter(recorded).most_common(1)
    return Identity.of(most[0][0]) if most else None


def _recorded_ids(shares: Path) -> Iterator[bytes]:
    """The id in every mutable container below ``shares/``."""
    for prefix in sorted(path for path in shares.glob("??") if path.is_dir()):
        for share in (path for path in prefix.glob("*/[0-9]*") if path.is_file()):
            with disk.opened(share, os.O_RDONLY) as fd:
                head = disk.read_at(fd, 0, containers.PREFIX_SIZE)
                size = os.fstat(fd).st_size
            if containers.is_mutable(head):
                try:
                    yield containers.parse_mutable_head(head, size).server_id
                except FormatError:
                    continue
