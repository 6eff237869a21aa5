"""A storage directory's lasting identity: the certificate in its ``node.pem``.

Theory. A Tahoe storage server is known by its self-signed certificate. The SHA-1 of the certificate
is its *server id* (tub id), which write enablers and lease secrets are derived with; the SHA-256 of
the public key in it is what a NURL pins. The file has the form of a stock node's
``private/node.pem``, so that a stock server pointed at the directory can take it over, and with it
every slot.

Rules:

- Nobody validates such a certificate by authority, name or date. Its bytes are the identity: it is
  made once and never renewed.
- The PEM holds the private key: it is a secret, and stored with mode 0600 by whoever stores it.

Sources: ``docs/specifications/http-storage-node-protocol.rst`` (NURLs), and the ``node.pem`` that
stock 1.20 makes.
"""

from __future__ import annotations

import datetime
import hashlib

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from lafsfs.errors import FormatError

_COMMON_NAME = "newpb_thingy"  # what stock nodes call themselves
_NOT_BEFORE = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)  # a wrong clock does no harm
_NOT_AFTER = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)  # RFC 5280: no end


def make_node_certificate() -> bytes:
    """Make an identity: a self-signed certificate and its RSA-2048 private key, as PEM.

    Slow, as making keys is: call it in a worker thread.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _COMMON_NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + private


def server_id_of(pem: bytes) -> bytes:
    """The 20-byte server id: SHA-1 of the certificate's DER.

    Raises:
        FormatError: there is no certificate in ``pem``.
    """
    der = _certificate(pem).public_bytes(serialization.Encoding.DER)
    return hashlib.sha1(der, usedforsecurity=False).digest()


def spki_hash(pem: bytes) -> bytes:
    """The 32 bytes a NURL pins: SHA-256 of the certificate's SubjectPublicKeyInfo DER.

    Raises:
        FormatError: there is no certificate in ``pem``, or its key is of no known kind.
    """
    try:
        key = _certificate(pem).public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise FormatError("node certificate: its public key cannot be read") from None
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).digest()


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except (ValueError, x509.InvalidVersion):
        raise FormatError("node certificate: no readable certificate in the PEM") from None
