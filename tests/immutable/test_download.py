"""Downloads on a fake grid: ranges, round trips, who is asked, corruption, cancellation.

The virtual clock runs on while a worker thread works, so tests that look at it keep blocks small
enough to be hashed without one.
"""

import gc

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.cache.segments import Segment
from lafsfs.caps import CHKCap, CHKVerifyCap
from lafsfs.errors import FormatError, NotEnoughSharesError
from lafsfs.formats.chk import plan_layout
from lafsfs.formats.geometry import CHKGeometry
from lafsfs.formats.ueb import ueb_size
from lafsfs.grid.api import ShareKind
from lafsfs.grid.broker import Broker
from lafsfs.grid.encoding import Encoding
from lafsfs.immutable import CHKFile, SegmentCache
from lafsfs.immutable.encoder import Encoder
from lafsfs.immutable.verified import ContradictionError, VerifiedFile
from lafsfs.vfs.verbs.readahead import MAX_WINDOW
from tests import golden_data
from tests.immutable.downloading import CONTENTS, holders_in_order, stored
from tests.immutable.grids import empty_grid

# --- ranges ---------------------------------------------------------------------------------------


@given(
    size=st.integers(56, 5000),
    segment_size=st.integers(1, 3000),
    k=st.integers(1, 5),
    more=st.integers(0, 3),
    ranges=st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 6000)), max_size=4),
)
@settings(max_examples=30, deadline=None)
def test_any_range_of_any_encoding_is_the_slice(size, segment_size, k, more, ranges):
    data = golden_data.generated("ranges", size)

    async def check():
        encoding = Encoding(k, 1, k + more, max_segment_size=max(segment_size, size // 300))
        _, broker, cap = await stored(3, data, encoding)
        async with SegmentCache.open() as cache:
            file = CHKFile(cap, broker, cache)
            for offset, length in ranges:
                assert await file.read(offset, length) == data[offset : offset + length]
            assert await file.read(0, size) == data

    trio.run(check)


async def test_reading_nothing_asks_nobody():
    servers, broker, cap = await stored()
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        assert await file.read(0, 0) == b""
        assert await file.read(100_000, 5) == b""
        assert await file.read(10**12, 10**12) == b""
        with pytest.raises(ValueError, match="range"):
            await file.read(-1, 5)
    assert not any(server.calls for server in servers)


async def test_an_empty_file_may_have_a_capability_too():
    async with SegmentCache.open() as cache:
        file = CHKFile(CHKCap(bytes(16), bytes(32), 1, 1, 0), Broker([]), cache)
        assert await file.read(0, 10) == b""


# --- round trips ----------------------------------------------------------------------------------


async def test_the_first_byte_takes_two_round_trips_and_each_segment_one_more(patient_clock):
    data = golden_data.generated("three", 3 << 20)
    servers, broker, cap = await stored(10, data, Encoding(8, 8, 10))
    for server in servers:
        server.delay = 1.0
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        assert await file.read((1 << 20) + 5, 10) == data[(1 << 20) + 5 : (1 << 20) + 15]
        assert trio.current_time() == 2.0  # list; then header, UEB, hashes and block together
        assert await file.read(5, 10) == data[5:15]
        assert trio.current_time() == 3.0
        assert await file.read(0, 2 << 20) == data[: 2 << 20]  # both are cached
        assert trio.current_time() == 3.0
        assert await file.read(0, 3 << 20) == data
        assert trio.current_time() == 4.0
    # header, block and tail are three ranges at most; a known share is one for each block
    asked = [server.count("read_share") for server in servers]
    used = sum(count > 0 for count in asked)  # low numbers take over from those that came first
    assert sum(asked) <= 3 * 8 + 2 * used


async def test_a_small_file_is_one_request_per_share(autojump_clock):
    data = CONTENTS[:3000]
    servers, broker, cap = await stored(4, data, Encoding(2, 2, 4))
    for server in servers:
        server.delay = 1.0
    async with SegmentCache.open() as cache:
        assert await CHKFile(cap, broker, cache).read(0, 3000) == data
    assert trio.current_time() == 2.0
    assert sorted(server.count("read_share") for server in servers) == [0, 0, 1, 1]


async def test_other_segment_sizes_cost_the_first_read_one_round_trip_more(patient_clock):
    # 128 KiB segments, as clients made them for many years
    data = golden_data.generated("old", 1_000_000)
    servers, broker, cap = await stored(4, data, Encoding(3, 3, 4, max_segment_size=128 << 10))
    for server in servers:
        server.delay = 1.0
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        assert await file.read(500_000, 5) == data[500_000:500_005]
        first = trio.current_time()
        assert await file.read(0, 1_000_000) == data
        assert trio.current_time() == first + 1.0  # the other segments, in two runs
    assert first == 3.0  # list; header; then by its hint UEB, hashes and block together


async def test_a_file_of_many_segments_needs_few_hashes():
    data = bytes(2000) + CONTENTS + bytes(2000)
    servers, broker, cap = await stored(1, data, Encoding(1, 1, 1, max_segment_size=100))
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        assert await file.read(50_000, 100) == data[50_000:50_100]
        calls = servers[0].count("read_share")
        for offset in range(50_100, 50_900, 100):
            assert await file.read(offset, 100) == data[offset : offset + 100]
        # 1040 segments are two rows of hashes; the neighbours have theirs in common
        assert servers[0].count("read_share") == calls + 8


async def test_what_is_read_ahead_at_once_is_one_range_of_each_share():
    """Segments have a little more than a mebibyte if that is no multiple of k."""
    servers, broker, cap = await stored(3, bytes(10 << 20), Encoding(3, 3, 3))
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        await file.read(0, 10)
        for server in servers:
            server.calls.clear()
        ahead = file.prefetch(file.segment_size, MAX_WINDOW // 2)
        assert len(await file.read(file.segment_size, MAX_WINDOW // 2)) == MAX_WINDOW // 2
        ahead.cancel()
    assert [server.count("read_share") for server in servers] == [1, 1, 1]


# --- who is asked ---------------------------------------------------------------------------------


async def test_known_shares_are_read_from_low_numbers_and_different_servers():
    servers, broker, cap = await stored(2, CONTENTS, Encoding(2, 2, 4, max_segment_size=10_000))
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        await file.read(0, 10)
        for server in servers:
            server.calls.clear()
        await file.read(20_000, 10)
        assert [server.count("read_share") for server in servers] == [1, 1]


async def test_one_server_may_give_all_the_shares():
    servers, broker, cap = await stored(1, CONTENTS, Encoding(2, 1, 4, max_segment_size=10_000))
    async with SegmentCache.open() as cache:
        assert await CHKFile(cap, broker, cache).read(0, 100_000) == CONTENTS
    assert len(servers[0].held(cap.storage_index)) == 4


async def test_not_all_of_a_large_grid_is_asked():
    servers, broker, cap = await stored(30)
    async with SegmentCache.open() as cache:
        assert await CHKFile(cap, broker, cache).read(0, 10) == CONTENTS[:10]
    assert sum(server.count("list_shares") for server in servers) == 10


async def test_a_share_at_the_far_end_of_a_large_grid_is_found():
    servers, broker, cap = await stored(30)
    order = broker.servers_for(cap.storage_index)
    shares = {shnum: share for s in order for shnum, share in s.held(cap.storage_index).items()}
    for server in servers:
        server.lose(cap.storage_index)
    for shnum, server in zip((1, 3), order[-2:], strict=True):
        server.shares[cap.storage_index, shnum] = shares[shnum]
    async with SegmentCache.open() as cache:
        assert await CHKFile(cap, broker, cache).read(0, 100_000) == CONTENTS


async def test_a_share_at_two_servers_is_read_at_one():
    servers, broker, cap = await stored()
    first, second, *rest = holders_in_order(servers, broker, cap)
    for server in rest:
        server.lose(cap.storage_index)
    for shnum, a, b in ((0, first, second), (1, second, first)):
        b.shares[cap.storage_index, shnum] = a.shares[cap.storage_index, shnum]
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        await file.read(0, 10)
        first.calls.clear()
        second.calls.clear()
        assert await file.read(0, 100_000) == CONTENTS
    assert [first.count("read_share"), second.count("read_share")] == [1, 1]  # nine blocks each


async def test_servers_that_have_been_failing_are_asked_last():
    servers, broker, cap = await stored(12)
    doubtful = broker.servers_for(cap.storage_index)[5]
    broker.note_failure(doubtful)
    async with SegmentCache.open() as cache:
        await CHKFile(cap, broker, cache).read(0, 10)
    assert sum(server.count("list_shares") for server in servers) == 10
    assert doubtful.count() == 0


# --- corruption, beyond what test_fuzz does -------------------------------------------------------


async def test_corrupt_shares_are_reported_once_and_routed_around():
    servers, broker, cap = await stored()
    bad = holders_in_order(servers, broker, cap)[0]
    bad.corrupt(cap.storage_index, 0, 0x24 + 5 * 4)  # a byte of block 0
    async with SegmentCache.open(0) as cache:
        file = CHKFile(cap, broker, cache)
        assert await file.read(0, 100_000) == CONTENTS
        calls = bad.count("read_share")
        assert await file.read(0, 100_000) == CONTENTS
        await trio.testing.wait_all_tasks_blocked()
    assert [advice[1:3] for advice in bad.advisories] == [(cap.storage_index, 0)]
    # only block 0 is bad, but others will do for all of the file
    assert bad.count("read_share") == calls == 2


async def test_every_share_has_a_bad_block_and_the_file_is_read_all_the_same():
    servers, broker, cap = await stored()
    for server in servers:
        for shnum in server.held(cap.storage_index):
            server.corrupt(cap.storage_index, shnum, 0x24 + shnum * 5000 + 17)
            server.corrupt(cap.storage_index, shnum, 0x24 + (shnum + 4) * 5000 + 17)
    async with SegmentCache.open() as cache:
        assert await CHKFile(cap, broker, cache).read(0, 100_000) == CONTENTS


async def test_a_capability_with_other_numbers_than_the_file():
    _, broker, cap = await stored()
    async with SegmentCache.open() as cache:
        for wrong in (
            CHKCap(cap.key, cap.ueb_hash, 3, cap.n, cap.size),
            CHKCap(cap.key, cap.ueb_hash, cap.k, 5, cap.size),
            CHKCap(cap.key, cap.ueb_hash, cap.k, cap.n, cap.size - 1),
        ):
            with pytest.raises(ContradictionError):
                await CHKFile(wrong, broker, cache).read(0, 10)


async def test_a_capability_of_another_file_with_the_same_storage_index():
    _, broker, cap = await stored()
    wrong = CHKCap(cap.key, bytes(32), cap.k, cap.n, cap.size)
    async with SegmentCache.open() as cache:
        with pytest.raises(NotEnoughSharesError, match="is corrupt: its UEB is not the one"):
            await CHKFile(wrong, broker, cache).read(0, 10)


async def test_a_share_that_is_wrong_in_itself_is_not_asked_again():
    servers, broker, cap = await stored()
    bad = holders_in_order(servers, broker, cap)[0]
    bad.corrupt(cap.storage_index, 0, 3)  # the version
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        await file.read(0, 10)
        bad.calls.clear()
        assert await file.read(0, 100_000) == CONTENTS
    assert bad.count("read_share") == 0


async def test_a_share_stays_reported_when_everybody_is_asked_anew():
    servers, broker, cap = await stored()
    first, second, *rest = holders_in_order(servers, broker, cap)
    for server in rest:
        server.lose(cap.storage_index)
    first.corrupt(cap.storage_index, 0, 3)
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        for _ in range(3):
            with pytest.raises(NotEnoughSharesError, match=r"share 0 on .* is corrupt"):
                await file.read(0, 10)
        await trio.testing.wait_all_tasks_blocked()
        assert len(first.advisories) == 1
        assert second.advisories == []
        first.corrupt(cap.storage_index, 0, 3)  # repaired
        assert await file.read(0, 100_000) == CONTENTS


def encoded(encoder, data):
    """A capability and its shares, straight from an encoder."""
    geometry = encoder.geometry
    streams = [encoder.header()] * geometry.n
    for segment in range(geometry.num_segments):
        offset = geometry.segment_offset(segment)
        blocks = encoder.encode(data[offset : offset + geometry.segment_length(segment)])
        streams = [stream + block for stream, block in zip(streams, blocks, strict=True)]
    streams = [stream + encoder.trees(shnum) for shnum, stream in enumerate(streams)]
    endings = encoder.finish()
    shares = [stream + end for stream, end in zip(streams, endings.endings, strict=True)]
    cap = CHKCap(bytes(16), endings.ueb_hash, geometry.k, geometry.n, geometry.size)
    return cap, shares


def grid_with(cap, shares):
    """One server with these shares."""
    (server,), broker = empty_grid(1)
    for shnum, data in enumerate(shares):
        server.put(ShareKind.IMMUTABLE, cap.storage_index, shnum, data)
    return server, broker


class LyingEncoder(Encoder):
    """What an uploader does whose shares are consistent, but not of what their UEB says."""

    def encode(self, plaintext):
        blocks = super().encode(plaintext)
        self._segment_hashes[-1] = bytes(32)
        return blocks


async def test_a_file_that_was_stored_wrongly_is_found_out():
    geometry = CHKGeometry.plan(1000, 2, 3, 500)
    cap, shares = encoded(LyingEncoder(bytes(16), geometry), CONTENTS)
    server, broker = grid_with(cap, shares)
    async with SegmentCache.open() as cache:
        with pytest.raises(ContradictionError, match="good blocks make a bad segment 1"):
            await CHKFile(cap, broker, cache).read(700, 10)
    assert server.advisories == []  # not the server's fault


async def test_shares_in_the_layout_of_very_large_files(autojump_clock):
    geometry = CHKGeometry.plan(1000, 2, 3, 300)
    encoder = Encoder(bytes(16), geometry)
    encoder.layout = plan_layout(geometry, ueb_size(geometry), version=2)
    cap, shares = encoded(encoder, CONTENTS[:1000])
    server, broker = grid_with(cap, shares)
    server.delay = 1.0
    async with SegmentCache.open() as cache:
        assert await CHKFile(cap, broker, cache).read(0, 10) == CONTENTS[:10]
        assert trio.current_time() == 3.0
        assert await CHKFile(cap, broker, cache).read(0, 1000) == CONTENTS[:1000]


def test_a_header_cannot_make_us_fetch_more_than_usual():
    verified = VerifiedFile(CHKVerifyCap(bytes(16), bytes(32), 2, 4, 100_000_000))
    assert verified.hinted_geometry(64 << 10).segment_size == 128 << 10
    for block_size in (0, (512 << 10) + 1, 2**32 - 1):
        with pytest.raises(FormatError):
            verified.hinted_geometry(block_size)


# --- many readers ---------------------------------------------------------------------------------


async def test_readers_of_one_segment_share_one_fetch(autojump_clock):
    servers, broker, cap = await stored()
    for server in servers:
        server.delay = 1.0
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(file.read, 0, 10)
    assert [server.count("list_shares") for server in servers] == [1] * 4


async def test_a_cancelled_reader_does_not_kill_the_fetch_of_another(autojump_clock):
    servers, broker, cap = await stored()
    for server in servers:
        server.delay = 1.0
    got = []

    async def impatient():
        with trio.move_on_after(0.5):
            await file.read(0, 10)

    async def patient():
        await trio.sleep(0.25)
        got.append(await file.read(5, 10))

    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(impatient)
            nursery.start_soon(patient)
        assert got == [CONTENTS[5:15]]
        assert [server.count("list_shares") for server in servers] == [1] * 4


async def test_a_fetch_that_nobody_waits_for_is_cancelled(autojump_clock):
    servers, broker, cap = await stored()
    for server in servers:
        server.delay = 1.0
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        with trio.move_on_after(1.5):
            await file.read(0, 10)
        await trio.sleep(10)
        assert cache.size == 0
        calls = sum(server.count() for server in servers)
        assert await file.read(0, 10) == CONTENTS[:10]
        # who has been asked before is remembered
        assert sum(server.count("list_shares") for server in servers) == 4
        assert sum(server.count() for server in servers) > calls


async def test_late_answers_are_welcome(autojump_clock):
    servers, broker, cap = await stored()
    for server in servers[1:]:
        server.delay = 1.0
    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        with trio.move_on_after(0.5):
            await file.read(0, 10)
        await trio.sleep(1.0)
        assert file.health().good_shares == 4
        assert await file.read(0, 10) == CONTENTS[:10]
    assert [server.count("list_shares") for server in servers] == [1, 1, 1, 1]


async def test_many_segments_at_once(autojump_clock):
    servers, broker, cap = await stored()
    for server in servers:
        server.delay = 1.0
    got = {}

    async def read(offset):
        got[offset] = await file.read(offset, 10_000)

    async with SegmentCache.open() as cache:
        file = CHKFile(cap, broker, cache)
        async with trio.open_nursery() as nursery:
            for offset in range(0, 100_000, 10_000):
                nursery.start_soon(read, offset)
    assert b"".join(got[offset] for offset in sorted(got)) == CONTENTS
    assert trio.current_time() <= 8.0


async def test_files_of_one_capability_share_the_cache():
    servers, broker, cap = await stored()
    async with SegmentCache.open() as cache:
        assert await CHKFile(cap, broker, cache).read(0, 100_000) == CONTENTS
        for server in servers:
            server.calls.clear()
        again = CHKFile(cap, broker, cache)
        assert await again.read(0, 100_000) == CONTENTS
        # the new object learns the segment size with its first miss, which is all it asks
        assert sum(server.count("read_share") for server in servers) <= 2 * 4


async def test_what_was_read_does_not_wait_for_the_garbage_collector():
    _, broker, cap = await stored()
    async with SegmentCache.open(20_000) as cache:
        file = CHKFile(cap, broker, cache)
        await file.read(0, 10)
        gc.collect()
        gc.disable()
        try:
            prefetch = file.prefetch(0, 100_000)
            assert await file.read(0, 100_000) == CONTENTS
            prefetch.cancel()
            del prefetch
            for offset in range(0, 100_000, 10_000):
                await file.read(offset, 10)
            alive = [thing for thing in gc.get_objects() if isinstance(thing, Segment)]
        finally:
            gc.enable()
    assert len(alive) <= 2 + 1  # what the cache has room for, and the newest
