"""The attributes of the mounted root, which has no edge to keep them: one small sealed local file.

The file's name and key come from the root's read capability, so that the same root finds them again
on this machine and nobody learns from them what was mounted. A file that is missing, damaged or of
another root counts as none.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.crypto import aes
from lafsfs.crypto.hashes import derive_key, tagged_hash
from lafsfs.errors import HashMismatchError, LocalError
from lafsfs.vfs.posix.attributes import KEY, Defaults, Facts, Posix, decode, encode

if TYPE_CHECKING:
    from lafsfs.caps import Cap

log = logging.getLogger(__name__)

_TAG: Final = b"lafsfs_root_attributes_v1"
_MAX_SIZE: Final = 1 << 20  # bytes


class RootFile:
    """Where one root's attributes are kept. ``directory`` None: nowhere."""

    def __init__(self, directory: Path | None, cap: Cap, defaults: Defaults) -> None:
        read_cap = cap.read_cap()
        master = tagged_hash(_TAG, read_cap.danger_text().encode())
        self._key = derive_key(master, b"seal")
        name = derive_key(master, b"name")[:16].hex()
        self._path = None if directory is None else directory / f"root-{name}"
        self._facts = Facts(read_cap.digest, is_directory=True, may_be_special=False)
        self._defaults = defaults

    async def load(self) -> Posix:
        """What was kept, or defaults."""
        metadata = await trio.to_thread.run_sync(self._read)
        return decode(metadata, self._facts, self._defaults)

    async def save(self, posix: Posix) -> None:
        """Keep attributes, atomically.

        Raises:
            LocalError: the local disk does not take them.
        """
        if self._path is None:
            return
        plain = json.dumps(encode(posix, self._facts.digest)).encode()
        try:
            await trio.to_thread.run_sync(self._write, self._path, plain)
        except OSError as error:
            raise LocalError(f"cannot keep the root's attributes: {error.strerror}") from None

    def _read(self) -> dict[str, object]:
        """In a thread."""
        if self._path is None:
            return {}
        try:
            with self._path.open("rb") as file:
                sealed = file.read(_MAX_SIZE)
            nonce, rest = sealed[: aes.NONCE_SIZE], sealed[aes.NONCE_SIZE :]
            if len(nonce) < aes.NONCE_SIZE:
                return {}
            return {KEY: json.loads(aes.open_sealed(self._key, nonce, rest))}
        except FileNotFoundError:
            return {}
        except (OSError, HashMismatchError, ValueError):
            log.warning("the root's attributes cannot be read and are as by default")
            return {}

    def _write(self, path: Path, plain: bytes) -> None:
        """In a thread."""
        nonce = secrets.token_bytes(aes.NONCE_SIZE)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".root-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(nonce + aes.seal(self._key, nonce, plain))
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
