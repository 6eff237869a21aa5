"""Reading ahead: doubles while sequential, closes on a jump, stays within the budget."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from lafsfs.vfs.verbs.readahead import (
    FIRST_WINDOW,
    MAX_WINDOW,
    SLACK,
    Budget,
    Reader,
    Stream,
    follow,
)

KB, MB, GB = 1 << 10, 1 << 20, 1 << 30


@dataclass
class Interest:
    node: Node
    start: int
    size: int
    cancelled: bool = False
    wasted: bool = False  # cancelled before the reader was past it

    def cancel(self) -> None:
        self.cancelled = True
        self.wasted = self.start + self.size > self.node.position


@dataclass
class Node:
    """Remembers what was asked for in advance."""

    asked: list[Interest] = field(default_factory=list)
    position: int = 0

    def prefetch(self, offset: int, size: int) -> Interest:
        self.asked.append(Interest(self, offset, size))
        return self.asked[-1]

    @property
    def alive(self) -> list[Interest]:
        return [interest for interest in self.asked if not interest.cancelled]


def read_all(reader, node, size, step=128 * KB, start=0, end=None):
    for offset in range(start, size if end is None else end, step):
        node.position = offset
        reader.reading(node, offset, step, size)


def test_one_read_wants_nothing_more():
    node = Node()
    Reader(Budget(GB)).reading(node, 0, 128 * KB, GB)
    assert node.asked == []


def test_the_window_opens_with_the_second_read_and_doubles():
    stream = Stream()
    windows = []
    for offset in range(0, 200 * MB, 128 * KB):
        advice = follow(stream, offset, 128 * KB, GB, GB)
        if advice.end > advice.start:
            windows.append(advice.stream.window)
        stream = advice.stream
    assert windows[:5] == [FIRST_WINDOW << n for n in range(5)]
    assert max(windows) == windows[-1] == MAX_WINDOW


def test_everything_is_asked_for_once_and_in_order():
    node = Node()
    read_all(Reader(Budget(GB)), node, 100 * MB)
    assert node.asked[0].start == 256 * KB
    for one, two in zip(node.asked, node.asked[1:], strict=False):
        assert two.start == one.start + one.size
    assert node.asked[-1].start + node.asked[-1].size == 100 * MB
    assert not any(interest.wasted for interest in node.asked)
    assert any(interest.cancelled for interest in node.asked)  # nothing is wanted for ever


def test_half_a_window_is_always_ahead():
    stream = Stream()
    for offset in range(0, 64 * MB, 128 * KB):
        stream = follow(stream, offset, 128 * KB, GB, GB).stream
        if stream.window:
            assert stream.ahead - stream.position >= stream.window // 2


def test_a_jump_closes_the_window_and_lets_go():
    node, budget = Node(), Budget(GB)
    reader = Reader(budget)
    read_all(reader, node, GB, end=4 * MB)
    assert node.alive
    asked = len(node.asked)
    reader.reading(node, 500 * MB, 128 * KB, GB)
    assert budget.taken == 0
    assert len(node.asked) == asked
    assert not [one for one in node.alive if one.start + one.size > 4 * MB]
    reader.reading(node, 500 * MB + 128 * KB, 128 * KB, GB)
    assert node.asked[-1].start == 500 * MB + 256 * KB
    assert budget.taken == FIRST_WINDOW


def test_random_reads_ask_for_nothing():
    node = Node()
    reader = Reader(Budget(GB))
    for number in range(1000):
        reader.reading(node, number * 7919 * 4 * KB * 1000 % GB, 4 * KB, GB)
    assert node.asked == []


def test_requests_that_overtake_each_other_are_still_in_order():
    node = Node()
    reader = Reader(Budget(GB))
    order = [0, 1, 3, 2, 4, 6, 5, 7, 9, 8]
    for number in order:
        reader.reading(node, number * 128 * KB, 128 * KB, GB)
    assert node.asked
    assert not any(interest.cancelled for interest in node.asked)


def test_readers_that_come_late_have_no_window():
    budget = Budget(4 * MB)
    nodes = [Node() for _ in range(20)]
    readers = [Reader(budget) for _ in nodes]
    for reader, node in zip(readers, nodes, strict=True):
        read_all(reader, node, GB, end=8 * MB)
    assert budget.taken <= budget.total
    assert sum(bool(node.asked) for node in nodes) == 1
    readers[0].stop()
    assert budget.taken == 0
    read_all(readers[1], nodes[1], GB, start=8 * MB, end=12 * MB)
    assert nodes[1].asked


def test_stopping_twice_gives_back_once():
    budget = Budget(GB)
    node = Node()
    reader = Reader(budget)
    read_all(reader, node, GB, end=4 * MB)
    reader.stop()
    reader.stop()
    assert budget.taken == 0
    assert not [one for one in node.alive if one.start + one.size > 4 * MB]


reads = st.lists(
    st.one_of(
        st.just("next"), st.tuples(st.integers(0, 40 * MB), st.integers(1, MB)), st.just("stop")
    ),
    max_size=40,
)


@given(reads, st.integers(1, 40 * MB), st.integers(0, 32 * MB))
def test_never_beyond_budget_or_file(steps, size, total):
    budget, node = Budget(total), Node()
    reader = Reader(budget)
    position = 0
    for step in steps:
        if step == "stop":
            reader.stop()
            continue
        offset, length = (position, 128 * KB) if step == "next" else step
        reader.reading(node, offset, length, size)
        position = offset + length
        assert 0 <= budget.taken <= total
        for interest in node.asked:
            assert 0 < interest.size <= 2 * MAX_WINDOW
            assert interest.start + interest.size <= size
    reader.stop()
    assert budget.taken == 0


@given(st.integers(0, 2 * SLACK))
def test_what_counts_as_a_jump(distance):
    stream = Stream(position=100 * MB, window=MB, ahead=101 * MB)
    forward = follow(stream, 100 * MB + distance, 4 * KB, GB, GB)
    back = follow(stream, 100 * MB - distance, 4 * KB, GB, GB)
    assert forward.jumped == back.jumped == (distance > SLACK)
