"""What ``lafsfs status`` says, word for word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lafsfs.cli.showing_status import duration, shown
from lafsfs.vfs.status import (
    Left,
    PendingFile,
    ServerState,
    State,
    Status,
    pending_amount,
    shown_size,
)

NOW = 1_700_000_000.0
SETTLED = Status(
    now=NOW,
    files=0,
    names=0,
    failed=0,
    size=0,
    done=0,
    rate=0.0,
    settled=NOW,
    journal=0,
    pending=(),
    servers=(ServerState("one", 0), ServerState("two", 0)),
)
BUSY = replace(
    SETTLED,
    files=2,
    names=1,
    failed=1,
    size=9_000_000,
    done=3_000_000,
    rate=1_500_000.0,
    settled=NOW - 90,
    pending=(
        PendingFile("b", State.FAILED, 1_000_000, 0, NOW - 90, "too few servers"),
        PendingFile("a/big", State.UPLOADING, 8_000_000, 3_000_000, NOW - 60),
        PendingFile("a", State.PUBLISHING, 0, 0, NOW - 2),
    ),
    journal=10_000_000,
    servers=(ServerState("one", 2), ServerState("two", 0)),
)


def test_settled():
    assert list(shown("/mnt", SETTLED)) == ["/mnt: everything is on the grid"]


def test_on_its_way():
    first, settled, rate, *files, journal, away = shown("/mnt", BUSY)
    assert first == (
        "/mnt: 2 files (9.0 MB) and 1 change of names or attributes not on the grid yet"
    )
    assert settled.endswith(", 90 s ago; 1 failed")
    assert rate == "  3.0 MB of 9.0 MB placed, 1.5 MB/s, about 4 s to go"
    assert [line.split() for line in files] == [
        ["failed", "1.0", "MB", "b"],
        ["too", "few", "servers"],
        ["uploading", "37%", "of", "8.0", "MB", "a/big"],
        ["publishing", "a"],
    ]
    assert journal == "  the journal takes 10.0 MB on this machine"
    assert away == "  not answering: one (1 of 2 servers)"


def test_many_files_are_cut_short_unless_all_are_wanted():
    pending = tuple(PendingFile(f"f{n}", State.ACCEPTED, 1, 0, NOW) for n in range(200))
    many = replace(SETTLED, files=1000, pending=pending)
    lines = list(shown("/mnt", many))
    assert lines[-1] == "  and 990 more"
    assert len(lines) == 13
    assert list(shown("/mnt", many, everything=True))[-1] == "  and 800 more"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0 s"), (0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (1e6, "11 days")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (123_456, "123 kB"),
        (5e9, "5.0 GB"),
        (7e15, "7000.0 TB"),
    ],
)
def test_sizes(size, words):
    assert shown_size(size) == words


def test_what_is_left():
    assert pending_amount(0, 0, 0) == "nothing"
    assert pending_amount(0, 3, 0) == "3 changes of names or attributes"
    assert str(Left.of(BUSY, "too few servers")).startswith(
        "2 files (9.0 MB) and 1 change of names or attributes not on the grid (too few servers): "
        "that stays in the journal"
    )
