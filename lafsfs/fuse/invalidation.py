"""Telling the kernel to drop what it remembers, without ever waiting for it in a handler.

A notification may block until a request on the same object is answered, so it is sent from a
worker thread, and whoever notices the change only puts it in a queue. What has been queued and not
sent yet is not queued again.

``invalidate_inode`` drops attributes and, if asked, pages; ``invalidate_entry`` drops one name.
"""

from __future__ import annotations

import errno
import logging
import math
from typing import TYPE_CHECKING

import pyfuse3
import trio

if TYPE_CHECKING:
    from lafsfs.vfs.api import Changed

log = logging.getLogger(__name__)

WORKERS = 4  # threads: one stuck behind a slow request must not hold up the others
POLL_INTERVAL = 0.02  # seconds; only while leaving, and only if a thread is still at it

# The kernel never knew the object, or the mount is going away.
_HARMLESS = frozenset({errno.ENOENT, errno.ENOTCONN, errno.ENODEV, errno.EBADF})


class Invalidations:
    """A queue of changes and the workers that pass them on. Use :meth:`run` as a task."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel["Changed"](math.inf)
        self._queued: set[Changed] = set()
        self._sending: set[object] = set()  # threads add and remove their own marks only

    def __call__(self, changed: Changed) -> None:
        """Queue a change. Never blocks; call it from the event loop."""
        if changed not in self._queued:
            self._queued.add(changed)
            self._send.send_nowait(changed)

    async def run(self) -> None:
        """Pass changes on until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(self._work)

    async def quiet(self, seconds: float) -> bool:
        """Wait until no notification is with the kernel; False if one still is after that time.

        For after :meth:`run` was cancelled: a thread cannot be, and the FUSE session that it uses
        must not be destroyed under it.
        """
        with trio.move_on_after(seconds):
            while self._sending:  # noqa: ASYNC110 - threads cannot set a Trio event
                await trio.sleep(POLL_INTERVAL)
        return not self._sending

    async def _work(self) -> None:
        async for changed in self._receive:
            self._queued.discard(changed)  # what changes from now on must be told again
            mark = object()
            self._sending.add(mark)
            await trio.to_thread.run_sync(self._tell, changed, mark, abandon_on_cancel=True)

    def _tell(self, changed: Changed, mark: object) -> None:
        try:
            tell_kernel(changed)
        finally:
            self._sending.discard(mark)


def tell_kernel(changed: Changed) -> None:
    """Drop an inode's attributes (and pages), or one name. May block; call it from a thread."""
    try:
        if changed.name is None:
            pyfuse3.invalidate_inode(changed.ino, attr_only=not changed.contents)
        else:
            pyfuse3.invalidate_entry(changed.ino, changed.name)
    except OSError as error:
        if error.errno not in _HARMLESS:
            log.warning("the kernel did not take an invalidation: %s", error)
