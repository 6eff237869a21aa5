"""The key pairs of mutable files: RSA of 2048 bits, PSS over SHA-256 with a salt of 32 bytes.

Theory. A slot's capability commits to the exact bytes of both keys: the write key hashes the
private key's PKCS#8 DER, the fingerprint hashes the public key's SubjectPublicKeyInfo DER. DER of
one key can be written in more than one way, so a key read from a share keeps the bytes it came in,
and what is hashed or stored again is those.

Rules:

- Only 2048 bits, only RSA: stock clients refuse the rest.
- Keys read here are foreign until their bytes matched the capability; the caller compares.
- Making a key takes some 30 ms and more, signing 0.2 ms: the first belongs in a worker thread.

``cryptography`` rather than pycryptodome: five times faster at making keys, four times at signing.
Source: ``docs/specifications/mutable.rst`` (SDMF slot format).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric import rsa as _rsa

from lafsfs.errors import FormatError, HashMismatchError

KEY_BITS = 2048
SIGNATURE_SIZE = KEY_BITS // 8
_SALT_SIZE = 32
_EXPONENT = 65537

_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=_SALT_SIZE)
# What the library raises for bytes that are no key, or one it cannot use.
_BAD_KEY = (ValueError, TypeError, UnsupportedAlgorithm)


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """The public half. Equal when the bytes are."""

    der: bytes = field(repr=False)
    """SubjectPublicKeyInfo, exactly as read."""

    _key: _rsa.RSAPublicKey = field(repr=False, compare=False)

    @classmethod
    def from_der(cls, der: bytes) -> VerifyingKey:
        """Read a public key.

        Raises:
            FormatError: not a public key, not RSA, or not of 2048 bits.
        """
        try:
            key = serialization.load_der_public_key(der)
        except _BAD_KEY:
            raise FormatError("verifying key: not a public key") from None
        if not isinstance(key, _rsa.RSAPublicKey) or key.key_size != KEY_BITS:
            raise FormatError(f"verifying key: not an RSA key of {KEY_BITS} bits")
        return cls(der, key)

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check a signature of ``message``.

        Raises:
            HashMismatchError: it was not made by this key for this message.
        """
        try:
            self._key.verify(signature, message, _PSS, hashes.SHA256())
        except InvalidSignature:
            raise HashMismatchError("the signature does not verify") from None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The private half, and with it the right to write. Equal when the bytes are."""

    der: bytes = field(repr=False)
    """PKCS#8 without encryption, exactly as read: the write key is a hash of it."""

    verifying_key: VerifyingKey
    _key: _rsa.RSAPrivateKey = field(repr=False, compare=False)

    @classmethod
    def from_der(cls, der: bytes) -> SigningKey:
        """Read a private key and check that its numbers belong together.

        Raises:
            FormatError: not a private key, not RSA, not of 2048 bits, or inconsistent.
        """
        try:
            # Size first: checking the numbers of an oversized key takes more than linear time.
            key = serialization.load_der_private_key(
                der, password=None, unsafe_skip_rsa_key_validation=True
            )
            if not isinstance(key, _rsa.RSAPrivateKey) or key.key_size != KEY_BITS:
                raise FormatError(f"signing key: not an RSA key of {KEY_BITS} bits")
            key = serialization.load_der_private_key(der, password=None)
        except _BAD_KEY:
            raise FormatError("signing key: not a usable private key") from None
        assert isinstance(key, _rsa.RSAPrivateKey)
        return cls(der, _public_half(key), key)

    @classmethod
    def from_authentic_der(cls, der: bytes) -> SigningKey:
        """Read a private key whose bytes have matched the hash in a capability.

        Spares the proof that its numbers are primes, which takes a hundred times as long as all the
        rest of writing a small file. That it makes good signatures is tried out instead.

        Raises:
            FormatError: not a private key, not RSA, not of 2048 bits, or it does not sign.
        """
        try:
            key = serialization.load_der_private_key(
                der, password=None, unsafe_skip_rsa_key_validation=True
            )
            if not isinstance(key, _rsa.RSAPrivateKey) or key.key_size != KEY_BITS:
                raise FormatError(f"signing key: not an RSA key of {KEY_BITS} bits")
            read = cls(der, _public_half(key), key)
            read.verifying_key.verify(read.sign(b""), b"")
        except (*_BAD_KEY, InternalError, HashMismatchError):
            raise FormatError("signing key: not a usable private key") from None
        return read

    def sign(self, message: bytes) -> bytes:
        """Sign ``message``: 256 bytes, different each time."""
        return self._key.sign(message, _PSS, hashes.SHA256())


def generate_keypair() -> SigningKey:
    """Make a new key pair. Slow: call it in a worker thread."""
    key = _rsa.generate_private_key(public_exponent=_EXPONENT, key_size=KEY_BITS)
    der = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return SigningKey(der, _public_half(key), key)


def _public_half(key: _rsa.RSAPrivateKey) -> VerifyingKey:
    public = key.public_key()
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return VerifyingKey(der, public)
