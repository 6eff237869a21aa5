"""The two slots of a directory entry: known, unknown, and what must not be kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.caps import (
    Cap,
    UnknownCap,
    parse,
    parse_child,
    slots_of,
    strip_implied_prefix,
)
from lafsfs.errors import BadCapabilityError, DeepImmutableError
from tests.caps.strategies import caps, unknown_texts

KEY, HASH = "a" * 26, "a" * 52
WRITE, READ, VERIFY = (f"URI:SSK{mark}:{KEY}:{HASH}" for mark in ("", "-RO", "-Verifier"))
LITERAL = "URI:LIT:km"
FUTURE = "x-tahoe-future:abc"

both = pytest.mark.parametrize("deep", [False, True], ids=["mutable", "deep-immutable"])


@given(caps.filter(lambda cap: cap.can_read))
def test_known_children_come_back_from_what_is_stored_for_them(cap: Cap) -> None:
    write, read = slots_of(cap)
    assert (write is not None) == cap.can_write
    assert parse_child(write, read) == cap
    padded = None if write is None else write + "   "
    assert parse_child(padded, f"{read}  ") == cap
    assert parse_child(cap.danger_text(), None) == cap
    assert parse_child(None, read) == cap.read_cap()
    if not cap.is_mutable:
        assert parse_child(write, read, deep_immutable=True) == cap


def test_a_known_write_capability_in_the_read_slot_cannot_write() -> None:
    assert parse_child(None, WRITE) == parse(WRITE).read_cap()


@both
def test_nothing_at_all_is_an_opaque_child(deep: bool) -> None:
    empty = UnknownCap(None, None)
    assert parse_child(None, None, deep_immutable=deep) == empty
    assert parse_child("", "  ", deep_immutable=deep) == empty
    assert empty.is_allegedly_immutable
    assert (empty.danger_text(), empty.kind, empty.rights) == ("", "unknown", "unknown")


# (write, read, deep-immutable) -> the two slots kept, or the error
@pytest.mark.parametrize(
    ("write", "read", "deep", "expected"),
    [
        (None, FUTURE, False, (None, "ro." + FUTURE)),
        (None, "ro." + FUTURE, False, (None, "ro." + FUTURE)),
        (None, "imm." + FUTURE, False, (None, "imm." + FUTURE)),
        (None, FUTURE, True, (None, "imm." + FUTURE)),
        (None, "ro." + FUTURE, True, (None, "imm." + FUTURE)),
        (None, "imm." + FUTURE, True, (None, "imm." + FUTURE)),
        (FUTURE, None, False, BadCapabilityError),
        (FUTURE, None, True, DeepImmutableError),
        ("ro." + FUTURE, None, False, (None, "ro." + FUTURE)),
        ("ro." + FUTURE, None, True, DeepImmutableError),
        ("imm." + FUTURE, None, False, (None, "imm." + FUTURE)),
        ("imm." + FUTURE, None, True, (None, "imm." + FUTURE)),
        (FUTURE, FUTURE + "2", False, (FUTURE, "ro." + FUTURE + "2")),
        (FUTURE, "ro." + FUTURE, False, (FUTURE, "ro." + FUTURE)),
        (FUTURE, "imm." + FUTURE, False, DeepImmutableError),
        (FUTURE, FUTURE, True, DeepImmutableError),
        (FUTURE, READ, False, (FUTURE, "ro." + READ)),
        (FUTURE, WRITE, False, BadCapabilityError),
        (None, VERIFY, False, (None, "ro." + VERIFY)),
        (None, VERIFY, True, (None, "imm." + VERIFY)),
        (VERIFY, None, False, BadCapabilityError),
        (WRITE, READ, True, DeepImmutableError),
        (None, READ, True, DeepImmutableError),
        (None, "imm." + READ, False, DeepImmutableError),
        (None, "ro." + WRITE, False, BadCapabilityError),
        (None, "URI:CHK:broken", False, BadCapabilityError),
        (None, "URI:CHK:broken", True, BadCapabilityError),
        ("URI:SSK:broken", None, False, BadCapabilityError),
        ("URI:SSK:broken", READ, False, ("URI:SSK:broken", "ro." + READ)),
        ("URI:SSK:broken", "URI:SSK-RO:broken", False, BadCapabilityError),
        (None, FUTURE * 10000, False, BadCapabilityError),
    ],
)
def test_unknown_children(
    write: str | None,
    read: str | None,
    deep: bool,
    expected: tuple[str | None, str | None] | type[Exception],
) -> None:
    if not isinstance(expected, tuple):
        with pytest.raises(expected) as caught:
            parse_child(write, read, deep_immutable=deep)
        assert KEY not in str(caught.value)
        assert FUTURE not in str(caught.value)
        return
    child = parse_child(write, read, deep_immutable=deep)
    assert child == UnknownCap(*expected)
    assert slots_of(child) == expected
    assert child.is_mutable == (not (expected[1] or "").startswith("imm."))


@given(unknown_texts, unknown_texts, st.booleans())
def test_unknown_children_survive_storing_and_reading(write: str, read: str, deep: bool) -> None:
    child = parse_child(None if deep else write, read, deep_immutable=deep)
    assert isinstance(child, UnknownCap)
    kept_write, kept_read = slots_of(child)
    assert kept_read is not None
    stored = strip_implied_prefix(kept_read, deep_immutable=deep)
    assert parse_child(kept_write, stored, deep_immutable=deep) == child


@pytest.mark.parametrize(
    ("read", "deep", "stored"),
    [
        (LITERAL, False, LITERAL),
        ("ro." + FUTURE, False, FUTURE),
        ("ro." + FUTURE, True, FUTURE),
        ("imm." + FUTURE, False, "imm." + FUTURE),
        ("imm." + FUTURE, True, FUTURE),
    ],
)
def test_only_the_promise_that_the_place_implies_is_dropped(
    read: str, deep: bool, stored: str
) -> None:
    assert strip_implied_prefix(read, deep_immutable=deep) == stored


def test_an_unknown_child_gives_away_nothing() -> None:
    child = UnknownCap(FUTURE, "ro." + FUTURE)
    assert FUTURE not in repr(child)
    assert child.digest in repr(child)
    assert child.read_cap() == UnknownCap(None, "ro." + FUTURE)
    assert (child.verify_cap(), child.storage_index) == (None, None)
    assert not child.can_read
    assert not child.can_write
    assert not child.is_directory
    assert child.is_mutable


def test_text_that_is_no_text_still_has_a_digest() -> None:
    assert len(UnknownCap(None, "ro.\udcff").digest) == 8


slots = st.one_of(st.none(), unknown_texts, caps.map(lambda cap: cap.danger_text()), st.text())
prefixed = st.tuples(st.sampled_from(["", "ro.", "imm."]), slots).map(
    lambda pair: None if pair[1] is None else pair[0] + pair[1]
)


@given(prefixed, prefixed, st.booleans())
def test_no_slots_raise_anything_else(write: str | None, read: str | None, deep: bool) -> None:
    try:
        child = parse_child(write, read, deep_immutable=deep)
    except (BadCapabilityError, DeepImmutableError):
        return
    if deep:
        assert not child.is_mutable
        assert not child.can_write
    if write is None:
        assert not child.can_write
