"""What the disk's refusals are in our words."""

from __future__ import annotations

import errno
import sqlite3
from typing import Final

from lafsfs.errors import JournalError, JournalFullError

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def refused(error: OSError | sqlite3.Error) -> JournalError:
    """Why the disk did not take something: a JournalFullError if it is full."""
    if isinstance(error, OSError):
        is_full, why = error.errno in _FULL, error.strerror
    else:
        is_full, why = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL, str(error)
    kind = JournalFullError if is_full else JournalError
    return kind(f"the journal cannot be written: {why}")
