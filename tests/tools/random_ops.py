"""Random operations on a mount and on a plain directory, which must stay the same.

    python -m tests.tools.random_ops --operations 100000 --seed 7

Every operation is made up from the seed and from what the plain directory holds, and made on both
sides; its result, or its errno, has to agree. After each batch everything that programs can see has
to agree: names, types, modes, owners, sizes, link counts, times that were set, extended attributes
and contents. Now and then the mount is unmounted and mounted again, or its process is killed: all
that was closed has to be there afterwards.

What two file systems need not agree on is left out: inode numbers, the sizes and link counts of
directories, and times that nobody set. Those have to be recent where the plain directory's are; and
a change of names has to move the mtime of the mount's directory. Pages of a shared mapping reach a
FUSE file system when the kernel likes: the mtime of such a file counts again once it was set after
the mapping has gone.

As root the kernel is made to forget the mount's files now and then.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.tools.folder import mounted
from tests.tools.random_checker import Checker, Disagreement
from tests.tools.random_verbs import WEIGHTED

OPERATIONS = tuple(WEIGHTED)
WEIGHTS = tuple(WEIGHTED.values())


def run(directory: Path, operations: int, seed: int, batch: int, remounts: int) -> Checker:
    """Do ``operations`` in batches, with a remount after each ``remounts`` of them.

    Every second remount is because the process was killed.

    Raises:
        Disagreement: the sides differ.
    """
    os.umask(0o022)
    plain = directory / "plain"
    plain.mkdir()
    with mounted(directory / "home") as folder:
        check = Checker(plain, folder, seed)
        try:
            while check.done < operations:
                before = check.done
                for _ in range(min(batch, operations - check.done)):
                    (operation,) = check.random.choices(OPERATIONS, WEIGHTS)
                    check.step(operation)
                check.compare()
                if before // remounts != check.done // remounts:
                    check.remount(by_force=check.done // remounts % 2 == 1)
                    check.compare()
            check.remount()
            check.compare()
        finally:
            check.plain.close_all()
            check.mounted.close_all()
    return check


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--batch", type=int, default=100, help="operations between comparisons")
    parser.add_argument("--remount", type=int, default=2000, help="operations between remounts")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # not without an unmount
    directory = Path(tempfile.mkdtemp(prefix="lafsfs-random-"))
    try:
        check = run(
            directory, arguments.operations, arguments.seed, arguments.batch, arguments.remount
        )
    except Disagreement as error:
        print(error)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    for kind, (done, failed) in sorted(check.counts.items()):
        print(f"{kind:14} {done:8} done {failed:8} refused")
    print(f"{check.done} operations, no difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
