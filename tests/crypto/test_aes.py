"""Counter mode at any offset, and sealing that notices every change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.crypto import aes, base32
from lafsfs.errors import HashMismatchError
from tests import golden_data as golden
from tests.crypto.golden_shares import chk_shares

KEYS = st.binary(min_size=16, max_size=16) | st.binary(min_size=32, max_size=32)
SEAL_KEY = bytes(range(32))
NONCE = bytes(12)


@given(KEYS, st.binary(max_size=300), st.data())
def test_any_range_is_the_same_range_of_the_whole(key: bytes, data: bytes, draw) -> None:
    start = draw.draw(st.integers(0, len(data)))
    end = draw.draw(st.integers(start, len(data)))
    assert aes.ctr(key, memoryview(data)[start:end], start) == aes.ctr(key, data)[start:end]


@given(KEYS, st.binary(max_size=100), st.integers(0, 2**60))
def test_ctr_undoes_itself(key: bytes, data: bytes, offset: int) -> None:
    assert aes.ctr(key, aes.ctr(key, data, offset), offset) == data


def test_counter_starts_at_zero() -> None:
    # AES-128 of the zero block under the zero key, a published test vector.
    assert aes.ctr(bytes(16), bytes(16)).hex() == "66e94bd4ef8a2c3b884cfa59ca342b2e"


@pytest.mark.parametrize("offset", [0, 1, 15, 16, 17, 349_525, 349_526, 1_048_570])
def test_reads_what_stock_encrypted_from_any_offset(offset: int) -> None:
    """The primary shares' first blocks side by side are the ciphertext of the first segment."""
    golden_file = golden.OBJECTS["imm-2100000"]
    key = base32.decode(golden_file.cap.split(":")[2])
    block_size = -(-(1 << 20) // golden.K)
    shares = chk_shares(golden_file.name)
    ciphertext = b"".join(shares[i].data[:block_size] for i in range(golden.K))
    plaintext = golden.contents(golden_file.name)
    assert aes.ctr(key, ciphertext[offset:], offset) == plaintext[offset : len(ciphertext)]


@pytest.mark.parametrize("size", [0, 15, 24, 33])
def test_only_the_key_sizes_tahoe_has(size: int) -> None:
    with pytest.raises(ValueError, match="16 or 32 bytes"):
        aes.ctr(bytes(size), b"data")


@given(st.binary(max_size=200), st.binary(max_size=20))
def test_sealed_data_opens(data: bytes, associated: bytes) -> None:
    sealed = aes.seal(SEAL_KEY, NONCE, memoryview(data), associated)
    assert len(sealed) == len(data) + aes.TAG_SIZE
    assert aes.open_sealed(SEAL_KEY, NONCE, sealed, associated) == data


@given(st.binary(max_size=60), st.data())
def test_one_flipped_bit_does_not_open(data: bytes, draw) -> None:
    sealed = bytearray(aes.seal(SEAL_KEY, NONCE, data, b"extent 7"))
    bit = draw.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(HashMismatchError):
        aes.open_sealed(SEAL_KEY, NONCE, sealed, b"extent 7")


@given(st.binary(max_size=60), st.data())
def test_cut_data_does_not_open(data: bytes, draw) -> None:
    sealed = aes.seal(SEAL_KEY, NONCE, data)
    length = draw.draw(st.integers(0, len(sealed) - 1))
    with pytest.raises(HashMismatchError):
        aes.open_sealed(SEAL_KEY, NONCE, sealed[:length])


@pytest.mark.parametrize(
    ("key", "nonce", "associated"),
    [
        (bytes(32), NONCE, b"here"),
        (SEAL_KEY, bytes([1]) * 12, b"here"),
        (SEAL_KEY, NONCE, b"there"),
        (SEAL_KEY, NONCE, b""),
    ],
)
def test_sealed_data_opens_only_where_it_belongs(
    key: bytes, nonce: bytes, associated: bytes
) -> None:
    sealed = aes.seal(SEAL_KEY, NONCE, b"data", b"here")
    with pytest.raises(HashMismatchError):
        aes.open_sealed(key, nonce, sealed, associated)


@pytest.mark.parametrize(("key", "nonce"), [(bytes(16), NONCE), (SEAL_KEY, bytes(16))])
def test_sealing_takes_one_size_of_key_and_nonce(key: bytes, nonce: bytes) -> None:
    with pytest.raises(ValueError, match="sealing needs"):
        aes.seal(key, nonce, b"data")
    with pytest.raises(ValueError, match="sealing needs"):
        aes.open_sealed(key, nonce, bytes(20))
