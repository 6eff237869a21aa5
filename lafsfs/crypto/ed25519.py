"""Ed25519, by which storage servers sign their announcements and Grid Managers their certificates.

Theory. Tahoe writes a verifying key as ``v0-`` and 52 letters of base32; that text is the name an
announced server goes by. Where keys are kept in files, ``pub-`` stands in front.

``cryptography`` rather than pycryptodome: five times faster at verifying.
Sources: RFC 8032; ``docs/managed-grid.rst`` and the announcements that stock 1.20 makes.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from lafsfs.crypto import base32
from lafsfs.errors import FormatError, HashMismatchError

KEY_SIZE = 32  # bytes of a verifying key
SIGNATURE_SIZE = 64  # bytes

_VERSION = "v0-"
_PUBLIC = "pub-"


def parse_verifying_key(text: str) -> bytes:
    """Read ``v0-...``, with or without ``pub-`` in front: the 32 bytes of the key.

    Raises:
        FormatError: another version, or not the base32 of a key.
    """
    versioned = text.removeprefix(_PUBLIC)
    if not versioned.startswith(_VERSION):
        raise FormatError("Ed25519 key: it does not begin with v0- or pub-v0-")
    return base32.decode(versioned.removeprefix(_VERSION), KEY_SIZE)


def parse_signature(text: str) -> bytes:
    """Read the ``v0-...`` of a signature: 64 bytes.

    Raises:
        FormatError: another version, or not the base32 of a signature.
    """
    if not text.startswith(_VERSION):
        raise FormatError("Ed25519 signature: it does not begin with v0-")
    return base32.decode(text.removeprefix(_VERSION), SIGNATURE_SIZE)


def verify(key: bytes, signature: bytes, message: bytes) -> None:
    """Check a signature of ``message``.

    Raises:
        FormatError: ``key`` is not the 32 bytes of a point.
        HashMismatchError: the signature was not made by this key for this message.
    """
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (ValueError, UnsupportedAlgorithm):
        raise FormatError("Ed25519 key: not a usable key") from None
    except InvalidSignature:
        raise HashMismatchError("the signature does not verify") from None
