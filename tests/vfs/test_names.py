"""Names: what programs see and what tables hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.errors import BadNameError, NameTooLongError
from lafsfs.vfs.posix import names

NFD = "e\u0301".encode()
NFC = "\u00e9"


def test_other_spellings_are_stored_as_nfc_and_remembered():
    stored = names.stored_name(NFD)
    assert stored == NFC
    assert names.raw_name(NFD, stored) == NFD
    assert names.raw_name(NFC.encode(), stored) is None
    assert names.local_name(stored, NFD) == NFD
    assert names.local_name(stored) == NFC.encode()


@pytest.mark.parametrize("raw", [b"other", b"\xff", b"e/\xcc\x81", b"", b"x" * 300])
def test_a_raw_name_that_is_not_a_spelling_is_ignored(raw):
    assert names.local_name(NFC, raw) == NFC.encode()


@pytest.mark.parametrize("local", [b"", b".", b"..", b"a/b", b"a\0b", b"\xff", b"\xed\xb2\x80"])
def test_what_cannot_be_stored_is_refused(local):
    with pytest.raises(BadNameError):
        names.stored_name(local)


def test_too_long():
    assert names.stored_name(b"x" * 255) == "x" * 255
    with pytest.raises(NameTooLongError):
        names.stored_name(b"x" * 256)


@pytest.mark.parametrize("stored", ["a/b", ".", "..", "", "x\0y", "é" * 200, "\ud800", "/" * 300])
def test_what_cannot_be_shown_is_escaped(stored):
    local = names.local_name(stored)
    if stored == "\ud800":
        assert local == b"\xed\xa0\x80"  # bytes that a program can use, if only to remove it
        return
    assert names.is_representable(local)
    assert names.may_be_escaped(local)
    assert names.local_name(stored) == local


def test_escaped_names_are_readable_and_distinct():
    assert names.local_name("a/b").startswith(b"a%2Fb.lafs-")
    assert names.local_name("a/b") != names.local_name("a%2Fb")
    assert not names.may_be_escaped(b"a%2Fb.lafs-short")


@given(st.text())
def test_every_stored_name_has_a_usable_local_one(stored):
    assert names.is_representable(names.local_name(stored))


@given(st.binary(max_size=300))
def test_local_names_come_back_or_are_refused(local):
    try:
        stored = names.stored_name(local)
    except (BadNameError, NameTooLongError):
        return
    assert names.local_name(stored, names.raw_name(local, stored)) == local
