"""Tagged hashes, and every key and secret that Tahoe derives from another.

Theory. Hashing is SHA-256 applied twice. What is hashed begins with a *tag* that says what for, as
a netstring, so that no value of one purpose is ever a value of another. A pair hash also frames its
two parts as netstrings. Sixteen-byte results are truncated ones.

    CHK     key ----------------> storage index
    slot    private key -> write key -> read key -> storage index
                               \\-> write enabler (per server)   read key + IV -> data key
    lease   lease secret -> client -> file (storage index) -> bucket (server id)

Rules:

- Derivations go one way: who holds a result learns nothing of what it was made from.
- Server ids here are the 20-byte tub ids (``grid.StorageServer.server_id``).
- The tags are part of the format and never change. Ours, which no stock client knows, begin with
  ``lafsfs_``.

Sources: ``docs/specifications/file-encoding.rst``, ``mutable.rst``, ``lease.rst`` and
``dirnodes.rst`` of Tahoe-LAFS.
"""

from __future__ import annotations

import hashlib
from typing import TypeAlias

BytesLike: TypeAlias = bytes | bytearray | memoryview

HASH_SIZE = 32
KEY_SIZE = 16  # AES keys of files, write and read keys, storage indexes, salts
SERVER_ID_SIZE = 20

_EMPTY_LEAF = b"Merkle tree empty leaf"
_INTERNAL_NODE = b"Merkle tree internal node"

_CHK_STORAGE_INDEX = b"allmydata_immutable_key_to_storage_index_v1"
_CONVERGENCE = b"allmydata_immutable_content_to_key_with_added_secret_v1+"
_BLOCK = b"allmydata_encoded_subshare_v1"
_UEB = b"allmydata_uri_extension_v1"
_CIPHERTEXT = b"allmydata_crypttext_v1"
_CIPHERTEXT_SEGMENT = b"allmydata_crypttext_segment_v1"

_CLIENT_RENEWAL = b"allmydata_client_renewal_secret_v1"
_CLIENT_CANCEL = b"allmydata_client_cancel_secret_v1"
_FILE_RENEWAL = b"allmydata_file_renewal_secret_v1"
_FILE_CANCEL = b"allmydata_file_cancel_secret_v1"
_BUCKET_RENEWAL = b"allmydata_bucket_renewal_secret_v1"
_BUCKET_CANCEL = b"allmydata_bucket_cancel_secret_v1"

_SSK_WRITE_KEY = b"allmydata_mutable_privkey_to_writekey_v1"
_SSK_READ_KEY = b"allmydata_mutable_writekey_to_readkey_v1"
_SSK_STORAGE_INDEX = b"allmydata_mutable_readkey_to_storage_index_v1"
_SSK_DATA_KEY = b"allmydata_mutable_readkey_to_datakey_v1"
_SSK_FINGERPRINT = b"allmydata_mutable_pubkey_to_fingerprint_v1"
_SSK_ENABLER_MASTER = b"allmydata_mutable_writekey_to_write_enabler_master_v1"
_SSK_ENABLER = b"allmydata_mutable_write_enabler_master_and_nodeid_to_write_enabler_v1"

_CHILD_SALT = b"allmydata_dirnode_child_rwcap_to_salt_v1"
_CHILD_KEY = b"allmydata_mutable_writekey_and_salt_to_dirnode_child_capkey_v1"

_UPLOAD_SECRET = b"lafsfs_upload_secret_v1"
_DERIVED_KEY = b"lafsfs_derived_key_v1"


# --- the hash itself ------------------------------------------------------------------------------


def netstring(data: bytes) -> bytes:
    """Frame bytes as ``LENGTH:DATA,`` with a decimal length."""
    return b"%d:%b," % (len(data), data)


class TaggedHasher:
    """A tagged hash over data that arrives in pieces."""

    __slots__ = ("_inner", "_size")

    def __init__(self, tag: bytes, size: int = HASH_SIZE) -> None:
        self._inner = hashlib.sha256(netstring(tag))
        self._size = size

    def update(self, data: BytesLike) -> None:
        """Append data to what is hashed."""
        self._inner.update(data)

    def digest(self) -> bytes:
        """The hash of everything so far: ``size`` bytes. More may still be appended."""
        return hashlib.sha256(self._inner.digest()).digest()[: self._size]

    def copy(self) -> TaggedHasher:
        """Another one that has been given the same so far."""
        other = object.__new__(TaggedHasher)
        other._inner, other._size = self._inner.copy(), self._size
        return other


def tagged_hash(tag: bytes, data: BytesLike, size: int = HASH_SIZE) -> bytes:
    """Hash data under a tag, truncated to ``size`` bytes."""
    hasher = TaggedHasher(tag, size)
    hasher.update(data)
    return hasher.digest()


def tagged_pair_hash(tag: bytes, a: bytes, b: bytes, size: int = HASH_SIZE) -> bytes:
    """Hash two values, each framed as a netstring, under a tag."""
    return tagged_hash(tag, netstring(a) + netstring(b), size)


def _check(name: str, value: bytes, size: int) -> None:
    """Our own code mixing up two values of different length is caught here, and never shown."""
    if len(value) != size:
        raise ValueError(f"{name} must have {size} bytes, not {len(value)}")


# --- Merkle trees (lafsfs.crypto.merkle) ----------------------------------------------------------


def empty_leaf_hash(index: int) -> bytes:
    """What stands for the leaf of that number where a tree has fewer leaves."""
    return tagged_hash(_EMPTY_LEAF, b"%d" % index)


def pair_hash(left: bytes, right: bytes) -> bytes:
    """The node above two nodes."""
    return tagged_pair_hash(_INTERNAL_NODE, left, right)


# --- immutable files ------------------------------------------------------------------------------


def chk_storage_index(key: bytes) -> bytes:
    """The 16-byte storage index of an immutable file, from its 16-byte encryption key."""
    _check("key", key, KEY_SIZE)
    return tagged_hash(_CHK_STORAGE_INDEX, key, KEY_SIZE)


def convergence_key_hasher(k: int, n: int, segment_size: int, secret: bytes) -> TaggedHasher:
    """A hasher of plaintext that yields the 16-byte convergent encryption key.

    Args:
        segment_size: bytes; of this file, so ``min(maximum, size)`` rounded up to a multiple of k.
        secret: the client's convergence secret, of any length.
    """
    if not 1 <= k <= n <= 256:
        raise ValueError(f"no erasure code is {k}-of-{n}")
    parameters = netstring(b"%d,%d,%d" % (k, n, segment_size))
    return TaggedHasher(_CONVERGENCE + netstring(secret) + parameters, KEY_SIZE)


def block_hash(block: BytesLike) -> bytes:
    """A leaf of a share's block hash tree. An MDMF block is hashed with its salt in front."""
    return tagged_hash(_BLOCK, block)


def ueb_hash(ueb: BytesLike) -> bytes:
    """What a CHK capability holds to verify the URI extension block, in its serialized form."""
    return tagged_hash(_UEB, ueb)


def ciphertext_hasher() -> TaggedHasher:
    """A hasher of the whole ciphertext, without padding: the UEB's ``crypttext_hash``."""
    return TaggedHasher(_CIPHERTEXT)


def ciphertext_segment_hash(segment: BytesLike) -> bytes:
    """A leaf of the ciphertext hash tree: one segment, without padding."""
    return tagged_hash(_CIPHERTEXT_SEGMENT, segment)


# --- leases and uploads ---------------------------------------------------------------------------


def client_renewal_secret(lease_secret: bytes) -> bytes:
    """The client's renewal secret. The lease secret is the *tag* here, not the data."""
    return tagged_hash(lease_secret, _CLIENT_RENEWAL)


def client_cancel_secret(lease_secret: bytes) -> bytes:
    """The client's cancel secret, made in the same way as the renewal secret."""
    return tagged_hash(lease_secret, _CLIENT_CANCEL)


def file_renewal_secret(client_secret: bytes, storage_index: bytes) -> bytes:
    """The renewal secret of one file or slot, from the client's."""
    _check("storage index", storage_index, KEY_SIZE)
    return tagged_pair_hash(_FILE_RENEWAL, client_secret, storage_index)


def file_cancel_secret(client_secret: bytes, storage_index: bytes) -> bytes:
    """The cancel secret of one file or slot, from the client's."""
    _check("storage index", storage_index, KEY_SIZE)
    return tagged_pair_hash(_FILE_CANCEL, client_secret, storage_index)


def bucket_renewal_secret(file_secret: bytes, server_id: bytes) -> bytes:
    """The renewal secret that one server gets to see."""
    _check("server id", server_id, SERVER_ID_SIZE)
    return tagged_pair_hash(_BUCKET_RENEWAL, file_secret, server_id)


def bucket_cancel_secret(file_secret: bytes, server_id: bytes) -> bytes:
    """The cancel secret that one server gets to see."""
    _check("server id", server_id, SERVER_ID_SIZE)
    return tagged_pair_hash(_BUCKET_CANCEL, file_secret, server_id)


def lease_secrets(
    lease_secret: bytes, storage_index: bytes, server_id: bytes
) -> tuple[bytes, bytes]:
    """The (renewal, cancel) secrets, 32 bytes each, of this client's lease at one server."""
    renewal = file_renewal_secret(client_renewal_secret(lease_secret), storage_index)
    cancel = file_cancel_secret(client_cancel_secret(lease_secret), storage_index)
    return bucket_renewal_secret(renewal, server_id), bucket_cancel_secret(cancel, server_id)


def upload_secret(lease_secret: bytes, storage_index: bytes, server_id: bytes) -> bytes:
    """The 32-byte secret that names this client's upload of a file at one server.

    Derived rather than random: a repeated upload finds again the one that a crash left behind.
    """
    _check("storage index", storage_index, KEY_SIZE)
    _check("server id", server_id, SERVER_ID_SIZE)
    parts = netstring(lease_secret) + netstring(storage_index) + netstring(server_id)
    return tagged_hash(_UPLOAD_SECRET, parts)


# --- mutable files --------------------------------------------------------------------------------


def ssk_writekey(private_key_der: bytes) -> bytes:
    """The 16-byte write key, from the exact bytes of the private key (PKCS#8 DER)."""
    return tagged_hash(_SSK_WRITE_KEY, private_key_der, KEY_SIZE)


def ssk_readkey(writekey: bytes) -> bytes:
    """The 16-byte read key."""
    _check("write key", writekey, KEY_SIZE)
    return tagged_hash(_SSK_READ_KEY, writekey, KEY_SIZE)


def ssk_storage_index(readkey: bytes) -> bytes:
    """The 16-byte storage index of a slot."""
    _check("read key", readkey, KEY_SIZE)
    return tagged_hash(_SSK_STORAGE_INDEX, readkey, KEY_SIZE)


def ssk_datakey(iv: bytes, readkey: bytes) -> bytes:
    """The 16-byte AES key of the contents under that 16-byte IV (MDMF: the segment's salt)."""
    _check("IV", iv, KEY_SIZE)
    _check("read key", readkey, KEY_SIZE)
    return tagged_pair_hash(_SSK_DATA_KEY, iv, readkey, KEY_SIZE)


def ssk_fingerprint(public_key_der: bytes) -> bytes:
    """The 32 bytes by which a capability knows the public key (SubjectPublicKeyInfo DER)."""
    return tagged_hash(_SSK_FINGERPRINT, public_key_der)


def ssk_write_enabler(writekey: bytes, server_id: bytes) -> bytes:
    """The 32 bytes that let their holder write to the slot at one server."""
    _check("write key", writekey, KEY_SIZE)
    _check("server id", server_id, SERVER_ID_SIZE)
    master = tagged_hash(_SSK_ENABLER_MASTER, writekey)
    return tagged_pair_hash(_SSK_ENABLER, master, server_id)


# --- directories ----------------------------------------------------------------------------------


def dirnode_child_salt(write_cap: bytes) -> bytes:
    """The 16-byte salt under which a child's write capability (its text) is sealed."""
    return tagged_hash(_CHILD_SALT, write_cap, KEY_SIZE)


def dirnode_child_key(salt: bytes, writekey: bytes) -> bytes:
    """The 16-byte AES key that seals one child's write capability."""
    _check("salt", salt, KEY_SIZE)
    _check("write key", writekey, KEY_SIZE)
    return tagged_pair_hash(_CHILD_KEY, salt, writekey, KEY_SIZE)


def dirnode_mac(key: bytes, data: bytes) -> bytes:
    """The 32-byte MAC behind a sealed write capability.

    Shaped like HMAC-SHA-256, and different: the key is not filled up to a whole block, only its own
    16 bytes are combined with the pads.
    """
    _check("key", key, KEY_SIZE)
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in key) + data).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in key) + inner).digest()


# --- servers and local storage --------------------------------------------------------------------


def permuted_position(storage_index: bytes, permutation_seed: bytes) -> bytes:
    """The 20 bytes to sort servers by for this storage index, lowest first.

    SHA-1 by the format; nothing secret depends on it.
    """
    return hashlib.sha1(storage_index + permutation_seed, usedforsecurity=False).digest()


def derive_key(master: bytes, purpose: bytes) -> bytes:
    """A 32-byte key for one purpose of ours, from a master secret with full entropy."""
    return tagged_pair_hash(_DERIVED_KEY, master, purpose)
