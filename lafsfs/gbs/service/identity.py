"""Who the service is: key, certificate, swissnum, and how clients are told (``url.rst``).

Files in the storage directory, all of mode 0600::

    node.pem        key and certificate; its SHA-1 is the server's id (lafsfs.grid.identity)
    https.pem       the same, of a directory whose id comes from elsewhere and has no certificate
    swissnum        what clients must say, in base32
    nurl            the NURLs, one per line: give them to clients that need no more
    announcement.yaml   for ``private/servers.yaml`` of Tahoe clients

A directory that is the ``storage`` of a Tahoe node is served with that node's certificate.

Rules:

- Everything but the server's id can be read off a NURL. Where the id is not that of the
  certificate, write enablers of existing slots come out right only for clients that have the
  announcement, whose fURL names the id.
- Blocking; runs in a thread. ``OSError`` is translated here.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from lafsfs.crypto import base32, x509
from lafsfs.errors import ConfigError, FormatError
from lafsfs.gbs.nurl import Nurl
from lafsfs.grid import disk
from lafsfs.grid.identity import NODE_PEM

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lafsfs.grid.local import LocalServer

HTTPS_PEM = "https.pem"
SWISSNUM = "swissnum"
NURL = "nurl"
ANNOUNCEMENT = "announcement.yaml"
SWISSNUM_SIZE = 20  # bytes of randomness, as stock nodes have


@dataclass(frozen=True, slots=True)
class ServiceIdentity:
    """What a service shows, and what it wants to be shown.

    Attributes:
        directory: the storage directory.
        pem: the file with key and certificate.
        pin: 32 bytes, SHA-256 of the public key.
        server_id: 20 bytes; what write enablers and lease secrets are derived with.
        certified: whether the id is that of the certificate.
        swissnum: what authorizes a client.
    """

    directory: Path
    pem: Path
    pin: bytes
    server_id: bytes
    permutation_seed: bytes
    certified: bool
    swissnum: bytes = field(repr=False)

    def nurl(self, host: str, port: int) -> Nurl:
        """How to reach the service at an address."""
        return Nurl(self.pin, host, port, self.swissnum)

    def announcement(self, nurls: Sequence[Nurl], nickname: str) -> dict[str, Any]:
        """What a Tahoe client needs to know, in the form of ``private/servers.yaml``."""
        name = base32.encode(self.server_id)
        places = ",".join(f"tcp:{nurl.authority}" for nurl in nurls)
        furl = f"pb://{name}@{places}/{self.swissnum.decode('ascii')}"
        return {
            "storage": {
                name: {
                    "ann": {
                        "anonymous-storage-FURL": furl,
                        "anonymous-storage-NURLs": [nurl.danger_text() for nurl in nurls],
                        "nickname": nickname,
                        "permutation-seed-base32": base32.encode(self.permutation_seed),
                    }
                }
            }
        }

    def publish(self, nurls: Sequence[Nurl], nickname: str) -> None:
        """Write down how clients find the service."""
        lines = "".join(f"{nurl.danger_text()}\n" for nurl in nurls)
        text = yaml.safe_dump(self.announcement(nurls, nickname), sort_keys=True, width=1000)
        with disk.translated(str(self.directory), writing=True):
            disk.write_file(self.directory / NURL, lines.encode())
            disk.write_file(self.directory / ANNOUNCEMENT, text.encode())


def open_identity(server: LocalServer, directory: Path) -> ServiceIdentity:
    """The identity of a directory that ``server`` has opened; made where there is none yet.

    Raises:
        ConfigError: a file of it cannot be understood.
        ServerError: one cannot be read or written.
    """
    with disk.translated(str(directory), writing=True):
        pem = _pem_of(directory, server.server_id)
        return ServiceIdentity(
            directory,
            pem,
            x509.spki_hash(pem.read_bytes()),
            server.server_id,
            server.permutation_seed,
            _certifies(pem, server.server_id),
            _swissnum_of(directory / SWISSNUM),
        )


def _pem_of(directory: Path, server_id: bytes) -> Path:
    places = [directory / NODE_PEM]
    if directory.name == "storage":
        places.append(directory.parent / "private" / NODE_PEM)
    for pem in places:
        if os.access(pem, os.R_OK) and _certifies(pem, server_id):
            return pem
    own = directory / HTTPS_PEM
    if not own.exists():
        disk.write_file(own, x509.make_node_certificate())
    return own


def _certifies(pem: Path, server_id: bytes) -> bool:
    try:
        return x509.server_id_of(pem.read_bytes()) == server_id
    except FormatError:
        raise ConfigError(f"{pem} does not hold a certificate") from None


def _swissnum_of(path: Path) -> bytes:
    if not path.exists():
        new = base32.encode(secrets.token_bytes(SWISSNUM_SIZE))
        disk.write_file(path, f"{new}\n".encode())
    swissnum = path.read_bytes().strip()
    if not swissnum.isalnum() or not swissnum.isascii() or len(swissnum) > 256:
        raise ConfigError(f"{path} does not hold one line of letters and digits")
    return swissnum
