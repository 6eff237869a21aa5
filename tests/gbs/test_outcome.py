"""A test-and-set whose answer was lost: what became of it is found out, and no write made twice."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.errors import BadWriteEnablerError, ServerUnavailableError
from lafsfs.gbs.outcome import Outcome, plan_look
from lafsfs.grid.api import ReadVector, TestVector, TestWriteVectors, WriteVector
from tests.fakes import FakeServer
from tests.gbs.hostile import serving, slot_script
from tests.grid.contract import MUST_NOT_EXIST, SI, SLOT, writing

HEAD = (ReadVector(0, 4),)
OLD = TestVector(0, 4, b"old1")


# --- over the wire --------------------------------------------------------------------------------


@pytest.fixture
def slots():
    return FakeServer("slots")


async def prepared(slots: FakeServer) -> None:
    vectors = {0: writing(b"old1 contents"), 5: writing(b"other")}
    assert (await slots.read_test_write(SI, SLOT, vectors, ())).success
    slots.calls.clear()


NEW = {0: writing(b"new2 contents", tests=(OLD,)), 1: writing(b"new2", tests=(MUST_NOT_EXIST,))}


@pytest.mark.parametrize(
    ("faults", "calls"),
    [
        (["after"], 2),  # made, and found made
        (["before"], 3),  # not made, found so, made
        (["before", "before"], 4),  # the look was lost as well
        (["before", "", "after"], 4),
        (["before", "", "before"], 5),
        (["after", "before", "after"], 4),
        (["late"], 4),  # was still on its way when we looked; the second one fails its tests
        (["late", "", "after"], 4),
    ],
)
async def test_a_lost_answer_is_found_out(reach, slots, faults, calls):
    await prepared(slots)
    async with serving(slot_script(slots, faults)) as hostile:
        result = await reach(hostile.nurl).read_test_write(SI, SLOT, NEW, HEAD)
        assert len(hostile.asked) == calls
    assert result.success
    assert result.reads[5] == (b"othe",)
    assert {n: bytes(share.data) for n, share in slots.held(SI).items()} == {
        0: b"new2 contents",
        1: b"new2",
        5: b"other",
    }


async def test_a_write_is_made_once(reach, slots):
    await prepared(slots)
    async with serving(slot_script(slots, ["after", "after", ""])) as hostile:
        await reach(hostile.nurl).read_test_write(SI, SLOT, {0: writing(b"x", 13)}, ())
        bodies = [asked.body for asked in hostile.asked]
    assert len(bodies) == 3
    assert len({bodies[1], bodies[2]}) == 1  # looks
    assert bodies[0] != bodies[1]


async def test_who_was_overtaken_is_told_what_is_there(reach, slots):
    await prepared(slots)

    async def overtake(call):
        if slots.count() == 2:  # our lost write, and now our look
            slots.shares[SI, 0].data[:4] = b"his3"

    slots.before_call = overtake
    async with serving(slot_script(slots, ["after"])) as hostile:
        result = await reach(hostile.nurl).read_test_write(SI, SLOT, NEW, HEAD)
    assert not result.success
    assert result.reads == {0: (b"his3",), 1: (b"new2",), 5: (b"othe",)}


async def test_a_deletion_is_found_out(reach, slots):
    await prepared(slots)
    delete = {0: TestWriteVectors(tests=(OLD,), new_length=0)}
    async with serving(slot_script(slots, ["after"])) as hostile:
        result = await reach(hostile.nurl).read_test_write(SI, SLOT, delete, HEAD)
    assert result.success
    assert result.reads == {5: (b"othe",)}
    assert set(slots.held(SI)) == {5}


async def test_a_lost_read_is_simply_repeated(reach, slots):
    await prepared(slots)
    async with serving(slot_script(slots, ["after", "before"])) as hostile:
        result = await reach(hostile.nurl).read_test_write(SI, SLOT, {}, HEAD)
        assert len({asked.body for asked in hostile.asked}) == 1
    assert result.reads == {0: (b"old1",), 5: (b"othe",)}


async def test_a_test_that_fails_is_no_loss(reach, slots):
    await prepared(slots)
    wrong = {0: writing(b"new", tests=(TestVector(0, 4, b"none"),))}
    async with serving(slot_script(slots, [])) as hostile:
        result = await reach(hostile.nurl).read_test_write(SI, SLOT, wrong, HEAD)
        assert len(hostile.asked) == 1
    assert not result.success


async def test_a_server_that_loses_every_answer_is_given_up(reach, slots):
    await prepared(slots)
    async with serving(slot_script(slots, ["before"] * 20)) as hostile:
        with pytest.raises(ServerUnavailableError, match="Alice"):
            await reach(hostile.nurl).read_test_write(SI, SLOT, NEW, HEAD)
    assert bytes(slots.held(SI)[0].data) == b"old1 contents"


async def test_another_enabler_is_told_from_a_wrong_swissnum(reach):
    async def script(peer):
        while True:
            asked = await peer.request()
            version = asked.target.endswith("version")
            await peer.reply(401 if not version else 500)

    async with serving(script) as hostile:
        server = reach(hostile.nurl)
        with pytest.raises(BadWriteEnablerError, match="write enabler"):
            await server.read_test_write(SI, SLOT, NEW, HEAD)


# --- the judge ------------------------------------------------------------------------------------


def cuts_off_a_write(vector: TestWriteVectors) -> bool:
    """Whether a write is undone by the cut that follows it: nobody does that."""
    cut = vector.new_length
    return bool(cut) and any(write.data and write.offset >= cut for write in vector.writes)


small = st.binary(max_size=6)
offsets = st.integers(0, 12)
shnums = st.integers(0, 2)
slots_held = st.dictionaries(shnums, st.binary(min_size=1, max_size=14), max_size=3)
one_vector = st.builds(
    TestWriteVectors,
    st.lists(st.builds(TestVector, offsets, st.integers(0, 6), small), max_size=2).map(tuple),
    st.lists(st.builds(WriteVector, offsets, small), max_size=3).map(tuple),
    st.none() | st.integers(0, 14),
).filter(lambda vector: not cuts_off_a_write(vector))
some_vectors = st.dictionaries(shnums, one_vector, min_size=1, max_size=3)


def honest(held: dict[int, bytes], vectors):
    """The same vectors with tests that pass now."""
    return {
        shnum: TestWriteVectors(
            tuple(
                TestVector(t.offset, t.size, held.get(shnum, b"")[t.offset : t.offset + t.size])
                for t in vector.tests
            ),
            vector.writes,
            vector.new_length,
        )
        for shnum, vector in vectors.items()
    }


def passes(held: dict[int, bytes], vectors) -> bool:
    return honest(held, vectors) == vectors


def written(held: dict[int, bytes], vectors) -> dict[int, bytes]:
    """What a slot holds after the writes, whatever the tests say."""
    after = dict(held)
    for shnum, vector in vectors.items():
        data = bytearray(after.pop(shnum, b""))
        for write in vector.writes:
            if write.data:
                data.extend(bytes(max(0, write.offset - len(data))))
                data[write.offset : write.offset + len(write.data)] = write.data
        if vector.new_length is not None:
            del data[vector.new_length :]
        if data:
            after[shnum] = bytes(data)
    return after


def look_at(held: dict[int, bytes], look) -> dict[int, tuple[bytes, ...]]:
    return {
        shnum: tuple(data[read.offset : read.offset + read.size] for read in look.reads)
        for shnum, data in held.items()
    }


@settings(max_examples=200)
@given(slots_held, some_vectors)
def test_what_was_made_is_found_made(held, vectors):
    vectors = honest(held, vectors)
    look = plan_look(vectors, HEAD)
    assert look.judge(look_at(written(held, vectors), look)) is Outcome.DONE


@settings(max_examples=200)
@given(slots_held, some_vectors)
def test_what_was_not_made_is_found_so_unless_it_changes_nothing(held, vectors):
    vectors = honest(held, vectors)
    look = plan_look(vectors, HEAD)
    outcome = look.judge(look_at(held, look))
    unchanged = written(held, vectors) == held
    assert outcome is (Outcome.DONE if unchanged else Outcome.UNDONE)


@settings(max_examples=200)
@given(slots_held, some_vectors)
def test_no_verdict_contradicts_what_is_there(held, vectors):
    look = plan_look(vectors, HEAD)
    outcome = look.judge(look_at(held, look))
    if outcome is Outcome.DONE:
        assert written(held, vectors) == held
    elif outcome is Outcome.UNDONE:
        assert passes(held, vectors)
    else:
        assert not passes(held, vectors)


def test_the_callers_reads_come_first_and_all_fit():
    vectors = {
        n: TestWriteVectors(
            tuple(TestVector(100 * n + i, 1, b"x") for i in range(10)),
            tuple(WriteVector(100 * n + i * 7, b"yy") for i in range(10)),
        )
        for n in range(4)
    }
    reads = (ReadVector(5, 5), ReadVector(5, 5))
    look = plan_look(vectors, reads)
    assert look.reads[:2] == reads
    assert len(look.reads) == 30


def test_a_share_of_which_nothing_can_be_seen_is_not_taken_for_written():
    reads = tuple(ReadVector(i, 1) for i in range(30))
    vectors = {0: writing(b"data", 1000, tests=(TestVector(0, 1, b"x"),))}
    look = plan_look(vectors, reads)
    seen = {0: (b"y",) * 30}
    assert look.judge(seen) is Outcome.OVERTAKEN
