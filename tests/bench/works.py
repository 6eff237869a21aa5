"""What is written: rsync, copies, an archive, files one by one. Its contents are new each time.

A work is done once, in a directory or a file that has its name; then it says whether what is there
is what was to be written. Contents are random and nobody else's: equal files would be stored only
once, whoever writes them, since the stock client and the mount have the same convergence secret.
"""

from __future__ import annotations

import os
import re
import tarfile
from typing import TYPE_CHECKING, Protocol

from tests.bench.mounts import run

if TYPE_CHECKING:
    from pathlib import Path

PARTIAL = 23  # what rsync says when attributes cannot be kept, as over SFTP to stock


class Work(Protocol):
    """Something to write."""

    def write(self, point: Path) -> None:
        """Write it below a mountpoint."""

    def check(self, point: Path) -> None:
        """Raises RuntimeError if what is there is not what was written."""


def plant(top: Path, directories: int, files: int, size: int) -> None:
    """A tree of ``files`` files of ``size`` random bytes, spread over ``directories``."""
    top.mkdir(parents=True)
    for number in range(directories):
        (top / f"directory-{number}").mkdir()
    for number in range(files):
        path = top / f"directory-{number % directories}" / f"file-{number}.dat"
        path.write_bytes(os.urandom(size))


def same_tree(source: Path, target: Path) -> None:
    """Raise RuntimeError unless two trees have the same names and contents."""
    run(["diff", "-rq", str(source), str(target)])


class Rsync:
    """``rsync -a`` of small files in a few directories, twice."""

    def __init__(self, source: Path, files: int, size: int, *, lenient: bool) -> None:
        plant(source, 5, files, size)
        self._source = source
        self._allowed = (0, PARTIAL) if lenient else (0,)

    def write(self, point: Path) -> None:
        self._rsync(point)

    def again(self, point: Path) -> int:
        """Once more, with nothing changed: bytes of content that were transferred."""
        return literal_bytes(self._rsync(point))

    def check(self, point: Path) -> None:
        same_tree(self._source, point / self._source.name)

    def _rsync(self, point: Path) -> str:
        command = ["rsync", "-a", "--stats", "--no-human-readable", f"{self._source}/"]
        return run([*command, str(point / self._source.name)], allowed=self._allowed)


def literal_bytes(stats: str) -> int:
    """What ``rsync --stats`` says of file contents that were transferred."""
    found = re.search(r"^Literal data: (\d+) bytes$", stats, re.MULTILINE)
    assert found is not None, stats
    return int(found[1])


class Copy:
    """``cp`` of one large file."""

    def __init__(self, source: Path, size: int) -> None:
        self.contents = os.urandom(size)
        source.write_bytes(self.contents)
        self._source = source

    def write(self, point: Path) -> None:
        run(["cp", str(self._source), str(point / self._source.name)])

    def check(self, point: Path) -> None:
        run(["cmp", str(self._source), str(point / self._source.name)])


class Untar:
    """``tar -x`` of many small files in many directories."""

    def __init__(self, source: Path, directories: int, files: int, size: int) -> None:
        plant(source, directories, files, size)
        self._source = source
        self._archive = source.with_suffix(".tar")
        with tarfile.open(self._archive, "w") as archive:
            archive.add(source, source.name)

    def write(self, point: Path) -> None:
        run(["tar", "-x", "-f", str(self._archive), "-C", str(point)])

    def check(self, point: Path) -> None:
        same_tree(self._source, point / self._source.name)


class Create:
    """Create, write and close small files, one after the other, with nothing around it."""

    def __init__(self, name: str, files: int, size: int) -> None:
        self._name = name
        self._contents = [os.urandom(size) for _ in range(files)]

    def write(self, point: Path) -> None:
        folder = os.fsencode(point / self._name)
        os.mkdir(folder)
        for number, contents in enumerate(self._contents):
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
            file = os.open(b"%b/file-%d" % (folder, number), flags, 0o644)
            os.write(file, contents)
            os.close(file)

    def check(self, point: Path) -> None:
        for number, contents in enumerate(self._contents):
            if (point / self._name / f"file-{number}").read_bytes() != contents:
                raise RuntimeError(f"file-{number} is not what was written")
