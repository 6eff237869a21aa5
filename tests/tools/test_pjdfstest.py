"""The runner of pjdfstest reads TAP and compares it with what is expected."""

from __future__ import annotations

import re

import pytest

from tests.test_docs import SEMANTICS
from tests.tools.pjdfstest import (
    EXPECTED,
    Result,
    differences,
    numbers_of,
    parse_expected,
    parse_tap,
    ranges_of,
)

TAP = """1..5
ok 1
not ok 2 - tried 'mkdir x', expected 0, got EIO
not ok 3 # TODO known elsewhere
ok 4 - with words
"""


def test_tap_is_read():
    assert parse_tap(TAP) == Result(
        5, {2: "tried 'mkdir x', expected 0, got EIO", 5: "did not run"}
    )
    with pytest.raises(ValueError, match="no plan"):
        parse_tap("sh: not found")


def test_numbers_and_ranges():
    assert numbers_of("3,5-7") == {3, 5, 6, 7}
    assert ranges_of({7, 3, 6, 5}) == "3,5-7"


def test_both_kinds_of_differences_count():
    results = {"a.t": parse_tap(TAP), "b.t": Result(2)}
    assert differences(results, {"a.t": frozenset({2, 5})}) == []
    assert differences(results, {"a.t": frozenset({5}), "b.t": frozenset({1, 2})}) == [
        "a.t 2: tried 'mkdir x', expected 0, got EIO",
        "b.t 1-2: expected to fail, and did not",
    ]


def test_an_expected_failure_needs_a_reason():
    with pytest.raises(ValueError, match="a reason"):
        parse_expected("open/00.t 1-3")


def test_the_documentation_lists_them_all():
    listed = re.findall(
        r"^\| `([a-z]+/\d+\.t)` \| ([\d, -]+) \|", SEMANTICS.read_text(), re.MULTILINE
    )
    documented = {name: numbers_of(numbers.replace(" ", "")) for name, numbers in listed}
    assert documented == parse_expected(EXPECTED.read_text())
