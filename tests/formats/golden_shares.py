"""The golden shares without their storage containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests import golden_data

if TYPE_CHECKING:
    from pathlib import Path


def share_bytes(path: Path) -> bytes:
    """What the client wrote: the container's data, without header and leases."""
    raw = path.read_bytes()
    if raw.startswith(b"Tahoe mutable container"):
        return raw[468 : 468 + int.from_bytes(raw[84:92], "big")]
    leases = int.from_bytes(raw[8:12], "big")
    return raw[12 : len(raw) - 72 * leases]


def shares(storage_index: bytes | None) -> dict[int, bytes]:
    """Every golden share of an object by share number."""
    assert storage_index is not None
    return {
        shnum: share_bytes(path)
        for (_, shnum), path in golden_data.shares_of(storage_index).items()
    }


def named(*kinds: str) -> list[str]:
    """The names of golden objects and trees of these kinds."""
    both = {**golden_data.OBJECTS, **golden_data.TREES}
    return [name for name, golden in both.items() if golden.kind in kinds]


def golden(name: str) -> golden_data.GoldenObject | golden_data.GoldenTree:
    """The golden object or tree of that name."""
    return golden_data.OBJECTS.get(name) or golden_data.TREES[name]
