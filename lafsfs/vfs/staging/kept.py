"""What the journal is to hold of a staged file, and the key of its upload that goes with it.

No two different contents ever have the same key, which would give away their difference.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lafsfs.crypto.hashes import KEY_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lafsfs.journal import ContentsRef
    from lafsfs.vfs.staging.reading import Base


@dataclass(frozen=True, slots=True)
class Kept:
    """What the journal is to hold of a staged file.

    ``ref``: for the file's row; None if nothing can be said yet. ``base``: what it lies over.
    ``blobs``: for the same transaction. ``key``: the random key of an upload of just these
    contents, if they are to have one.
    """

    ref: ContentsRef | None
    base: Base | None = field(repr=False)
    blobs: Mapping[int, bytes] = field(default_factory=dict, repr=False)
    key: bytes | None = field(default=None, repr=False)


class UploadKey:
    """A random key for contents that are told apart by a number, their count of changes."""

    def __init__(self) -> None:
        self._key: bytes | None = None
        self._drawn = -1  # what the key is for
        self._kept = -1  # the same, once it is in the journal

    def drawn_for(self, changes: int) -> bytes | None:
        """The key of these contents, a new one for others than it was asked for last."""
        if self._drawn != changes:
            self._key, self._drawn = os.urandom(KEY_SIZE), changes
        return self._key

    def accepted(self, changes: int) -> None:
        """What was drawn for these contents is in the journal."""
        self._kept = changes

    def restore(self, key: bytes | None, changes: int) -> None:
        """What the journal has for these contents, if it has one."""
        if key is not None:
            self._key, self._drawn, self._kept = key, changes, changes

    def kept_for(self, changes: int) -> bytes | None:
        """The key of these contents, if it is in the journal."""
        return self._key if self._kept == changes else None
