"""NURLs: where a server is, which key it must show, what it wants to hear (``url.rst``).

    pb://SPKI-HASH@HOST:PORT/SWISSNUM#v=1

Rules:

- One server may have several, each with one address.
- The swissnum is a secret: it opens the server to everybody who knows it. It is in no ``repr`` and
  in no message, and a text that is refused is not quoted.
- Only version 1 over TCP is understood. What is refused says why, since people type these.
"""

from __future__ import annotations

import ipaddress
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes

from lafsfs.errors import FormatError

PIN_LETTERS = 43  # of unpadded base64url
DEFAULT_PORT = 443
MAX_NURL = 2048  # characters; nothing that needs more is meant to be one
MAX_HOST = 253  # characters of a domain name (RFC 1035)

_SHAPE = re.compile(r"pb://(?P<pin>[^@/#?]*)@(?P<location>[^@/#?]*)/(?P<swissnum>[^#?]*)#v=1")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_SEGMENT = re.compile(r"([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+")  # RFC 3986, 3.3
_SEGMENT_SAFE = "!$&'()*+,;=:@"


@dataclass(frozen=True, slots=True)
class Nurl:
    """One address of a storage server.

    Attributes:
        pin: 32 bytes, SHA-256 of the SubjectPublicKeyInfo of the server's key.
        host: a domain name or an IP address, IPv6 without brackets.
        swissnum: what authorizes a client, as bytes.
    """

    pin: bytes
    host: str
    port: int
    swissnum: bytes = field(repr=False)

    @property
    def authority(self) -> str:
        """``HOST:PORT`` as URLs and messages have it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def danger_text(self) -> str:
        """The NURL itself, swissnum and all."""
        pin = urlsafe_b64encode(self.pin).rstrip(b"=").decode("ascii")
        return f"pb://{pin}@{self.authority}/{quote(self.swissnum, safe=_SEGMENT_SAFE)}#v=1"


def parse_nurl(text: str) -> Nurl:
    """Read one NURL.

    Raises:
        FormatError: it is not one, or not one of a kind that is supported; the message says why,
            and quotes nothing.
    """
    if len(text) > MAX_NURL or not text.isascii() or not text.isprintable():
        raise FormatError("NURL: too long, or characters that no NURL has")
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise FormatError(f"NURL: {_what_is_wrong(text)}")
    host, port = _parse_location(match["location"])
    return Nurl(_parse_pin(match["pin"]), host, port, _parse_swissnum(match["swissnum"]))


def _what_is_wrong(text: str) -> str:
    """Why a text has not even the shape."""
    scheme, colon, rest = text.partition("://")
    if scheme in ("pb+tor", "pb+i2p"):
        return f"{scheme.removeprefix('pb+')} addresses are not supported"
    if scheme != "pb" or not colon:
        return "it does not begin with pb://"
    if "#" not in rest:
        return "no #v=1 at its end: is it a fURL? The server must speak HTTPS (Tahoe 1.19 or later)"
    if not rest.endswith("#v=1"):
        return "it is of a version other than 1"
    if "@" not in rest.partition("/")[0]:
        return "no hash of the server's key, with an @ behind it"
    return "it is not pb://HASH@HOST:PORT/SWISSNUM#v=1"


def _parse_pin(text: str) -> bytes:
    if len(text) != PIN_LETTERS or not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        raise FormatError(f"NURL: the key's hash is not {PIN_LETTERS} letters of base64url")
    pin = urlsafe_b64decode(text + "=")
    if urlsafe_b64encode(pin).rstrip(b"=").decode("ascii") != text:
        raise FormatError("NURL: non-canonical trailing bits in the key's hash")
    return pin


def _parse_location(text: str) -> tuple[str, int]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise FormatError("NURL: an IPv6 address needs both brackets")
        return _parse_ipv6(host), _parse_port(rest[1:] if rest else None)
    host, colon, rest = text.partition(":")
    if ":" in rest:
        raise FormatError("NURL: more than one colon in the address (IPv6 needs brackets)")
    return _parse_host(host), _parse_port(rest if colon else None)


def _parse_ipv6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise FormatError("NURL: what is in brackets is no IPv6 address") from None


def _parse_host(text: str) -> str:
    labels = text.removesuffix(".").split(".")
    if len(text) > MAX_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise FormatError("NURL: the host is neither a domain name nor an IP address")
    if labels[-1].isdigit():
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise FormatError("NURL: the host is no IPv4 address") from None
    return text.lower()


def _parse_port(text: str | None) -> int:
    if text is None:
        return DEFAULT_PORT
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 1 << 16:
        raise FormatError("NURL: the port is not a number from 1 to 65535")
    return int(text)


def _parse_swissnum(text: str) -> bytes:
    if not text:
        raise FormatError("NURL: no swissnum behind the address")
    if "/" in text:
        raise FormatError("NURL: something stands behind the swissnum")
    if not _SEGMENT.fullmatch(text):
        raise FormatError("NURL: the swissnum has characters that no NURL has")
    return unquote_to_bytes(text)
