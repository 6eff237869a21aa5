"""Foreign bytes of a share, checked: the signature over its prefix, the blocks below its root hash.

A capability vouches for the public key's fingerprint; the key vouches for the signed prefix, the
prefix for the root hash, the root hash (through a share's chain) for the root of its block hash
tree, and that for every block, with its salt in MDMF. The encrypted private key hangs on nothing:
it is checked by the write key that it must hash to. Offsets are nobody's word.

Everything here is pure CPU work and raises :class:`~lafsfs.errors.FormatError`, mostly as
HashMismatchError. Who read the bytes knows which share on which server to blame.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from lafsfs.caps import MutableFormat
from lafsfs.crypto import aes, erasure, hashes
from lafsfs.crypto.merkle import IncompleteHashTree
from lafsfs.crypto.rsa import SigningKey, VerifyingKey
from lafsfs.errors import FormatError, HashMismatchError
from lafsfs.formats.hashstore import parse_hash_tree, parse_share_hash_chain
from lafsfs.formats.mdmf import split_salt
from lafsfs.formats.slot import parse_slot_header
from lafsfs.mutable.encode import SlotKeys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lafsfs.caps import MutableWriteCap
    from lafsfs.formats.geometry import Span
    from lafsfs.formats.slot import SlotHeader
    from lafsfs.mutable.servermap import Version

MAX_REMEMBERED = 64  # signatures that need not be checked again


class SlotVerifier:
    """Checks headers against a capability's fingerprint, remembering what it has checked.

    Every share must bring a good key and a good signature of its own, or it would be of no use to
    the next reader.
    """

    def __init__(self, fingerprint: bytes) -> None:
        self._fingerprint = fingerprint
        self._key: VerifyingKey | None = None
        self._signed: dict[tuple[Version, bytes], None] = {}

    def header(self, head: bytes) -> SlotHeader:
        """The header of a share, given its first bytes, once a valid signature covers its prefix.

        Raises:
            FormatError: no share begins like this, or key and signature lie past ``head``.
            HashMismatchError: the public key or the signature is not the right one.
        """
        header = parse_slot_header(head)
        der = cut(head, header.sections.verification_key)
        signature = cut(head, header.sections.signature)
        key = self._checked_key(der)
        if (header.prefix, signature) not in self._signed:
            key.verify(signature, header.prefix.pack())
            if len(self._signed) >= MAX_REMEMBERED:
                self._signed.pop(next(iter(self._signed)))
            self._signed[header.prefix, signature] = None
        return header

    def _checked_key(self, der: bytes) -> VerifyingKey:
        if self._key is None or self._key.der != der:
            if not hmac.compare_digest(hashes.ssk_fingerprint(der), self._fingerprint):
                raise HashMismatchError("the public key is not the capability's")
            self._key = VerifyingKey.from_der(der)
        return self._key


def cut(head: bytes, span: Span) -> bytes:
    """A section out of a share's first bytes. FormatError when they do not reach that far."""
    if span.end > len(head):
        raise FormatError(f"a section ends at byte {span.end}, past the {len(head)} bytes read")
    return head[span.offset : span.end]


def open_private_key(encrypted: bytes, cap: MutableWriteCap) -> SlotKeys:
    """Decrypt a slot's private key, which must be the capability's.

    Raises:
        HashMismatchError: this is not the slot's private key.
    """
    der = aes.ctr(cap.write_key, encrypted)
    if not hmac.compare_digest(hashes.ssk_writekey(der), cap.write_key):
        raise HashMismatchError("the encrypted private key does not belong to the write key")
    keys = SlotKeys(SigningKey.from_authentic_der(der))
    if not hmac.compare_digest(keys.fingerprint, cap.fingerprint):
        raise HashMismatchError("the private key's public half is not the capability's")
    return keys


class VerifiedTrees:
    """The block hash trees of one version's shares, as far as they are known to belong to it.

    A share's tree is fetched and checked once; after that its blocks need nothing else. Trees take
    64 bytes for each segment.
    """

    def __init__(self, version: Version) -> None:
        self._version = version
        self._trees: dict[int, IncompleteHashTree] = {}

    def knows(self, shnum: int) -> bool:
        """Whether blocks of that share can be checked without its hash chain and tree."""
        return shnum in self._trees

    def check(self, shnum: int, first: int, leaves: Sequence[bytes]) -> None:
        """Raise FormatError unless these are the hashes of blocks of a known share."""
        self._trees[shnum].set_hashes({}, {first + i: leaf for i, leaf in enumerate(leaves)})

    def verified(self, shnum: int, chain: bytes, tree: bytes) -> IncompleteHashTree:
        """A share's tree from its stored chain and tree, for :meth:`admit`; for any thread.

        Raises:
            FormatError: they do not belong to the version.
        """
        nodes = parse_hash_tree(tree)
        verified = IncompleteHashTree(self._version.geometry.num_segments, nodes[0])
        verified.set_hashes(dict(enumerate(nodes)))
        check_root(self._version, shnum, chain, nodes[0])
        return verified

    def admit(self, shnum: int, tree: IncompleteHashTree) -> None:
        """Remember a tree that :meth:`verified` made."""
        self._trees[shnum] = tree


def check_root(version: Version, shnum: int, chain: bytes, root: bytes) -> None:
    """Raise FormatError unless a share of the version has that block hash tree."""
    share_tree = IncompleteHashTree(version.n, version.root_hash)
    share_tree.set_hashes(parse_share_hash_chain(chain), {shnum: root})


def salted_ciphertext(version: Version, segment: int, blocks: Mapping[int, bytes]) -> bytes:
    """The salt and the ciphertext of one segment, from k checked stored blocks by share number."""
    salt = version.iv
    if version.format is MutableFormat.MDMF:
        salted = {shnum: split_salt(stored) for shnum, stored in blocks.items()}
        salt = next(iter(salted.values()))[0]
        blocks = {shnum: block for shnum, (_, block) in salted.items()}
    if salt is None:
        raise FormatError("a version without a salt")
    primary = erasure.decode(blocks, version.k, version.n)
    return salt + b"".join(primary)[: version.geometry.segment_length(segment)]


def decrypted(salted: bytes, read_key: bytes, skip: int = 0, length: int | None = None) -> bytes:
    """The plaintext of a segment, or ``length`` bytes of it after ``skip``."""
    salt, ciphertext = salted[: hashes.KEY_SIZE], memoryview(salted)[hashes.KEY_SIZE :]
    end = len(ciphertext) if length is None else skip + length
    return aes.ctr(hashes.ssk_datakey(salt, read_key), ciphertext[skip:end], skip)
