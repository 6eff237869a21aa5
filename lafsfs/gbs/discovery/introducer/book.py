"""Which announcements count: signed by their key, of storage servers, and newer than the last.

Pure. Announcements come from whoever the introducer heard them from, so everything is bounded.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lafsfs.crypto import ed25519
from lafsfs.errors import FormatError
from lafsfs.gbs.discovery.announcements import STORAGE_SERVICE
from lafsfs.gbs.discovery.cache import Announcement

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_MESSAGE = 16 << 10  # bytes of one announcement; a server with ten addresses needs 2 KiB
MAX_TOTAL = 2 << 20  # bytes of all; thousands of servers, and the cache stays quick to read


def open_signed(signed: object) -> Announcement:
    """Verify what an introducer delivers: (message, signature, key), the message UTF-8 JSON.

    Raises:
        FormatError: of another shape, or not JSON.
        HashMismatchError: not signed by that key.
    """
    if not isinstance(signed, tuple) or len(signed) != 3:
        raise FormatError("announcement: not (message, signature, key)")
    message, signature, key = signed
    if not all(isinstance(part, bytes) for part in signed) or len(message) > MAX_MESSAGE:
        raise FormatError("announcement: not three byte strings of a sensible size")
    try:
        name = key.decode("ascii")
        raw = ed25519.parse_signature(signature.decode("ascii"))
        ed25519.verify(ed25519.parse_verifying_key(name), raw, message)
        values = json.loads(message.decode("utf-8"))
    except (ValueError, RecursionError):
        raise FormatError("announcement: not ASCII keys and UTF-8 JSON") from None
    if not isinstance(values, dict) or not name.startswith("v0-"):
        raise FormatError("announcement: not a JSON object under a key v0-...")
    return Announcement(name, values)


class Book:
    """The newest announcement of each storage server; none is ever forgotten.

    A server is added only while there is room, so that whoever floods an introducer cannot drive
    out those that are known.
    """

    def __init__(self, known: Iterable[Announcement]) -> None:
        self._by_key = {announcement.key: announcement for announcement in known}
        self._sizes = {key: _size(known) for key, known in self._by_key.items()}

    @property
    def announcements(self) -> list[Announcement]:
        return list(self._by_key.values())

    def admit(self, signed: object) -> bool:
        """Take in an announcement if it counts; returns whether it did.

        Raises:
            FormatError: as :func:`open_signed`, or there is no room.
        """
        announcement = open_signed(signed)
        if announcement.service != STORAGE_SERVICE:
            return False
        known = self._by_key.get(announcement.key)
        if known is not None and not announcement.replaces(known):
            return False
        sizes = {**self._sizes, announcement.key: _size(announcement)}
        if sum(sizes.values()) > MAX_TOTAL:
            raise FormatError("announcement: there are too many")
        self._sizes = sizes
        self._by_key[announcement.key] = announcement
        return True


def _size(announcement: Announcement) -> int:
    return len(json.dumps(announcement.values, default=str))
