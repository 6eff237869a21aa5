"""Another process that does what it is told, statement by statement."""

from __future__ import annotations

import ast
import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOP = """
import fcntl, mmap, os, sqlite3, sys
names = dict(globals())
for line in sys.stdin:
    source = eval(line)
    try:
        try:
            result = eval(source, names)
        except SyntaxError:
            result = exec(source, names)
    except OSError as error:
        result = ("OSError", error.errno)
    print(repr(result), flush=True)
"""


class Other:
    """``other("x = 1")`` runs a statement over there; ``other("x")`` is the value of x.

    What is no literal comes back as None, an OSError as ``("OSError", errno)``.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, source: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(repr(source), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, f"the other process ended over {source!r}"
        with contextlib.suppress(SyntaxError, ValueError):
            return ast.literal_eval(answer)
        return None

    def kill(self) -> None:
        """SIGKILL, in the middle of whatever it has begun."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def another_process() -> Iterator[Other]:
    """A process that lasts as long as the context."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Other(process)
        finally:
            process.kill()
