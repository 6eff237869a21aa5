"""What the comparison of writing computes; what it measures is for ``make bench``."""

from __future__ import annotations

import cProfile
from typing import TYPE_CHECKING

import pytest

from tests.bench.cases import Cost
from tests.bench.comparing import ACCEPTED, AGAIN, Plan, Result, duration, row_of
from tests.bench.mounts import run
from tests.bench.profiling import sampled, traced
from tests.bench.works import Copy, Untar, literal_bytes

if TYPE_CHECKING:
    from pathlib import Path

STATS = """
Number of files: 106 (reg: 100, dir: 6)
Total transferred file size: 1000000 bytes
Literal data: 990000 bytes
Matched data: 10000 bytes
"""


def results(*seconds: float, phase: str = ACCEPTED, content: int | None = None) -> list[Result]:
    return [Result({phase: Cost(s, s / 2)}, content) for s in seconds]


def test_a_row_compares_medians() -> None:
    row = row_of(Plan(ACCEPTED, "this", "that", 4), results(1, 9, 2), results(8, 8.5, 7))
    assert (row.ours, row.theirs, row.ratio) == (2, 8, 4)
    assert (row.processor_ours, row.processor_theirs) == (1, 4)
    assert row.met is True
    assert row.rounds == [(1, 8), (9, 8.5), (2, 7)]
    assert str(row) == "| this | 2 s | that 8 s | 4 | 4 | met | 1.00 s | 4.00 s |"


def test_a_row_is_of_one_thing_of_many() -> None:
    row = row_of(Plan(ACCEPTED, "this", "that", 3, each=100), results(2), results(4))
    assert (row.ours, row.theirs, row.ratio, row.met) == (0.02, 0.04, 2, False)
    assert "| 20 ms | that 40 ms | 2 | 3 | missed |" in str(row)


def test_what_transfers_content_again_misses_whatever_its_ratio() -> None:
    plan = Plan(AGAIN, "this", "that", 2)
    theirs = results(10, phase=AGAIN, content=7)
    assert row_of(plan, results(1, phase=AGAIN, content=0), theirs).met is True
    row = row_of(plan, results(1, phase=AGAIN, content=1), theirs)
    assert row.met is False
    assert row.content == (1, 7)


def test_a_row_without_a_goal_is_neither_met_nor_missed() -> None:
    row = row_of(Plan(ACCEPTED, "this", "that", None), results(1), results(1))
    assert row.met is None
    assert "| measured |  |" in str(row)


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.34, "12.3 s"), (0.0321, "32.1 ms"), (0.000651, "651 us")]
)
def test_durations_have_the_unit_that_suits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_rsync_says_what_it_transferred() -> None:
    assert literal_bytes(STATS) == 990000


def test_samples_are_added_up_by_function() -> None:
    stacks = [
        "thread (7): MainThread;main (/x/site-packages/trio/a.py:1);read (/x/lafsfs/vfs/a.py:2) 30",
        "thread (7): MainThread;main (/x/site-packages/trio/a.py:1) 10",
        "thread (8): Trio thread 3;f (/y/lafsfs/lafsfs/b.py:3);f (/y/lafsfs/lafsfs/b.py:3) 20",
        "thread (9): Trio thread 12;f (/y/lafsfs/lafsfs/b.py:3) 20",
        "thread (9): Trio thread 12;WorkerThread._work (/x/site-packages/trio/b.py:1) 500",
    ]
    spent = {entry.function: (entry.itself, entry.below) for entry in sampled(stacks, 10)}
    assert spent == {
        "[thread MainThread]": (0, 4),
        "[thread Trio thread]": (0, 4),
        "main (trio/a.py:1)": (1, 4),
        "read (lafsfs/vfs/a.py:2)": (3, 3),
        "f (lafsfs/b.py:3)": (4, 4),
    }


def test_profiles_are_read(tmp_path: Path) -> None:
    path = tmp_path / "profile"
    profile = cProfile.Profile()
    profile.runcall(duration, 1.0)
    profile.dump_stats(path)
    (entry,) = [entry for entry in traced([str(path)]) if entry.function.startswith("duration")]
    assert entry.calls == 1


def test_works_see_what_is_not_as_it_was_written(tmp_path: Path) -> None:
    point = tmp_path / "point"
    point.mkdir()
    untar = Untar(tmp_path / "untar", 2, 4, 10)
    copy = Copy(tmp_path / "copy", 100)
    for work, damaged in ((untar, "untar/directory-0/file-2.dat"), (copy, "copy")):
        work.write(point)
        work.check(point)
        (point / damaged).write_bytes(b"something else")
        with pytest.raises(RuntimeError, match="ended with 1"):
            work.check(point)


def test_a_command_that_fails_is_told_with_what_it_said() -> None:
    with pytest.raises(RuntimeError, match=r"cat ended with 1: .*nowhere"):
        run(["cat", "nowhere"])
    assert run(["sh", "-c", "echo some; exit 23"], allowed=(0, 23)) == "some\n"
