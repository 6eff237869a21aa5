"""Servers that announce themselves, as stock servers do, and Grid Managers that vouch for them."""

from __future__ import annotations

import datetime
import hashlib
import json
from base64 import urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lafsfs.crypto import base32

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


class Signer:
    """An Ed25519 key pair, the same for the same name."""

    def __init__(self, name: str) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
        self.raw = self._private.public_key().public_bytes_raw()
        self.key = "v0-" + base32.encode(self.raw)

    def sign(self, message: bytes) -> bytes:
        return self._private.sign(message)

    def signed(self, values: Any) -> tuple[bytes, bytes, bytes]:
        """What an introducer delivers: message, signature, key."""
        message = json.dumps(values).encode()
        signature = "v0-" + base32.encode(self.sign(message))
        return message, signature.encode(), self.key.encode()

    def certificate(self, server: Signer, *, expires: str | None = None, **more: Any) -> dict:
        """As a Grid Manager: vouch for a server."""
        end = expires or (NOW + datetime.timedelta(days=1)).isoformat()
        claims = {"expires": end, "public_key": "pub-" + server.key, "version": 1, **more}
        text = json.dumps(claims, separators=(",", ":"), sort_keys=True)
        return {"certificate": text, "signature": base32.encode(self.sign(text.encode()))}


def tub_id(name: str) -> bytes:
    return hashlib.sha1(name.encode()).digest()


def furl(name: str, location: str = "tcp:127.0.0.1:1234") -> str:
    return f"pb://{base32.encode(tub_id(name))}@{location}/swissnum-of-{name}"


def nurl(name: str, location: str = "127.0.0.1:1234") -> str:
    pin = urlsafe_b64encode(hashlib.sha256(name.encode()).digest()).rstrip(b"=").decode()
    return f"pb://{pin}@{location}/swissnum-of-{name}#v=1"


def announcement(name: str, seqnum: int = 1, **more: Any) -> dict[str, Any]:
    """What a stock server called ``name`` announces; ``None`` takes a key away."""
    values = {
        "service-name": "storage",
        "nickname": name,
        "seqnum": seqnum,
        "anonymous-storage-FURL": furl(name),
        "anonymous-storage-NURLs": [nurl(name)],
        "permutation-seed-base32": base32.encode(f"seed of {name}".encode()),
        "version": 0,
        "app-versions": [],
        "my-version": "tahoe-lafs/1.20.0",
        **more,
    }
    return {key: value for key, value in values.items() if value is not None}
