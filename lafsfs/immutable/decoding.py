"""From k blocks to a segment of ciphertext. PURE, and work for a thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from lafsfs.crypto import erasure
from lafsfs.crypto.hashes import ciphertext_segment_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Task:
    """What there is of a segment: k blocks by share number, and how many bytes they are to make.

    ``hashed``: whether its hash is wanted.
    """

    blocks: Mapping[int, memoryview] = field(repr=False)
    size: int
    hashed: bool


@dataclass(frozen=True, slots=True)
class Decoded:
    """A segment, and its hash if that was wanted."""

    ciphertext: bytes = field(repr=False)
    digest: bytes


def lowest(blocks: Mapping[int, memoryview], k: int) -> dict[int, memoryview]:
    """The k blocks with the lowest numbers: those that are quickest to decode."""
    return dict(islice(sorted(blocks.items()), k))


def decode_all(tasks: Iterable[Task], k: int, n: int) -> list[Decoded]:
    """Carry out some tasks, in order."""
    results = []
    for task in tasks:
        ciphertext = decode(task.blocks, k, n)[: task.size]
        digest = ciphertext_segment_hash(ciphertext) if task.hashed else b""
        results.append(Decoded(ciphertext, digest))
    return results


def decode(blocks: Mapping[int, memoryview], k: int, n: int) -> bytes:
    """The segment that k blocks make, padding included; primary ones are only put together."""
    if sorted(blocks) == list(range(k)):
        return b"".join(blocks[shnum] for shnum in range(k))
    whole = {shnum: bytes(block) for shnum, block in blocks.items()}
    return b"".join(erasure.decode(whole, k, n))
