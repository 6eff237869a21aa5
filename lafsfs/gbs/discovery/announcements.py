"""What is known of a storage server before it was ever spoken to: its announcement.

Theory. A server describes itself in a dictionary, which the introducer delivers and
``servers.yaml`` repeats. Of its keys these count: the NURLs under which it answers over HTTPS; the
fURL, whose tub id is the 20-byte id that secrets are derived with; the permutation seed, from which
its place in the order of servers comes; the nickname; Grid Manager certificates.

Rules:

- Pure. Announcements are foreign even when they are signed: the signature says who, not that it
  makes sense. One that does not is kept as a record with a ``fault``, to be shown to the user, and
  never keeps other servers from being used.
- The seed, as every client must agree on it: what ``permutation-seed-base32`` decodes to, however
  long; else the key in the name ``v0-...``; else the SHA-256 of the name.
- Names are for messages: made printable and short.
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lafsfs.crypto import base32, ed25519
from lafsfs.errors import FormatError
from lafsfs.gbs.discovery.furl import parse_furl
from lafsfs.gbs.discovery.grid_manager import Certificate, parse_certificates
from lafsfs.gbs.nurl import Nurl, parse_nurl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STORAGE_SERVICE = "storage"
MAX_NURLS = 20  # of one server
MAX_NAME = 40  # characters of a nickname that are shown
MAX_SEED = 1000  # bytes
_BARE = "nurl-"  # in front of the key of a server of which only addresses are known
SHORT = 8  # letters of a key that name a server well enough

FOOLSCAP_ONLY = (
    "it announces only Foolscap, which lafsfs does not speak: its operator should upgrade it to "
    "Tahoe-LAFS 1.19 or later"
)


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """A storage server as it was announced or configured.

    Attributes:
        key: what the server goes by, unique among records: ``v0-`` and its verifying key, or any
            text that a static list uses.
        name: for messages.
        nurls: its addresses; empty only where there is a ``fault``.
        server_id: 20 bytes; ``None`` where only the handshake can tell.
        permutation_seed: ``None`` where it is the ``server_id``.
        certificates: unverified.
        origin: who says so: a file and a line.
        fault: why the server cannot be used, or ``None``.
        announced: whether the server says so itself, and nobody whom the user trusts.
    """

    key: str
    name: str
    nurls: tuple[Nurl, ...]
    server_id: bytes | None
    permutation_seed: bytes | None
    certificates: tuple[Certificate, ...] = field(default=(), repr=False)
    origin: str = field(default="", compare=False)
    fault: str | None = None
    announced: bool = False

    @property
    def verifying_key(self) -> bytes | None:
        """The 32 bytes that the key stands for, if it stands for any."""
        return verifying_key_of(self.key)

    @property
    def is_bare(self) -> bool:
        """Whether nothing but addresses is known."""
        return self.key.startswith(_BARE)


def record_of(key: str, announcement: Mapping[str, Any], origin: str) -> ServerRecord:
    """What an announcement says. Never raises: what is wrong becomes the record's ``fault``."""
    certificates = parse_certificates(announcement.get("grid-manager-certificates"))
    name = shown_name(announcement.get("nickname"), key)
    server_id: bytes | None = None
    seed: bytes | None = None
    nurls: tuple[Nurl, ...] = ()
    fault: str | None = None
    try:
        server_id = _server_id(announcement)
        seed = _seed(announcement, key)
        nurls = _nurls(announcement)
    except FormatError as error:
        fault = str(error)
    return ServerRecord(key, name, nurls, server_id, seed, certificates, origin, fault)


def bare_record(nurls: Sequence[Nurl], origin: str, name: str | None = None) -> ServerRecord:
    """A server of which nothing but addresses is known. Its id and seed come with the handshake."""
    key = _BARE + base32.encode(nurls[0].pin)
    called = shown_name(name, key) if name else nurls[0].authority
    return ServerRecord(key, called, tuple(nurls), None, None, origin=origin)


def verifying_key_of(key: str) -> bytes | None:
    """The 32 bytes in ``v0-...``, or None for a name of another kind."""
    if not key.startswith("v0-"):
        return None
    try:
        return ed25519.parse_verifying_key(key)
    except FormatError:
        return None


def short_key(key: str) -> str:
    """The beginning of a key."""
    return shown(key.removeprefix("v0-").removeprefix(_BARE)[:SHORT], SHORT)


def shown_name(nickname: object, key: str) -> str:
    """A nickname fit for a line of text, or the beginning of the key."""
    text = shown(nickname, MAX_NAME) if isinstance(nickname, str) else ""
    return text or short_key(key) or "unnamed"


def shown(text: str, size: int) -> str:
    """Foreign text without what terminals take for commands, of at most ``size`` characters."""
    text = unicodedata.normalize("NFC", text[: 4 * size])
    kept = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text.strip())
    return kept if len(kept) <= size else kept[: size - 1] + "…"


def _server_id(announcement: Mapping[str, Any]) -> bytes | None:
    """The tub id in the fURL; None if there is no fURL."""
    text = announcement.get("anonymous-storage-FURL")
    if text is None:
        return None
    if not isinstance(text, str):
        raise FormatError("its fURL is not a text")
    return parse_furl(text).tub_id


def _seed(announcement: Mapping[str, Any], key: str) -> bytes:
    text = announcement.get("permutation-seed-base32")
    if text is None:
        return verifying_key_of(key) or hashlib.sha256(key.encode("utf-8", "replace")).digest()
    if not isinstance(text, str):
        raise FormatError("its permutation seed is not a text")
    if len(text) > MAX_SEED * 8 // 5:
        raise FormatError(f"its permutation seed has more than {MAX_SEED} bytes")
    return base32.decode(text)


def _nurls(announcement: Mapping[str, Any]) -> tuple[Nurl, ...]:
    """The addresses that can be used; if there are none, the reason is raised."""
    texts = announcement.get("anonymous-storage-NURLs")
    if not texts:
        raise FormatError(_what_instead(announcement))
    if not isinstance(texts, list | tuple | set | frozenset):
        raise FormatError("its NURLs are not a list")
    found: list[Nurl] = []
    refused: FormatError | None = None
    for text in sorted(map(str, texts))[:MAX_NURLS]:
        try:
            found.append(parse_nurl(text))
        except FormatError as error:
            refused = error
    if refused is not None and not found:
        raise refused
    return tuple(found)


def _what_instead(announcement: Mapping[str, Any]) -> str:
    if announcement.get("anonymous-storage-FURL"):
        return FOOLSCAP_ONLY
    if announcement.get("storage-options"):
        return "it offers storage only through plugins, which lafsfs does not have"
    return "it announces no address"
