"""Sizes as people write them: ``500M``, ``20G``, ``1 TiB``. Pure."""

from __future__ import annotations

import re

_SIZE = re.compile(r"([0-9]{1,18})\s*(?:([KMGTP])(i?)(B?)|B)?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """A number of bytes. As GNU's tools do: ``G`` and ``GiB`` by 1024, ``GB`` by 1000.

    Raises:
        ValueError: it is none.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("must be a size, such as 512M or 2G")
    number, unit, binary, is_bytes = match.groups()
    base = 1000 if is_bytes and not binary else 1024
    power = " KMGTP".index(unit.upper()) if unit else 0
    size: int = int(number) * base**power
    return size
