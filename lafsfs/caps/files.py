"""Capabilities of files: literal, immutable (CHK) and mutable (SDMF and MDMF).

Attenuation runs one way, by hashing: write key -> read key -> storage index, and for immutable
files encryption key -> storage index (``uri.rst`` and ``mutable.rst`` of the Tahoe-LAFS
specifications). Constructors check everything that strings are checked for, so an object that
exists is well formed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

from lafsfs.caps.base import Capability
from lafsfs.caps.fields import (
    HASH_SIZE,
    KEY_SIZE,
    MAX_LITERAL_SIZE,
    check_encoding,
    check_size,
)
from lafsfs.crypto import base32, hashes
from lafsfs.errors import BadCapabilityError


class MutableFormat(enum.Enum):
    """The two layouts of a mutable slot; the value is what :attr:`Capability.kind` says."""

    SDMF = "SDMF"
    MDMF = "MDMF"

    @property
    def prefix(self) -> str:
        """How the strings of this format begin, without the mark for fewer rights."""
        return "URI:SSK" if self is MutableFormat.SDMF else "URI:MDMF"


@dataclass(frozen=True, slots=True, repr=False)
class LiteralCap(Capability):
    """A small file that is its own capability: nothing is stored anywhere."""

    data: bytes

    def __post_init__(self) -> None:
        if len(self.data) > MAX_LITERAL_SIZE:
            raise BadCapabilityError(
                f"a literal capability holds at most {MAX_LITERAL_SIZE} bytes of data"
            )

    @property
    def kind(self) -> str:
        return "LIT"

    @property
    def size(self) -> int:
        """The file's length in bytes."""
        return len(self.data)

    def danger_text(self) -> str:
        return f"URI:LIT:{base32.encode(self.data)}"

    @property
    def can_write(self) -> bool:
        return False

    @property
    def can_read(self) -> bool:
        return True

    @property
    def is_mutable(self) -> bool:
        return False

    @property
    def storage_index(self) -> None:
        return None

    def read_cap(self) -> LiteralCap:
        return self

    def verify_cap(self) -> None:
        return None


@dataclass(frozen=True, slots=True, repr=False)
class CHKCap(Capability):
    """An immutable file: a 16-byte AES key and the 32-byte hash that vouches for every share.

    ``k`` of ``n`` shares make up ``size`` bytes of plaintext.
    """

    key: bytes
    ueb_hash: bytes
    k: int
    n: int
    size: int

    def __post_init__(self) -> None:
        check_size("key", self.key, KEY_SIZE)
        check_size("UEB hash", self.ueb_hash, HASH_SIZE)
        check_encoding(self.k, self.n, self.size)

    @property
    def kind(self) -> str:
        return "CHK"

    def danger_text(self) -> str:
        key, ueb_hash = base32.encode(self.key), base32.encode(self.ueb_hash)
        return f"URI:CHK:{key}:{ueb_hash}:{self.k}:{self.n}:{self.size}"

    @property
    def can_write(self) -> bool:
        return False

    @property
    def can_read(self) -> bool:
        return True

    @property
    def is_mutable(self) -> bool:
        return False

    @property
    def storage_index(self) -> bytes:
        return hashes.chk_storage_index(self.key)

    def read_cap(self) -> CHKCap:
        return self

    def verify_cap(self) -> CHKVerifyCap:
        return CHKVerifyCap(self.storage_index, self.ueb_hash, self.k, self.n, self.size)


@dataclass(frozen=True, slots=True, repr=False)
class CHKVerifyCap(Capability):
    """The right to check and repair an immutable file's ciphertext without reading it."""

    storage_index: bytes
    ueb_hash: bytes
    k: int
    n: int
    size: int

    def __post_init__(self) -> None:
        check_size("storage index", self.storage_index, KEY_SIZE)
        check_size("UEB hash", self.ueb_hash, HASH_SIZE)
        check_encoding(self.k, self.n, self.size)

    @property
    def kind(self) -> str:
        return "CHK"

    def danger_text(self) -> str:
        index, ueb_hash = base32.encode(self.storage_index), base32.encode(self.ueb_hash)
        return f"URI:CHK-Verifier:{index}:{ueb_hash}:{self.k}:{self.n}:{self.size}"

    @property
    def can_write(self) -> bool:
        return False

    @property
    def can_read(self) -> bool:
        return False

    @property
    def is_mutable(self) -> bool:
        return False

    def read_cap(self) -> CHKVerifyCap:
        return self

    def verify_cap(self) -> CHKVerifyCap:
        return self


class _MutableCap(Capability):
    """What the three strengths of a mutable file's capability share."""

    __slots__ = ()

    format: MutableFormat
    fingerprint: bytes

    @property
    def kind(self) -> str:
        return self.format.value

    @property
    def is_mutable(self) -> bool:
        return True

    def _text(self, mark: str, secret: bytes) -> str:
        fields = f"{base32.encode(secret)}:{base32.encode(self.fingerprint)}"
        return f"{self.format.prefix}{mark}:{fields}"


@dataclass(frozen=True, slots=True, repr=False)
class MutableWriteCap(_MutableCap):
    """The right to write a mutable file: a 16-byte write key and its public key's fingerprint."""

    format: MutableFormat
    write_key: bytes
    fingerprint: bytes

    def __post_init__(self) -> None:
        check_size("write key", self.write_key, KEY_SIZE)
        check_size("fingerprint", self.fingerprint, HASH_SIZE)

    def danger_text(self) -> str:
        return self._text("", self.write_key)

    @property
    def can_write(self) -> bool:
        return True

    @property
    def can_read(self) -> bool:
        return True

    @property
    def read_key(self) -> bytes:
        """The 16 bytes from which the keys of each version's contents are derived."""
        return hashes.ssk_readkey(self.write_key)

    @property
    def storage_index(self) -> bytes:
        return hashes.ssk_storage_index(self.read_key)

    def read_cap(self) -> MutableReadCap:
        return MutableReadCap(self.format, self.read_key, self.fingerprint)

    def verify_cap(self) -> MutableVerifyCap:
        return MutableVerifyCap(self.format, self.storage_index, self.fingerprint)


@dataclass(frozen=True, slots=True, repr=False)
class MutableReadCap(_MutableCap):
    """The right to read a mutable file: a 16-byte read key and its public key's fingerprint."""

    format: MutableFormat
    read_key: bytes
    fingerprint: bytes

    def __post_init__(self) -> None:
        check_size("read key", self.read_key, KEY_SIZE)
        check_size("fingerprint", self.fingerprint, HASH_SIZE)

    def danger_text(self) -> str:
        return self._text("-RO", self.read_key)

    @property
    def can_write(self) -> bool:
        return False

    @property
    def can_read(self) -> bool:
        return True

    @property
    def storage_index(self) -> bytes:
        return hashes.ssk_storage_index(self.read_key)

    def read_cap(self) -> MutableReadCap:
        return self

    def verify_cap(self) -> MutableVerifyCap:
        return MutableVerifyCap(self.format, self.storage_index, self.fingerprint)


@dataclass(frozen=True, slots=True, repr=False)
class MutableVerifyCap(_MutableCap):
    """The right to check a mutable file's shares and signatures without reading it."""

    format: MutableFormat
    storage_index: bytes
    fingerprint: bytes

    def __post_init__(self) -> None:
        check_size("storage index", self.storage_index, KEY_SIZE)
        check_size("fingerprint", self.fingerprint, HASH_SIZE)

    def danger_text(self) -> str:
        return self._text("-Verifier", self.storage_index)

    @property
    def can_write(self) -> bool:
        return False

    @property
    def can_read(self) -> bool:
        return False

    def read_cap(self) -> MutableVerifyCap:
        return self

    def verify_cap(self) -> MutableVerifyCap:
        return self


FileCap: TypeAlias = (
    LiteralCap | CHKCap | CHKVerifyCap | MutableWriteCap | MutableReadCap | MutableVerifyCap
)
