"""What every capability can say of itself.

The real string leaves an object through :meth:`Capability.danger_text` alone: ``repr``, ``str`` and
format strings show a digest, so that a log line or a traceback never hands out authority. Two equal
capabilities have equal digests; nothing leads back from a digest to a capability.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from lafsfs.crypto import base32, hashes

if TYPE_CHECKING:
    from lafsfs.caps import Cap, UnknownCap

_DIGEST_TAG = b"lafsfs_capability_digest_v1"
_DIGEST_SIZE = 5  # bytes: eight base32 characters, enough to tell objects in one log apart


def digest_of(text: str) -> str:
    """The eight characters by which logs and edge metadata name a capability string."""
    return base32.encode(
        hashes.tagged_hash(_DIGEST_TAG, text.encode(errors="surrogatepass"), _DIGEST_SIZE)
    )


class Capability(ABC):
    """The common face of all capabilities; the classes are frozen, hashable and comparable.

    Every class also has ``storage_index``, the 16 bytes under which servers keep the object's
    shares, or None where there are none: a field of verify capabilities, derived in the others.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def kind(self) -> str:
        """``LIT CHK SDMF MDMF DIR2 DIR2-MDMF DIR2-CHK DIR2-LIT unknown``, whatever the rights."""

    @abstractmethod
    def danger_text(self) -> str:
        """The capability itself. Whoever reads this string holds the authority."""

    @property
    @abstractmethod
    def can_write(self) -> bool:
        """Whether it lets its holder change the object."""

    @property
    @abstractmethod
    def can_read(self) -> bool:
        """Whether it lets its holder read the object; false for verify capabilities."""

    @property
    @abstractmethod
    def is_mutable(self) -> bool:
        """Whether the object can change at all, through this capability or another."""

    @property
    def is_directory(self) -> bool:
        """Whether the object is a directory table."""
        return False

    @abstractmethod
    def read_cap(self) -> Cap | UnknownCap:
        """The same object with no more than the right to read: itself if it has no more."""

    @abstractmethod
    def verify_cap(self) -> Cap | None:
        """The capability to check shares without reading them; None where there are no shares."""

    @property
    def rights(self) -> str:
        """``read-write``, ``read-only`` or ``verify-only``."""
        if self.can_write:
            return "read-write"
        return "read-only" if self.can_read else "verify-only"

    @property
    def digest(self) -> str:
        """Eight base32 characters to name this capability in logs and to notice that it changed."""
        return digest_of(self.danger_text())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.kind} {self.digest}>"
