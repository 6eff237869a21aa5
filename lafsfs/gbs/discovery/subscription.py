"""Keeping the introducer's subscriber running, in a process of its own.

Theory. Foolscap is needed for nothing but introducers, so it is an optional extra, and its program
(:mod:`lafsfs.gbs.discovery.introducer`) shares nothing with us but the cache it writes. Whoever
follows the cache needs to know nothing of it.

Rules:

- The program lives as long as the task that runs it. Should we be killed, its standard input ends,
  and so does it.
- When it ends by itself it is started again, after a wait that doubles up to :data:`MAX_WAIT`.
- The introducer's fURL goes through standard input, never into arguments.
"""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import trio

from lafsfs.errors import ConfigError
from lafsfs.gbs.discovery.announcements import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lafsfs.gbs.discovery.furl import Furl
    from lafsfs.gbs.discovery.sources import Followed

log = logging.getLogger(__name__)

# -P: what is called lafsfs where the user is need not be ours.
PROGRAM = (sys.executable, "-P", "-m", "lafsfs.gbs.discovery.introducer")

FIRST_WAIT = 1.0  # seconds before the program is started again
MAX_WAIT = 300.0  # seconds
LONG_ENOUGH = 60.0  # seconds after which a run counts as a good one
MAX_LINE = 500  # characters of what the program says
INTRODUCTION = 30.0  # seconds for an introducer to be heard of for the first time
LOOK = 0.2  # seconds between looks at a cache that is waited for

MISSING = (
    "introducers need Foolscap: pip install 'lafsfs[introducer]' (or name the servers' NURLs in "
    "[[grid.servers]])"
)


def can_subscribe() -> bool:
    """Whether the optional extra is installed."""
    return importlib.util.find_spec("foolscap") is not None


async def keep_subscribed(furl: Furl, cache: Path, program: Sequence[str] = PROGRAM) -> None:
    """Keep ``cache`` in step with what an introducer announces, for ever."""
    wait = FIRST_WAIT
    while True:
        started = trio.current_time()
        code = await run_subscriber(furl, cache, partial(_say, furl), program)
        if trio.current_time() - started >= LONG_ENOUGH:
            wait = FIRST_WAIT
        log.warning("introducer %s: its subscriber ended (exit code %d)", furl.shown, code)
        await trio.sleep(wait)
        wait = min(MAX_WAIT, 2 * wait)


def _say(furl: Furl, line: str) -> None:
    log.warning("introducer %s: %s", furl.shown, line)


async def run_subscriber(
    furl: Furl, cache: Path, say: Callable[[str], None], program: Sequence[str] = PROGRAM
) -> int:
    """Run the program until it ends; ``say`` gets each line of its. Returns its exit code."""
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(
                trio.run_process,
                [*program, str(cache)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
                start_new_session=True,  # what is typed at our terminal is for us to handle
            )
        )
        assert process.stdin is not None
        assert process.stderr is not None
        try:
            await process.stdin.send_all(furl.danger_text().encode("ascii") + b"\n")
        except trio.BrokenResourceError:
            log.debug("the subscriber did not wait for its introducer")
        await _lines(process.stderr, say)
        code = await process.wait()
    return code


async def _lines(stream: trio.abc.ReceiveStream, say: Callable[[str], None]) -> None:
    rest = b""
    async for data in stream:
        *lines, rest = (rest + data).split(b"\n")
        rest = rest[-4 * MAX_LINE :]
        for line in lines:
            say(shown(line.decode("utf-8", "replace"), MAX_LINE))


async def first_announcements(
    furl: Furl, cache: Path, seconds: float, program: Sequence[str] = PROGRAM
) -> None:
    """Subscribe until the cache is written, for at most that long.

    Raises:
        ConfigError: it was not; says why.
    """
    said: list[str] = []
    before = _written_at(cache)
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_written, cache, before, nursery.cancel_scope)
            code = await run_subscriber(furl, cache, said.append, program)
            nursery.cancel_scope.cancel()
            said.append(f"its subscriber ended (exit code {code})")
    if _written_at(cache) == before:
        reason = "; ".join(said[-2:]) or f"nothing was heard from it within {seconds:.0f} s"
        raise ConfigError(f"introducer {furl.shown}: {reason}")


async def introduce(introducers: Sequence[Followed]) -> None:
    """Hear from those introducers of which nothing was ever heard; what fails is warned about."""
    unheard = [i for i in introducers if await trio.to_thread.run_sync(i.is_unheard)]
    if unheard and not can_subscribe():
        log.warning(MISSING)
        return

    async def one(introducer: Followed) -> None:
        try:
            await first_announcements(introducer.furl, introducer.own, INTRODUCTION)
        except ConfigError as error:
            log.warning("going on without an introducer: %s", error)

    async with trio.open_nursery() as nursery:
        for introducer in unheard:
            nursery.start_soon(one, introducer)


async def _cancel_when_written(
    cache: Path, before: tuple[int, int] | None, scope: trio.CancelScope
) -> None:
    while True:  # there are no events for files; nobody waits for this often, or for long
        await trio.sleep(LOOK)
        if _written_at(cache) != before:
            scope.cancel()


def _written_at(cache: Path) -> tuple[int, int] | None:
    try:
        status = cache.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
