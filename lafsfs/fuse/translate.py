"""Errors on their way out to the kernel: one total translator.

Only ``FUSEError`` may leave a request handler; anything else ends the mount for everybody. Rules:

- Every ``Exception`` becomes a ``FUSEError``. A :class:`~lafsfs.errors.LafsError` brings its errno.
- A group (from a nursery) is unwrapped. With several different errors in it, a bug is reported
  before the grid's troubles and those before a caller's mistake.
- ``Cancelled``, ``KeyboardInterrupt`` and ``SystemExit`` are not errors and are never swallowed.
- What is our fault is logged with its traceback, the rest with one line, which is not repeated at
  once: the kernel asks several times for what cannot be read. Text that came with
  foreign exceptions is scrubbed of anything that could be a capability or a key.
"""

from __future__ import annotations

import errno
import logging
import re
import time
import traceback
from typing import TYPE_CHECKING

import pyfuse3
import trio
from cachetools import TTLCache

from lafsfs.errors import DeadlineExceededError, Fault, LafsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

QUIET = 60.0  # seconds in which the same trouble is not told twice
MAX_TOLD = 1000  # different troubles remembered


class Repeats(logging.Filter):
    """Drops warnings that were let through a moment ago."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._told: TTLCache[tuple[str, ...], bool] = TTLCache(MAX_TOLD, QUIET, timer=clock)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log it."""
        message = tuple(sorted(record.getMessage().split()))  # reasons come in any order
        if record.levelno != logging.WARNING or message not in self._told:
            self._told[message] = True
            return True
        return False


log.addFilter(Repeats())

# Anything that starts as a capability does, and any run long enough to be a 128-bit key in base32.
_SECRET = re.compile(r"\b(?:URI|SSK|DIR2|pb|lafs|imm|ro)[:.]\S+|[a-z2-7]{26,}")

# Which fault to report when several errors come at once: the one that most needs looking at.
_URGENCY = (Fault.BUG, Fault.LOCAL, Fault.GRID, Fault.SERVER, Fault.CALLER)

# Errnos of the local operating system that mean the same to our caller.
_PASSED_ON = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EROFS})


def to_fuse_error(error: BaseException, operation: str) -> pyfuse3.FUSEError:
    """The ``FUSEError`` to raise for ``error``; logs it when somebody should know.

    Raises:
        BaseException: ``error`` itself, if it is or holds anything but an ordinary error.
    """
    if (
        isinstance(error, LafsError) and error.fault is Fault.CALLER
    ):  # most are: a name is not there
        log.debug("%s: %s", operation, error)
        return pyfuse3.FUSEError(errno_of(error))
    leaves = list(leaves_of(error))
    if any(not isinstance(leaf, Exception) for leaf in leaves):
        raise error
    for leaf in leaves:
        if isinstance(leaf, pyfuse3.FUSEError):
            return leaf
    worst = min(leaves, key=lambda leaf: _URGENCY.index(fault_of(leaf)))
    _report(worst, operation)
    return pyfuse3.FUSEError(errno_of(worst))


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    """The errors inside groups inside groups, in order; just ``error`` if it is no group."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves_of(inner)
    else:
        yield error


def fault_of(error: BaseException) -> Fault:
    """Whose fault it is. Errors that are not ours are bugs, but for the disk being full."""
    if isinstance(error, LafsError):
        return error.fault
    if isinstance(error, trio.TooSlowError):
        return DeadlineExceededError.fault
    if isinstance(error, OSError) and error.errno in _PASSED_ON:
        return Fault.LOCAL
    return Fault.BUG


def errno_of(error: BaseException) -> int:
    """The errno that stands for an ordinary error, never 0."""
    if isinstance(error, LafsError):
        return error.errno or errno.EIO
    if isinstance(error, trio.TooSlowError):
        return DeadlineExceededError.errno
    if isinstance(error, OSError) and error.errno in _PASSED_ON:
        return error.errno or errno.EIO
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    return errno.EIO


def scrubbed(text: str) -> str:
    """``text`` with everything that might be a secret replaced."""
    return _SECRET.sub("<redacted>", text)


def _report(error: BaseException, operation: str) -> None:
    fault = fault_of(error)
    if fault is Fault.CALLER:
        log.debug("%s: %s", operation, error)
    elif fault is not Fault.BUG:
        log.warning("%s: %s", operation, error)
    else:
        stack = "".join(traceback.format_tb(error.__traceback__))
        log.error(
            "%s: %s: %s\n%s", operation, type(error).__name__, scrubbed(str(error)), stack.rstrip()
        )
