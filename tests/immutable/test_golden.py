"""The proof against stock: what we store is what stock stored, and what stock stored we read."""

import hashlib
from itertools import combinations

import pytest

from lafsfs.caps import LiteralCap, parse
from lafsfs.grid.api import ShareKind
from lafsfs.grid.broker import Broker
from lafsfs.immutable import BytesSource, CHKFile, SegmentCache, upload
from tests import golden_data
from tests.fakes import golden_grid
from tests.immutable.grids import (
    CHK_NAMES,
    GOLDEN_ENCODING,
    SECRETS,
    all_shares,
    golden_servers,
    share_data,
)


async def store(servers, data):
    return await upload(
        BytesSource(data),
        broker=Broker(servers),
        secrets=SECRETS,
        encoding=GOLDEN_ENCODING,
        convergence=SECRETS.convergence_secret,
    )


@pytest.mark.parametrize("name", CHK_NAMES)
async def test_a_convergent_upload_is_stock_s_to_the_byte(name):
    golden = golden_data.OBJECTS[name]
    servers = golden_servers("imm-56")  # the right identities; one unrelated object
    for server in servers:
        server.shares.clear()
    cap = await store(servers, golden_data.contents(name))
    assert cap.danger_text() == golden.cap
    wanted = {shnum: data for (_, shnum), data in share_data(golden.storage_index).items()}
    assert all_shares(servers, golden.storage_index) == wanted
    assert set(wanted) == set(range(golden_data.N))


@pytest.mark.parametrize("name", ["imm-0", "imm-1", "imm-55"])
async def test_small_contents_are_their_own_capability(name):
    cap = await store([], golden_data.contents(name))
    assert isinstance(cap, LiteralCap)
    assert cap.danger_text() == golden_data.OBJECTS[name].cap


@pytest.mark.parametrize("name", CHK_NAMES)
async def test_what_stock_stored_is_read(name):
    golden = golden_data.OBJECTS[name]
    broker = Broker(golden_servers(name))
    async with SegmentCache.open() as cache:
        data = await CHKFile(parse(golden.cap), broker, cache).read(0, golden.size + 1)
    assert hashlib.sha256(data).hexdigest() == golden.sha256
    assert data == golden_data.contents(name)


async def test_any_k_shares_are_enough():
    name = "imm-1000"
    golden, contents = golden_data.OBJECTS[name], golden_data.contents(name)
    servers = golden_servers(name)
    complete = {server: dict(server.shares) for server in servers}
    chosen = list(combinations(range(golden_data.N), golden_data.K))
    for shnums in chosen:
        for server in servers:
            server.shares = {key: s for key, s in complete[server].items() if key[1] in shnums}
        async with SegmentCache.open() as cache:
            assert (
                await CHKFile(parse(golden.cap), Broker(servers), cache).read(0, 1000) == contents
            )
    assert len(chosen) == 120


async def test_it_is_the_same_on_directories(tmp_path):
    """The same over real storage directories, as a stock node left them."""
    grid = golden_grid(tmp_path)
    async with SegmentCache.open() as cache:
        for name in CHK_NAMES:
            golden = golden_data.OBJECTS[name]
            data = await CHKFile(parse(golden.cap), grid, cache).read(0, golden.size)
            assert data == golden_data.contents(name)


async def test_lost_shares_are_put_back_into_directories_as_they_were(tmp_path):
    golden = golden_data.OBJECTS["imm-131073"]
    grid = golden_grid(tmp_path)
    before = share_data(golden.storage_index)
    text = golden_data.to_base32(golden.storage_index)
    lost = list(tmp_path.glob(f"*/shares/{text[:2]}/{text}/[0-4]"))
    assert len(lost) == 5
    for path in lost:
        path.unlink()
    cap = await upload(
        BytesSource(golden_data.contents("imm-131073")),
        broker=grid,
        secrets=SECRETS,
        encoding=GOLDEN_ENCODING,
        convergence=SECRETS.convergence_secret,
    )
    assert cap.danger_text() == golden.cap
    after = {}
    for server in grid.servers:
        for shnum in await server.list_shares(ShareKind.IMMUTABLE, golden.storage_index):
            after[shnum] = await server.read_share(
                ShareKind.IMMUTABLE, golden.storage_index, shnum, 0, 1 << 20
            )
    assert after == {shnum: data for (_, shnum), data in before.items()}
