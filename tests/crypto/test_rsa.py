"""Key pairs of mutable files: stock's keys and signatures work here, and ours keep their bytes."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.crypto import aes, base32
from lafsfs.crypto.rsa import SIGNATURE_SIZE, SigningKey, VerifyingKey, generate_keypair
from lafsfs.errors import FormatError, HashMismatchError
from tests.crypto.golden_shares import EVERYTHING, SLOTS, slot_shares

KEY = generate_keypair()


def pkcs8(key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def spki(key) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize("name", SLOTS)
def test_golden_signatures_verify(name: str) -> None:
    for share in slot_shares(name).values():
        VerifyingKey.from_der(share.public_key).verify(share.signature, share.prefix)
        with pytest.raises(HashMismatchError):
            VerifyingKey.from_der(share.public_key).verify(share.signature, share.prefix + b"\0")


@pytest.mark.parametrize("name", ["sdmf-1000", "mdmf-0", "dir-sdmf"])
def test_golden_private_keys_sign(name: str) -> None:
    share = slot_shares(name)[0]
    write_key = base32.decode(EVERYTHING[name].cap.split(":")[2])
    der = aes.ctr(write_key, share.encrypted_private_key)
    for key in (SigningKey.from_der(der), SigningKey.from_authentic_der(der)):
        assert key.der == der
        assert key.verifying_key.der == share.public_key
        VerifyingKey.from_der(share.public_key).verify(key.sign(b"message"), b"message")


def test_keys_keep_their_bytes() -> None:
    assert SigningKey.from_der(KEY.der) == KEY
    assert VerifyingKey.from_der(KEY.verifying_key.der) == KEY.verifying_key


def test_two_key_pairs_differ() -> None:
    other = generate_keypair()
    assert other != KEY
    assert other.verifying_key != KEY.verifying_key
    with pytest.raises(HashMismatchError):
        KEY.verifying_key.verify(other.sign(b"message"), b"message")


@given(st.binary(max_size=100), st.data())
@settings(max_examples=30)
def test_signatures(message: bytes, draw) -> None:
    signature = KEY.sign(message)
    assert len(signature) == SIGNATURE_SIZE
    KEY.verifying_key.verify(signature, message)
    flipped = bytearray(signature)
    flipped[draw.draw(st.integers(0, len(flipped) - 1))] ^= draw.draw(st.integers(1, 255))
    with pytest.raises(HashMismatchError):
        KEY.verifying_key.verify(bytes(flipped), message)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_signature(signature: bytes) -> None:
    with pytest.raises(HashMismatchError):
        KEY.verifying_key.verify(signature, b"message")


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(public_exponent=65537, key_size=1024),
        rsa.generate_private_key(public_exponent=65537, key_size=2056),
        ec.generate_private_key(ec.SECP256R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["rsa-1024", "rsa-2056", "ec", "ed25519"],
)
def test_only_rsa_of_2048_bits(key) -> None:
    with pytest.raises(FormatError, match="signing key: not an RSA key of 2048 bits"):
        SigningKey.from_der(pkcs8(key))
    with pytest.raises(FormatError, match="signing key: not an RSA key of 2048 bits"):
        SigningKey.from_authentic_der(pkcs8(key))
    with pytest.raises(FormatError, match="verifying key: not an RSA key of 2048 bits"):
        VerifyingKey.from_der(spki(key))


def test_the_halves_are_not_interchangeable() -> None:
    with pytest.raises(FormatError):
        SigningKey.from_der(KEY.verifying_key.der)
    with pytest.raises(FormatError):
        VerifyingKey.from_der(KEY.der)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_no_key(der: bytes) -> None:
    for kind in (SigningKey, VerifyingKey):
        with pytest.raises(FormatError):
            kind.from_der(der)


@given(st.data())
def test_cut_keys_are_no_keys(draw) -> None:
    private, public = KEY.der, KEY.verifying_key.der
    with pytest.raises(FormatError):
        SigningKey.from_der(private[: draw.draw(st.integers(0, len(private) - 1))])
    with pytest.raises(FormatError):
        VerifyingKey.from_der(public[: draw.draw(st.integers(0, len(public) - 1))])


@given(st.data())
@settings(max_examples=30)
def test_damaged_keys_give_only_format_errors(draw) -> None:
    """A flipped bit may leave a readable key; it never raises anything else."""
    for kind, der in ((SigningKey, KEY.der), (VerifyingKey, KEY.verifying_key.der)):
        damaged = bytearray(der)
        bit = draw.draw(st.integers(0, len(damaged) * 8 - 1))
        damaged[bit // 8] ^= 1 << (bit % 8)
        try:
            key = kind.from_der(bytes(damaged))
        except FormatError:
            continue
        assert key.der == bytes(damaged)


def test_repr_shows_no_key() -> None:
    assert repr(KEY) == "SigningKey(verifying_key=VerifyingKey())"


@given(st.lists(st.tuples(st.integers(0, len(KEY.der) - 1), st.integers(1, 255)), max_size=8))
@settings(max_examples=100)
def test_damaged_keys_taken_for_authentic_sign_well_or_not_at_all(flips) -> None:
    damaged = bytearray(KEY.der)
    for position, flip in flips:
        damaged[position] ^= flip
    try:
        key = SigningKey.from_authentic_der(bytes(damaged))
    except FormatError:
        return
    key.verifying_key.verify(key.sign(b"message"), b"message")
