"""Netstrings as foreign bytes have them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.crypto.hashes import netstring
from lafsfs.errors import FormatError
from lafsfs.formats.netstring import parse_netstring, parse_number


@given(st.binary(max_size=50), st.binary(max_size=50), st.binary(max_size=50))
def test_one_among_others(before, data, after):
    packed = netstring(data)
    position = len(before)
    parsed = parse_netstring(before + packed + after, position)
    assert parsed == (data, position + len(packed))


@given(st.binary(max_size=30))
def test_only_the_canonical_form_parses(data):
    try:
        content, end = parse_netstring(data, 0)
    except FormatError:
        return
    assert netstring(content) == data[:end]


@pytest.mark.parametrize(
    "data",
    [b"", b"1", b":,", b"1:", b"1:a", b"1:a;", b"2:a,", b"01:a,", b"+1:a,", b" 1:a,", b"1 :a,"],
)
def test_malformed_netstrings_are_refused(data):
    with pytest.raises(FormatError):
        parse_netstring(data, 0)


def test_a_length_that_goes_on_and_on_is_refused_without_being_read():
    with pytest.raises(FormatError):
        parse_netstring(b"1" * 1000 + b":x,", 0)
    with pytest.raises(FormatError):
        parse_number(b"1" * 20)


@given(st.integers(0, 10**19 - 1))
def test_numbers_round_trip(number):
    assert parse_number(b"%d" % number) == number
