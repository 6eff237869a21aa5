"""How many shares are made of what is written, and how widely they must be spread.

One record for immutable and mutable files alike. Reading never looks at it: every capability or
share says how its own contents were encoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from lafsfs.errors import UsageError
from lafsfs.formats.geometry import DEFAULT_CHK_SEGMENT_SIZE, MAX_CHK_SHARES, MAX_SEGMENT_SIZE


@dataclass(frozen=True, slots=True)
class Encoding:
    """``k`` of ``n`` shares are enough to read; a write needs ``happy`` distinct servers.

    ``max_segment_size``: bytes, of immutable files only. It goes into their convergence key, so two
    clients with different values do not share what they store.

    Raises:
        UsageError: the numbers fit no encoding.
    """

    k: int
    happy: int
    n: int
    max_segment_size: int = DEFAULT_CHK_SEGMENT_SIZE

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.n <= MAX_CHK_SHARES:
            raise UsageError(
                f"{self.k}-of-{self.n} is no encoding: 1 <= k <= n <= {MAX_CHK_SHARES} is needed"
            )
        if not 1 <= self.happy <= self.n:
            raise UsageError(f"happy = {self.happy} is not between 1 and n = {self.n}")
        if not 1 <= self.max_segment_size <= MAX_SEGMENT_SIZE:
            raise UsageError(
                f"a segment size of {self.max_segment_size} bytes is not between 1 and "
                f"{MAX_SEGMENT_SIZE}"
            )

    @classmethod
    def for_servers(cls, count: int) -> Self:
        """The default for ``count`` servers: 1-of-1, else half of them (rounded up) are enough.

        ``happy`` is ``k``, so that writing goes on while a disk is unplugged.
        """
        n = max(1, count)
        k = -(-n // 2)
        return cls(k, k, n)
