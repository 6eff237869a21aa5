"""Every capability that stock wrote, and every one that could be, survives text and attenuation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.caps import (
    Cap,
    CHKCap,
    DirectoryCap,
    LiteralCap,
    MutableFormat,
    MutableReadCap,
    MutableVerifyCap,
    MutableWriteCap,
    parse,
)
from lafsfs.errors import BadCapabilityError
from tests import golden_data as golden
from tests.caps.strategies import caps

GOLDEN = [*golden.OBJECTS.values(), *golden.TREES.values()]
KINDS = {"DIR2-sdmf": "DIR2", "DIR2-mdmf": "DIR2-MDMF"}  # the manifest's names where they differ


@pytest.mark.parametrize("entry", GOLDEN, ids=lambda entry: entry.name)
def test_golden_capabilities(entry: golden.GoldenObject | golden.GoldenTree) -> None:
    cap = parse(entry.cap)
    assert cap.danger_text() == entry.cap
    assert cap.kind == KINDS.get(entry.kind, entry.kind)
    assert cap.storage_index == entry.storage_index
    assert cap.is_directory == isinstance(entry, golden.GoldenTree)
    assert cap.can_write == (entry.cap != entry.ro) == cap.is_mutable
    assert cap.read_cap() == parse(entry.ro)
    assert cap.read_cap().danger_text() == entry.ro
    verify_cap = cap.verify_cap()
    assert (None if verify_cap is None else verify_cap.danger_text()) == entry.verify
    if isinstance(cap, LiteralCap | CHKCap):
        assert isinstance(entry, golden.GoldenObject)
        assert cap.size == entry.size
    if isinstance(cap, LiteralCap):
        assert cap.data == golden.contents(entry.name)


@pytest.mark.parametrize("entry", [e for e in GOLDEN if e.verify], ids=lambda entry: entry.name)
def test_golden_weaker_capabilities_stay_weak(entry: golden.GoldenObject) -> None:
    read_cap, verify_cap = parse(entry.ro), parse(entry.verify or "")
    assert read_cap.read_cap() == read_cap
    assert read_cap.verify_cap() == verify_cap
    assert read_cap.rights == "read-only"
    assert verify_cap.rights == "verify-only"
    assert verify_cap.read_cap() == verify_cap.verify_cap() == verify_cap
    assert verify_cap.storage_index == read_cap.storage_index == entry.storage_index
    assert verify_cap.kind == read_cap.kind


@given(caps)
def test_text_round_trip(cap: Cap) -> None:
    assert parse(cap.danger_text()) == cap
    assert hash(parse(cap.danger_text())) == hash(cap)


@given(caps)
def test_attenuation_only_ever_loses_rights(cap: Cap) -> None:
    read_cap, verify_cap = cap.read_cap(), cap.verify_cap()
    assert not read_cap.can_write
    assert read_cap.can_read == cap.can_read
    assert (read_cap.kind, read_cap.storage_index) == (cap.kind, cap.storage_index)
    assert read_cap.is_mutable == cap.is_mutable
    if verify_cap is None:
        assert cap.storage_index is None
    else:
        assert not verify_cap.can_read
        assert not verify_cap.can_write
        assert (verify_cap.kind, verify_cap.storage_index) == (cap.kind, cap.storage_index)
        assert verify_cap == read_cap.verify_cap()
    assert cap.is_directory == read_cap.is_directory


@given(caps)
def test_only_danger_text_shows_the_capability(cap: Cap) -> None:
    shown = f"{cap!r} {cap}"
    assert cap.digest in shown
    for field in cap.danger_text().split(":")[2:4]:
        assert len(field) < 8 or field not in shown
    assert "b'" not in shown
    assert "b'" not in repr([cap])


@given(caps, caps)
def test_digests_tell_capabilities_apart(one: Cap, other: Cap) -> None:
    assert (one.digest == other.digest) == (one == other)
    assert len(one.digest) == 8


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_constructors_refuse_wrong_lengths(key: bytes, fingerprint: bytes) -> None:
    right = len(key) == 16 and len(fingerprint) == 32
    for make in (MutableWriteCap, MutableReadCap, MutableVerifyCap):
        if right:
            assert make(MutableFormat.SDMF, key, fingerprint).fingerprint == fingerprint
        else:
            with pytest.raises(BadCapabilityError):
                make(MutableFormat.SDMF, key, fingerprint)


@pytest.mark.parametrize(
    ("k", "n", "size"),
    [(0, 1, 1), (2, 1, 1), (1, 0, 1), (1, 257, 1), (-1, 3, 1), (1, 1, -1), (1, 1, 2**63)],
)
def test_constructors_refuse_impossible_encodings(k: int, n: int, size: int) -> None:
    with pytest.raises(BadCapabilityError):
        CHKCap(bytes(16), bytes(32), k, n, size)


def test_a_huge_literal_is_refused() -> None:
    assert LiteralCap(bytes(4096)).size == 4096
    with pytest.raises(BadCapabilityError):
        LiteralCap(bytes(4097))


def test_directories_wear_the_rights_of_their_backing() -> None:
    write = DirectoryCap(MutableWriteCap(MutableFormat.MDMF, bytes(16), bytes(32)))
    assert (write.kind, write.rights, write.is_directory) == ("DIR2-MDMF", "read-write", True)
    assert write.danger_text().startswith("URI:DIR2-MDMF:")
    assert write.read_cap().danger_text().startswith("URI:DIR2-MDMF-RO:")
    verify_cap = write.verify_cap()
    assert verify_cap is not None
    assert verify_cap.danger_text().startswith("URI:DIR2-MDMF-Verifier:")
    literal = DirectoryCap(LiteralCap(b""))
    assert (literal.verify_cap(), literal.storage_index) == (None, None)
    assert not literal.is_mutable
