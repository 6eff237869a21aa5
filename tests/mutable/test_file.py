"""MutableFile over FakeServers: what it costs, and what becomes of it when servers misbehave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lafsfs.caps import MutableFormat
from lafsfs.errors import NotEnoughSharesError, ReadOnlyCapabilityError
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


@pytest.mark.parametrize("mode", [Mode.WRITE, Mode.CHECK])
async def test_modify_after_a_fresh_servermap_costs_one_call_and_one_for_the_contents(
    single: Client, format_: MutableFormat, mode: Mode
) -> None:
    other = single.open(await single.create(format_, b"x" * 5000))
    await other.servermap(mode)
    before = single.calls()
    await other.modify(lambda old: old + b"y")
    # the map's look at the share was let go; contents and private key lie together in SDMF
