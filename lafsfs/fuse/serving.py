"""From the moment a mount is there to its end, and what becomes of what is pending then.

A mount ends when somebody unmounts it, or by SIGTERM or SIGINT. After an unmount everything pending
is brought to the grid, for as long as that makes progress. A signal comes from somebody who cannot
wait for ever: what is pending has ``DRAIN_TIMEOUT`` seconds while programs can still go on, and as
many afterwards; a second signal ends that, and so does :meth:`Patience.limit`. Whatever is not on
the grid then stays in the journal. That is no error, but it is said.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.fuse.collecting import spare_the_old
from lafsfs.vfs.status import Left

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from lafsfs.errors import LafsError
    from lafsfs.fuse.session import Session
    from lafsfs.vfs.api import FileSystemAPI

log = logging.getLogger(__name__)

DRAIN_TIMEOUT: Final = 30.0  # seconds, twice, for what is pending when told to stop


@dataclass(slots=True)
class Patience:
    """How long the end of a mount may wait for the grid."""

    _seconds: float = math.inf
    _scope: trio.CancelScope | None = None

    def limit(self, seconds: float) -> None:
        """Wait no longer than that, from when the waiting begins, or from now if it has begun."""
        self._seconds = min(self._seconds, seconds)
        if self._scope is not None:
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + seconds)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While it lasts, the grid is waited for, even by a task that was cancelled."""
        with trio.move_on_after(self._seconds) as self._scope:
            self._scope.shield = True
            yield
        self._scope = None


async def serve(
    session: Session, fs: FileSystemAPI, patience: Patience, ready: Callable[[], None]
) -> Left | None:
    """Serve to the end. What stays in the journal then, None if nothing does."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_on_signal, session, fs, patience)
            spare_the_old()
            ready()
            await session.serve()
            nursery.cancel_scope.cancel()
    except BaseException:
        patience.limit(DRAIN_TIMEOUT)
        await _drain(fs, patience)
        raise
    return await _drain(fs, patience)


async def _stop_on_signal(session: Session, fs: FileSystemAPI, patience: Patience) -> None:
    """Drain while programs can still go on, then stop; a second signal stops at once."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        await anext(aiter(signals))
        patience.limit(DRAIN_TIMEOUT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_second_signal, signals, nursery.cancel_scope, patience)
            with trio.move_on_after(DRAIN_TIMEOUT):
                await fs.flush_all()
            nursery.cancel_scope.cancel()
    session.stop()


async def _second_signal(
    signals: AsyncIterator[int], scope: trio.CancelScope, patience: Patience
) -> None:
    await anext(signals)
    patience.limit(0.0)
    scope.cancel()


async def _drain(fs: FileSystemAPI, patience: Patience) -> Left | None:
    """Bring what is pending to the grid, as long as there is patience; what is left."""
    errors: tuple[LafsError, ...] = ()
    with patience.waiting():
        errors = await fs.flush_all()
    with trio.CancelScope(shield=True):
        status = await fs.status()
    if status.is_settled:
        return None
    left = Left.of(status, str(errors[0]) if errors else None)
    log.warning("%s", left)
    return left
