"""Ed25519: RFC 8032's own vectors, Tahoe's spelling of keys, and nothing but FormatError."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.crypto import base32, ed25519
from lafsfs.errors import FormatError, HashMismatchError

# RFC 8032, 7.1: (public key, message, signature).
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701c"
        "f9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0"
        "f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
]


@pytest.mark.parametrize(("key", "message", "signature"), VECTORS)
def test_the_vectors_of_the_rfc(key: str, message: str, signature: str) -> None:
    raw, text, sig = bytes.fromhex(key), bytes.fromhex(message), bytes.fromhex(signature)
    ed25519.verify(raw, sig, text)
    for bad in (text + b"x", text[:-1] if text else b"y"):
        with pytest.raises(HashMismatchError):
            ed25519.verify(raw, sig, bad)
    for position in (0, 31, 32, 63):
        broken = bytearray(sig)
        broken[position] ^= 1
        with pytest.raises(HashMismatchError):
            ed25519.verify(raw, bytes(broken), text)


def test_keys_as_tahoe_writes_them() -> None:
    raw = bytes.fromhex(VECTORS[0][0])
    text = base32.encode(raw)
    assert len(text) == 52
    assert ed25519.parse_verifying_key(f"v0-{text}") == raw
    assert ed25519.parse_verifying_key(f"pub-v0-{text}") == raw
    for bad in ("", text, f"v1-{text}", f"priv-v0-{text}", f"v0-{text[:-1]}", f"v0-{text.upper()}"):
        with pytest.raises(FormatError):
            ed25519.parse_verifying_key(bad)


def test_signatures_as_tahoe_writes_them() -> None:
    raw = bytes.fromhex(VECTORS[0][2])
    assert ed25519.parse_signature("v0-" + base32.encode(raw)) == raw
    for bad in ("", base32.encode(raw), "v0-", "v0-" + base32.encode(raw[:-1])):
        with pytest.raises(FormatError):
            ed25519.parse_signature(bad)


@given(st.binary(max_size=40), st.binary(max_size=70), st.binary(max_size=20))
def test_arbitrary_bytes_verify_nothing(key: bytes, signature: bytes, message: bytes) -> None:
    with pytest.raises(FormatError):
        ed25519.verify(key, signature, message)
