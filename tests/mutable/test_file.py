"""MutableFile over FakeServers: what it costs, and what becomes of it when servers misbehave."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from lafsfs.caps import MutableFormat
from lafsfs.errors import FileTooBigError, NotEnoughSharesError, ReadOnlyCapabilityError
from lafsfs.mutable.servermap import Mode

if TYPE_CHECKING:
    from tests.mutable.conftest import Client

SIZES = [0, 1, 54, 1000, 131_071, 131_072, 131_073, 300_000]


@pytest.mark.parametrize("size", SIZES)
async def test_what_is_created_is_read(five: Client, format_: MutableFormat, size: int) -> None:
    contents = bytes(range(251)) * (size // 251 + 1)
    contents = contents[:size]
    made = await five.create(format_, contents)
    for reader in (five.open(made), five.open(made, read_only=True)):
        assert await reader.download_best() == contents
        assert (await reader.version()).seqnum == 1
        assert await reader.read(size // 2, 10) == contents[size // 2 : size // 2 + 10]


async def test_every_share_has_its_own_server(five: Client, format_: MutableFormat) -> None:
    made = await five.create(format_, b"spread")
    held = [list(server.held(made.storage_index)) for server in five.servers]
    assert sorted(shnum for shnums in held for shnum in shnums) == [0, 1, 2, 3, 4]
    assert all(len(shnums) == 1 for shnums in held)


# --- what it costs: on the default grid each of these is a directory operation --------------------


async def test_creating_costs_one_call(single: Client, format_: MutableFormat) -> None:
    await single.create(format_, b"contents")
    assert single.calls() == 1


async def test_modify_after_create_or_modify_costs_one_call(
    single: Client, format_: MutableFormat
) -> None:
    made = await single.create(format_, b"")
    for i in range(5):
        before = single.calls()
        await made.modify(lambda old, i=i: old + bytes([i]))
        assert single.calls() - before == 1
    assert await single.open(made).download_best() == bytes(range(5))


@pytest.mark.parametrize("mode", list(Mode))
async def test_modify_after_a_fresh_servermap_costs_one_call(
    single: Client, format_: MutableFormat, mode: Mode
) -> None:
    other = single.open(await single.create(format_, b"x" * 5000))
    before = single.calls()
    await other.servermap(mode)
    assert single.calls() - before == 1
    await other.modify(lambda old: old + b"y")
    assert single.calls() - before == 2
    assert await single.open(other).download_best() == b"x" * 5000 + b"y"


async def test_modify_from_nothing_costs_a_map_and_a_publish(
    single: Client, format_: MutableFormat
) -> None:
    other = single.open(await single.create(format_, b"contents"))
    before = single.calls()
    await other.modify(lambda old: old + b"!")
    assert single.calls() - before == 2


async def test_modify_of_a_remembered_large_file_reads_only_what_it_forgot(
    single: Client, format_: MutableFormat
) -> None:
    contents = bytes(200_000)
    other = single.open(await single.create(format_, contents))
    before = single.calls()
    assert await other.download_best() == contents  # a map and the rest of the share
    assert single.calls() - before == 2
    await other.modify(lambda old: old[:-1])  # SDMF's private key lies behind the data
    assert single.calls() - before == (4 if format_ is MutableFormat.SDMF else 3)


async def test_looking_whether_anything_changed_costs_one_call(
    single: Client, format_: MutableFormat
) -> None:
    made = await single.create(format_, b"contents")
    other = single.open(made)
    await other.download_best()
    before = single.calls()
    assert await other.download_best() == b"contents"
    assert single.calls() - before == 1
    assert await other.read(2, 3, max_age=60) == b"nte"
    assert single.calls() - before == 1


async def test_nothing_to_change_is_nothing_to_write(
    single: Client, format_: MutableFormat
) -> None:
    made = await single.create(format_, b"contents")
    assert await made.modify(lambda old: None) == b"contents"
    assert await made.modify(lambda old: old) == b"contents"
    assert (await made.version()).seqnum == 1
    assert {call.verb for call in single.servers[0].calls[1:]} == {"read_share"}


async def test_nothing_to_change_is_believed_only_of_what_is_there_now(
    single: Client, format_: MutableFormat
) -> None:
    mine = await single.create(format_, b"mine")
    theirs = single.rival().open(mine)
    await theirs.overwrite(b"theirs")
    seen = []
    assert await mine.modify(lambda old: seen.append(old)) == b"theirs"
    assert seen == [b"mine", b"theirs"]


# --- reading --------------------------------------------------------------------------------------


async def test_reads_parts_of_a_large_mdmf_file(five: Client) -> None:
    contents = random.Random(1).randbytes(9_500_000)  # more than one run
    made = await five.create(MutableFormat.MDMF, contents)
    reader = five.open(made, read_only=True)
    for offset, size in [(0, 10), (131_000, 1000), (8_388_000, 2000), (9_499_990, 100), (10**8, 5)]:
        assert await reader.read(offset, size) == contents[offset : offset + size]


async def test_a_part_is_read_around_corruption(five: Client) -> None:
    contents = random.Random(2).randbytes(8_800_000)
    made = await five.create(MutableFormat.MDMF, contents)
    order = five.server_order(made)
    reader = five.open(made, read_only=True)
    await reader.version()
    order[0].corrupt(made.storage_index, 0, 2167 + 16 + 100)
    assert await reader.read(50, 100) == contents[50:150]
    assert order[0].advisories


async def test_a_read_capability_never_writes(five: Client, format_: MutableFormat) -> None:
    reader = five.open(await five.create(format_, b"contents"), read_only=True)
    servermap = await reader.servermap(Mode.WRITE)
    with pytest.raises(ReadOnlyCapabilityError):
        await reader.modify(lambda old: b"other")
    with pytest.raises(ReadOnlyCapabilityError):
        await reader.overwrite(b"other")
    with pytest.raises(ReadOnlyCapabilityError):
        await reader.upload(b"other", servermap)
    verbs = {call.verb for server in five.servers for call in server.calls}
    assert await reader.download_best() == b"contents"
    assert verbs == {"read_test_write", "list_shares", "read_share"}


async def test_too_few_shares_say_so(five: Client, format_: MutableFormat) -> None:
    made = await five.create(format_, b"contents")
    for server in five.servers[1:]:
        server.lose(made.storage_index)
    with pytest.raises(NotEnoughSharesError, match="version 1: 1 of 2 needed shares"):
        await five.open(made).download_best()
    with pytest.raises(NotEnoughSharesError):
        await five.open(made).modify(lambda old: b"")


async def test_overwrite_needs_no_old_contents(five: Client, format_: MutableFormat) -> None:
    made = await five.create(format_, b"contents")
    for server in five.servers[1:]:
        server.lose(made.storage_index)
    other = five.open(made)
    await other.overwrite(b"from the one share that was left")
    assert await five.open(made).download_best() == b"from the one share that was left"
    servermap = await other.servermap(Mode.CHECK)
    assert servermap.settled()
    assert servermap.highest_seqnum() == 2


async def test_a_file_too_large_for_the_format_is_refused(single: Client) -> None:
    class Endless(bytes):
        def __len__(self) -> int:
            return 2**31

    made = await single.create(MutableFormat.SDMF, b"small")
    with pytest.raises(FileTooBigError):
        await made.overwrite(Endless())
    assert await made.download_best() == b"small"
