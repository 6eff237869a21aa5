"""The extent map against a plain list of bytes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.vfs.staging.extents import BasePiece, Extent, ExtentMap, Hole

BASE = bytes(range(1, 41))

writes = st.tuples(st.just("write"), st.integers(0, 60), st.integers(0, 30))
cuts = st.tuples(st.just("truncate"), st.integers(0, 80), st.just(0))


def shown(extents: ExtentMap, records: list[bytes], offset: int, size: int) -> bytes:
    parts = []
    position = offset
    for piece in extents.pieces(offset, size):
        assert piece.start == position
        assert piece.length > 0
        position += piece.length
        match piece:
            case Extent(_, length, record, skip):
                parts.append(records[record][skip : skip + length])
            case BasePiece(start, length):
                parts.append(BASE[start : start + length])
            case Hole(_, length):
                parts.append(bytes(length))
    assert all(parts)
    return b"".join(parts)


@given(st.lists(writes | cuts, max_size=25), st.integers(0, 100), st.integers(0, 100))
@settings(max_examples=200)
def test_behaves_as_a_file(steps, offset, size):
    model = bytearray(BASE)
    extents = ExtentMap(len(BASE))
    records: list[bytes] = []
    for number, (step, at, length) in enumerate(steps):
        if step == "truncate":
            extents.truncate(at)
            model = model[:at] + bytes(max(0, at - len(model)))
            continue
        records += [bytes([100 + number % 100]) * length] * (number + 1 - len(records))
        extents.write(Extent(at, length, number, 0))
        if length:
            model += bytes(max(0, at + length - len(model)))
            model[at : at + length] = records[number]
    assert extents.size == len(model)
    assert shown(extents, records, offset, size) == bytes(model[offset : offset + size])
    assert shown(extents, records, 0, len(model)) == bytes(model)


def test_sequential_writes_into_one_record_are_one_extent():
    extents = ExtentMap(0)
    for at in range(0, 100, 10):
        extents.write(Extent(at, 10, 0, at))
    assert list(extents) == [Extent(0, 100, 0, 0)]
    extents.write(Extent(100, 10, 1, 0))
    assert len(extents) == 2


def test_a_copy_stands_still():
    extents = ExtentMap(3)
    extents.write(Extent(0, 2, 0, 0))
    copy = extents.copy()
    extents.truncate(1)
    extents.write(Extent(5, 2, 1, 0))
    assert (copy.size, copy.base_limit, list(copy)) == (3, 3, [Extent(0, 2, 0, 0)])


def test_what_was_cut_does_not_come_back():
    extents = ExtentMap(10)
    extents.truncate(4)
    extents.truncate(10)
    assert list(extents.pieces(0, 20)) == [BasePiece(0, 4), Hole(4, 6)]
