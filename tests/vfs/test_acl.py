"""Access control lists in the form the kernel hands them over."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.vfs.api import InvalidRequestError
from lafsfs.vfs.posix import acl
from lafsfs.vfs.posix.acl import Acl, Entry

MINIMAL = (Entry(acl.USER_OBJ, 6), Entry(acl.GROUP_OBJ, 4), Entry(acl.OTHER, 0))
NAMED = (
    Entry(acl.USER_OBJ, 7),
    Entry(acl.USER, 6, 1000),
    Entry(acl.GROUP_OBJ, 5),
    Entry(acl.MASK, 6),
    Entry(acl.OTHER, 1),
)


def packed(*entries: Entry, version: int = 2) -> bytes:
    return struct.pack("<I", version) + b"".join(
        struct.pack("<HHI", e.tag, e.permissions, e.who) for e in entries
    )


def test_round_trip_and_mode():
    assert Acl.parse(packed(*NAMED)).pack() == packed(*NAMED)
    assert Acl.parse(packed(*NAMED)).mode == 0o761
    assert Acl.parse(packed(*MINIMAL)).mode == 0o640
    assert Acl.parse(packed(*MINIMAL)).is_minimal
    assert not Acl.parse(packed(*NAMED)).is_minimal


def test_chmod_changes_the_mask_and_not_the_owning_group():
    after = Acl.parse(packed(*NAMED)).with_mode(0o640)
    assert after.mode == 0o640
    assert Entry(acl.GROUP_OBJ, 5) in after.entries
    assert Entry(acl.MASK, 4) in after.entries


def test_inheritance_is_limited_by_the_mode_of_creation():
    assert acl.inherited(Acl(NAMED), 0o666).mode == 0o660
    assert Entry(acl.USER, 6, 1000) in acl.inherited(Acl(NAMED), 0o600).entries


@pytest.mark.parametrize(
    "value",
    [
        b"",
        packed(),
        packed(*MINIMAL)[:-1],
        packed(*MINIMAL, version=1),
        packed(*MINIMAL[:2]),
        packed(*MINIMAL, MINIMAL[0]),
        packed(*MINIMAL, Entry(acl.USER, 4, 7)),
        packed(*NAMED, Entry(acl.USER, 4, 1000)),
        packed(*MINIMAL, Entry(0x40, 4)),
        packed(MINIMAL[0], MINIMAL[1], Entry(acl.OTHER, 8)),
    ],
)
def test_malformed_lists_are_refused(value):
    assert not acl.is_valid(value)
    with pytest.raises(InvalidRequestError):
        Acl.parse(value)


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_a_list_or_refused(value):
    if acl.is_valid(value):
        assert Acl.parse(value).pack() == value
