"""Capability strings: parse, print, compare, attenuate and classify every kind. Pure.

``parse`` takes a string apart, ``danger_text`` puts it together again, ``read_cap`` and
``verify_cap`` give the same object with fewer rights, and everything else (``repr``, errors, logs)
shows a digest.
"""

from __future__ import annotations

from typing import TypeAlias

from lafsfs.caps.base import Capability, digest_of
from lafsfs.caps.children import UnknownCap, parse_child, slots_of, strip_implied_prefix
from lafsfs.caps.directories import DirectoryCap
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
from lafsfs.caps.parser import IMMUTABLE_PREFIX, READONLY_PREFIX, UnknownKindError, parse

Cap: TypeAlias = FileCap | DirectoryCap

__all__ = [
    "IMMUTABLE_PREFIX",
    "READONLY_PREFIX",
    "CHKCap",
    "CHKVerifyCap",
    "Cap",
    "Capability",
    "DirectoryCap",
    "FileCap",
    "LiteralCap",
    "MutableFormat",
    "MutableReadCap",
    "MutableVerifyCap",
    "MutableWriteCap",
    "UnknownCap",
    "UnknownKindError",
    "digest_of",
    "parse",
    "parse_child",
    "slots_of",
    "strip_implied_prefix",
]
