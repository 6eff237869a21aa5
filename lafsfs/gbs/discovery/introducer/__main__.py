"""``python -m lafsfs.gbs.discovery.introducer CACHE < FURL``: keep a cache of announcements."""

# mypy: disable-error-code="import-not-found, import-untyped, misc, no-untyped-call"

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.internet import reactor

from lafsfs.errors import ConfigError, FormatError
from lafsfs.gbs.discovery.cache import read_cache, write_cache
from lafsfs.gbs.discovery.furl import parse_furl
from lafsfs.gbs.discovery.introducer.book import Book
from lafsfs.gbs.discovery.introducer.subscriber import Subscriber

if TYPE_CHECKING:
    from collections.abc import Iterable

SETTLE = 0.5  # seconds in which more announcements may come before the cache is written


def complain(line: str) -> None:
    """Say something to the parent."""
    print(" ".join(line.split()), file=sys.stderr, flush=True)


class Keeper:
    """Keeps the cache in step with the book."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._pending = False
        try:
            self._book = Book(read_cache(cache))
        except ConfigError as error:
            complain(f"starting with an empty cache: {error}")
            self._book = Book([])

    def announced(self, announcements: Iterable[object]) -> None:
        """Take in what counts; complain about the rest."""
        for signed in announcements:
            try:
                if self._book.admit(signed):
                    self.save_soon()
            except FormatError as error:
                complain(f"an announcement is refused: {error}")

    def save_soon(self) -> None:
        """Write the cache, once for what comes together."""
        if not self._pending:
            self._pending = True
            reactor.callLater(SETTLE, self._save)

    def _save(self) -> None:
        self._pending = False
        try:
            write_cache(self._cache, self._book.announcements)
        except ConfigError as error:
            complain(str(error))


def main() -> int:
    """The program. Exit codes: 0 standard input ended, 1 refused, 2 used wrongly."""
    furl = sys.stdin.readline().strip()
    try:
        parse_furl(furl)
        (cache,) = sys.argv[1:]
    except (FormatError, ValueError) as error:
        complain(f"{error}")
        return 2
    keeper = Keeper(Path(cache))
    refused: list[bool] = []

    def give_up() -> None:
        refused.append(True)
        reactor.stop()

    tub = Subscriber(keeper.announced, keeper.save_soon, give_up, complain).connect(furl)
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    reactor.run()
    tub.stopService()
    return int(bool(refused))


def _stop_at_end_of_input() -> None:
    while sys.stdin.read(1):
        pass
    reactor.callFromThread(reactor.stop)


if __name__ == "__main__":
    sys.exit(main())
