"""Named places between two durable actions, where a test can kill the process or look at the disk.

``reached("journal.commit.after")`` costs one comparison unless somebody watches. Who watches is set
before the work begins: the environment variable ``LAFSFS_FAULT=NAME:COUNT`` has the process kill
itself with SIGKILL when it reaches that place for the COUNT-th time (``any`` for NAME counts all
places together); a test in the same process calls :func:`watch`.

Places are reached in the event loop and in worker threads.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Watcher: TypeAlias = Callable[[str], None]

VARIABLE: Final = "LAFSFS_FAULT"
ANY: Final = "any"

_watcher: Watcher | None = None


def reached(name: str) -> None:
    """Say that the place called ``name`` is reached."""
    if _watcher is not None:
        _watcher(name)


@contextmanager
def watch(watcher: Watcher) -> Iterator[None]:
    """Have ``watcher`` called with the name of each place, in whatever thread reaches it."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before


def killer(text: str) -> Watcher:
    """What ``LAFSFS_FAULT`` asks for: ``NAME`` or ``NAME:COUNT``.

    Raises:
        ValueError: it is neither.
    """
    wanted, _, count = text.partition(":")
    left = int(count or 1)
    lock = threading.Lock()

    def watcher(name: str) -> None:
        nonlocal left
        if wanted not in (name, ANY):
            return
        with lock:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return watcher


if VARIABLE in os.environ:
    _watcher = killer(os.environ[VARIABLE])
