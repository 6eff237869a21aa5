"""From a string to a capability, or to an error that names the fault and not the secret.

The grammar is that of ``uri.rst``; a prefix ``ro.`` or ``imm.`` is a promise about what follows and
is checked, not believed. Stricter than stock Tahoe-LAFS in that nothing may follow a complete
capability, except the hints that old clients put behind MDMF ones, which are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from lafsfs.caps.directories import DirectoryCap
from lafsfs.caps.fields import (
    HASH_SIZE,
    KEY_SIZE,
    MAX_TEXT_LENGTH,
    base32_field,
    number_field,
)
from lafsfs.caps.files import (
    CHKCap,
    CHKVerifyCap,
    FileCap,
    LiteralCap,
    MutableFormat,
    MutableReadCap,
    MutableVerifyCap,
    MutableWriteCap,
)
from lafsfs.errors import BadCapabilityError, DeepImmutableError

READONLY_PREFIX = "ro."
IMMUTABLE_PREFIX = "imm."

_Parser: TypeAlias = Callable[[list[str]], FileCap]


def _literal(fields: list[str]) -> LiteralCap:
    (text,) = _exactly(fields, 1)
    return LiteralCap(base32_field("data", text))


def _chk(fields: list[str]) -> CHKCap:
    key, ueb_hash, k, n, size = _exactly(fields, 5)
    return CHKCap(
        base32_field("key", key, KEY_SIZE),
        base32_field("UEB hash", ueb_hash, HASH_SIZE),
        *_encoding(k, n, size),
    )


def _chk_verify(fields: list[str]) -> CHKVerifyCap:
    storage_index, ueb_hash, k, n, size = _exactly(fields, 5)
    return CHKVerifyCap(
        base32_field("storage index", storage_index, KEY_SIZE),
        base32_field("UEB hash", ueb_hash, HASH_SIZE),
        *_encoding(k, n, size),
    )


def _encoding(k: str, n: str, size: str) -> tuple[int, int, int]:
    return (
        number_field("needed shares", k),
        number_field("total shares", n),
        number_field("size", size),
    )


def _exactly(fields: list[str], count: int) -> list[str]:
    if len(fields) < count:
        raise BadCapabilityError("the capability is cut short: fields are missing")
    if len(fields) > count:
        raise BadCapabilityError("something follows the end of the capability")
    return fields


def _mutable_parser(
    mutable_format: MutableFormat,
    make: Callable[[MutableFormat, bytes, bytes], FileCap],
    secret_name: str,
) -> _Parser:
    def parse_fields(fields: list[str]) -> FileCap:
        if mutable_format is MutableFormat.MDMF:
            fields = fields[:2]  # the hints of old clients
        secret, fingerprint = _exactly(fields, 2)
        return make(
            mutable_format,
            base32_field(secret_name, secret, KEY_SIZE),
            base32_field("fingerprint", fingerprint, HASH_SIZE),
        )

    return parse_fields


_SDMF, _MDMF = MutableFormat.SDMF, MutableFormat.MDMF

_FILES: dict[str, _Parser] = {
    "LIT": _literal,
    "CHK": _chk,
    "CHK-Verifier": _chk_verify,
    "SSK": _mutable_parser(_SDMF, MutableWriteCap, "write key"),
    "SSK-RO": _mutable_parser(_SDMF, MutableReadCap, "read key"),
    "SSK-Verifier": _mutable_parser(_SDMF, MutableVerifyCap, "storage index"),
    "MDMF": _mutable_parser(_MDMF, MutableWriteCap, "write key"),
    "MDMF-RO": _mutable_parser(_MDMF, MutableReadCap, "read key"),
    "MDMF-Verifier": _mutable_parser(_MDMF, MutableVerifyCap, "storage index"),
}

_DIRECTORIES: dict[str, _Parser] = {
    "DIR2": _FILES["SSK"],
    "DIR2-RO": _FILES["SSK-RO"],
    "DIR2-Verifier": _FILES["SSK-Verifier"],
    "DIR2-MDMF": _FILES["MDMF"],
    "DIR2-MDMF-RO": _FILES["MDMF-RO"],
    "DIR2-MDMF-Verifier": _FILES["MDMF-Verifier"],
    "DIR2-CHK": _FILES["CHK"],
    "DIR2-CHK-Verifier": _FILES["CHK-Verifier"],
    "DIR2-LIT": _FILES["LIT"],
}


class UnknownKindError(BadCapabilityError):
    """The string is no capability of any kind known here; a later version may know it."""


def split_prefix(text: str) -> tuple[str, str]:
    """Split off the promise in front of a capability: ``("" | "ro." | "imm.", the rest)``."""
    for prefix in (IMMUTABLE_PREFIX, READONLY_PREFIX):
        if text.startswith(prefix):
            return prefix, text[len(prefix) :]
    return "", text


def parse(text: str, *, deep_immutable: bool = False) -> FileCap | DirectoryCap:
    """Parse one capability of a known kind, without white space around it.

    ``deep_immutable`` asks for what may stand in an immutable directory; ``imm.`` in front asks the
    same of one string, and ``ro.`` that it does not write.

    Raises:
        UnknownKindError: none of the kinds known here (a BadCapabilityError).
        BadCapabilityError: malformed, or writes although ``ro.`` promises not to; the message names
            the field, never its value.
        DeepImmutableError: the object can change where it must not.
    """
    if len(text) > MAX_TEXT_LENGTH:
        raise BadCapabilityError("this is far too long to be a capability")
    prefix, body = split_prefix(text)
    cap = _parse_body(body)
    if (deep_immutable or prefix == IMMUTABLE_PREFIX) and cap.is_mutable and cap.can_read:
        raise DeepImmutableError(f"a {cap.kind} capability can change, and must not here")
    if prefix == READONLY_PREFIX and cap.can_write:
        raise BadCapabilityError(f"a capability that writes stands behind {READONLY_PREFIX!r}")
    return cap


def _parse_body(body: str) -> FileCap | DirectoryCap:
    scheme, _, rest = body.partition(":")
    kind, colon, fields = rest.partition(":")
    if scheme != "URI" or not colon:
        raise UnknownKindError("this is not a capability: those begin with URI: and a kind")
    if kind in _FILES:
        return _FILES[kind](fields.split(":"))
    if kind in _DIRECTORIES:
        return DirectoryCap(_DIRECTORIES[kind](fields.split(":")))
    raise UnknownKindError("this is a capability of no kind that this version knows")
