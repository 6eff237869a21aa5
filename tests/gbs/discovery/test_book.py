"""Only what was signed by its key, and is newer, gets into the book."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.crypto import base32
from lafsfs.errors import FormatError, HashMismatchError
from lafsfs.gbs.discovery.cache import Announcement
from lafsfs.gbs.discovery.introducer.book import MAX_MESSAGE, MAX_TOTAL, Book, open_signed
from tests.gbs.discovery.announced import Signer, announcement

ONE = Signer("one")
GOOD = ONE.signed(announcement("one"))


def test_what_introducers_deliver() -> None:
    found = open_signed(GOOD)
    assert found.key == ONE.key
    assert found.values == announcement("one")
    assert "swissnum" not in repr(found)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_every_byte_is_signed_for(part: int) -> None:
    for position in range(0, len(GOOD[part]), 7):
        broken = [bytearray(piece) for piece in GOOD]
        broken[part][position] ^= 1
        with pytest.raises(FormatError):
            open_signed(tuple(map(bytes, broken)))


def test_one_server_cannot_speak_for_another() -> None:
    message, signature, _ = GOOD
    with pytest.raises(HashMismatchError):
        open_signed((message, signature, Signer("two").key.encode()))
    with pytest.raises(HashMismatchError):
        open_signed((message, Signer("two").signed(announcement("one"))[1], ONE.key.encode()))


@pytest.mark.parametrize(
    "signed",
    [
        None,
        (),
        GOOD[:2],
        [*GOOD],
        (GOOD[0], None, None),
        (GOOD[0].decode(), *GOOD[1:]),
        (GOOD[0], b"v1-" + GOOD[1][3:], GOOD[2]),
        (GOOD[0], GOOD[1], b"pub-" + GOOD[2]),
        (GOOD[0], GOOD[1], b"v0-"),
        (GOOD[0], GOOD[1], b"\xff"),
        (b"x" * (MAX_MESSAGE + 1), *GOOD[1:]),
        ONE.signed([]),
        ONE.signed("text"),
        ONE.signed(5),
    ],
)
def test_what_is_refused(signed: Any) -> None:
    with pytest.raises(FormatError):
        open_signed(signed)


@settings(max_examples=100)
@given(st.binary(max_size=60) | st.just(b"[" * 15_000) | st.just(b"9" * 10_000))
def test_signed_nonsense(message: bytes) -> None:
    signature = b"v0-" + base32.encode(ONE.sign(message)).encode()
    try:
        found = open_signed((message, signature, ONE.key.encode()))
    except FormatError:
        return
    assert isinstance(found.values, dict)


def test_only_newer_announcements_replace() -> None:
    book = Book([])
    assert book.admit(ONE.signed(announcement("one", 5)))
    assert not book.admit(ONE.signed(announcement("one", 5)))
    assert not book.admit(ONE.signed(announcement("replayed", 5)))
    assert not book.admit(ONE.signed(announcement("replayed", 4)))
    assert not book.admit(ONE.signed(announcement("one", seqnum=None)))
    assert not book.admit(ONE.signed(announcement("one", seqnum="9")))
    assert book.admit(ONE.signed(announcement("moved", 6)))
    assert [a.values["nickname"] for a in book.announcements] == ["moved"]


def test_what_is_in_the_cache_counts_as_heard() -> None:
    known = Announcement(ONE.key, announcement("one", 5))
    book = Book([known])
    assert not book.admit(ONE.signed(announcement("replayed", 4)))
    assert book.admit(Signer("two").signed(announcement("two")))
    assert [a.key for a in book.announcements] == [ONE.key, Signer("two").key]


def test_other_services_do_not_count() -> None:
    book = Book([])
    assert not book.admit(ONE.signed(announcement("one") | {"service-name": "stub_client"}))
    assert not book.admit(ONE.signed({}))
    assert book.announcements == []


def test_a_flood_does_not_drive_out_what_is_known() -> None:
    book = Book([])
    assert book.admit(GOOD)
    padding = {"padding": "x" * (MAX_MESSAGE - 1000)}
    count = 0
    with suppress(FormatError):
        while book.admit(Signer(f"flood {count}").signed(announcement("x") | padding)):
            count += 1
    with pytest.raises(FormatError, match="too many"):
        book.admit(Signer("another").signed(announcement("x") | padding))
    assert count > 100
    assert len(json.dumps([a.values for a in book.announcements])) <= MAX_TOTAL + 10_000
    assert book.announcements[0].key == ONE.key
    assert book.admit(ONE.signed(announcement("one", 2)))
