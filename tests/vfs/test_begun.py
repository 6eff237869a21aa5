"""A publish that was under way in a crash may turn up later, from servers that were away meanwhile.

Four servers, two of them enough to read and to write: so what landed on two of them is not seen
while only the other two are there.
"""

from __future__ import annotations

import pytest

from lafsfs.caps import MutableFormat
from lafsfs.errors import GridFullError, ServerUnavailableError
from lafsfs.grid.broker import Broker
from lafsfs.journal import Journal
from lafsfs.journal.faultpoints import watch
from lafsfs.nodes.edits import SetChild
from lafsfs.vfs.recording.ground import journal_of
from tests.fakes import fake_grid
from tests.vfs.conftest import open_maker, open_world
from tests.vfs.crashes import copied_directory


@pytest.fixture
def broker():
    return fake_grid(4)


def away(servers, gone, index=None) -> None:
    """These do not answer for one slot."""

    def fail(call) -> None:
        if call.storage_index == index:
            raise ServerUnavailableError("away")

    for server in servers:
        server.before_call = fail if server in gone else None


def full(servers, which) -> None:
    for server in servers:
        server.full = server in which


async def killed(broker, world, index, place, work, left) -> list:
    """Kill at ``place``, when a version had landed on two servers, and give these.

    The other two still have what was there before. It was not the first try: its number is not the
    next one.
    """
    servers = broker.servers_for(index)
    old = ([server for server in servers if server.held(index)] or [*servers])[:2]

    def photograph(reached: str) -> None:
        if reached == place and not left.exists():
            copied_directory(world.directory, left)

    full(servers, servers)
    with pytest.raises(GridFullError):
        await work()
    full(servers, old)
    with watch(photograph):
        await work()
    full(servers, ())
    assert left.exists()
    return [server for server in servers if server not in old]


@pytest.fixture
async def crashed(broker, tmp_path):
    """Killed when the root was published: its capability, and the directory left.

    Those who have what was published are away.
    """
    async with open_world(broker, tmp_path / "mount", sync=False, max_age=1e6) as world:
        root = world.tree.directory_inode(1)
        await world.symlink("early", b"x")
        index, left = root.cap.storage_index, tmp_path / "left"
        work = root.directory.publisher.attempt
        new = await killed(broker, world, index, "publisher.landed", work, left)
        away(broker.servers, new, index)
        return root.cap, left


async def names(broker, world, cap) -> list[str]:
    async with open_maker(Broker(broker.servers), world.clock, "laptop") as maker:
        return sorted(await maker.directory(cap).table(0))


async def test_what_is_done_after_a_crash_is_not_lost_when_servers_come_back(broker, crashed):
    cap, left = crashed
    async with open_world(Broker(broker.servers), left, cap, sync=False) as world:
        assert await world.listdir() == [b"early"]
        await world.symlink("later", b"x")
        await world.settled()
        away(broker.servers, ())
        assert await names(broker, world, cap) == ["early", "later"]


async def test_what_is_removed_after_a_crash_does_not_come_back_with_servers(broker, crashed):
    """Nothing is left to be changed on the servers that are there, and still it is published."""
    cap, left = crashed
    async with open_world(Broker(broker.servers), left, cap, sync=False) as world:
        await world.unlink("early")
        await world.settled()
        away(broker.servers, ())
        assert await names(broker, world, cap) == []


async def test_what_is_made_in_a_new_directory_is_not_lost(broker, tmp_path):
    """Its slot was made just before the crash."""
    left = tmp_path / "left"
    async with open_world(broker, tmp_path / "mount", sync=False, max_age=1e6) as world:
        ino = (await world.mkdir("made")).ino
        await world.symlink("made/early", b"x")
        root, made = (world.tree.directory_inode(number) for number in (1, ino))
        index, work = made.cap.storage_index, made.directory.publisher.attempt
        new = await killed(broker, world, index, "publisher.landed", work, left)
        caps = root.cap, made.cap
    away(broker.servers, new, index)
    async with open_world(Broker(broker.servers), left, caps[0], sync=False) as world:
        await world.symlink("made/later", b"x")
        await world.unlink("made/early")
        await world.tree.directory_inode(ino).directory.publisher.attempt()
        away(broker.servers, ())
        assert await names(broker, world, caps[1]) == ["later"]


async def test_what_is_written_in_place_is_not_lost(broker, tmp_path):
    """A mutable file was being written when the process was killed."""
    left = tmp_path / "left"
    async with open_world(broker, tmp_path / "mount", sync=False, max_age=1e6) as world:
        root = world.tree.directory_inode(1).cap
        node = await world.maker.create_mutable(MutableFormat.SDMF, b"0")
        await world.maker.directory(root).edit([SetChild("m", node.cap)])
        found = await world.write("m", b"early")
        new = await killed(
            broker,
            world,
            node.cap.storage_index,
            "uploader.placed",
            lambda: world.bring(found.ino),
            left,
        )
    away(broker.servers, new, node.cap.storage_index)
    async with open_world(Broker(broker.servers), left, root, sync=False) as world:
        assert await world.read("m") == b"early"
        await world.write("m", b"later")
        await world.bring(found.ino)
        away(broker.servers, ())
        async with open_maker(Broker(broker.servers), world.clock, "laptop") as maker:
            assert await maker.node(node.cap).read(0, 9) == b"later"


async def test_nothing_is_kept_of_a_publish_that_went_well(broker, tmp_path):
    async with open_world(broker, tmp_path, sync=False, max_age=1e6) as world:
        await world.symlink("one", b"x")
        await world.settled()
        root = world.tree.directory_inode(1).cap
    place, key = journal_of(tmp_path / "journal", root)
    async with Journal.open(place, key) as journal:
        assert journal.take_rows() == ()
