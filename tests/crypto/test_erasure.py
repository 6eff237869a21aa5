"""The erasure code: stock's blocks are our blocks, and any k of them are enough."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.crypto import aes, base32, erasure
from tests import golden_data as golden
from tests.crypto.golden_shares import chk_shares


def blocks_of(k: int, size: int, seed: int = 0) -> list[bytes]:
    return [bytes((seed + 31 * i + 7 * j) % 256 for j in range(size)) for i in range(k)]


@given(st.data())
@settings(max_examples=60)
def test_any_k_blocks_are_enough(draw) -> None:
    n = draw.draw(st.integers(1, 24))
    k = draw.draw(st.integers(1, n))
    primary = blocks_of(k, draw.draw(st.integers(0, 40)), draw.draw(st.integers(0, 255)))
    encoded = erasure.encode(primary, k, n)
    assert encoded[:k] == primary
    chosen = draw.draw(st.permutations(range(n)))[: draw.draw(st.integers(k, n))]
    assert erasure.decode({i: encoded[i] for i in chosen}, k, n) == primary


@given(st.data())
@settings(max_examples=60)
def test_wanted_blocks_come_in_the_order_asked(draw) -> None:
    n = draw.draw(st.integers(1, 12))
    k = draw.draw(st.integers(1, n))
    encoded = erasure.encode(blocks_of(k, 9), k, n)
    wanted = draw.draw(st.lists(st.integers(0, n - 1), unique=True))
    assert erasure.encode(blocks_of(k, 9), k, n, wanted) == [encoded[i] for i in wanted]


@pytest.mark.parametrize(("k", "n"), [(1, 1), (1, 256), (3, 3), (256, 256), (128, 256)])
def test_extreme_codes(k: int, n: int) -> None:
    primary = blocks_of(k, 5)
    encoded = erasure.encode(primary, k, n)
    assert len(encoded) == n
    assert erasure.decode({i: encoded[i] for i in range(n - k, n)}, k, n) == primary


def test_primary_blocks_are_preferred_and_handed_through() -> None:
    primary = blocks_of(3, 10)
    decoded = erasure.decode({7: bytes(10), **dict(enumerate(primary))}, 3, 10)
    assert all(a is b for a, b in zip(decoded, primary, strict=True))
    encoded = erasure.encode(primary, 3, 10, [2, 0])
    assert encoded[0] is primary[2]
    assert encoded[1] is primary[0]


@pytest.mark.parametrize("name", ["imm-56", "imm-131073"])
def test_blocks_of_golden_files(name: str) -> None:
    key = base32.decode(golden.OBJECTS[name].cap.split(":")[2])
    ciphertext = aes.ctr(key, golden.contents(name))
    size = -(-len(ciphertext) // golden.K)
    padded = ciphertext.ljust(size * golden.K, b"\0")
    primary = [padded[i * size : (i + 1) * size] for i in range(golden.K)]
    shares = {shnum: share.data for shnum, share in chk_shares(name).items()}
    assert dict(enumerate(erasure.encode(primary, golden.K, golden.N))) == shares
    for chosen in itertools.islice(itertools.combinations(range(golden.N), golden.K), 0, None, 7):
        some = {i: shares[i] for i in chosen}
        assert erasure.decode(some, golden.K, golden.N) == primary


@pytest.mark.parametrize(("k", "n"), [(0, 1), (2, 1), (1, 257), (-1, -1)])
def test_codes_that_are_none(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="no erasure code"):
        erasure.encode([b""] * max(k, 0), k, n)
    with pytest.raises(ValueError, match="no erasure code"):
        erasure.decode({}, k, n)


@pytest.mark.parametrize("primary", [[], [b"a"], [b"a", b"bb"], [b"a", b"b", b"c"]])
def test_encoding_takes_k_blocks_of_one_length(primary: list[bytes]) -> None:
    with pytest.raises(ValueError, match="2 blocks of one length"):
        erasure.encode(primary, 2, 3)


@pytest.mark.parametrize("blocks", [{}, {1: b"a"}, {0: b"a", 2: b"bb"}])
def test_decoding_takes_k_blocks_of_one_length(blocks: dict[int, bytes]) -> None:
    with pytest.raises(ValueError, match="2 blocks of one length"):
        erasure.decode(blocks, 2, 3)


@pytest.mark.parametrize("wanted", [[3], [-1], [2, 2]])
def test_numbers_must_be_shares_of_the_code(wanted: list[int]) -> None:
    with pytest.raises(ValueError, match="share numbers"):
        erasure.encode([b"a", b"b"], 2, 3, wanted)


def test_decoding_refuses_numbers_outside_the_code() -> None:
    with pytest.raises(ValueError, match="share numbers"):
        erasure.decode({0: b"a", 3: b"b"}, 2, 3)
