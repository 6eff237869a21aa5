"""The golden shares without their storage containers, and what is in them.

Plaintext comes from the primary shares alone, whose blocks are the segments cut in k, so that no
erasure code is needed here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lafsfs.crypto.aes import ctr
from lafsfs.crypto.hashes import ssk_datakey
from lafsfs.formats.chk import parse_header
from lafsfs.formats.containers import (
    ImmutableContainer,
    MutableContainer,
    is_mutable,
    parse_immutable_header,
    parse_mutable_head,
)
from lafsfs.formats.geometry import CHKGeometry
from lafsfs.formats.slot import parse_share
from tests import golden_data

if TYPE_CHECKING:
    from pathlib import Path


def share_bytes(path: Path) -> bytes:
    """What the client wrote: the container's data, without header and leases."""
    raw = path.read_bytes()
    container: ImmutableContainer | MutableContainer
    if is_mutable(raw):
        container = parse_mutable_head(raw, len(raw))
    else:
        container = parse_immutable_header(raw, len(raw))
    return raw[container.data_offset :][: container.data_length]


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


def primary_ciphertext(name: str) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """IV (or nothing) and (salt, ciphertext) of each segment, from the primary shares alone."""
    whole = shares(golden(name).storage_index)
    primary = [parse_share(whole[shnum]) for shnum in range(golden_data.K)]
    geometry = primary[0].prefix.geometry
    rows = [geometry.split_blocks(share.share_data, 0) for share in primary]
    segments = []
    for number, stored in enumerate(zip(*rows, strict=True)):
        salt = stored[0][: geometry.salt_size]
        padded = b"".join(block[geometry.salt_size :] for block in stored)
        segments.append((salt, padded[: geometry.segment_length(number)]))
    return primary[0].prefix.iv or b"", segments


def mutable_contents(name: str, read_key: bytes) -> bytes:
    """The plaintext of a golden mutable object."""
    iv, segments = primary_ciphertext(name)
    return b"".join(ctr(ssk_datakey(salt or iv, read_key), data) for salt, data in segments)


def immutable_contents(name: str, key: bytes) -> bytes:
    """The plaintext of a golden CHK object."""
    whole = shares(golden(name).storage_index)
    size = int(golden(name).cap.split(":")[-1])
    geometry = CHKGeometry.plan(size, golden_data.K, golden_data.N)
    ciphertext = b""
    for segment in range(geometry.num_segments):
        spans = [
            (whole[shnum], parse_header(whole[shnum]).blocks_span(geometry, segment))
            for shnum in range(golden_data.K)
        ]
        padded = b"".join(share[span.offset : span.end] for share, span in spans)
        ciphertext += padded[: geometry.segment_length(segment)]
    return ctr(key, ciphertext)
