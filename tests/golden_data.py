"""What stock Tahoe-LAFS 1.20 wrote, as values: the manifest of ``tests/golden``, decoded.

``tests/golden`` holds five storage directories as stock servers left them, and a manifest with
every capability, the servers' identities and the client's secrets. Tests compare against it;
nothing here imports ``lafsfs``, so that the golden side never leans on the code under test.

Nobody writes below ``GOLDEN``: a test that wants to change a share copies it first.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden"
_MANIFEST: dict[str, Any] = json.loads((GOLDEN / "manifest.json").read_text(encoding="utf-8"))


def from_base32(text: str) -> bytes:
    """Decode Tahoe's base32 (RFC 4648 in lower case, without padding)."""
    return base64.b32decode(text.upper() + "=" * (-len(text) % 8))


def to_base32(data: bytes) -> str:
    """Encode as Tahoe does: the names of storage index directories, the fields of capabilities."""
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()


@dataclass(frozen=True, slots=True)
class GoldenServer:
    """One stock storage server."""

    name: str  # "s0" .. "s4"
    server_id: bytes  # 20 bytes, the tub id: for write enablers and lease secrets
    announced_id: str  # "v0-...": the key the server announced itself with
    permutation_seed: bytes  # used as it is, for the order of servers
    spki_hash: bytes  # 32 bytes: SHA-256 of the certificate's SubjectPublicKeyInfo, as in its NURL
    directory: Path  # what holds "shares/"


@dataclass(frozen=True, slots=True)
class Patch:
    """Bytes written over the generated contents after they were first stored."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class GoldenObject:
    """One file. ``cap`` is the strongest capability; ``verify`` is None for literals."""

    name: str
    kind: str  # "LIT", "CHK", "SDMF", "MDMF"
    cap: str
    ro: str
    verify: str | None
    size: int
    sha256: str  # hex, of the plaintext
    patch: Patch | None

    @property
    def storage_index(self) -> bytes | None:
        """16 bytes, or None for a literal."""
        return _storage_index(self.verify)


@dataclass(frozen=True, slots=True)
class GoldenTree:
    """One directory. A child is the name of an object, or ``"?dir"`` or ``"?unknown"``."""

    name: str
    kind: str  # "DIR2-sdmf", "DIR2-mdmf", "DIR2-CHK", "DIR2-LIT"
    cap: str
    ro: str
    verify: str | None
    children: dict[str, str]

    @property
    def storage_index(self) -> bytes | None:
        """16 bytes, or None for a literal."""
        return _storage_index(self.verify)


def _storage_index(verify: str | None) -> bytes | None:
    return None if verify is None else from_base32(verify.split(":")[2])


def _server(name: str, entry: dict[str, str]) -> GoldenServer:
    spki = entry["nurl_spki"]
    return GoldenServer(
        name=name,
        server_id=from_base32(entry["tub_id"]),
        announced_id=entry["server_id"],
        permutation_seed=from_base32(entry["permutation_seed_base32"]),
        spki_hash=base64.urlsafe_b64decode(spki + "=" * (-len(spki) % 4)),
        directory=GOLDEN / "servers" / name,
    )


def _object(entry: dict[str, Any]) -> GoldenObject:
    patch = entry.get("patch")
    return GoldenObject(
        **{key: entry[key] for key in ("name", "kind", "cap", "ro", "verify", "size", "sha256")},
        patch=None if patch is None else Patch(patch["offset"], patch["bytes"].encode("ascii")),
    )


K: int = _MANIFEST["k"]
N: int = _MANIFEST["n"]
SEED: str = _MANIFEST["seed"]
CONVERGENCE = from_base32(_MANIFEST["convergence_base32"])
LEASE_SECRET = from_base32(_MANIFEST["lease_secret_base32"])
SERVERS = {name: _server(name, entry) for name, entry in sorted(_MANIFEST["servers"].items())}
OBJECTS = {entry["name"]: _object(entry) for entry in _MANIFEST["objects"]}
TREES = {entry["name"]: GoldenTree(**entry) for entry in _MANIFEST["trees"]}


def generated(name: str, size: int) -> bytes:
    """The manifest's pseudo-random contents of that name, ``size`` bytes, before any patch."""
    blocks = (hashlib.sha256(f"{SEED}:{name}:{i}".encode()).digest() for i in range(-(-size // 32)))
    return b"".join(blocks)[:size]


def contents(name: str) -> bytes:
    """The plaintext of the object of that name, as a reader must see it."""
    golden = OBJECTS[name]
    data = bytearray(generated(name, golden.size))
    if golden.patch is not None:
        end = golden.patch.offset + len(golden.patch.data)
        data[golden.patch.offset : end] = golden.patch.data
    return bytes(data)


def shares_of(storage_index: bytes) -> dict[tuple[str, int], Path]:
    """The share files (whole containers) under a storage index, by server name and share number."""
    text = to_base32(storage_index)
    return {
        (server.name, int(path.name)): path
        for server in SERVERS.values()
        for path in sorted((server.directory / "shares" / text[:2] / text).glob("*"))
    }
