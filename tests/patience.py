"""A virtual clock for tests with real sockets and threads."""

from __future__ import annotations

import math

import trio
import trio.testing

IDLE = 0.05  # seconds of real time without any event; loopback sockets need less than one


class PatientClock(trio.abc.Clock, trio.abc.Instrument):
    """Stands still while anything happens, and then goes straight to the next deadline.

    Trio's own ``MockClock`` jumps when tasks were blocked for a while, and knows nothing of worker
    threads: on a machine that is busy, one that takes long looks like nothing happening, and
    deadlines pass that no real run would miss. Here time passes only when no thread works and a
    whole wait for sockets brought no event, however long the process had to wait for its turn.

    pytest-trio finds it among a test's arguments, as the run's clock and as an instrument.
    """

    def __init__(self, idle: float = IDLE) -> None:
        """``idle``: 0 where there are no sockets, so that there is nothing to wait for."""
        self._now = 0.0
        self._idle = idle
        self._is_waiting = False  # for what may come before the next deadline
        self._was_quiet = False  # all through the last such wait

    def jump(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds

    # --- as a clock -------------------------------------------------------------------------------

    def start_clock(self) -> None:
        """It stands."""

    def current_time(self) -> float:
        """Seconds of virtual time since the start."""
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Asked by Trio when there is nothing left to run: how long to wait for sockets."""
        was_quiet, self._was_quiet = self._was_quiet, False
        if deadline <= self._now:
            return 0.0
        if trio.testing.active_thread_count() or deadline == math.inf:
            return math.inf
        if was_quiet:
            self._now = deadline
            return 0.0
        self._is_waiting = True
        return self._idle

    # --- as an instrument -------------------------------------------------------------------------

    def after_io_wait(self, timeout: float) -> None:
        """A wait is over; whoever it woke has been scheduled already."""
        self._was_quiet = self._is_waiting and timeout >= self._idle
        self._is_waiting = False

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        """Something happens."""
        self._is_waiting = self._was_quiet = False
