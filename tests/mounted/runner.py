"""The process that serves a mount for the tests: ``python -m tests.mounted.runner``.

Settings come as JSON on standard input, ``ready`` goes out on standard output, log lines and
tracebacks on standard error. The exit code is 0 after a clean unmount, 1 after an error, which is
one line, and 2 after anything else.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from lafsfs.caps import parse
from lafsfs.errors import LafsError
from lafsfs.fuse.options import MountOptions
from lafsfs.fuse.translate import leaves_of
from lafsfs.mount import Settings, run_mount

if TYPE_CHECKING:
    from collections.abc import Sequence


def main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    job = json.load(sys.stdin)
    settings = Settings(
        storage=tuple(map(Path, job["storage"])),
        config_directory=Path(job["config"]),
        state_directory=Path(job["state"]),
    )

    def ready(notes: Sequence[str]) -> None:
        print("ready", *notes, sep="; ", flush=True)

    async def serve() -> None:
        await run_mount(
            settings,
            parse(job["cap"]),
            Path(job["mountpoint"]),
            MountOptions.parse(job["options"]),
            ready=ready,
        )

    try:
        trio.run(serve)
    except BaseException as error:
        leaves = list(leaves_of(error))
        if all(isinstance(leaf, LafsError) for leaf in leaves):
            print(f"{type(leaves[0]).__name__}: {leaves[0]}", file=sys.stderr)
            return 1
        traceback.print_exc()
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
