"""What every storage server must do, whatever it is made of: one suite for all of them.

A test module subclasses :class:`StorageServerContract` and gives a fixture ``server``, a fresh
server that is empty. Only the protocol is used here, and nothing that stock Tahoe servers do
differently.
"""

from __future__ import annotations

import pytest
import trio

from lafsfs.errors import (
    BadWriteEnablerError,
    NoSuchShareError,
    NoSuchUploadError,
    ProtocolError,
)
from lafsfs.grid.api import (
    LeaseSecrets,
    ReadVector,
    ShareKind,
    SlotSecrets,
    StorageServer,
    TestVector,
    TestWriteVectors,
    WriteVector,
)

IMMUTABLE, MUTABLE = ShareKind.IMMUTABLE, ShareKind.MUTABLE
SI = bytes(range(16))
OTHER_SI = bytes(range(1, 17))
SECRET = b"u" * 32
OTHER_SECRET = b"v" * 32
LEASE = LeaseSecrets(b"r" * 32, b"c" * 32)
OTHER_LEASE = LeaseSecrets(b"R" * 32, b"C" * 32)
SLOT = SlotSecrets(b"w" * 32, LEASE)
MUST_NOT_EXIST = TestVector(0, 1, b"")
ALL = (ReadVector(0, 10_000),)


def writing(data: bytes, offset: int = 0, **more) -> TestWriteVectors:
    return TestWriteVectors(writes=(WriteVector(offset, data),), **more)


async def store(server: StorageServer, data: bytes, shnum: int = 0, si: bytes = SI) -> None:
    """Put one immutable share there."""
    await server.allocate(si, frozenset({shnum}), len(data), SECRET, LEASE)
    assert await server.write_share(si, shnum, SECRET, 0, data)


async def store_slot(server: StorageServer, **shares: bytes) -> None:
    """Put mutable shares there: ``store_slot(server, s0=b"...")``."""
    vectors = {int(name[1:]): writing(data) for name, data in shares.items()}
    assert (await server.read_test_write(SI, SLOT, vectors, ())).success


async def store_slot_at(server: StorageServer, si: bytes, data: bytes) -> None:
    """Put one mutable share under another index."""
    assert (await server.read_test_write(si, SLOT, {0: writing(data)}, ())).success


async def slot_contents(server: StorageServer) -> dict[int, bytes]:
    """Every share of the slot, as who holds the enabler reads them."""
    result = await server.read_test_write(SI, SLOT, {}, ALL)
    return {shnum: data for shnum, (data,) in result.reads.items()}


class StorageServerContract:
    """Subclass it, and provide the fixture ``server``."""

    # --- the server itself ------------------------------------------------------------------------

    async def test_a_server_has_a_name_an_id_and_a_place(self, server):
        assert server.name
        assert len(server.server_id) == 20
        assert server.permutation_seed

    async def test_a_server_says_how_much_room_it_has(self, server):
        version = await server.version()
        assert version.application
        assert version.available_space > 0
        assert version.maximum_immutable_share_size > 0
        assert version.maximum_mutable_share_size > 0
        assert version.total_space is None or version.total_space >= version.available_space

    @pytest.mark.parametrize("kind", ShareKind)
    async def test_an_absent_share_reads_as_nothing(self, server, kind):
        assert await server.list_shares(kind, SI) == frozenset()
        assert await server.read_share(kind, SI, 0, 0, 100) == b""

    # --- immutable shares -------------------------------------------------------------------------

    async def test_what_was_uploaded_is_read(self, server):
        answer = await server.allocate(SI, frozenset({0, 3}), 10, SECRET, LEASE)
        assert (answer.already_have, answer.allocated) == (frozenset(), frozenset({0, 3}))
        assert await server.write_share(SI, 3, SECRET, 0, b"0123456789")
        assert await server.list_shares(IMMUTABLE, SI) == {3}
        assert await server.read_share(IMMUTABLE, SI, 3, 0, 10) == b"0123456789"
        assert await server.read_share(IMMUTABLE, SI, 0, 0, 10) == b""

    async def test_pieces_may_come_in_any_order(self, server):
        await server.allocate(SI, frozenset({0}), 10, SECRET, LEASE)
        assert not await server.write_share(SI, 0, SECRET, 6, b"6789")
        assert not await server.write_share(SI, 0, SECRET, 0, (b"0", b"", b"1"))
        assert await server.list_shares(IMMUTABLE, SI) == frozenset()
        assert await server.read_share(IMMUTABLE, SI, 0, 0, 10) == b""
        assert await server.write_share(SI, 0, SECRET, 2, b"2345")
        assert await server.read_share(IMMUTABLE, SI, 0, 0, 10) == b"0123456789"

    async def test_a_range_may_be_written_twice_but_not_changed(self, server):
        await server.allocate(SI, frozenset({0}), 10, SECRET, LEASE)
        await server.write_share(SI, 0, SECRET, 0, b"01234")
        assert not await server.write_share(SI, 0, SECRET, 2, b"234")
        with pytest.raises(ProtocolError):
            await server.write_share(SI, 0, SECRET, 2, b"2X4")
        assert await server.write_share(SI, 0, SECRET, 3, b"3456789")
        assert await server.read_share(IMMUTABLE, SI, 0, 0, 10) == b"0123456789"

    async def test_nothing_is_written_past_what_was_allocated(self, server):
        await server.allocate(SI, frozenset({0}), 4, SECRET, LEASE)
        with pytest.raises(ProtocolError):
            await server.write_share(SI, 0, SECRET, 2, b"234")
        assert await server.write_share(SI, 0, SECRET, 0, b"0123")

    @pytest.mark.parametrize(
        ("offset", "size", "expected"),
        [(0, 3, b"012"), (4, 100, b"4567"), (8, 10, b""), (100, 10, b""), (3, 0, b"")],
    )
    async def test_reads_stop_at_the_end(self, server, offset, size, expected):
        await store(server, b"01234567")
        assert await server.read_share(IMMUTABLE, SI, 0, offset, size) == expected

    async def test_a_share_that_is_there_is_not_allocated_again(self, server):
        await store(server, b"first", 0)
        answer = await server.allocate(SI, frozenset({0, 1}), 5, OTHER_SECRET, OTHER_LEASE)
        assert answer.already_have == {0}
        assert answer.allocated == {1}

    async def test_a_finished_share_cannot_be_written_or_aborted(self, server):
        await store(server, b"data")
        with pytest.raises(NoSuchUploadError):
            await server.write_share(SI, 0, SECRET, 0, b"data")
        with pytest.raises(NoSuchUploadError):
            await server.abort_share(SI, 0, SECRET)
        assert await server.read_share(IMMUTABLE, SI, 0, 0, 10) == b"data"

    async def test_another_clients_upload_is_left_alone(self, server):
        await server.allocate(SI, frozenset({0}), 4, SECRET, LEASE)
        answer = await server.allocate(SI, frozenset({0, 1}), 4, OTHER_SECRET, OTHER_LEASE)
        assert (answer.already_have, answer.allocated) == (frozenset(), frozenset({1}))
        with pytest.raises(NoSuchUploadError):
            await server.write_share(SI, 0, OTHER_SECRET, 0, b"evil")
        with pytest.raises(NoSuchUploadError):
            await server.abort_share(SI, 0, OTHER_SECRET)
        assert await server.write_share(SI, 0, SECRET, 0, b"good")

    async def test_the_same_upload_is_found_again(self, server):
        await server.allocate(SI, frozenset({0}), 4, SECRET, LEASE)
        await server.write_share(SI, 0, SECRET, 0, b"01")
        answer = await server.allocate(SI, frozenset({0}), 4, SECRET, LEASE)
        assert answer.allocated == {0}
        done = await server.write_share(SI, 0, SECRET, 0, b"01")
        assert done or await server.write_share(SI, 0, SECRET, 2, b"23")
        assert await server.read_share(IMMUTABLE, SI, 0, 0, 4) == b"0123"

    async def test_an_aborted_upload_is_gone(self, server):
        await server.allocate(SI, frozenset({0}), 4, SECRET, LEASE)
        await server.write_share(SI, 0, SECRET, 0, b"01")
        await server.abort_share(SI, 0, SECRET)
        with pytest.raises(NoSuchUploadError):
            await server.write_share(SI, 0, SECRET, 2, b"23")
        with pytest.raises(NoSuchUploadError):
            await server.abort_share(SI, 0, SECRET)
        answer = await server.allocate(SI, frozenset({0}), 4, OTHER_SECRET, LEASE)
        assert answer.allocated == {0}
        assert await server.write_share(SI, 0, OTHER_SECRET, 0, b"anew")

    async def test_writing_without_allocating_is_refused(self, server):
        with pytest.raises(NoSuchUploadError):
            await server.write_share(SI, 0, SECRET, 0, b"data")

    async def test_what_cannot_fit_is_not_allocated(self, server):
        version = await server.version()
        huge = version.available_space * 2 + 2**40
        answer = await server.allocate(SI, frozenset({0}), huge, SECRET, LEASE)
        assert (answer.already_have, answer.allocated) == (frozenset(), frozenset())
        with pytest.raises(NoSuchUploadError):
            await server.write_share(SI, 0, SECRET, 0, b"data")

    async def test_uploads_of_many_shares_at_once(self, server):
        shares = {shnum: bytes([shnum]) * 1000 for shnum in range(10)}
        await server.allocate(SI, frozenset(shares), 1000, SECRET, LEASE)

        async def upload(shnum: int, data: bytes) -> None:
            for start in range(0, 1000, 250):
                await server.write_share(SI, shnum, SECRET, start, data[start : start + 250])

        async with trio.open_nursery() as nursery:
            for shnum, data in shares.items():
                nursery.start_soon(upload, shnum, data)
        assert await server.list_shares(IMMUTABLE, SI) == frozenset(shares)
        for shnum, data in shares.items():
            assert await server.read_share(IMMUTABLE, SI, shnum, 0, 2000) == data

    async def test_storage_indexes_do_not_mix(self, server):
        await store(server, b"one", si=SI)
        await store(server, b"two", si=OTHER_SI)
        assert await server.read_share(IMMUTABLE, SI, 0, 0, 3) == b"one"
        assert await server.read_share(IMMUTABLE, OTHER_SI, 0, 0, 3) == b"two"

    async def test_bytes_of_every_value_survive(self, server):
        data = bytes(range(256)) * 1031
        await store(server, data)
        assert await server.read_share(IMMUTABLE, SI, 0, 0, len(data)) == data
        assert await server.read_share(IMMUTABLE, SI, 0, 70_001, 300) == data[70_001:70_301]

    # --- mutable slots ----------------------------------------------------------------------------

    async def test_a_slot_is_made_by_writing_to_it(self, server):
        result = await server.read_test_write(SI, SLOT, {2: writing(b"hello")}, ALL)
        assert result.success
        assert result.reads == {}
        assert await server.list_shares(MUTABLE, SI) == {2}
        assert await server.read_share(MUTABLE, SI, 2, 1, 3) == b"ell"

    async def test_reads_show_what_was_before(self, server):
        await store_slot(server, s0=b"old", s1=b"other")
        reads = (ReadVector(0, 2), ReadVector(1, 100), ReadVector(50, 5))
        result = await server.read_test_write(SI, SLOT, {0: writing(b"new")}, reads)
        assert result.reads == {0: (b"ol", b"ld", b""), 1: (b"ot", b"ther", b"")}
        assert await slot_contents(server) == {0: b"new", 1: b"other"}

    async def test_without_vectors_all_shares_are_read(self, server):
        await store_slot(server, s0=b"zero", s7=b"seven")
        assert await slot_contents(server) == {0: b"zero", 7: b"seven"}

    @pytest.mark.parametrize(
        ("test", "passes"),
        [
            (TestVector(0, 5, b"hello"), True),
            (TestVector(1, 3, b"ell"), True),
            (TestVector(0, 5, b"Hello"), False),
            (TestVector(0, 4, b"hello"), False),
            (TestVector(3, 10, b"lo"), True),
            (TestVector(9, 3, b""), True),
            (MUST_NOT_EXIST, False),
        ],
    )
    async def test_a_write_happens_only_if_its_tests_pass(self, server, test, passes):
        await store_slot(server, s0=b"hello")
        vectors = {0: writing(b"J", tests=(test,))}
        result = await server.read_test_write(SI, SLOT, vectors, ALL)
        assert result.success is passes
        assert result.reads == {0: (b"hello",)}
        expected = b"Jello" if passes else b"hello"
        assert await server.read_share(MUTABLE, SI, 0, 0, 10) == expected

    async def test_one_failing_test_stops_every_write(self, server):
        await store_slot(server, s0=b"zero", s1=b"one")
        vectors = {
            0: writing(b"Z", tests=(TestVector(0, 4, b"zero"),)),
            1: writing(b"O", tests=(TestVector(0, 3, b"two"),)),
            2: writing(b"T", tests=(MUST_NOT_EXIST,)),
        }
        result = await server.read_test_write(SI, SLOT, vectors, ())
        assert not result.success
        assert await slot_contents(server) == {0: b"zero", 1: b"one"}

    async def test_must_not_exist_passes_for_an_absent_share(self, server):
        await store_slot(server, s0=b"zero")
        vectors = {1: writing(b"one", tests=(MUST_NOT_EXIST,))}
        assert (await server.read_test_write(SI, SLOT, vectors, ())).success
        assert await slot_contents(server) == {0: b"zero", 1: b"one"}

    async def test_a_test_of_one_share_guards_the_write_of_another(self, server):
        await store_slot(server, s0=b"zero")
        vectors = {
            0: TestWriteVectors(tests=(TestVector(0, 4, b"nope"),)),
            1: writing(b"one"),
        }
        assert not (await server.read_test_write(SI, SLOT, vectors, ())).success
        assert await slot_contents(server) == {0: b"zero"}

    @pytest.mark.parametrize(
        ("vector", "expected"),
        [
            (writing(b"XY", 1), b"0XY3456789"),
            (writing(b"XY", 9), b"012345678XY"),
            (writing(b"XY", 12), b"0123456789\0\0XY"),
            (writing(b"X", 0, new_length=4), b"X123"),
            (writing(b"XY", 12, new_length=13), b"0123456789\0\0X"),
            (writing(b"whole new", 0, new_length=9), b"whole new"),
            (TestWriteVectors(new_length=3), b"012"),
            (TestWriteVectors(new_length=100), b"0123456789"),
            (
                TestWriteVectors(writes=(WriteVector(0, b"ab"), WriteVector(1, b"cd"))),
                b"acd3456789",
            ),
        ],
    )
    async def test_writes_grow_overlap_and_cut(self, server, vector, expected):
        await store_slot(server, s0=b"0123456789")
        assert (await server.read_test_write(SI, SLOT, {0: vector}, ())).success
        assert await slot_contents(server) == {0: expected}

    async def test_what_was_cut_off_comes_back_as_zeros(self, server):
        await store_slot(server, s0=b"secret contents")
        await server.read_test_write(SI, SLOT, {0: TestWriteVectors(new_length=2)}, ())
        await server.read_test_write(SI, SLOT, {0: writing(b"X", 5)}, ())
        assert await slot_contents(server) == {0: b"se\0\0\0X"}

    async def test_length_zero_deletes_a_share(self, server):
        await store_slot(server, s0=b"zero", s1=b"one")
        delete = {0: TestWriteVectors(tests=(TestVector(0, 4, b"zero"),), new_length=0)}
        assert (await server.read_test_write(SI, SLOT, delete, ())).success
        assert await slot_contents(server) == {1: b"one"}
        assert (await server.read_test_write(SI, SLOT, {1: writing(b"", new_length=0)}, ())).success
        assert await server.list_shares(MUTABLE, SI) == frozenset()

    async def test_deleting_what_is_not_there_changes_nothing(self, server):
        delete = {0: TestWriteVectors(new_length=0)}
        assert (await server.read_test_write(SI, SLOT, delete, ())).success
        assert await server.list_shares(MUTABLE, SI) == frozenset()

    async def test_another_write_enabler_is_refused(self, server):
        await store_slot(server, s0=b"mine")
        other = SlotSecrets(b"x" * 32, LEASE)
        for vectors in ({0: writing(b"evil")}, {1: writing(b"evil")}, {}):
            with pytest.raises(BadWriteEnablerError):
                await server.read_test_write(SI, other, vectors, ALL)
        assert await slot_contents(server) == {0: b"mine"}

    async def test_of_two_writers_with_the_same_test_one_wins(self, server):
        await store_slot(server, s0=b"0")
        results = []

        async def write(value: bytes) -> None:
            vectors = {0: writing(value, tests=(TestVector(0, 1, b"0"),))}
            results.append((await server.read_test_write(SI, SLOT, vectors, ())).success)

        async with trio.open_nursery() as nursery:
            for value in (b"a", b"b", b"c", b"d"):
                nursery.start_soon(write, value)
        assert sorted(results) == [False, False, False, True]

    async def test_a_large_slot_survives(self, server):
        data = bytes(range(256)) * 5000
        await store_slot(server, s0=data)
        await server.read_test_write(SI, SLOT, {0: writing(b"middle", 600_000)}, ())
        expected = data[:600_000] + b"middle" + data[600_006:]
        assert await server.read_share(MUTABLE, SI, 0, 0, 2 * len(data)) == expected

    # --- two kinds under one index ----------------------------------------------------------------

    async def test_a_share_of_the_other_kind_is_not_shown(self, server):
        await store(server, b"immutable")
        assert await server.list_shares(MUTABLE, SI) == frozenset()
        assert await server.read_share(MUTABLE, SI, 0, 0, 10) == b""

    # --- leases and complaints --------------------------------------------------------------------

    async def test_a_lease_needs_a_share(self, server):
        with pytest.raises(NoSuchShareError):
            await server.add_lease(SI, LEASE)

    async def test_leases_change_no_data(self, server):
        await store(server, b"immutable", 0)
        await store(server, b"too", 4)
        for lease in (LEASE, OTHER_LEASE, OTHER_LEASE):
            await server.add_lease(SI, lease)
        assert await server.read_share(IMMUTABLE, SI, 0, 0, 100) == b"immutable"
        assert await server.read_share(IMMUTABLE, SI, 4, 0, 100) == b"too"

    async def test_many_leases_change_no_slot(self, server):
        await store_slot(server, s0=b"slot")
        for number in range(8):
            await server.add_lease(SI, LeaseSecrets(bytes([number]) * 32, b"c" * 32))
        assert await slot_contents(server) == {0: b"slot"}
        assert (await server.read_test_write(SI, SLOT, {0: writing(b" grows", 4)}, ())).success
        assert await slot_contents(server) == {0: b"slot grows"}

    @pytest.mark.parametrize("kind", ShareKind)
    async def test_a_complaint_is_taken_about_anything(self, server, kind):
        await server.advise_corrupt_share(kind, SI, 0, "the hash is wrong")
        await store(server, b"data")
        await server.advise_corrupt_share(IMMUTABLE, SI, 0, "the hash is wrong, \0 and ü")
        assert await server.read_share(IMMUTABLE, SI, 0, 0, 10) == b"data"

    # --- cancellation -----------------------------------------------------------------------------

    async def test_every_verb_is_a_checkpoint(self, server):
        verbs = [
            server.version,
            lambda: server.list_shares(IMMUTABLE, SI),
            lambda: server.read_share(IMMUTABLE, SI, 0, 0, 1),
            lambda: server.allocate(SI, frozenset({0}), 4, SECRET, LEASE),
            lambda: server.read_test_write(SI, SLOT, {}, ()),
            lambda: server.add_lease(SI, LEASE),
        ]
        for verb in verbs:
            with trio.CancelScope() as scope:
                scope.cancel()
                await verb()
            assert scope.cancelled_caught
