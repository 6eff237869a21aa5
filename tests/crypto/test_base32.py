"""Base32: one spelling for every value, and no other accepted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.crypto import base32
from lafsfs.errors import FormatError
from tests import golden_data as golden


@given(st.binary(max_size=80))
def test_round_trip(data: bytes) -> None:
    text = base32.encode(data)
    assert base32.decode(text) == base32.decode(text, len(data)) == data


@given(st.binary(max_size=80), st.integers(min_value=0, max_value=100))
def test_another_size_is_refused(data: bytes, size: int) -> None:
    if size == len(data):
        size += 1
    with pytest.raises(FormatError, match=f"{len(data)} bytes where {size} are needed"):
        base32.decode(base32.encode(data), size)


@given(st.text(max_size=30) | st.text(base32.ALPHABET + "=A1 _", max_size=30))
def test_whatever_is_accepted_is_what_encode_writes(text: str) -> None:
    try:
        data = base32.decode(text)
    except FormatError:
        return
    assert base32.encode(data) == text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("ME", "character outside"),
        ("me======", "character outside"),
        ("m1", "character outside"),
        ("m_", "character outside"),
        (" me", "character outside"),
        ("+m", "character outside"),
        ("mé", "character outside"),
        ("m\N{LATIN SMALL LETTER DOTLESS I}", "character outside"),
        ("m", "1 characters"),
        ("mem", "3 characters"),
        ("memmem", "6 characters"),
        ("mf", "trailing bits"),
        ("mezb", "trailing bits"),
    ],
)
def test_faults_are_named_and_the_text_is_not_shown(text: str, fault: str) -> None:
    with pytest.raises(FormatError, match=fault) as caught:
        base32.decode(text)
    assert text not in str(caught.value).split()
    assert caught.value.__cause__ is None


def test_known_values() -> None:
    # RFC 4648, section 10, in lower case and without padding.
    expected = {b"": "", b"f": "my", b"fo": "mzxq", b"foo": "mzxw6", b"foobar": "mzxw6ytboi"}
    assert {data: base32.encode(data) for data in expected} == expected


def test_fields_of_stock_capabilities() -> None:
    for entry in golden.OBJECTS.values():
        for text in entry.cap.split(":")[2:4]:
            assert base32.encode(base32.decode(text)) == text
