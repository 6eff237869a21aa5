"""Going into the background once a mount is ready, or failing with one line that says why.

The process forks before Trio or any library starts a thread. The parent waits on a pipe; the child
reports through it exactly once: that it is ready, or why it is not. Until then the child keeps the
terminal, so its warnings are seen; afterwards it lets go of it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from lafsfs.cli.app import exit_code, only_error, summary
from lafsfs.cli.logs import log_bug
from lafsfs.errors import Fault, LafsError, MountError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_READY = "ready"


class BackgroundError(MountError):
    """What the process in the background said when it gave up, with its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def run_in_background(
    work: Callable[[Callable[[Sequence[str]], None]], None], log: Path
) -> tuple[str, ...]:
    """Run ``work(ready)`` in a process of its own; return when it calls ``ready(notes)``.

    After that its standard error is ``log``. The notes, lines for the user, are returned.

    Raises:
        BackgroundError: it failed, or ended, before it was ready.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    from_child, to_parent = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(from_child)
        _child(work, to_parent, log)
    try:
        os.close(to_parent)
        with open(from_child, "rb") as pipe:
            report = pipe.read()
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        raise
    ready, *notes = report.decode("utf-8", "replace").split("\n")
    if ready == _READY:
        return tuple(notes)
    _, status = os.waitpid(pid, 0)
    code, _, message = report.decode("utf-8", "replace").partition(" ")
    if not message:
        code = str(abs(os.waitstatus_to_exitcode(status)) or 1)
        message = f"the mount ended before it was ready; {log} may say why"
    raise BackgroundError(message, int(code))


class _Report:
    """The child's one message to its parent."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def send(self, message: bytes) -> bool:
        """Send it; False if one was sent before."""
        if self._descriptor is None:
            return False
        os.write(self._descriptor, message)
        os.close(self._descriptor)
        self._descriptor = None
        return True


def _child(
    work: Callable[[Callable[[Sequence[str]], None]], None], to_parent: int, log: Path
) -> NoReturn:
    os.setsid()
    report = _Report(to_parent)

    def ready(notes: Sequence[str] = ()) -> None:
        _let_go_of_terminal(log)
        report.send("\n".join((_READY, *notes)).encode())

    code = 0
    try:
        work(ready)
    except BaseException as failure:
        code, message = _told(failure)
        if not report.send(f"{code} {message}".encode()):
            print(f"lafsfs: {message}", file=sys.stderr)  # into the log
    _exit(code)


def _told(failure: BaseException) -> tuple[int, str]:
    error = only_error(failure) if isinstance(failure, BaseExceptionGroup) else failure
    if isinstance(error, LafsError) and error.fault is not Fault.BUG:
        return exit_code(error), summary(error)
    if isinstance(error, KeyboardInterrupt):
        return 130, summary(error)
    log_bug(failure)
    return 1, summary(error)


def _let_go_of_terminal(log: Path) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    nothing = os.open(os.devnull, os.O_RDWR)
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor, target in ((nothing, 0), (nothing, 1), (sink, 2)):
        os.dup2(descriptor, target)
    os.close(nothing)
    os.close(sink)
    os.chdir("/")


def _exit(code: int) -> NoReturn:
    """End without returning into the caller's frames, which belong to the parent."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
