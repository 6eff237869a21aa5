"""The client's two secrets on the local disk, in a directory that only the user can enter.

They are made at first use and kept 0600, under the names and in the form that Tahoe-LAFS uses. For
worker threads.
"""

from __future__ import annotations

import contextlib
import os
import secrets as random
from typing import TYPE_CHECKING, Final

from lafsfs.crypto import base32
from lafsfs.errors import ConfigError, FormatError
from lafsfs.grid.secrets import ClientSecrets

if TYPE_CHECKING:
    from pathlib import Path

SECRET_SIZE: Final = 32  # bytes


def make_private(directory: Path) -> None:
    """A directory, 0700 if it is new, with those above it.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot use {directory}: {error.strerror}") from None


def load_secrets(directory: Path) -> ClientSecrets:
    """The client's secrets, made at first use.

    Raises:
        ConfigError: the directory or a file in it is unreadable or holds no secret.
    """
    make_private(directory.parent)
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        return ClientSecrets(
            lease_secret=_load_secret(directory / "secret"),
            convergence_secret=_load_secret(directory / "convergence"),
        )
    except OSError as error:
        raise ConfigError(f"{error.filename or directory}: {error.strerror}") from None


def _load_secret(path: Path) -> bytes:
    """One secret. Two processes that start at once agree on it: the first link wins."""
    if not path.exists():
        draft = path.with_name(f".{path.name}.{random.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(base32.encode(random.token_bytes(SECRET_SIZE)) + "\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            os.unlink(draft)
    try:
        return base32.decode(path.read_text(encoding="ascii").strip(), SECRET_SIZE)
    except (FormatError, UnicodeDecodeError):
        raise ConfigError(f"{path} does not hold a secret of {SECRET_SIZE} bytes") from None
