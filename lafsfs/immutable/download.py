"""What the fetches of one file have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lafsfs.errors import CorruptShareError
    from lafsfs.grid.broker import Broker
    from lafsfs.immutable.claims import TreeClaims
    from lafsfs.immutable.finder import ShareFinder
    from lafsfs.immutable.share import ShareReader
    from lafsfs.immutable.verified import VerifiedFile


@dataclass(frozen=True, slots=True)
class Download:
    """What all fetches of one file share.

    ``report`` is told of each share that turns out to be corrupt, ``start`` runs something that
    nobody waits for; neither waits itself.
    """

    verified: VerifiedFile
    finder: ShareFinder
    broker: Broker
    trees: TreeClaims
    report: Callable[[ShareReader, CorruptShareError], None]
    start: Callable[[Callable[[], Awaitable[None]]], None]
