"""Headers of requests: authorization, secrets, ranges (``http-storage-node-protocol.rst``).

Rules:

- The swissnum and every secret are compared in constant time, by whoever they are given to.
- Secrets are checked for their number, kind and size before anything uses them: too many are as
  wrong as too few.
- No message quotes a header. Pure.
"""

from __future__ import annotations

import binascii
import enum
import hmac
import re
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING

from lafsfs.gbs.service.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CBOR = "application/cbor"
SECRET_SIZE = 32  # bytes of lease secrets and write enablers

_RANGE = re.compile(r"bytes=([0-9]{1,19})-([0-9]{1,19})")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/(?:[0-9]{1,19}|\*)")


class Secret(enum.Enum):
    """The kinds of secret in ``X-Tahoe-Authorization``, by their names there."""

    LEASE_RENEW = "lease-renew-secret"
    LEASE_CANCEL = "lease-cancel-secret"
    UPLOAD = "upload-secret"
    WRITE_ENABLER = "write-enabler"


def authorization_of(swissnum: bytes) -> bytes:
    """The only ``Authorization`` that opens a server."""
    return b"Tahoe-LAFS " + b64encode(swissnum)


def is_authorized(given: bytes, wanted: bytes) -> bool:
    """Whether the header that was given is the one of :func:`authorization_of`."""
    return hmac.compare_digest(given, wanted)


def parse_secrets(values: Iterable[bytes], wanted: frozenset[Secret]) -> dict[Secret, bytes]:
    """The secrets of a request, exactly those wanted.

    Raises:
        Refusal: 400, for anything else.
    """
    secrets: dict[Secret, bytes] = {}
    for value in values:
        name, _, text = value.decode("latin-1").strip().partition(" ")
        try:
            kind = Secret(name)
            secret = b64decode(text.strip(), validate=True)
        except (ValueError, binascii.Error):
            raise Refusal(400, "X-Tahoe-Authorization cannot be read") from None
        if kind in secrets or kind not in wanted:
            raise Refusal(400, f"{kind.value} is not wanted here, or not twice")
        if not secret or (kind is not Secret.UPLOAD and len(secret) != SECRET_SIZE):
            raise Refusal(400, f"{kind.value} is of a wrong length")
        secrets[kind] = secret
    missing = sorted(kind.value for kind in wanted - secrets.keys())
    if missing:
        raise Refusal(400, f"X-Tahoe-Authorization lacks {', '.join(missing)}")
    return secrets


def parse_range(value: bytes) -> tuple[int, int]:
    """The one closed range ``[start, stop)`` of a ``Range`` header. Raises Refusal, 416."""
    match = _RANGE.fullmatch(value.decode("latin-1").strip())
    if match is None or int(match[1]) > int(match[2]):
        raise Refusal(416, "exactly one range of bytes with both ends is supported")
    return int(match[1]), int(match[2]) + 1


def parse_content_range(value: bytes) -> tuple[int, int]:
    """The range ``[start, stop)`` of a ``Content-Range`` header. Raises Refusal, 416."""
    match = _CONTENT_RANGE.fullmatch(value.decode("latin-1").strip())
    if match is None or int(match[1]) > int(match[2]):
        raise Refusal(416, "Content-Range must name the range of bytes that is sent")
    return int(match[1]), int(match[2]) + 1


def accepts_cbor(values: Sequence[bytes]) -> bool:
    """Whether a reply in CBOR is acceptable; it is to those who do not say what is."""
    for value in values:
        for choice in value.decode("latin-1").split(","):
            mime_type, *parameters = (part.strip().lower() for part in choice.split(";"))
            refused = any(re.fullmatch(r"q=0(\.0*)?", p) for p in parameters)
            if mime_type in (CBOR, "application/*", "*/*") and not refused:
                return True
    return not values


def is_cbor(value: bytes) -> bool:
    """Whether a ``Content-Type`` is that of CBOR; so is none."""
    return value.decode("latin-1").partition(";")[0].strip().lower() in ("", CBOR)
