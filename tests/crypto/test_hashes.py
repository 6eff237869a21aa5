"""Every derivation, held to what stock Tahoe wrote into its capabilities, shares and containers."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.crypto import aes, base32, hashes
from tests import golden_data as golden
from tests.crypto.golden_shares import CHK, EVERYTHING, SLOTS, chk_shares, containers, slot_shares

MAX_SEGMENT = 1 << 20  # stock's default, in bytes


def secret_of(cap: str) -> bytes:
    """The key in a capability's first field."""
    return base32.decode(cap.split(":")[2], 16)


def commitment_of(cap: str) -> bytes:
    """The hash in a capability's second field."""
    return base32.decode(cap.split(":")[3], 32)


# --- the hash itself ---


@given(st.binary(max_size=50), st.lists(st.binary(max_size=200), max_size=5))
def test_pieces_hash_as_the_whole(tag: bytes, pieces: list[bytes]) -> None:
    hasher = hashes.TaggedHasher(tag)
    for piece in pieces:
        hasher.update(memoryview(piece))
    whole = b"".join(pieces)
    assert hasher.digest() == hasher.digest() == hashes.tagged_hash(tag, whole)
    once = hashlib.sha256(b"%d:%b,%b" % (len(tag), tag, whole)).digest()
    assert hasher.digest() == hashlib.sha256(once).digest()


def test_truncation_cuts_and_does_not_rehash() -> None:
    assert hashes.tagged_hash(b"t", b"d", 16) == hashes.tagged_hash(b"t", b"d")[:16]
    assert len(hashes.tagged_hash(b"t", b"d")) == hashes.HASH_SIZE


def test_netstring() -> None:
    assert hashes.netstring(b"") == b"0:,"
    assert hashes.netstring(b"hello world!") == b"12:hello world!,"


@given(st.binary(max_size=8), st.binary(max_size=8), st.binary(max_size=8), st.binary(max_size=8))
def test_pairs_are_framed(a: bytes, b: bytes, c: bytes, d: bytes) -> None:
    same = hashes.tagged_pair_hash(b"t", a, b) == hashes.tagged_pair_hash(b"t", c, d)
    assert same == ((a, b) == (c, d))


# --- immutable files ---


@pytest.mark.parametrize("name", CHK)
def test_chk_storage_index(name: str) -> None:
    entry = EVERYTHING[name]
    assert hashes.chk_storage_index(secret_of(entry.cap)) == entry.storage_index


@pytest.mark.parametrize("name", [name for name in CHK if name in golden.OBJECTS])
def test_convergence_key(name: str) -> None:
    data = golden.contents(name)
    segment_size = -(-min(MAX_SEGMENT, len(data)) // golden.K) * golden.K
    hasher = hashes.convergence_key_hasher(golden.K, golden.N, segment_size, golden.CONVERGENCE)
    for start in range(0, len(data), 300_000):
        hasher.update(data[start : start + 300_000])
    assert hasher.digest() == secret_of(golden.OBJECTS[name].cap)


@pytest.mark.parametrize("name", CHK)
def test_ueb_hash_and_ciphertext_hash(name: str) -> None:
    share = chk_shares(name)[0]
    assert hashes.ueb_hash(share.ueb) == commitment_of(EVERYTHING[name].cap)
    if name in golden.OBJECTS:
        hasher = hashes.ciphertext_hasher()
        hasher.update(aes.ctr(secret_of(golden.OBJECTS[name].cap), golden.contents(name)))
        assert hasher.digest() == share.ueb_field("crypttext_hash")


@pytest.mark.parametrize("name", ["imm-56", "imm-1048579"])
def test_block_hash(name: str) -> None:
    for share in chk_shares(name).values():
        block_size = -(-min(MAX_SEGMENT, golden.OBJECTS[name].size) // golden.K)
        blocks = [
            share.data[start : start + block_size]
            for start in range(0, len(share.data), block_size)
        ]
        leaves = [hashes.block_hash(block) for block in blocks]
        assert share.block_hashes[-len(leaves) :] == leaves


# --- leases ---


def stored(secret: bytes) -> bytes:
    """How a version 2 container keeps a lease secret."""
    return hashlib.blake2b(secret, digest_size=32).digest()


@pytest.mark.parametrize("name", [*CHK, *SLOTS])
def test_lease_secrets(name: str) -> None:
    storage_index = EVERYTHING[name].storage_index
    assert storage_index is not None
    shares = chk_shares(name) if name in CHK else slot_shares(name)
    for server_name, shnum in containers(name):
        server_id = golden.SERVERS[server_name].server_id
        renewal, cancel = hashes.lease_secrets(golden.LEASE_SECRET, storage_index, server_id)
        lease = shares[shnum].lease
        assert (stored(renewal), stored(cancel)) == (lease.hashed_renewal, lease.hashed_cancel)


# --- mutable files ---


@pytest.mark.parametrize("name", SLOTS)
def test_slot_keys(name: str) -> None:
    entry = EVERYTHING[name]
    read_key = hashes.ssk_readkey(secret_of(entry.cap))
    assert read_key == secret_of(entry.ro)
    assert hashes.ssk_storage_index(read_key) == entry.storage_index


@pytest.mark.parametrize("name", SLOTS)
def test_write_key_and_fingerprint_come_from_the_keys_in_the_share(name: str) -> None:
    entry = EVERYTHING[name]
    share = slot_shares(name)[0]
    private_key = aes.ctr(secret_of(entry.cap), share.encrypted_private_key)
    assert hashes.ssk_writekey(private_key) == secret_of(entry.cap)
    assert hashes.ssk_fingerprint(share.public_key) == commitment_of(entry.cap)


@pytest.mark.parametrize("name", SLOTS)
def test_write_enablers(name: str) -> None:
    shares = slot_shares(name)
    for server_name, shnum in containers(name):
        server_id = golden.SERVERS[server_name].server_id
        enabler = hashes.ssk_write_enabler(secret_of(EVERYTHING[name].cap), server_id)
        assert enabler == shares[shnum].write_enabler
        assert server_id == shares[shnum].container_server_id


@pytest.mark.parametrize("name", ["sdmf-131073", "mdmf-131073", "patched"])
def test_data_key(name: str) -> None:
    """The first primary blocks, decrypted under each segment's IV, are the plaintext."""
    shares = slot_shares(name)
    read_key = secret_of(golden.OBJECTS[name].ro)
    plaintext = golden.contents(name)
    for segment, (iv, _) in enumerate(shares[0].blocks):
        padded = b"".join(shares[i].blocks[segment][1] for i in range(golden.K))
        start = segment * shares[0].segment_size
        expected = plaintext[start : start + shares[0].segment_size]
        decrypted = aes.ctr(hashes.ssk_datakey(iv, read_key), padded)
        assert decrypted[: len(expected)] == expected


@pytest.mark.parametrize("name", SLOTS)
def test_permuted_order(name: str) -> None:
    """Stock placed share i of a slot on server i (mod 5) of the permuted order."""
    storage_index = EVERYTHING[name].storage_index
    assert storage_index is not None
    order = sorted(
        golden.SERVERS.values(),
        key=lambda server: hashes.permuted_position(storage_index, server.permutation_seed),
    )
    placed = {shnum: server for server, shnum in golden.shares_of(storage_index)}
    assert placed == {shnum: order[shnum % 5].name for shnum in range(golden.N)}


# --- directories ---


@pytest.mark.parametrize(
    ("name", "child"), [("dir-sdmf", "sdmf-1000"), ("dir-mdmf", "mdmf-131073")]
)
def test_sealed_write_capability(name: str, child: str) -> None:
    """A child's write cap, sealed by our derivations, stands in stock's table byte for byte."""
    table = plaintext_of(name)
    write_key = secret_of(golden.TREES[name].cap)
    write_cap = golden.OBJECTS[child].cap.encode()
    salt = hashes.dirnode_child_salt(write_cap)
    key = hashes.dirnode_child_key(salt, write_key)
    sealed = salt + aes.ctr(key, write_cap)
    assert sealed + hashes.dirnode_mac(key, sealed) in table


def plaintext_of(name: str) -> bytes:
    """The table of a mutable directory of one segment, decoded from its primary shares."""
    shares = slot_shares(name)
    iv = shares[0].blocks[0][0]
    padded = b"".join(shares[i].blocks[0][1] for i in range(golden.K))
    data_key = hashes.ssk_datakey(iv, secret_of(golden.TREES[name].ro))
    return aes.ctr(data_key, padded)[: shares[0].data_length]


# --- ours ---


def test_our_own_derivations_never_change() -> None:
    """Uploads and staged data of an earlier run are found again only by the same values."""
    assert hashes.upload_secret(b"L" * 32, b"S" * 16, b"I" * 20).hex() == UPLOAD_SECRET
    assert hashes.derive_key(b"M" * 32, b"purpose").hex() == DERIVED_KEY


UPLOAD_SECRET = "ac17d50cd03fd5ff18d106262c86627485de4474d5e19335092a5628a150093c"
DERIVED_KEY = "eb824be82e329a3b0cdc8c38773ee01f488546214537ee9411359d45b558157e"


def test_upload_secrets_differ_by_server_and_file() -> None:
    secrets = {
        hashes.upload_secret(golden.LEASE_SECRET, bytes([file]) * 16, bytes([server]) * 20)
        for file in range(3)
        for server in range(3)
    }
    assert len(secrets) == 9


# --- values of our own mixed up ---


@pytest.mark.parametrize(
    "mixed_up",
    [
        lambda: hashes.chk_storage_index(bytes(32)),
        lambda: hashes.file_renewal_secret(bytes(32), bytes(20)),
        lambda: hashes.bucket_cancel_secret(bytes(32), bytes(16)),
        lambda: hashes.ssk_readkey(bytes(32)),
        lambda: hashes.ssk_datakey(bytes(12), bytes(16)),
        lambda: hashes.ssk_write_enabler(bytes(16), bytes(32)),
        lambda: hashes.dirnode_child_key(bytes(16), bytes(32)),
        lambda: hashes.upload_secret(bytes(32), bytes(16), b"v0-key"),
        lambda: hashes.dirnode_mac(bytes(32), b""),
    ],
)
def test_a_value_of_the_wrong_length_is_a_bug(mixed_up) -> None:
    with pytest.raises(ValueError, match="must have"):
        mixed_up()


@pytest.mark.parametrize(("k", "n"), [(0, 1), (2, 1), (1, 257), (-1, 3)])
def test_no_convergence_key_without_a_code(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="no erasure code"):
        hashes.convergence_key_hasher(k, n, 1, b"")
