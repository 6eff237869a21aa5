"""What becomes of a directory table when edits are applied, somebody else's edits included."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.caps import (
    DirectoryCap,
    LiteralCap,
    MutableFormat,
    MutableReadCap,
    MutableWriteCap,
    UnknownCap,
)
from lafsfs.errors import BadNameError, NotPermittedError
from lafsfs.formats.dirtable import DirectoryTable, UnreadableEntry, parse_table
from lafsfs.nodes.edits import (
    Base,
    Circumstances,
    Conflict,
    Done,
    Gone,
    Kept,
    SetChild,
    SetMetadata,
    Unlink,
    apply_edits,
)
from lafsfs.nodes.listing import Listing

KEY = bytes(range(16))
NOW = 1_700_000_000.25
LATER = NOW + 10
CONFLICTED = "conflicted-20231114-221320-desk"

ONE, TWO, THREE = (LiteralCap(text) for text in (b"one", b"two", b"three"))
WRITABLE = MutableWriteCap(MutableFormat.SDMF, b"w" * 16, b"f" * 32)
FOLDER = DirectoryCap(WRITABLE)
FUTURE = UnknownCap("lafs://from-the-future-rw", "ro.lafs://from-the-future-ro")

EMPTY = DirectoryTable(())


def at(now: float) -> Circumstances:
    return Circumstances(now, "desk", KEY)


def applied(table, *edits, now=NOW):
    """The table after edits, by way of bytes, and the outcomes."""
    changed, outcomes = apply_edits(table, edits, at(now))
    if changed is not None:
        table = parse_table(changed.pack())
    return table, outcomes


def listing(table) -> Listing:
    return Listing(table, KEY, mutable=True)


def caps(table) -> dict[str, object]:
    return {name: child.cap for name, child in listing(table).items()}


def metadata(table, name):
    return listing(table)[name].metadata


def test_set_child_links_and_stamps():
    table, outcomes = applied(EMPTY, SetChild("a", ONE, {"k": 1}, Base.ABSENT))
    assert outcomes == (Done(changed=True),)
    assert caps(table) == {"a": ONE}
    assert metadata(table, "a") == {"k": 1, "tahoe": {"linkcrtime": NOW, "linkmotime": NOW}}


def test_rights_survive_and_no_write_takes_them():
    table, _ = applied(EMPTY, SetChild("d", FOLDER), SetChild("f", WRITABLE, {"no-write": True}))
    assert caps(table) == {"d": FOLDER, "f": WRITABLE.read_cap()}
    table, _ = applied(table, SetMetadata("d", {"no-write": True}))
    assert caps(table)["d"] == FOLDER.read_cap()


def test_a_reader_of_the_directory_gets_read_capabilities():
    table, _ = applied(EMPTY, SetChild("f", WRITABLE), SetChild("u", FUTURE))
    seen = Listing(table, None, mutable=True)
    assert seen["f"].cap == WRITABLE.read_cap()
    assert seen["u"].cap == FUTURE.read_cap()
    assert listing(table)["f"].read_cap == WRITABLE.read_cap()


def test_replacing_keeps_the_rest_of_the_metadata_and_linkcrtime():
    table, _ = applied(EMPTY, SetChild("a", ONE, {"mine": 1, "theirs": [2]}))
    table, outcomes = applied(table, SetChild("a", TWO, {"mine": 3}, base=ONE), now=LATER)
    assert outcomes == (Done(changed=True),)
    assert metadata(table, "a") == {
        "mine": 3,
        "theirs": [2],
        "tahoe": {"linkcrtime": NOW, "linkmotime": LATER},
    }


def test_replace_drops_metadata_except_the_systems():
    table, _ = applied(EMPTY, SetChild("a", ONE, {"mine": 1}))
    moved = SetChild("a", TWO, {"other": 2, "tahoe": {"linkcrtime": 0}}, replace=True)
    table, _ = applied(table, moved, now=LATER)
    assert metadata(table, "a") == {
        "other": 2,
        "tahoe": {"linkcrtime": NOW, "linkmotime": LATER},
    }


def test_none_removes_a_key_and_tahoe_is_never_taken():
    table, _ = applied(EMPTY, SetChild("a", ONE, {"x": 1, "y": 2}))
    table, _ = applied(table, SetMetadata("a", {"x": None, "tahoe": {"linkcrtime": 1}}), now=LATER)
    assert metadata(table, "a") == {"y": 2, "tahoe": {"linkcrtime": NOW, "linkmotime": LATER}}


def test_the_old_ctime_becomes_linkcrtime():
    table, _ = applied(EMPTY, SetChild("a", ONE))
    entry = table.by_name["a"].with_metadata({"ctime": 12.5, "mtime": 13})
    table, _ = applied(DirectoryTable([entry]), SetChild("a", TWO))
    assert metadata(table, "a")["tahoe"] == {"linkcrtime": 12.5, "linkmotime": NOW}


def test_a_taken_name_gets_a_conflicted_neighbour():
    table, _ = applied(EMPTY, SetChild("a.txt", ONE))
    table, outcomes = applied(table, SetChild("a.txt", TWO, base=Base.ABSENT))
    assert outcomes == (Conflict(f"a.txt.{CONFLICTED}"),)
    assert caps(table) == {"a.txt": ONE, f"a.txt.{CONFLICTED}": TWO}


def test_a_changed_base_is_a_conflict_and_each_loser_has_a_name():
    table, _ = applied(EMPTY, SetChild("a", TWO))
    table, first = applied(table, SetChild("a", THREE, base=ONE))
    table, second = applied(table, SetChild("a", LiteralCap(b"four"), base=ONE))
    assert (first, second) == ((Conflict(f"a.{CONFLICTED}"),), (Conflict(f"a.{CONFLICTED}-2"),))
    assert len(caps(table)) == 3


def test_a_conflict_is_replayed_into_the_same_name_even_later():
    edit = SetChild("a", THREE, base=ONE)
    table, first = applied(applied(EMPTY, SetChild("a", TWO))[0], edit)
    again, second = applied(table, edit, now=LATER)
    assert second == first
    assert again == table


def test_a_conflicted_name_fits_a_local_name():
    name = "ä" * 127
    table, _ = applied(EMPTY, SetChild(name, ONE))
    table, (outcome,) = applied(table, SetChild(name, TWO, base=Base.ABSENT))
    assert isinstance(outcome, Conflict)
    assert len(outcome.name.encode()) <= 255
    assert caps(table)[outcome.name] == TWO


def test_unlink_by_base():
    table, _ = applied(EMPTY, SetChild("a", ONE), SetChild("b", TWO), SetChild("c", WRITABLE))
    edits = (
        Unlink("a", base=TWO),
        Unlink("b", base=TWO),
        Unlink("c", base=WRITABLE.read_cap()),
        Unlink("d"),
        Unlink("a", base=Base.ABSENT),
    )
    table, outcomes = applied(table, *edits)
    done = Done(changed=True)
    assert outcomes == (Kept(), done, done, Done(changed=False), Kept())
    assert caps(table) == {"a": ONE}


def test_metadata_of_what_is_gone():
    assert applied(EMPTY, SetMetadata("a", {"x": 1})) == (EMPTY, (Gone(),))


def test_edits_of_one_batch_see_each_other():
    table, outcomes = applied(
        EMPTY,
        SetChild("tmp", ONE, {"m": 1}, Base.ABSENT),
        SetMetadata("tmp", {"m": 2}),
        SetChild("final", ONE, {"m": 2}, Base.ABSENT),
        Unlink("tmp", base=ONE),
    )
    assert set(outcomes) == {Done(changed=True)}
    assert caps(table) == {"final": ONE}
    assert metadata(table, "final")["m"] == 2


def test_exchange_is_replayable():
    table, _ = applied(EMPTY, SetChild("a", ONE), SetChild("b", TWO))
    swap = (SetChild("a", TWO, base=ONE), SetChild("b", ONE, base=TWO))
    table, _ = applied(table, *swap)
    assert caps(table) == {"a": TWO, "b": ONE}
    assert apply_edits(table, swap, at(LATER)) == (None, (Done(changed=False),) * 2)


def test_nothing_is_lost_that_no_edit_names():
    strange = UnreadableEntry(b"not an entry")
    table, _ = applied(EMPTY, SetChild("u", FUTURE), SetChild("gone", ONE))
    broken = table.by_name["u"].with_metadata({})
    object.__setattr__(broken, "metadata_json", b"[1]")
    start = parse_table(DirectoryTable([*table.entries, strange]).pack())
    after, _ = applied(start, Unlink("gone"), SetChild("new", TWO))
    assert strange in after.entries
    assert after.by_name["u"].raw == start.by_name["u"].raw


def test_a_child_that_cannot_be_understood_keeps_its_slots_when_its_metadata_changes():
    table, _ = applied(EMPTY, SetChild("a", WRITABLE))
    entry = table.by_name["a"]
    raw = entry.raw.replace(entry.read_cap, b"URI:SSK-RO:" + b"!" * (len(entry.read_cap) - 11))
    (damaged,) = parse_table(DirectoryTable([UnreadableEntry(raw)]).pack()).entries
    seen = Listing(DirectoryTable([damaged]), None, mutable=True)["a"]
    assert seen.cap == UnknownCap(None, None)
    after, _ = applied(DirectoryTable([damaged]), SetMetadata("a", {"x": 1}))
    assert after.by_name["a"].sealed_write == damaged.sealed_write
    assert after.by_name["a"].read_cap == damaged.read_cap
    with pytest.raises(NotPermittedError):
        SetChild("b", seen.cap)


def test_a_write_capability_sealed_with_another_key_leaves_the_right_to_read():
    table, _ = applied(EMPTY, SetChild("a", WRITABLE))
    assert Listing(table, b"x" * 16, mutable=True)["a"].cap == WRITABLE.read_cap()


def test_a_clock_that_goes_backwards_only_shows_in_the_stamps():
    table, _ = applied(EMPTY, SetChild("a", ONE), now=LATER)
    table, outcomes = applied(table, SetChild("a", TWO, base=ONE), SetChild("b", ONE), now=NOW)
    assert outcomes == (Done(changed=True),) * 2
    assert metadata(table, "a")["tahoe"] == {"linkcrtime": LATER, "linkmotime": NOW}
    for now in (-5.0, 0.0, 1e11, 1e300):
        table, (outcome,) = applied(table, SetChild("a", THREE, base=ONE), now=now)
        assert isinstance(outcome, Conflict)
    assert set(caps(table).values()) == {ONE, TWO, THREE}


def test_names():
    table, _ = applied(EMPTY, SetChild("e\N{COMBINING ACUTE ACCENT}", ONE))
    assert list(listing(table)) == ["é"]
    for bad in ("", "\udcff"):
        with pytest.raises(BadNameError):
            Unlink(bad)


# --- any edits, any number of times ---------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c", "é", "e\u0301"])
CAPS = st.sampled_from([ONE, TWO, WRITABLE, WRITABLE.read_cap(), FOLDER, FUTURE])
BASES = st.one_of(st.sampled_from(list(Base)), CAPS)
METADATA = st.dictionaries(
    st.sampled_from(["x", "tahoe", "lafsfs"]),
    st.none() | st.integers(0, 3) | st.dictionaries(st.just("k"), st.booleans()),
)
EDITS = st.one_of(
    st.builds(SetChild, NAMES, CAPS, st.none() | METADATA, BASES, st.booleans()),
    st.builds(Unlink, NAMES, BASES),
    st.builds(SetMetadata, NAMES, METADATA),
)


@given(st.lists(EDITS, max_size=6), EDITS)
def test_one_edit_replayed_changes_nothing(before, edit):
    table, _ = applied(EMPTY, *before)
    once, (outcome,) = applied(table, edit)
    twice, (replayed,) = applied(once, edit, now=LATER)
    if isinstance(edit, Unlink) or replayed == Done(changed=False) or outcome == replayed:
        assert twice == once
    else:
        pytest.fail(f"{edit} was {outcome}, replayed {replayed}")


@given(st.lists(EDITS, max_size=6), EDITS)
def test_no_child_is_lost_that_was_not_the_base(before, edit):
    table, _ = applied(EMPTY, *before)
    after, (outcome,) = applied(table, edit)
    was, now = caps(table), caps(after)
    for name, cap in was.items():
        if name == edit.name and isinstance(outcome, Done):
            continue
        assert now[name] == cap
    if isinstance(edit, SetChild):
        name = outcome.name if isinstance(outcome, Conflict) else edit.name
        assert now[name] in (edit.cap, edit.cap.read_cap())


@given(st.lists(EDITS, max_size=8))
def test_what_is_written_is_sorted_and_normalized(edits):
    table, _ = applied(EMPTY, *edits)
    names = [entry.name for entry in table.entries]
    assert names == sorted(names)
    assert all(unicodedata.is_normalized("NFC", name) for name in names)


def test_reprs_show_no_capability():
    edits = (SetChild("a", WRITABLE, {"s": "hidden"}), Unlink("a", WRITABLE))
    secret = WRITABLE.danger_text().split(":")[2]
    for shown in (repr(edits), repr(at(NOW)), repr(MutableReadCap)):
        assert secret not in shown
        assert "hidden" not in shown
