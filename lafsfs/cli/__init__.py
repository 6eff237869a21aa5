"""The command line: arguments, progress bars, exit codes. No logic of its own.

Modules of this package are imported as commands need them: ``lafsfs --help`` must not load crypto
libraries, and ``lafsfs mount`` must fork before Trio starts any thread.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The ``lafsfs`` command."""
    from lafsfs.cli.app import lafsfs

    sys.exit(lafsfs.main(prog_name="lafsfs"))
