"""What is written by one side and read by the other: kinds, sizes and names.

The grid of these tests is 3-of-10 on five servers. So a CHK segment is 1 MiB rounded up to a
multiple of 3, 1048578 bytes, an MDMF segment 131073, and up to 55 bytes are in the capability.
"""

from __future__ import annotations

import random

from tests.stock import Shares

SHARES = Shares(needed=3, happy=4, total=10)
SERVERS = 5

CHK_SEGMENT = 1048578  # bytes
MDMF_SEGMENT = 131073

SIZES = {
    # Literals to 55 bytes; a whole segment, one byte less and more; a tail of 1, 2, 3 bytes.
    "chk": (
        *(0, 1, 54, 55, 56, 57, 58, 1000, 131071, 131072, 131073),
        *(CHK_SEGMENT + d for d in (-3, -2, -1, 0, 1, 2, 3)),
        *(2 * CHK_SEGMENT + d for d in (-1, 0, 1)),
        5_000_000,
    ),
    "sdmf": (0, 1, 2, 3, 4, 55, 56, 1000, 131073, 300_000, 1_500_000),
    "mdmf": (
        *(0, 1, 2, 3, 4, 1000),
        *(MDMF_SEGMENT + d for d in (-1, 0, 1)),
        *(2 * MDMF_SEGMENT + d for d in (-1, 0, 1)),
        1_500_000,
    ),
}

FEW_SIZES = {
    "chk": (0, 55, 56, 1000, CHK_SEGMENT - 1, CHK_SEGMENT + 1, 2 * CHK_SEGMENT + 1),
    "sdmf": (0, 1000, 300_000),
    "mdmf": (0, MDMF_SEGMENT, MDMF_SEGMENT + 1, 400_000),
}

NAMES = (
    "plain",
    "with space",
    ".hidden",
    "é composed",
    "Ünïcödé",
    "日本語",
    "עברית",
    "🐈 cat",
    "per%20cent",
    "a#b?c&d=e+f;g",
    "quote'\"`",
    "back\\slash",
    "new\nline",
    "tab\there",
    " leading and trailing ",
    "-rf",
    "é" * 127,  # 254 bytes
    "x" * 255,
)


def contents(label: str, size: int) -> bytes:
    """Bytes that look random and are the same for the same label."""
    return random.Random(f"{label} {size}").randbytes(size)
