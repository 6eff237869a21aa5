"""Grid Managers: who may receive uploads, where somebody is trusted to say so (managed-grid.rst).

A Grid Manager signs short-lived certificates, each for the key of one storage server. Servers put
theirs into their announcements. A client that trusts Grid Managers uploads only to servers with a
certificate from one of them that has not expired; it reads from all. A client that trusts none
uploads to all.

Rules:

- Pure: who asks says what time it is. A certificate that ran out stops counting without a restart.
- A certificate that is malformed, signed by somebody else or made for another server counts for
  nothing, and is no error: a server may carry several.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lafsfs.crypto import base32, ed25519
from lafsfs.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

VERSION = 1
MAX_CERTIFICATE = 10_000  # characters; one has about 150
MAX_CERTIFICATES = 50  # of one server; each costs a signature check per Grid Manager


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a server shows, unverified: JSON text, and a signature over its bytes."""

    text: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse_certificates(value: object) -> tuple[Certificate, ...]:
    """The certificates in an announcement; those that are malformed are left out."""
    if not isinstance(value, list):
        return ()
    found = []
    for item in value[:MAX_CERTIFICATES]:
        if not isinstance(item, dict):
            continue
        text, signature = item.get("certificate"), item.get("signature")
        if not isinstance(text, str) or not isinstance(signature, str):
            continue
        if len(text) > MAX_CERTIFICATE:
            continue
        try:
            raw = base32.decode(signature, ed25519.SIGNATURE_SIZE)
            found.append(Certificate(text.encode("utf-8"), raw))
        except (FormatError, UnicodeEncodeError):
            continue
    return tuple(found)


def permitted_until(
    managers: Sequence[bytes], certificates: Iterable[Certificate], server_key: bytes | None
) -> datetime.datetime | None:
    """When a server's last good certificate expires; None if it has no good one.

    ``managers``: the 32-byte keys of the Grid Managers. ``server_key``: the server's own, None
    where it is not known, and then nothing can be a certificate for it.
    """
    if server_key is None:
        return None
    ends = [
        end
        for certificate in certificates
        if any(_is_signed(manager, certificate) for manager in managers)
        and (end := _expiry(certificate, server_key)) is not None
    ]
    return max(ends, default=None)


def _is_signed(manager: bytes, certificate: Certificate) -> bool:
    try:
        ed25519.verify(manager, certificate.signature, certificate.text)
    except FormatError:
        return False
    return True


def _expiry(certificate: Certificate, server_key: bytes) -> datetime.datetime | None:
    """What a certificate whose signature is good says of this server."""
    try:
        claims = json.loads(certificate.text)
        if claims["version"] != VERSION:
            return None
        if ed25519.parse_verifying_key(claims["public_key"]) != server_key:
            return None
        end = datetime.datetime.fromisoformat(claims["expires"])
    except (ValueError, KeyError, TypeError, AttributeError, FormatError, RecursionError):
        return None
    return end if end.tzinfo is not None else end.replace(tzinfo=datetime.UTC)
