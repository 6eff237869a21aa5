"""A few thousand random operations; ``make test-random`` does as many as you like."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from tests.tools.random_checker import Checker, Disagreement
from tests.tools.random_ops import run
from tests.tools.random_verbs import changing_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.tools.folder import Folder
    from tests.tools.random_checker import Side

OPERATIONS = 3000
SEED = 20261120  # the same operations every time: a failure can be had again


def test_a_mount_and_a_plain_directory_stay_the_same(tmp_path):
    check = run(tmp_path, OPERATIONS, SEED, batch=100, remounts=1000)
    assert check.done == OPERATIONS
    assert all(done for done, _ in check.counts.values()), check.counts


class Plain:
    """What looks like a mount to the checker, and is another plain directory."""

    def __init__(self, path):
        self.path = path

    def remount(self):
        pass


@pytest.fixture
def check(tmp_path: Path) -> Iterator[Checker]:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    check = Checker(tmp_path / "one", cast("Folder", Plain(tmp_path / "two")), 1)
    yield check
    check.plain.close_all()
    check.mounted.close_all()


def write_more(path: str) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def change_a_byte(path: str) -> None:
    status = os.stat(path)
    with open(path, "r+b") as file:
        file.write(b"!")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def exchange(one: str, two: str) -> None:
    os.rename(one, f"{one} passing")
    os.rename(two, one)
    os.rename(f"{one} passing", two)


FAULTS: dict[str, Callable[[Side], object]] = {
    "size": lambda side: write_more(side.at("t/file")),
    "contents": lambda side: change_a_byte(side.at("t/file")),
    "mode": lambda side: os.chmod(side.at("t/file"), 0o611),
    "mtime": lambda side: os.utime(side.at("t/file"), (5, 5)),
    "xattrs": lambda side: os.setxattr(side.at("t/file"), "user.x", b"y"),
    "one side only": lambda side: os.rename(side.at("t/file"), side.at("t/moved")),
    "nlink": lambda side: os.link(side.at("t/file"), side.root.with_name("elsewhere")),
    "hard links": lambda side: exchange(side.at("t/a b"), side.at("t/c d")),
    "which is open": lambda side: os.ftruncate(side.files[1], 3),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_kind_of_difference_is_found(check, fault):
    for side in (check.plain, check.mounted):
        for name in ("file", "a", "c", "open"):
            Path(side.at(f"t/{name}")).write_bytes(b"contents")
        os.link(side.at("t/a"), side.at("t/a b"))
        os.link(side.at("t/c"), side.at("t/c d"))
        side.files[1] = os.open(side.at("t/open"), os.O_RDWR)
        os.unlink(side.at("t/open"))
    check.compare()
    FAULTS[fault](check.mounted)
    with pytest.raises(Disagreement, match=fault):
        check.compare()


def test_another_result_is_found(check):
    os.mkdir(check.mounted.at("t/there"))
    with pytest.raises(Disagreement, match="None instead of ENOENT"):
        check.both("rmdir", "rmdir t/there", lambda side: os.rmdir(side.at("t/there")))


def test_a_time_that_does_not_move_is_found(check):
    def call(side: Side) -> None:
        before = os.stat(side.at("t"))
        os.mkdir(side.at("t/new"))
        os.utime(side.at("t"), ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(Disagreement, match="the mtime of t did not move"):
        changing_names(check, "mkdir", "mkdir t/new", call, "t/new")
