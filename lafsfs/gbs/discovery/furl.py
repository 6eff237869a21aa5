"""Foolscap fURLs: what a server, or an introducer, was called before NURLs.

    pb://TUBID@HINT,HINT/SWISSNUM

Nothing here connects to one. The tub id in a storage server's fURL is the 20-byte id that write
enablers and lease secrets are derived with, also when the server is spoken to over HTTPS; and an
introducer's fURL is handed on to the process that has Foolscap.

The name at the end is a secret like a NURL's swissnum: in no ``repr`` and in no message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lafsfs.crypto import base32
from lafsfs.errors import FormatError

MAX_FURL = 4096  # characters
TUB_ID_SIZE = 20  # bytes

_SHAPE = re.compile(r"pb://(?P<tub>\w+)@(?P<hints>[^@/\s]*)/(?P<name>[^/\s]+)")


@dataclass(frozen=True, slots=True)
class Furl:
    """``tub_id``: 20 bytes. ``hints``: where to connect, as the fURL has them, comma-separated."""

    tub_id: bytes
    hints: str
    name: str = field(repr=False)

    def danger_text(self) -> str:
        """The fURL itself."""
        return f"pb://{base32.encode(self.tub_id)}@{self.hints}/{self.name}"

    @property
    def shown(self) -> str:
        """How to name it in messages."""
        return f"{base32.encode(self.tub_id)[:8]} at {self.hints or 'no address'}"


def parse_furl(text: str) -> Furl:
    """Read a fURL.

    Raises:
        FormatError: it is none; the message quotes nothing.
    """
    if len(text) > MAX_FURL or not text.isascii() or not text.isprintable():
        raise FormatError("fURL: too long, or characters that none has")
    if text.endswith("#v=1"):
        raise FormatError("fURL: this is a NURL, the address of one storage server over HTTPS")
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise FormatError("fURL: it is not pb://TUBID@ADDRESS/NAME")
    try:
        tub_id = base32.decode(match["tub"].lower(), TUB_ID_SIZE)
    except FormatError:
        raise FormatError(f"fURL: its tub id is not {TUB_ID_SIZE} bytes of base32") from None
    return Furl(tub_id, match["hints"], match["name"])
