"""Talking to one storage server: with patience, and with a report to the broker of how it went.

Rules:

- A server that does not answer in time counts as unavailable, so that one hung server cannot hold
  up what the others can do. How long is in time depends on how much there is to carry.
- Every call leaves its mark in the broker's record, whichever way it ends; a call that we cancel
  leaves none.
- :func:`plain_errors` keeps nurseries an affair of this layer: callers catch errors, not groups.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import trio

from lafsfs.errors import LafsError, ProtocolError, ServerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from lafsfs.grid.api import StorageServer
    from lafsfs.grid.broker import Broker

T = TypeVar("T")

PATIENCE = 60.0  # seconds for an answer that carries nothing; a sleeping disk or NAS needs 15
SLOWEST_RATE = 16 << 10  # bytes/s; a slower line is as good as none, and this bounds the wait

log = logging.getLogger(__name__)


async def ask(
    broker: Broker,
    server: StorageServer,
    verb: Callable[[], Awaitable[T]],
    *,
    size: int = 0,
    patience: float = PATIENCE,
) -> T:
    """Await ``verb()`` of ``server``, with ``size`` bytes to carry either way.

    Raises:
        ServerUnavailableError: no answer in time.
        ServerError: whatever the server answered with.
    """
    asked_at = trio.current_time()
    limit = patience + size / SLOWEST_RATE
    try:
        with broker.carrying(size) as load, trio.move_on_after(limit):
            answer = await verb()
            broker.note_success(server, trio.current_time() - asked_at, size, load.peak)
            return answer
        raise ServerUnavailableError(f"{server.name} did not answer within {limit:.0f} s")
    except (ServerUnavailableError, ProtocolError) as error:
        if not broker.health(server).failures:
            log.warning("storage server in trouble: %s", error)
        broker.note_failure(server)
        raise


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn the exception group that a nursery raises into its first error.

    A group with anything but our own errors in it is a bug, and goes on as it is; so does one that
    only carries cancellation.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        errors = [leaf for leaf in _leaves(group) if not isinstance(leaf, trio.Cancelled)]
        if len(errors) == 1 or (errors and all(isinstance(leaf, LafsError) for leaf in errors)):
            raise errors[0] from None
        raise


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
