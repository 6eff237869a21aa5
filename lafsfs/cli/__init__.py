"""The command line: arguments, progress bars, exit codes. No logic of its own.

Modules of this package are imported as commands need them: ``lafsfs --help`` must not load crypto
libraries, and ``lafsfs mount`` must fork before Trio starts any thread.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The ``lafsfs`` command."""
    _open_standard_streams()
    from lafsfs.cli.app import lafsfs

    sys.exit(lafsfs.main(prog_name="lafsfs"))


def _open_standard_streams() -> None:
    """Make sure that 0, 1 and 2 are streams: who was started without could get a file's number."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
