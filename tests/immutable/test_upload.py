"""Uploads on a fake grid: round trips, keys, failures on the way, what is left behind."""

import functools

import pytest
import trio

from lafsfs.caps import CHKCap
from lafsfs.crypto.hashes import chk_storage_index
from lafsfs.errors import GridFullError, NotHappyError
from lafsfs.grid.api import ShareKind
from lafsfs.grid.asking import PATIENCE
from lafsfs.grid.broker import Broker
from lafsfs.grid.encoding import Encoding
from lafsfs.immutable import SourceChangedError
from lafsfs.immutable.shareholders import STRAGGLING
from tests import golden_data
from tests.fakes import FakeServer
from tests.immutable.grids import SECRETS, empty_grid, spread_of
from tests.immutable.uploading import LARGE, SMALL, nothing_unfinished, put, reads_back

# --- round trips ----------------------------------------------------------------------------------


async def test_a_small_file_takes_two_round_trips(autojump_clock):
    servers, broker = empty_grid(4)
    for server in servers:
        server.delay = 1.0
    await put(broker, SMALL)
    assert trio.current_time() == 2.0  # allocate, write
    for server in servers:
        assert server.counts() == {"allocate": 1, "write_share": 1}


async def test_many_segments_share_a_request(autojump_clock):
    servers, broker = empty_grid(4)
    for server in servers:
        server.delay = 1.0
    await put(broker, LARGE)
    assert trio.current_time() == 2.0
    assert [server.count("write_share") for server in servers] == [1] * 4


async def test_shares_of_a_large_file_go_out_by_several_mebibytes():
    servers, broker = empty_grid(1)
    await put(broker, bytes(12 << 20), Encoding(1, 1, 1))
    assert servers[0].count("write_share") == 4  # 1, 4, 4 MiB, and what is left


async def test_shares_take_turns():
    servers, broker = empty_grid(4)
    sizes = {server.name: [] for server in servers}

    class Measuring(FakeServer):
        async def write_share(self, *args):
            sizes[self.name].append(sum(map(len, args[-1])))
            return await super().write_share(*args)

    broker = Broker([Measuring(name) for name in sizes])
    await put(broker, bytes(30 << 20), Encoding(2, 3, 4))
    firsts = sorted(own[0] >> 18 for own in sizes.values())
    assert firsts == [4, 8, 10, 14]  # quarters of a mebibyte, by half ones: blocks are not cut
    for own in sizes.values():
        assert {size >> 18 for size in own[1:-1]} == {16}


async def test_storing_the_same_again_sends_no_share(autojump_clock):
    servers, broker = empty_grid(4)
    first = await put(broker, LARGE)
    for server in servers:
        server.calls.clear()
        server.delay = 1.0
    start = trio.current_time()
    assert await put(broker, LARGE) == first
    assert trio.current_time() == start + 2.0  # allocate, which renews leases; then compare
    for server in servers:
        assert server.counts() == {"allocate": 1, "read_share": 1}


# --- keys -----------------------------------------------------------------------------------------


async def test_a_random_key_is_another_each_time():
    servers, broker = empty_grid(4)
    first = await put(broker, SMALL, convergence=None)
    second = await put(broker, SMALL, convergence=None)
    assert first != second
    assert await reads_back(broker, first, SMALL)
    assert await reads_back(broker, second, SMALL)
    assert nothing_unfinished(servers)


async def test_another_secret_gives_another_key():
    _, broker = empty_grid(4)
    first, second = await put(broker, SMALL), await put(broker, SMALL, convergence=b"other")
    assert isinstance(first, CHKCap)
    assert isinstance(second, CHKCap)
    assert first.key != second.key


class CountingSource:
    """Contents that note how they are read."""

    def __init__(self, data):
        self.data = data
        self.size = len(data)
        self.reads = []

    async def read(self, offset, size):
        await trio.lowlevel.checkpoint()
        self.reads.append((offset, size))
        return self.data[offset : offset + size]


async def test_one_segment_is_read_once_and_many_twice():
    _, broker = empty_grid(4)
    small, large = CountingSource(SMALL), CountingSource(LARGE)
    await put(broker, small)
    await put(broker, large)
    assert small.reads == [(0, 1000)]
    assert large.reads == [(0, 100_000)] * 2


async def test_what_is_large_is_read_by_pieces():
    """For the key as it suits hashing, then as many segments as one share lacks for a request."""
    _, broker = empty_grid(4)
    source = CountingSource(bytes(9 << 20))
    await put(broker, source, Encoding(2, 3, 4))
    first = [(0, 4 << 20), (4 << 20, 4 << 20), (8 << 20, 1 << 20)]
    assert source.reads[:3] == first
    starts = [start for start, _ in source.reads[3:]]
    assert starts == [start << 20 for start in (0, 2, 4, 5, 7)]
    assert [start + size for start, size in source.reads[3:]] == [*starts[1:], 9 << 20]


async def test_without_convergence_contents_are_read_once():
    _, broker = empty_grid(4)
    source = CountingSource(LARGE)
    await put(broker, source, convergence=None)
    assert source.reads == [(0, 100_000)]


class ChangingSource(CountingSource):
    """Contents that somebody writes to between the two passes."""

    async def read(self, offset, size):
        if len(self.reads) == 1:
            self.data = self.data[:55_555] + b"!" + self.data[55_556:]
        return await super().read(offset, size)


async def test_contents_that_change_meanwhile_are_not_stored():
    servers, broker = empty_grid(4)
    with pytest.raises(SourceChangedError):
        await put(broker, ChangingSource(LARGE))
    assert not any(server.shares for server in servers)
    assert nothing_unfinished(servers)


class ShrinkingSource(CountingSource):
    """Contents that are cut while they are being read a second time."""

    async def read(self, offset, size):
        if len(self.reads) == 1:
            self.data = self.data[:52_000]
        return await super().read(offset, size)


async def test_contents_that_shrink_meanwhile_are_not_stored():
    servers, broker = empty_grid(4)
    with pytest.raises(SourceChangedError):
        await put(broker, ShrinkingSource(LARGE))
    assert nothing_unfinished(servers)


class FailingSource(CountingSource):
    """Contents on a disk that breaks after ``good`` reads."""

    good = 0

    async def read(self, offset, size):
        if len(self.reads) == self.good:
            raise OSError(5, "Input/output error")
        return await super().read(offset, size)


@pytest.mark.parametrize("good", [0, 2, 3, 4, 5])
async def test_an_error_of_the_source_comes_through_as_it_is(good):
    servers, broker = empty_grid(4)
    source = FailingSource(bytes(9 << 20))
    source.good = good
    with pytest.raises(OSError, match="Input/output error"):
        await put(broker, source, Encoding(2, 3, 4))
    assert nothing_unfinished(servers)


# --- failures on the way --------------------------------------------------------------------------


async def test_a_server_that_dies_on_the_way_is_dropped():
    servers, broker = empty_grid(4)
    servers[0].fail_after = 1  # allocate
    cap = await put(broker, LARGE)
    assert len(spread_of(servers, cap.storage_index)) == 3
    assert await reads_back(broker, cap, LARGE)


async def test_too_many_deaths_on_the_way_end_the_upload():
    servers, broker = empty_grid(4)
    servers[0].fail_after = servers[1].fail_after = 1
    with pytest.raises(NotHappyError, match=r"on 2 servers, and 3 are needed.*is down"):
        await put(broker, LARGE)
    assert not any(server.uploads for server in servers[2:])


async def test_an_upload_without_hope_is_not_carried_on():
    servers, broker = empty_grid(2)
    servers[0].fail_after = 1
    source = CountingSource(bytes(20 << 20))
    with pytest.raises(NotHappyError):
        await put(broker, source, Encoding(1, 2, 2), convergence=None)
    assert sum(size for _, size in source.reads) <= 5 << 20


class DoubtfulServer(FakeServer):
    """Never admits that a share is complete."""

    async def write_share(self, *args):
        await super().write_share(*args)
        return False


async def test_a_share_that_is_not_complete_in_the_end_does_not_count():
    servers = [DoubtfulServer("doubtful"), FakeServer("sure")]
    with pytest.raises(NotHappyError, match=r"doubtful does not see share . as complete"):
        await put(Broker(servers), SMALL, Encoding(1, 2, 2))
    await put(Broker(servers), LARGE, Encoding(1, 1, 2))


async def test_a_disk_that_fills_up_on_the_way_means_no_space():
    servers, broker = empty_grid(4)

    def fill(call):
        if call.verb == "write_share":
            servers[0].full = servers[1].full = True

    servers[0].before_call = servers[1].before_call = fill
    with pytest.raises(GridFullError, match="full"):
        await put(broker, LARGE)
    assert nothing_unfinished(servers)


async def test_a_server_that_hangs_on_the_way_is_given_up(autojump_clock):
    servers, broker = empty_grid(4)
    servers[0].before_call = lambda call: call.verb == "write_share" and servers[0].hang()
    data = golden_data.generated("hang", 8000)
    cap = await put(broker, data)
    # the write is waited for, and then giving back what it reserved
    assert trio.current_time() == pytest.approx(STRAGGLING + 5.0)
    assert set(spread_of(servers, cap.storage_index)) == {"fake1", "fake2", "fake3"}


async def test_a_server_that_hangs_with_several_writes_is_given_up_once(patient_clock, caplog):
    servers, broker = empty_grid(4)
    servers[0].before_call = lambda call: call.verb == "write_share" and servers[0].hang()
    cap = await put(broker, bytes(30 << 20), Encoding(2, 3, 4))
    assert trio.current_time() == pytest.approx(STRAGGLING + 5.0)  # the others have overtaken it
    assert set(spread_of(servers, cap.storage_index)) == {"fake1", "fake2", "fake3"}
    assert servers[0].count("write_share") in range(2, 5)
    assert [record.args for record in caplog.records] == [("fake0",)]
    assert await reads_back(broker, cap, bytes(30 << 20))


async def test_a_server_that_hangs_and_is_needed_is_given_all_the_time_there_is(autojump_clock):
    servers, broker = empty_grid(4)
    servers[0].before_call = lambda call: call.verb == "write_share" and servers[0].hang()
    data = golden_data.generated("hang", 8000)
    encoding = Encoding(2, 4, 4, max_segment_size=10_000)
    with pytest.raises(NotHappyError, match="fake0 did not answer"):
        await put(broker, data, encoding)
    assert trio.current_time() > PATIENCE


async def test_a_server_that_is_slow_is_waited_for(autojump_clock):
    """One that is ten times as slow as the others, or has to spin up a disk, does not hang."""
    for seconds, usual in ((STRAGGLING - 1.0, 0.0), (30.0, 3.0)):
        servers, broker = empty_grid(4)
        for server in servers:
            server.before_call = functools.partial(
                write_slowly, seconds if server is servers[0] else usual
            )
        cap = await put(broker, golden_data.generated("slow", 8000))
        assert len(spread_of(servers, cap.storage_index)) == 4


class SlowLine(FakeServer):
    """Takes a second for each mebibyte, and ten where the last share is."""

    async def write_share(self, storage_index, shnum, secret, offset, data):
        await trio.sleep(sum(map(len, data)) / (1 << 20) * (10 if shnum == 3 else 1))
        return await super().write_share(storage_index, shnum, secret, offset, data)


async def test_what_has_much_to_carry_is_given_the_time_for_it(patient_clock):
    """The last share is sent as one, when others had sent most of theirs: they say less of it."""
    servers = [SlowLine(f"slow{number}") for number in range(4)]
    cap = await put(Broker(servers), bytes(7 << 20), Encoding(2, 3, 4))
    assert len(spread_of(servers, cap.storage_index)) == 4


async def write_slowly(seconds, call):
    if call.verb == "write_share":
        await trio.sleep(seconds)


async def test_a_cancelled_upload_leaves_nothing_reserved(autojump_clock):
    servers, broker = empty_grid(4)

    async def stall(call):
        if call.verb == "write_share":
            await trio.sleep_forever()

    for server in servers:
        server.before_call = stall
    with trio.move_on_after(1.0) as scope:
        await put(broker, LARGE)
    assert scope.cancelled_caught
    assert nothing_unfinished(servers)
    assert [server.count("abort_share") for server in servers] == [1] * 4


async def test_a_cancelled_search_for_places_leaves_nothing_reserved(autojump_clock):
    servers, broker = empty_grid(4)
    servers[2].answer_delay = 10.0
    with trio.move_on_after(15.0):
        await put(broker, LARGE)
    assert nothing_unfinished(servers)


async def test_uploading_the_same_twice_at_once():
    servers, broker = empty_grid(4)
    caps = []

    async def put_one():
        caps.append(await put(broker, LARGE))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put_one)
        nursery.start_soon(put_one)
    assert caps[0] == caps[1]
    assert nothing_unfinished(servers)
    assert await reads_back(broker, caps[0], LARGE)


async def test_what_a_crash_left_is_continued():
    servers, broker = empty_grid(4)
    cap = await put(broker, LARGE)
    index = cap.storage_index
    for server in servers:
        shnum = next(iter(server.held(index)))
        size = len(server.shares.pop((index, shnum)).data)
        lease = SECRETS.lease(index, server)
        secret = SECRETS.upload_secret(index, server)
        await server.allocate(index, frozenset({shnum}), size, secret, lease)
    assert await put(broker, LARGE) == cap
    assert await reads_back(broker, cap, LARGE)
    assert nothing_unfinished(servers)


# --- shares that are there and are wrong ----------------------------------------------------------


async def test_a_share_that_is_cut_does_not_count():
    servers, broker = empty_grid(4)
    cap = await put(broker, LARGE)
    for server in servers[:1]:
        shnum = next(iter(server.held(cap.storage_index)))
        server.truncate(cap.storage_index, shnum, -10)
    assert await put(broker, LARGE) == cap  # three good ones are enough


async def test_when_what_is_there_is_useless_a_random_key_is_used():
    servers, broker = empty_grid(4)
    cap = await put(broker, LARGE)
    for server in servers:
        for shnum in server.held(cap.storage_index):
            server.corrupt(cap.storage_index, shnum, -1)
    other = await put(broker, LARGE)
    assert other != cap
    assert await reads_back(broker, other, LARGE)


async def test_a_share_claimed_and_not_there_does_not_count():
    servers, broker = empty_grid(4)
    cap = await put(broker, LARGE)
    for server in servers:
        for shnum in server.held(cap.storage_index):
            server.shares[cap.storage_index, shnum].data.clear()
    other = await put(broker, LARGE)
    assert await reads_back(broker, other, LARGE)


# --- memory ---------------------------------------------------------------------------------------


class EndlessSource:
    """Contents made up as they are read."""

    def __init__(self, size):
        self.size = size
        self.read_to = 0

    async def read(self, offset, size):
        await trio.lowlevel.checkpoint()
        self.read_to = offset + size
        return bytes(size)


async def test_the_next_writes_follow_before_the_slowest_server_has_its_own():
    """As long as no more than 8 MiB are on their way: one after the other for one server alone.

    Its writes are held until no more come. Not on a virtual clock, which would run on while threads
    encode.
    """
    servers, broker = empty_grid(4)
    source = EndlessSource(60 << 20)
    go_on = trio.Event()
    come = 0

    async def hold(call):
        nonlocal come
        if call.verb == "write_share" and not go_on.is_set():
            come += 1
            if come == 3:
                await trio.testing.wait_all_tasks_blocked(0.2)  # to see whether there would be more
                assert come == 3
                assert source.read_to <= 26 << 20  # the three, and what waits to follow
                go_on.set()
            await go_on.wait()

    servers[2].before_call = hold
    cap = await put(broker, source, Encoding(2, 3, 4), convergence=None)
    assert [len(server.held(cap.storage_index)) for server in servers] == [1] * 4
    assert await reads_back(broker, cap, bytes(60 << 20))


async def test_shares_are_where_the_capability_says():
    servers, broker = empty_grid(4)
    cap = await put(broker, LARGE)
    assert cap.storage_index == chk_storage_index(cap.key)
    for server in servers:
        assert await server.list_shares(ShareKind.IMMUTABLE, cap.storage_index)
