"""The erasure code: any k of n blocks give back the k they were made from.

Theory. zfec's code is systematic: blocks 0 to k-1, the *primary* ones, are the data itself, and the
other n-k are combinations of them in GF(2^8). Primary blocks are handed through as the objects they
are, so that a reader who holds all of them computes nothing.

Rules:

- All blocks of one call have the same length; the padding that makes it so is ``formats.geometry``.
- The code detects no errors. Blocks are verified before they come here, or what they make is.
- Numbers are share numbers, 0 to n-1, and ``1 <= k <= n <= 256``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import zfec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_SHARES = 256


def encode(
    blocks_in: Sequence[bytes], k: int, n: int, wanted: Sequence[int] | None = None
) -> list[bytes]:
    """Make blocks of a segment.

    Args:
        blocks_in: the segment cut into k blocks of equal length.
        wanted: the share numbers to make, in any order; None makes all n, in order.

    Returns:
        One block for each number wanted, in that order.
    """
    _check_code(k, n)
    if len(blocks_in) != k or len({len(block) for block in blocks_in}) != 1:
        raise ValueError(f"encoding needs {k} blocks of one length")
    numbers = list(range(n)) if wanted is None else list(wanted)
    _check_numbers(numbers, n)
    blocks: list[bytes] = _encoder(k, n).encode(list(blocks_in), numbers)
    return blocks


def decode(blocks: Mapping[int, bytes], k: int, n: int) -> list[bytes]:
    """Give back the k primary blocks of a segment, in order.

    Args:
        blocks: at least k verified blocks of equal length by share number. With all the primary
            ones among them this costs nothing; otherwise the lowest k numbers are used.
    """
    _check_code(k, n)
    numbers = sorted(blocks)[:k]
    _check_numbers(numbers, n)
    used = [blocks[number] for number in numbers]
    if len(used) != k or len({len(block) for block in used}) != 1:
        raise ValueError(f"decoding needs {k} blocks of one length")
    primary: list[bytes] = _decoder(k, n).decode(used, numbers)
    return primary


def _check_code(k: int, n: int) -> None:
    if not 1 <= k <= n <= MAX_SHARES:
        raise ValueError(f"no erasure code is {k}-of-{n}")


def _check_numbers(numbers: Sequence[int], n: int) -> None:
    """zfec does not return from a repeated number, so none may reach it."""
    if len(set(numbers)) != len(numbers) or not all(0 <= number < n for number in numbers):
        raise ValueError(f"share numbers must be different and below {n}")


# The matrix of a wide code takes up to a millisecond to make and never changes.
@lru_cache(maxsize=16)
def _encoder(k: int, n: int) -> zfec.Encoder:
    return zfec.Encoder(k, n)


@lru_cache(maxsize=16)
def _decoder(k: int, n: int) -> zfec.Decoder:
    return zfec.Decoder(k, n)
