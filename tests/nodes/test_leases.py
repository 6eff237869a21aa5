"""Leases on everything that can be reached: each object once, at every server."""

from __future__ import annotations

from lafsfs.caps import MutableFormat
from lafsfs.crypto import hashes
from lafsfs.grid.api import ShareKind
from lafsfs.immutable import BytesSource
from lafsfs.nodes.edits import SetChild
from lafsfs.nodes.leases import PARALLEL, renew_leases
from tests.nodes.conftest import SECRETS

MONTH = 31 * 24 * 3600


async def make_tree(maker):
    """``a/b/`` with files of all kinds, and ``a/b/loop`` that leads back to ``a``."""
    top = await maker.create_directory(MutableFormat.SDMF)
    below = await maker.create_directory(MutableFormat.MDMF)
    chk = await maker.upload(BytesSource(b"x" * 1000))
    literal = await maker.upload(BytesSource(b"short"))
    mutable = await maker.create_mutable(MutableFormat.SDMF, b"contents")
    await below.edit(
        [
            SetChild("chk", chk),
            SetChild("again", chk),
            SetChild("literal", literal),
            SetChild("mutable", mutable.cap),
            SetChild("loop", top.cap),
        ]
    )
    await top.edit([SetChild("b", below.cap)])
    return top, [top.cap, below.cap, chk, mutable.cap]


def asked(servers):
    return [[c.storage_index for c in server.calls if c.verb == "add_lease"] for server in servers]


async def test_each_object_once_at_every_server(maker, servers):
    top, caps = await make_tree(maker)
    done = []
    result = await renew_leases(maker, [((), top.cap), (("x",), top.cap)], lambda: done.append(1))
    assert result.renewed == len(done) == 4
    assert result.is_complete
    for indexes in asked(servers):
        assert sorted(indexes) == sorted(cap.storage_index for cap in caps)


async def test_leases_last_a_month_from_now(maker, servers, mock_clock):
    top, _ = await make_tree(maker)
    mock_clock.jump(20 * 24 * 3600)
    await renew_leases(maker, [((), top.cap)])
    for server in servers:
        secret, _ = hashes.lease_secrets(
            SECRETS.lease_secret, top.cap.storage_index, server.server_id
        )
        for share in server.held(top.cap.storage_index).values():
            assert share.leases == {secret: 20 * 24 * 3600 + MONTH}


async def test_a_file_by_itself(maker):
    cap = await maker.upload(BytesSource(b"x" * 1000))
    literal = await maker.upload(BytesSource(b"short"))
    assert (await renew_leases(maker, [((), cap)])).renewed == 1
    assert (await renew_leases(maker, [((), literal)])).renewed == 0


async def test_servers_that_fail_are_named_and_do_not_hide_the_others(maker, servers):
    top, _ = await make_tree(maker)
    await top.table()
    servers[1].refuse.add("add_lease")
    result = await renew_leases(maker, [((), top.cap)])
    assert result.renewed == 4
    assert not result.is_complete
    assert result.failures == {servers[1].name: 4}
    assert "refuses" in result.reasons[servers[1].name]


async def test_objects_that_are_lost_are_named(maker, servers):
    top, caps = await make_tree(maker)
    for server in servers:
        server.lose(caps[2].storage_index)
    result = await renew_leases(maker, [((), top.cap)])
    assert result.renewed == 3
    assert result.lost in ([("b", "chk")], [("b", "again")])
    assert not result.is_complete


async def test_directories_that_cannot_be_read_are_named(maker, servers):
    top, caps = await make_tree(maker)
    for server in servers:
        for shnum in server.held(caps[1].storage_index):
            server.corrupt(caps[1].storage_index, shnum, 200)
        server.lose(caps[1].storage_index, min(server.held(caps[1].storage_index)))
    result = await renew_leases(maker, [(("home",), top.cap)])
    ((path, reason),) = result.unreadable
    assert path == ("home", "b")
    assert reason
    assert not result.is_complete


async def test_a_server_that_hangs_is_given_up(maker, servers, autojump_clock):
    cap = await maker.upload(BytesSource(b"x" * 1000))
    servers[0].hang()
    result = await renew_leases(maker, [((), cap)])
    assert result.renewed == 1
    assert "no answer" in result.reasons[servers[0].name]


async def test_no_more_than_some_objects_at_a_time(maker, servers, autojump_clock):
    caps = [await maker.upload(BytesSource(bytes([i]) * 1000)) for i in range(3 * PARALLEL)]
    servers[0].delay = 1.0
    for server in servers[1:]:
        for cap in caps:
            server.put(ShareKind.IMMUTABLE, cap.storage_index, 9, b"x")
    before = len(servers[0].calls)
    await renew_leases(maker, [((), cap) for cap in caps])
    times = [call.time for call in servers[0].calls[before:]]
    assert max(times.count(time) for time in set(times)) == PARALLEL
