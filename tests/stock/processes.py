"""Processes that serve, and waiting for what they do."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

START_SECONDS = 90.0  # a node on a busy two-core machine takes about five
PORTS = (16_000, 32_000)  # below what Linux takes for connections (ip_local_port_range)
LOG_LINES = 20  # of a process that did not do what it should


def free_ports(count: int) -> list[int]:
    """TCP ports on loopback that nobody uses, all different.

    They are not among those that the kernel gives to whoever asks for any: one of these may be
    somebody else's by the time a process listens, or while a process that was ended is away.
    """
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            port = random.randrange(*PORTS)
            probe = stack.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
        return ports


def wait_until(
    ready: Callable[[], bool],
    what: str,
    *,
    seconds: float = START_SECONDS,
    every: float = 0.1,
    why_not: Callable[[], str] = str,
) -> None:
    """Return as soon as ``ready()`` is true; it is asked ``every`` so many seconds.

    Raises:
        TimeoutError: ``what`` did not come true, and ``why_not()``.
    """
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}\n{why_not()}")
        time.sleep(every)


def answers(port: int) -> bool:
    """Whether anybody listens on a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Service:
    """One process, and how to be unkind to it.

    ``patience``: seconds after which one that was asked to end is killed.
    """

    patience = 30.0

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.command = list(command)
        self.log = log
        self.environment = environment
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; whether it has come up is for the caller to find out."""
        assert self.process is None
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait until it has ended; nothing happens if it does not run."""
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)  # or one that hangs would never hear it
        try:
            process.wait(self.patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End it as a power cut would."""
        self.stop(signal.SIGKILL)

    def hang(self) -> None:
        """Let it keep its connections and say nothing, until :meth:`go_on`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """The end of :meth:`hang`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def last_words(self) -> str:
        """Its state and the end of its log."""
        state = "does not run" if self.process is None else f"exit code {self.process.poll()}"
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join([f"{self.log.name}: {state}", *lines[-LOG_LINES:]])


@contextmanager
def started(*services: Service) -> Iterator[None]:
    """Services that run while the block does, or until somebody ends them before."""
    with ExitStack() as stack:
        for service in services:
            service.start()
            stack.callback(service.stop)
        yield
