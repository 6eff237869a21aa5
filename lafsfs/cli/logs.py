"""What is logged, on standard error: a command's own messages, or a mount's log with its times.

A bug's traceback is kept, since nothing else helps to find it, but its words are scrubbed of all
that looks like a capability or a key: a log outlives the terminal, and gets sent to others.
What is tried again and again fails for the same reason: that is told once in a while.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import TracebackType

    Info = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


REPEAT_AFTER: Final = 600.0  # seconds after which the same is worth saying again
MAX_REMEMBERED: Final = 1000  # messages


def log_messages() -> None:
    """Show what is logged as a command shows its own warnings, unless it is seen to already."""
    _log_as(_Message())


def log_with_times() -> None:
    """From now on write a log for later reading, unless it is seen to already."""
    formatter = _Scrubbed("%(asctime)s %(levelname)s %(name)s: %(message)s")
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, _Message):
            handler.setFormatter(formatter)
            handler.filters[:] = [Repeats()]
    _log_as(formatter)


def log_bug(failure: BaseException) -> None:
    """The traceback of what should not have happened."""
    print(_without_secrets("".join(traceback.format_exception(failure))), file=sys.stderr, end="")


class Repeats(logging.Filter):
    """Lets the same message pass once in ``REPEAT_AFTER`` seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is new, or has a traceback."""
        if record.exc_info:
            return True
        message = record.name, record.getMessage()
        if record.created - self._said.get(message, float("-inf")) < REPEAT_AFTER:
            return False
        if len(self._said) >= MAX_REMEMBERED:
            self._said.clear()
        self._said[message] = record.created
        return True


class _Scrubbed(logging.Formatter):
    def formatException(self, ei: Info) -> str:
        return _without_secrets(super().formatException(ei))


class _Message(_Scrubbed):
    def format(self, record: logging.LogRecord) -> str:
        return f"lafsfs: {record.levelname.lower()}: {super().format(record)}"


def _log_as(formatter: logging.Formatter) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    handler.addFilter(Repeats())
    logging.basicConfig(handlers=[handler])


def _without_secrets(text: str) -> str:
    from lafsfs.fuse.translate import scrubbed

    return scrubbed(text)
