"""How a mount ends: by an unmount, by signals, by being told; and what it leaves behind."""

from __future__ import annotations

import signal

import pytest
import trio
import trio.testing

from lafsfs.errors import NotHappyError
from lafsfs.fuse.serving import DRAIN_TIMEOUT, Patience, serve
from lafsfs.vfs.status import Status

SETTLED = Status(0.0, 0, 0, 0, 0, 0, 0.0, 0.0, 0, (), ())
PENDING = Status(0.0, 2, 1, 1, 3000, 0, 0.0, 0.0, 0, (), ())


class Session:
    """A mount that lasts until it is unmounted or stopped."""

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.fails = False

    async def serve(self) -> None:
        await self.ended.wait()
        if self.fails:
            raise RuntimeError("the kernel is gone")

    def stop(self) -> None:
        self.ended.set()


class Files:
    """What is pending: brought to the grid in ``seconds``, or never."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.pending = True
        self.errors: tuple[NotHappyError, ...] = ()

    async def flush_all(self):
        await trio.sleep(self.seconds)
        self.pending = bool(self.errors)
        return self.errors

    async def status(self) -> Status:
        await trio.lowlevel.checkpoint()
        return PENDING if self.pending else SETTLED


async def served(files: Files, during, patience: Patience | None = None):
    """Serve while ``during(session)`` happens: what is left, and when it ended."""
    session = Session()
    result = []

    async def run() -> None:
        result.append(await serve(session, files, patience or Patience(), lambda: None))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        await during(session)
    return result[0], trio.current_time()


async def unmount(session: Session) -> None:
    session.ended.set()


async def terminate(session: Session) -> None:
    signal.raise_signal(signal.SIGTERM)


async def test_after_an_unmount_the_grid_is_waited_for(autojump_clock):
    left, ended = await served(Files(100_000.0), unmount)
    assert (left, ended) == (None, 100_000.0)


async def test_what_cannot_be_brought_there_is_told(autojump_clock, caplog):
    files = Files(40.0)
    files.errors = (NotHappyError("too few servers"),)
    left, _ = await served(files, unmount)
    assert (left.files, left.names, left.size, left.why) == (2, 1, 3000, "too few servers")
    assert "stays in the journal" in caplog.text


async def test_a_signal_drains_first_and_stops_then(autojump_clock):
    left, ended = await served(Files(10.0), terminate)
    assert (left, ended) == (None, 20.0)


async def test_a_signal_waits_for_a_bounded_time(autojump_clock):
    left, ended = await served(Files(1e9), terminate)
    assert left.files == 2
    assert ended == 2 * DRAIN_TIMEOUT


async def test_a_second_signal_ends_the_waiting(autojump_clock):
    async def twice(session: Session) -> None:
        signal.raise_signal(signal.SIGTERM)
        await trio.sleep(3.0)
        signal.raise_signal(signal.SIGINT)

    left, ended = await served(Files(1e9), twice)
    assert (left.files, ended) == (2, 3.0)


async def test_being_told_to_leave_ends_the_waiting(autojump_clock):
    patience = Patience()

    async def leave(session: Session) -> None:
        session.ended.set()
        await trio.sleep(3.0)
        patience.limit(0.0)

    left, ended = await served(Files(1e9), leave, patience)
    assert (left.files, ended) == (2, 3.0)


async def test_being_told_before_counts_as_well(autojump_clock):
    patience = Patience()
    patience.limit(0.0)
    left, ended = await served(Files(1e9), unmount, patience)
    assert (left.files, ended) == (2, 0.0)


async def test_a_mount_that_breaks_drains_and_says_so(autojump_clock):
    session, files = Session(), Files(1e9)
    session.fails = True
    session.ended.set()
    with pytest.raises(ExceptionGroup) as caught:
        await serve(session, files, Patience(), lambda: None)
    [error] = caught.value.exceptions
    assert str(error) == "the kernel is gone"
    assert trio.current_time() == DRAIN_TIMEOUT
