"""Servers that are away, full, slow or wrong, and shares that are not what they should be."""

from __future__ import annotations

import errno
import random
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.caps import MutableFormat
from lafsfs.errors import (
    GridFullError,
    GridReadOnlyError,
    NotEnoughSharesError,
    NotHappyError,
    UncoordinatedWriteError,
)
from lafsfs.formats.slot import parse_slot_header
from lafsfs.grid.api import ShareKind
from lafsfs.grid.encoding import Encoding
from lafsfs.mutable import mapping, publish, revalidation
from lafsfs.mutable.servermap import Mode
from tests.fakes import FakeServer, fake_servers
from tests.mutable.conftest import Client

if TYPE_CHECKING:
    from lafsfs.crypto.rsa import SigningKey
    from lafsfs.mutable.file import MutableFile


def only_share(server: FakeServer, file: MutableFile) -> int:
    (shnum,) = server.held(file.storage_index)
    return shnum


# --- servers --------------------------------------------------------------------------------------


async def test_shares_of_a_server_that_is_away_go_to_others(
    five: Client, format_: MutableFormat
) -> None:
    five.servers[3].down = True
    made = await five.create(format_, b"contents")
    held = sorted(n for server in five.servers for n in server.held(made.storage_index))
    assert held == [0, 1, 2, 3, 4]
    five.servers[3].down = False
    assert await five.open(made).download_best() == b"contents"


async def test_a_server_that_was_away_is_brought_up_to_date(
    five: Client, format_: MutableFormat, autojump_clock: trio.testing.MockClock
) -> None:
    made = await five.create(format_, b"old")
    away = five.servers[1]
    away.down = True
    await made.modify(lambda old: b"new")
    away.down = False
    await trio.sleep(mapping.QUERY_TIMEOUT)  # it is asked again after a while
    await made.modify(lambda old: b"newer")
    servermap = await made.servermap(Mode.CHECK)
    assert servermap.settled() or {v.seqnum for v in servermap.versions()} == {3}
    assert len(away.held(made.storage_index)) >= 1
    assert await five.open(made).download_best() == b"newer"


async def published_on_one_server(
    five: Client, format_: MutableFormat, contents: bytes
) -> tuple[MutableFile, FakeServer]:
    """A file that was ``old``, and a publish that failed on all servers but one, which is told."""
    made = await five.create(format_, b"old")
    first, *others = five.servers
    for server in others:
        server.refuse = {"read_test_write"}
    with pytest.raises(NotHappyError):
        await made.modify(lambda old: contents)
    for server in others:
        server.refuse = set()
    return made, first


async def test_a_publish_that_failed_is_outnumbered_though_there_is_nothing_to_change(
    five: Client, format_: MutableFormat
) -> None:
    made, first = await published_on_one_server(five, format_, b"given up")
    assert len(first.held(made.storage_index)) == 5  # all of the new version
    first.refuse = {"read_test_write"}
    assert await made.modify(lambda old: None) == b"old"
    first.refuse = set()
    assert await five.rival().open(made).download_best() == b"old"


async def test_a_publish_that_failed_is_repeated_though_its_traces_are_all_there_is_to_change(
    five: Client, format_: MutableFormat
) -> None:
    made, first = await published_on_one_server(five, format_, b"new")
    assert await made.modify(lambda old: b"new") == b"new"
    first.refuse = {"read_test_write", "read_share", "list_shares"}
    assert await five.rival().open(made).download_best() == b"new"


async def test_what_was_published_is_not_taken_back_while_servers_are_away(
    five: Client, format_: MutableFormat
) -> None:
    made = await five.create(format_, b"old")
    late = five.servers[3:]
    for server in late:
        server.refuse = {"read_test_write"}
    assert await made.modify(lambda old: b"new") == b"new"
    for server in late:
        server.refuse = set()  # they have what it takes to read the old version
    one, *away = sorted(five.servers[:3], key=lambda s: len(s.held(made.storage_index)))
    assert len(one.held(made.storage_index)) == 1  # too little for the new one
    for server in away:
        server.refuse = {"read_test_write", "read_share", "list_shares"}
    with pytest.raises(NotEnoughSharesError, match="version 2, which we published"):
        await made.download()
    with pytest.raises(NotEnoughSharesError, match="version 2, which we published"):
        await made.modify(lambda old: old + b", changed")
    for server in away:
        server.refuse = set()
    assert await made.modify(lambda old: old + b", changed") == b"new, changed"
    assert await five.rival().open(made).download_best() == b"new, changed"


async def test_too_few_servers_for_happiness_and_nothing_is_written(
    five: Client, format_: MutableFormat
) -> None:
    made = await five.create(format_, b"old")
    for server in five.servers[:3]:
        server.down = True
    with pytest.raises(NotHappyError, match="2 servers can be reached of the 3"):
        await five.open(made).overwrite(b"new")
    for server in five.servers[:3]:
        server.down = False
    servermap = await five.rival().open(made).servermap(Mode.CHECK)
    assert servermap.settled()
    assert servermap.highest_seqnum() == 1


async def test_servers_that_failed_lately_are_asked_when_a_write_needs_them(
    five: Client, format_: MutableFormat
) -> None:
    """Back since a moment ago, and nobody has noticed yet."""
    made = await five.create(format_, b"old")
    for server in five.servers[:3]:
        five.broker.note_failure(server)
    await five.open(made).modify(lambda old: b"new")
    assert all(len(server.held(made.storage_index)) == 1 for server in five.servers)
    assert (await five.rival().open(made).servermap(Mode.CHECK)).settled()


async def test_servers_that_take_nothing(five: Client, format_: MutableFormat) -> None:
    made = await five.create(format_, b"old")
    for server in five.servers[:3]:
        server.read_only = True
    with pytest.raises(NotHappyError, match="on 2 servers, and 3 are needed"):
        await made.overwrite(b"new")
    for server in five.servers[:3]:
        server.read_only = False
    await made.overwrite(b"newest")
    assert await five.open(made).download_best() == b"newest"
    assert (await made.version()).seqnum == 3


async def test_a_full_grid_says_so(single: Client, format_: MutableFormat) -> None:
    made = await single.create(format_, b"old")
    single.servers[0].full = True
    with pytest.raises(GridFullError, match="fake0 is full"):
        await made.overwrite(b"much larger " * 1000)
    assert await single.open(made).download_best() == b"old"


async def test_a_grid_that_accepts_no_writes_says_so(
    single: Client, format_: MutableFormat
) -> None:
    made = await single.create(format_, b"old")
    single.servers[0].read_only = True
    with pytest.raises(GridReadOnlyError, match="read-only") as caught:
        await made.overwrite(b"new")
    assert caught.value.errno == errno.EROFS
    assert await single.open(made).download_best() == b"old"


async def test_new_servers_get_shares_with_the_next_publish(
    keys: list[SigningKey], format_: MutableFormat
) -> None:
    servers = fake_servers(4)
    small = Client(servers[:2], Encoding(1, 1, 4), keys)
    made = await small.create(format_, b"two servers")
    assert [len(server.held(made.storage_index)) for server in servers] == [2, 2, 0, 0]
    grown = Client(servers, Encoding(1, 1, 4), keys)
    await grown.open(made).modify(lambda old: b"four servers")
    assert all(server.held(made.storage_index) for server in servers)
    assert await Client(servers[2:], Encoding(1, 1, 4), keys).open(made).download_best() == (
        b"four servers"
    )


async def test_a_hung_server_holds_nobody_up_for_long(
    five: Client, format_: MutableFormat, autojump_clock: trio.testing.MockClock
) -> None:
    made = await five.create(format_, b"old")
    for server in five.server_order(made)[:2]:
        server.hang()
    other, writer = five.open(made), five.rival().open(made)
    started = trio.current_time()
    assert await other.download_best() == b"old"
    assert trio.current_time() - started == mapping.GRACE
    started = trio.current_time()
    await writer.modify(lambda old: b"new")
    assert trio.current_time() - started == mapping.QUERY_TIMEOUT
    started = trio.current_time()
    await made.modify(lambda old: b"newer")  # remembers all five: collides, and looks again
    assert trio.current_time() - started < publish.GRACE + mapping.QUERY_TIMEOUT
    assert await five.open(made).download_best() == b"newer"


async def test_a_server_that_hangs_is_asked_once_in_a_while(
    five: Client, format_: MutableFormat, autojump_clock: trio.testing.MockClock
) -> None:
    made = await five.create(format_, b"contents")
    await made.servermap(Mode.CHECK)
    five.servers[0].hang()
    waited = []
    for _ in range(3):
        started = trio.current_time()
        assert await made.download_best() == b"contents"
        waited.append(trio.current_time() - started)
    assert waited == [revalidation.TIMEOUT, 0, 0]


async def test_a_server_that_hangs_on_and_on_is_not_waited_for_again(
    five: Client, format_: MutableFormat, autojump_clock: trio.testing.MockClock
) -> None:
    made = await five.create(format_, b"contents")
    five.servers[0].hang()
    waited = []
    for _ in range(3):
        started = trio.current_time()
        assert await made.download_best() == b"contents"
        waited.append(trio.current_time() - started)
        await trio.sleep(3600)  # it is asked again, and may not answer again
    assert waited == [revalidation.TIMEOUT, 0, 0]
    rival = five.rival().open(made)
    await rival.overwrite(b"changed")  # what the others say counts
    assert await made.download_best() == b"changed"


async def test_a_publish_waits_a_moment_for_a_server_that_hangs_midway(
    five: Client, format_: MutableFormat, autojump_clock: trio.testing.MockClock
) -> None:
    made = await five.create(format_, b"old")
    five.servers[0].hang()
    started = trio.current_time()
    await made.modify(lambda old: b"new")
    assert trio.current_time() - started == publish.GRACE
    assert await five.open(made).download_best() == b"new"


async def test_a_grid_that_hangs_is_given_up(
    single: Client, format_: MutableFormat, autojump_clock: trio.testing.MockClock
) -> None:
    made = await single.create(format_, b"old")
    single.servers[0].hang()
    with pytest.raises(NotEnoughSharesError, match="did not answer in"):
        await single.open(made).download_best()
    with pytest.raises(NotHappyError, match="did not answer in"):
        await made.overwrite(b"new")


async def test_a_slot_with_another_write_enabler_is_read_all_the_same(
    five: Client, format_: MutableFormat
) -> None:
    made = await five.create(format_, b"old")
    moved = five.servers[0]
    for share in moved.held(made.storage_index).values():
        share.write_enabler = b"from another server's identity.."
    other = five.open(made)
    servermap = await other.servermap(Mode.CHECK)
    assert len(servermap.shares) == 5
    await other.modify(lambda old: b"new")
    assert await five.open(made).download_best() == b"new"


# --- modes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "asked"), [(Mode.ANYTHING, 4), (Mode.READ, 4), (Mode.WRITE, 7), (Mode.CHECK, 20)]
)
async def test_how_many_servers_each_mode_asks(
    keys: list[SigningKey], format_: MutableFormat, mode: Mode, asked: int
) -> None:
    client = Client(fake_servers(20), Encoding(2, 2, 5), keys)
    made = await client.create(format_, b"contents")
    for server in client.servers:
        server.calls.clear()
    servermap = await client.open(made).servermap(mode)
    assert sum(server.count() > 0 for server in client.servers) == asked
    assert servermap.best() is not None


@pytest.mark.parametrize("mode", [Mode.READ, Mode.WRITE, Mode.ANYTHING])
async def test_looks_on_until_something_is_found(
    keys: list[SigningKey], format_: MutableFormat, mode: Mode
) -> None:
    client = Client(fake_servers(20), Encoding(2, 2, 5), keys)
    made = await client.create(format_, b"contents")
    order = client.server_order(made)
    for near, far in zip(order[:5], order[10:15], strict=True):  # as after a change of servers
        shnum, share = next(iter(near.held(made.storage_index).items()))
        far.shares[made.storage_index, shnum] = share
        near.lose(made.storage_index)
    servermap = await client.open(made, read_only=True).servermap(mode)
    assert servermap.best() is not None


async def test_writing_looks_past_gaps(keys: list[SigningKey], format_: MutableFormat) -> None:
    client = Client(fake_servers(20), Encoding(2, 2, 5), keys)
    made = await client.create(format_, b"contents")
    order = client.server_order(made)
    shnum, share = next(iter(order[4].held(made.storage_index).items()))
    order[5].shares[made.storage_index, shnum] = share
    order[4].lose(made.storage_index)
    servermap = await client.open(made).servermap(Mode.WRITE)
    assert servermap.settled()


# --- shares ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["verification_key", "signature", "prefix"])
async def test_a_share_with_a_bad_beginning_is_reported_and_replaced(
    five: Client, format_: MutableFormat, part: str
) -> None:
    made = await five.create(format_, b"old")
    victim = five.server_order(made)[0]
    shnum = only_share(victim, made)
    header = parse_slot_header(bytes(victim.shares[made.storage_index, shnum].data))
    offset = 20 if part == "prefix" else getattr(header.sections, part).offset + 50
    victim.corrupt(made.storage_index, shnum, offset)
    other = five.open(made)
    servermap = await other.servermap(Mode.CHECK)
    assert list(servermap.bad) == [(victim.server_id, shnum)]
    assert victim.advisories[0][:3] == (ShareKind.MUTABLE, made.storage_index, shnum)
    assert await other.modify(lambda old: old + b" and new") == b"old and new"
    assert (await five.open(made).servermap(Mode.CHECK)).settled()


async def test_corrupt_blocks_are_routed_around_and_reported(
    five: Client, format_: MutableFormat
) -> None:
    contents = random.Random(3).randbytes(200_000)
    made = await five.create(format_, contents)
    for victim in five.server_order(made)[:3]:
        shnum = only_share(victim, made)
        header = parse_slot_header(bytes(victim.shares[made.storage_index, shnum].data))
        victim.corrupt(made.storage_index, shnum, header.sections.share_data.offset + 70_000)
    other = five.open(made)
    assert await other.download_best() == contents
    assert sum(len(server.advisories) for server in five.servers) >= 1
    last = five.server_order(made)[3]
    last.lose(made.storage_index)
    with pytest.raises(NotEnoughSharesError, match="corrupt"):
        await five.open(made).download_best()


async def test_an_older_version_serves_when_the_newest_cannot_be_decoded(
    keys: list[SigningKey], format_: MutableFormat
) -> None:
    client = Client(fake_servers(4), Encoding(2, 1, 4), keys)
    made = await client.create(format_, b"old")
    old = {s: dict(s.held(made.storage_index)) for s in client.servers}
    saved = {s: {n: bytes(x.data) for n, x in shares.items()} for s, shares in old.items()}
    await made.overwrite(b"new")
    back, bad = client.server_order(made)[:2], client.server_order(made)[2]
    for server in back:
        for shnum, data in saved[server].items():
            server.shares[made.storage_index, shnum].data[:] = data
    shnum = only_share(bad, made)
    header = parse_slot_header(bytes(bad.shares[made.storage_index, shnum].data))
    bad.corrupt(made.storage_index, shnum, header.sections.share_data.offset)
    other = client.open(made)
    assert await other.download_best() == b"old"
    assert await other.modify(lambda old: old + b"er") == b"older"
    assert (await other.version()).seqnum == 3


async def test_a_corrupt_private_key_is_found_elsewhere(
    five: Client, format_: MutableFormat
) -> None:
    made = await five.create(format_, b"old")
    for victim in five.servers[:4]:
        shnum = only_share(victim, made)
        header = parse_slot_header(bytes(victim.shares[made.storage_index, shnum].data))
        victim.corrupt(made.storage_index, shnum, header.sections.enc_privkey.offset + 99)
    await five.open(made).modify(lambda old: b"new")
    assert (await five.open(made).servermap(Mode.CHECK)).settled()
    for victim in five.servers:
        shnum = only_share(victim, made)
        header = parse_slot_header(bytes(victim.shares[made.storage_index, shnum].data))
        victim.corrupt(made.storage_index, shnum, header.sections.enc_privkey.offset + 99)
    other = five.open(made)
    with pytest.raises(NotEnoughSharesError, match="private key"):
        await other.modify(lambda old: b"newer")
    assert await other.download_best() == b"new"


async def test_shares_of_another_file_are_not_taken(five: Client, format_: MutableFormat) -> None:
    made, stranger = await five.create(format_, b"mine"), await five.create(format_, b"not", key=1)
    for server in five.server_order(made)[:3]:
        mine, theirs = only_share(server, made), only_share(server, stranger)
        data = bytes(server.shares[stranger.storage_index, theirs].data)
        server.shares[made.storage_index, mine].data[:] = data
    other = five.open(made)
    assert await other.download_best() == b"mine"
    await other.modify(lambda old: old + b" again")
    assert (await five.open(made).servermap(Mode.CHECK)).settled()


async def test_a_share_under_another_number_is_not_taken(
    five: Client, format_: MutableFormat
) -> None:
    made = await five.create(format_, b"contents")
    first, second, *rest = five.server_order(made)
    data = bytes(first.shares[made.storage_index, only_share(first, made)].data)
    second.shares[made.storage_index, only_share(second, made)].data[:] = data
    for server in rest[1:]:
        server.lose(made.storage_index)
    assert await five.open(made).download_best() == b"contents"


async def test_a_server_that_lists_nonsense(five: Client, format_: MutableFormat) -> None:
    made = await five.create(format_, b"contents")
    liar = five.server_order(made)[0]
    share = next(iter(liar.held(made.storage_index).values()))
    for shnum in (77, 300, 2**40):
        liar.shares[made.storage_index, shnum] = share
    for read_only in (False, True):
        other = five.open(made, read_only=read_only)
        servermap = await other.servermap(Mode.CHECK)
        assert list(servermap.bad) == [(liar.server_id, 77)]
        assert await other.download_best() == b"contents"


# --- the same key again ---------------------------------------------------------------------------


async def test_creating_again_with_the_same_key_keeps_what_is_there(
    five: Client, format_: MutableFormat
) -> None:
    made = await five.create(format_, b"first")
    await made.modify(lambda old: old + b" and more")
    again = await five.create(format_, b"first")
    assert again.cap == made.cap
    assert await again.download_best() == b"first and more"


async def test_creating_again_finishes_what_a_crash_left(
    five: Client, format_: MutableFormat
) -> None:
    made = await five.create(format_, b"first")
    for server in five.server_order(made)[1:]:
        server.lose(made.storage_index)
    again = await five.create(format_, b"first")
    assert (await again.servermap(Mode.CHECK)).settled()
    assert await five.open(again).download_best() == b"first"


# --- fuzz -----------------------------------------------------------------------------------------

DAMAGE = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 1)),
    st.tuples(st.just("flip"), st.floats(0, 0.999999)),
    st.tuples(st.just("header"), st.integers(0, 122)),
    st.tuples(st.just("noise"), st.integers(0, 400)),
)


def damage(share: bytearray, how: str, where: float, rng: random.Random) -> None:
    if how == "cut":
        del share[int(where * len(share)) :]
    elif how == "flip":
        share[int(where * len(share))] ^= rng.randrange(1, 256)
    elif how == "header":
        share[int(where)] = rng.choice([0, 1, 255, rng.randrange(256)])
    else:
        share[:] = rng.randbytes(int(where))


@settings(max_examples=40, deadline=None)
@given(
    damages=st.lists(DAMAGE, min_size=1, max_size=5),
    format_=st.sampled_from(list(MutableFormat)),
    size=st.sampled_from([0, 10, 140_000]),
    seed=st.integers(0, 2**32),
)
def test_damaged_shares_never_give_wrong_bytes(
    keys: list[SigningKey],
    damages: list[tuple[str, float]],
    format_: MutableFormat,
    size: int,
    seed: int,
) -> None:
    rng = random.Random(seed)
    contents = rng.randbytes(size)

    async def scenario() -> None:
        client = Client(fake_servers(5), Encoding(2, 3, 5), keys)
        made = await client.create(format_, contents)
        victims = rng.sample(client.servers, len(damages))
        for victim, (how, where) in zip(victims, damages, strict=True):
            damage(
                victim.shares[made.storage_index, only_share(victim, made)].data, how, where, rng
            )
        for read_only in (True, False):
            other = client.open(made, read_only=read_only)
            try:
                assert await other.download_best() == contents
            except NotEnoughSharesError:
                assert len(damages) > 3
        writer = client.open(made)
        try:
            assert await writer.modify(lambda old: old + b"!") == contents + b"!"
        except (NotEnoughSharesError, UncoordinatedWriteError):
            assert len(damages) > 3
        else:
            assert await client.open(made).download_best() == contents + b"!"
            assert (await client.open(made).servermap(Mode.CHECK)).settled()

    trio.run(scenario)


async def test_a_share_cut_anywhere_reads_from_the_others_or_says_so(
    keys: list[SigningKey], format_: MutableFormat
) -> None:
    client = Client(fake_servers(2), Encoding(1, 1, 2), keys)
    made = await client.create(format_, b"contents" * 10)
    victim, second = client.server_order(made)
    shnum = only_share(victim, made)
    whole = bytes(victim.shares[made.storage_index, shnum].data)
    for length in range(0, len(whole), 7):
        victim.shares[made.storage_index, shnum].data[:] = whole[:length]
        assert await client.open(made, read_only=True).download_best() == b"contents" * 10
    second.lose(made.storage_index)
    enough = parse_slot_header(whole).sections.share_data.end  # what follows is not for readers
    for length in range(0, len(whole), 7):
        victim.shares[made.storage_index, shnum].data[:] = whole[:length]
        other = client.open(made, read_only=True)
        if length < enough:
            with pytest.raises(NotEnoughSharesError):
                await other.download_best()
        else:
            assert await other.download_best() == b"contents" * 10
