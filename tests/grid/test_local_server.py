"""The embedded server: the contract, and what a directory adds to it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.crypto import base32
from lafsfs.errors import BadWriteEnablerError, NoSuchUploadError, ProtocolError, ServerError
from lafsfs.formats import containers
from lafsfs.grid.api import LeaseSecrets, SlotSecrets, TestWriteVectors
from lafsfs.grid.identity import Identity
from lafsfs.grid.local import LocalServer
from tests.grid import contract
from tests.grid.contract import (
    IMMUTABLE,
    LEASE,
    MUTABLE,
    OTHER_LEASE,
    OTHER_SECRET,
    OTHER_SI,
    SECRET,
    SI,
    SLOT,
    writing,
)

ME = Identity.of(b"i" * 20)
NOW = 1_700_000_000
IMMUTABLE_FILE = (
    containers.pack_immutable_header(9, 1)
    + b"immutable"
    + containers.Lease.shown(0, b"r" * 32, b"c" * 32, NOW).hashed().pack_immutable()
)


class Clock:
    """Seconds since 1970, as a test wants them."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def server(tmp_path, clock):
    (tmp_path / "grid" / "shares").mkdir(parents=True)
    server = LocalServer(tmp_path / "grid", ME, clock=clock)
    yield server
    await server.aclose()


class TestContract(contract.StorageServerContract):
    @pytest.fixture
    async def server(self, server):
        return server


def share_path(server, shnum=0, si=SI):
    text = base32.encode(si)
    return server._directory.shares / text[:2] / text / str(shnum)


def leases_of(server, shnum=0):
    data = share_path(server, shnum).read_bytes()
    if containers.is_mutable(data):
        slot = containers.parse_mutable_head(data, len(data))
        return containers.parse_mutable_tail(slot, data[slot.extra_lease_offset :])
    share = containers.parse_immutable_header(data, len(data))
    return tuple(containers.parse_immutable_leases(share, data[share.lease_offset :]))


# --- leases ---------------------------------------------------------------------------------------


async def test_an_upload_leaves_a_lease_of_31_days(server):
    await contract.store(server, b"data")
    (lease,) = leases_of(server)
    assert lease.is_renewed_by(LEASE.renew)
    assert lease.expires == NOW + 31 * 24 * 3600
    assert LEASE.renew not in share_path(server).read_bytes()


@pytest.mark.parametrize("kind", [IMMUTABLE, MUTABLE])
async def test_leases_are_added_once_and_renewed(server, clock, kind):
    if kind is IMMUTABLE:
        await contract.store(server, b"data")
    else:
        await contract.store_slot(server, s0=b"data")
    for _ in range(2):
        clock.now += 1000
        await server.add_lease(SI, OTHER_LEASE)
    first, second = leases_of(server)
    assert first.is_renewed_by(LEASE.renew)
    assert second.is_renewed_by(OTHER_LEASE.renew)
    assert second.expires - first.expires == 2000
    clock.now -= 10**8
    await server.add_lease(SI, LEASE)
    assert leases_of(server) == (first, second)


async def test_writing_a_slot_renews_the_lease_on_what_was_written(server, clock):
    await contract.store_slot(server, s0=b"zero", s1=b"one")
    clock.now += 500
    await contract.store_slot(server, s0=b"ZERO")
    (renewed,), (untouched,) = leases_of(server, 0), leases_of(server, 1)
    assert renewed.expires - untouched.expires == 500
    assert renewed.server_id == ME.server_id
    assert renewed.owner == 1


async def test_allocating_renews_the_lease_on_every_share_there(server, clock):
    await contract.store(server, b"data", 0)
    await contract.store(server, b"data", 5)
    clock.now += 500
    await server.allocate(SI, frozenset({0}), 4, OTHER_SECRET, LEASE)
    assert [leases_of(server, shnum)[0].expires for shnum in (0, 5)] == [
        clock.now + containers.LEASE_SECONDS
    ] * 2


async def test_more_leases_than_places_survive_every_write(server):
    await contract.store_slot(server, s0=b"0123456789")
    secrets = [LeaseSecrets(bytes([n]) * 32, bytes(32)) for n in range(9)]
    for lease in secrets:
        await server.add_lease(SI, lease)
    for data in (b"longer than it was before", b"short"):
        vectors = {0: writing(data, new_length=len(data))}
        assert (await server.read_test_write(SI, SLOT, vectors, ())).success
        leases = leases_of(server)
        assert len(leases) == 10
        assert all(each.is_renewed_by(s.renew) for each, s in zip(leases[1:], secrets, strict=True))


async def test_version_1_containers_stay_usable(server):
    """An old immutable share gets a lease of its own version; a slot becomes version 2."""
    old = containers.Lease.shown(1, b"o" * 32, b"p" * 32, NOW)
    path = share_path(server, 0)
    path.parent.mkdir(parents=True)
    header = b"\0\0\0\1" + containers.pack_immutable_header(4, 1)[4:]
    path.write_bytes(header + b"data" + old.pack_immutable())
    await server.add_lease(SI, LEASE)
    await server.add_lease(SI, LeaseSecrets(old.renew, old.cancel))
    assert [(each.is_hashed, each.renew) for each in leases_of(server)] == [
        (False, old.renew),
        (False, LEASE.renew),
    ]
    assert await server.read_share(IMMUTABLE, SI, 0, 0, 9) == b"data"
    head = bytearray(containers.pack_mutable_head(b"x" * 20, SLOT.write_enabler, 4, ()))
    head[:32] = b"Tahoe mutable container v1\n\x75\x09\x44\x03\x8e"
    head[100:192] = old.pack_mutable()
    path.write_bytes(bytes(head) + b"data" + bytes(4))
    assert (await server.read_test_write(SI, SLOT, {0: writing(b"D")}, ())).success
    data = path.read_bytes()
    assert data[:32] == b"Tahoe mutable container v2\n\xc3\x55\x21\x99\x25"
    assert data[32:52] == b"x" * 20
    assert data[468:472] == b"Data"
    assert [each.is_hashed for each in leases_of(server)] == [True, True]
    assert leases_of(server)[0].is_renewed_by(old.renew)


# --- uploads --------------------------------------------------------------------------------------


async def test_another_client_may_take_over_an_idle_upload(server, clock):
    await server.allocate(SI, frozenset({0}), 4, SECRET, LEASE)
    await server.write_share(SI, 0, SECRET, 0, b"old")
    clock.now += 29 * 60
    refused = await server.allocate(SI, frozenset({0}), 4, OTHER_SECRET, LEASE)
    assert refused.allocated == frozenset()
    clock.now += 2 * 60
    taken = await server.allocate(SI, frozenset({0}), 4, OTHER_SECRET, LEASE)
    assert taken.allocated == {0}
    with pytest.raises(NoSuchUploadError):
        await server.write_share(SI, 0, SECRET, 3, b"!")
    assert await server.write_share(SI, 0, OTHER_SECRET, 0, b"anew")


async def test_another_size_under_the_same_secret_begins_anew(server):
    await server.allocate(SI, frozenset({0}), 4, SECRET, LEASE)
    await server.write_share(SI, 0, SECRET, 0, b"ab")
    assert (await server.allocate(SI, frozenset({0}), 3, SECRET, LEASE)).allocated == {0}
    assert await server.write_share(SI, 0, SECRET, 0, b"xyz")
    assert await server.read_share(IMMUTABLE, SI, 0, 0, 9) == b"xyz"


async def test_of_two_servers_on_one_directory_the_first_to_finish_stands(server, clock):
    other = LocalServer(server._directory.path, ME, clock=clock)
    for each, secret in ((server, SECRET), (other, OTHER_SECRET)):
        answer = await each.allocate(SI, frozenset({0}), 5, secret, LEASE)
        assert answer.allocated == {0}
    assert await other.write_share(SI, 0, OTHER_SECRET, 0, b"first")
    assert await server.write_share(SI, 0, SECRET, 0, b"other")
    assert await server.read_share(IMMUTABLE, SI, 0, 0, 9) == b"first"
    await other.aclose()
    assert list(share_path(server).parent.iterdir()) == [share_path(server)]


async def test_closing_leaves_nothing_unfinished_behind(server):
    await contract.store(server, b"data", 1)
    await server.allocate(SI, frozenset({0}), 4, SECRET, LEASE)
    await server.write_share(SI, 0, SECRET, 0, b"da")
    await server.aclose()
    assert list((server._directory.shares / "incoming").iterdir()) == []
    assert await server.list_shares(IMMUTABLE, SI) == {1}
    with pytest.raises(NoSuchUploadError):
        await server.write_share(SI, 0, SECRET, 2, b"ta")


async def test_what_a_dead_process_left_is_cleared_and_what_lives_is_not(server, clock):
    incoming = server._directory.shares / "incoming"
    (incoming / "lafsfs-dead").mkdir(parents=True)
    (incoming / "lafsfs-dead" / "file.0").write_bytes(b"partial")
    (incoming / "lafsfs-dead.lock").touch()
    (incoming / "aa" / "stock").mkdir(parents=True)
    await server.allocate(SI, frozenset({0}), 4, SECRET, LEASE)
    assert not list(incoming.glob("lafsfs-dead*"))
    assert (incoming / "aa" / "stock").exists()
    other = LocalServer(server._directory.path, ME, clock=clock)
    await other.allocate(SI, frozenset({1}), 4, SECRET, LEASE)
    assert await server.write_share(SI, 0, SECRET, 0, b"here")
    await other.aclose()


async def test_uploads_cleared_away_by_someone_else_are_begun_again(server):
    await server.allocate(SI, frozenset({0}), 4, SECRET, LEASE)
    shutil.rmtree(server._directory.shares / "incoming")
    with pytest.raises(NoSuchUploadError):
        await server.write_share(SI, 0, SECRET, 0, b"data")
    await server.allocate(SI, frozenset({1}), 4, SECRET, LEASE)
    assert await server.write_share(SI, 1, SECRET, 0, b"data")


async def test_room_is_kept_and_promises_are_counted(tmp_path):
    (tmp_path / "shares").mkdir()
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    server = LocalServer(tmp_path, ME, reserved=free // 2)
    assert (await server.version()).available_space < free * 0.6
    size = free // 3
    answer = await server.allocate(SI, frozenset({0, 1}), size, SECRET, LEASE)
    assert answer.allocated == {0}
    await server.aclose()


# --- what is on disk ------------------------------------------------------------------------------


async def test_files_are_private_and_laid_out_as_stock_does(server):
    await contract.store(server, b"data", 3)
    (path,) = server._directory.path.glob("shares/aa/aaaqeayeaudaocajbifqydiob4/*")
    assert path.name == "3"
    assert path.stat().st_mode & 0o077 == 0


async def test_a_slot_leaves_no_directory_when_it_is_deleted(server):
    await contract.store_slot(server, s0=b"data")
    bucket = share_path(server).parent
    (bucket / ".0.new").write_bytes(b"left by a crash")
    delete = {0: TestWriteVectors(new_length=0)}
    assert (await server.read_test_write(SI, SLOT, delete, ())).success
    assert not bucket.exists()


async def test_strange_files_are_no_shares(server):
    await contract.store(server, b"data", 1)
    bucket = share_path(server).parent
    for name in ("01", "-1", "x", "1x", "123456", ".2.new", "٣"):
        (bucket / name).write_bytes(share_path(server, 1).read_bytes())
    (bucket / "7").write_bytes(b"no container")
    (bucket / "8").write_bytes(b"")
    assert await server.list_shares(IMMUTABLE, SI) == {1}
    assert await server.read_share(IMMUTABLE, SI, 7, 0, 5) == b""


async def test_a_share_that_was_cut_off_is_healed_by_an_upload(server):
    await contract.store(server, b"0123456789")
    path = share_path(server)
    path.write_bytes(path.read_bytes()[:15])
    assert await server.list_shares(IMMUTABLE, SI) == frozenset()
    await contract.store(server, b"0123456789")
    assert await server.read_share(IMMUTABLE, SI, 0, 0, 99) == b"0123456789"


async def test_an_immutable_file_is_no_slot_and_a_slot_takes_no_uploads(server):
    await contract.store(server, b"data")
    with pytest.raises(ProtocolError):
        await server.read_test_write(SI, SLOT, {1: writing(b"x")}, ())
    vectors = {0: writing(b"slot")}
    assert (await server.read_test_write(OTHER_SI, SLOT, vectors, ())).success
    answer = await server.allocate(OTHER_SI, frozenset({0, 1}), 4, SECRET, LEASE)
    assert (answer.already_have, answer.allocated) == (frozenset(), frozenset())


async def test_a_wrong_enabler_says_which_server_made_the_slot(server):
    await contract.store_slot(server, s0=b"data")
    directory = server._directory.path
    (directory / "server-id").write_text(base32.encode(b"j" * 20) + "\n")
    other = LocalServer(directory, Identity.of(b"j" * 20))
    with pytest.raises(BadWriteEnablerError, match=base32.encode(ME.server_id)):
        await other.read_test_write(SI, SlotSecrets(b"x" * 32, LEASE), {}, ())


async def test_complaints_are_noted_once_in_stocks_form(server):
    await contract.store(server, b"data")
    for _ in range(3):
        await server.advise_corrupt_share(IMMUTABLE, SI, 0, "bad hash")
    (note,) = (server._directory.path / "corruption-advisories").iterdir()
    assert note.name == "2023-11-14T221320--aaaqeayeaudaocajbifqydiob4-0"
    assert "storage_index: aaaqeayeaudaocajbifqydiob4\nshare_number: 0" in note.read_text()
    assert "bad hash" in note.read_text()


@settings(max_examples=30, deadline=None)
@given(data=st.data())
async def test_forged_containers_give_bytes_or_errors_of_ours(data):
    """Whatever a share file holds, verbs answer or raise a ServerError."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "shares").mkdir()
        server = LocalServer(Path(directory), ME, clock=Clock())
        await contract.store_slot(server, s0=b"slot")
        path = share_path(server)
        raw = bytearray(data.draw(st.sampled_from([path.read_bytes(), IMMUTABLE_FILE])))
        for _ in range(data.draw(st.integers(0, 3))):
            where = data.draw(st.integers(0, min(len(raw), 120) - 1))
            raw[where] ^= data.draw(st.integers(1, 255))
        path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
        await assert_verbs_answer_or_refuse(server, limit=len(raw))
        await server.aclose()


async def assert_verbs_answer_or_refuse(server, limit):
    """What is read is no longer than the file, and a verb that is refused changes nothing."""
    for kind in (IMMUTABLE, MUTABLE):
        if 0 in await server.list_shares(kind, SI):
            assert len(await server.read_share(kind, SI, 0, 0, 10**9)) <= limit
    for verb in (
        lambda: server.read_test_write(SI, SLOT, {0: writing(b"x", 2)}, contract.ALL),
        lambda: server.add_lease(SI, OTHER_LEASE),
        lambda: server.allocate(SI, frozenset({0}), 9, SECRET, LEASE),
    ):
        before = share_path(server).read_bytes()
        try:
            await verb()
        except ServerError:
            assert share_path(server).read_bytes() == before
