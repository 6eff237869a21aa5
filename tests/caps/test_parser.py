"""What is not exactly a capability is refused, with the fault named and the secret kept."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lafsfs.caps import Cap, LiteralCap, UnknownKindError, parse
from lafsfs.errors import BadCapabilityError, DeepImmutableError
from tests.caps.strategies import caps, keys, unknown_texts

KEY = "a" * 26
HASH = "a" * 52


def assert_refused(text: str) -> str:
    with pytest.raises(BadCapabilityError) as caught:
        parse(text)
    message = str(caught.value)
    assert "\n" not in message
    for secret in text.split(":")[2:]:
        assert len(secret) < 8 or secret not in message
    return message


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not a capability"),
        ("hello", "not a capability"),
        ("URI", "not a capability"),
        ("URI:LIT", "not a capability"),
        ("uri:LIT:km", "not a capability"),
        ("URI:NEW:km", "no kind"),
        ("URI:LIT:KM", "data"),
        ("URI:LIT:kn", "data"),  # bits behind the last byte
        ("URI:LIT:k", "data"),
        ("URI:LIT:km=", "data"),
        ("URI:LIT:km ", "data"),
        ("URI:LIT:km\n", "data"),
        ("URI:LIT:km:km", "follows"),
        (f"URI:CHK:{KEY}", "cut short"),
        (f"URI:CHK:{KEY}:{HASH}:3:10", "cut short"),
        (f"URI:CHK:{KEY}:{HASH}:3:10:5:6", "follows"),
        (f"URI:CHK:{KEY[:-1]}:{HASH}:3:10:5", "key"),
        (f"URI:CHK:{KEY}aaaaaa:{HASH}:3:10:5", "key"),
        (f"URI:CHK::{HASH}:3:10:5", "key is missing"),
        (f"URI:CHK:{KEY[:-1]}b:{HASH}:3:10:5", "key"),
        (f"URI:CHK:{KEY}:{HASH[:-1]}c:3:10:5", "UEB hash"),
        (f"URI:CHK:{KEY}:{HASH[:-8]}:3:10:5", "UEB hash"),
        (f"URI:CHK:{KEY}:{HASH}:11:10:5", "needed shares"),
        (f"URI:CHK:{KEY}:{HASH}:0:10:5", "needed shares"),
        (f"URI:CHK:{KEY}:{HASH}:3:0:5", "total shares"),
        (f"URI:CHK:{KEY}:{HASH}:3:257:5", "total shares"),
        (f"URI:CHK:{KEY}:{HASH}:03:10:5", "leading zeros"),
        (f"URI:CHK:{KEY}:{HASH}:+3:10:5", "not a number"),
        (f"URI:CHK:{KEY}:{HASH}:3:10:-5", "not a number"),
        (f"URI:CHK:{KEY}:{HASH}:3:10:", "not a number"),
        (f"URI:CHK:{KEY}:{HASH}:3:10:٣", "not a number"),
        (f"URI:CHK:{KEY}:{HASH}:3:10:{2**63}", "size is absurdly large"),
        (f"URI:CHK:{KEY}:{HASH}:3:10:{10**30}", "size is absurdly large"),
        (f"URI:CHK-Verifier:{KEY}:{HASH}:3:10:5:hints", "follows"),
        (f"URI:CHK-Verifier:{KEY[:-2]}:{HASH}:3:10:5", "storage index"),
        (f"URI:SSK:{KEY}:{HASH}:3:131073", "follows"),
        (f"URI:SSK:{KEY[1:]}:{HASH}", "write key"),
        (f"URI:SSK-RO:{KEY[1:]}:{HASH}", "read key"),
        (f"URI:SSK-RO:{KEY}:{HASH[:-1]}b", "fingerprint"),
        (f"URI:SSK-Verifier:{KEY[1:]}:{HASH}", "storage index"),
        (f"URI:MDMF:{KEY}", "cut short"),
        (f"URI:DIR2:{KEY}:{HASH}:hint", "follows"),
        (f"URI:DIR2-MDMF:{KEY[1:]}:{HASH}", "write key"),
        (f"URI:DIR2-LIT-Verifier:{KEY}", "no kind"),
        (f" URI:SSK:{KEY}:{HASH}", "not a capability"),
        (f"ro.URI:SSK:{KEY}:{HASH}", "ro."),
        ("URI:LIT:" + "a" * 20000, "too long"),
        ("URI:LIT:" + "a" * 8000, "4096"),
    ],
)
def test_faults_are_named(text: str, fault: str) -> None:
    assert fault in assert_refused(text)


@given(caps, st.data())
def test_every_truncation_is_refused_or_another_literal(cap: Cap, data: st.DataObject) -> None:
    text = cap.danger_text()
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    try:
        shorter = parse(cut)
    except BadCapabilityError:
        return
    assert shorter != cap  # a shorter literal, or a CHK capability with a smaller size
    assert shorter.danger_text() == cut


@given(caps, st.integers(0, 10**6), st.characters())
def test_every_mutation_is_refused_or_read_back_exactly(cap: Cap, at: int, new: str) -> None:
    text = cap.danger_text()
    at %= len(text)
    mutated = text[:at] + new + text[at + 1 :]
    try:
        parsed = parse(mutated)
    except (BadCapabilityError, DeepImmutableError):
        return
    assert parsed.danger_text() == mutated


@given(st.text(max_size=200))
@example("URI:DIR2-LIT:")
def test_arbitrary_text_never_raises_anything_else(text: str) -> None:
    for candidate in (text, f"URI:{text}", f"URI:CHK:{text}", f"URI:DIR2-MDMF-RO:{text}"):
        try:
            parse(candidate)
        except BadCapabilityError as error:
            assert len(text) < 8 or text not in str(error)  # noqa: PT017


@pytest.mark.parametrize("hints", ["", ":", ":3:131073", ":3:131073:and:more", ":é ü"])
@pytest.mark.parametrize("kind", ["MDMF", "MDMF-RO", "MDMF-Verifier"])
@pytest.mark.parametrize("directory", ["", "DIR2-"])
def test_hints_behind_mdmf_are_dropped(hints: str, kind: str, directory: str) -> None:
    text = f"URI:{directory}{kind}:{KEY}:{HASH}"
    assert parse(text + hints).danger_text() == text


@given(unknown_texts)
def test_unknown_kinds_have_an_error_of_their_own(text: str) -> None:
    with pytest.raises(UnknownKindError):
        parse(text)


@given(caps)
def test_prefixes_are_promises_that_are_checked(cap: Cap) -> None:
    text = cap.danger_text()
    if cap.can_write:
        with pytest.raises(BadCapabilityError):
            parse("ro." + text)
    else:
        assert parse("ro." + text) == cap
    changes = cap.is_mutable and cap.can_read
    for candidate, deep in (("imm." + text, False), (text, True)):
        if changes:
            with pytest.raises(DeepImmutableError):
                parse(candidate, deep_immutable=deep)
        else:
            assert parse(candidate, deep_immutable=deep) == cap
    with pytest.raises(UnknownKindError):
        parse("ro.imm." + text)


@given(keys)
def test_the_same_text_in_capitals_is_refused(data: bytes) -> None:
    text = LiteralCap(data).danger_text()
    if text.upper() != text:
        assert_refused("URI:LIT:" + text[8:].upper())
