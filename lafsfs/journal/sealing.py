"""How values in the database are sealed.

Each process draws a salt, and seals under a key derived from it with a counter for nonce: none is
used twice, however many values are sealed and whatever a crash takes back.

    16 bytes   the salt of the process that sealed it
    8 bytes    its counter, the end of the nonce
    n + 16     AES-256-GCM; where the value belongs is associated with it
"""

from __future__ import annotations

import secrets
from typing import Final

from lafsfs.crypto import aes
from lafsfs.crypto.hashes import derive_key
from lafsfs.errors import HashMismatchError

SALT_SIZE: Final = 16
_COUNTER_SIZE: Final = 8
_PADDING: Final = bytes(aes.NONCE_SIZE - _COUNTER_SIZE)
OVERHEAD: Final = SALT_SIZE + _COUNTER_SIZE + aes.TAG_SIZE  # bytes added to a value


class ValueSealer:
    """Seals under a key of this process and opens what any process sealed."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._salt = secrets.token_bytes(SALT_SIZE)
        self._mine = self._sealer(self._salt)
        self._others = {self._salt: self._mine}
        self._count = 0

    def seal(self, value: bytes, belongs: bytes) -> bytes:
        """Seal ``value``, to be opened only as what it is: ``belongs``."""
        self._count += 1
        counter = self._count.to_bytes(_COUNTER_SIZE, "big")
        return self._salt + counter + self._mine.seal(_PADDING + counter, value, belongs)

    def open(self, sealed: bytes, belongs: bytes) -> bytes:
        """What was sealed.

        Raises:
            HashMismatchError: it was sealed under another key or as something else, or changed.
        """
        if len(sealed) < OVERHEAD:
            raise HashMismatchError("sealed data is cut short")
        salt, rest = sealed[:SALT_SIZE], sealed[SALT_SIZE:]
        sealer = self._others.get(salt)
        if sealer is None:
            sealer = self._others[salt] = self._sealer(salt)
        return sealer.open(_PADDING + rest[:_COUNTER_SIZE], rest[_COUNTER_SIZE:], belongs)

    def _sealer(self, salt: bytes) -> aes.Sealer:
        return aes.Sealer(derive_key(self._key, b"values:" + salt))
