"""Killed at every place: what was accepted is there afterwards, and gets to the grid.

``make test-crash`` tells more stories: ``LAFSFS_STORIES`` of them, from ``LAFSFS_SEED`` on.
"""

from __future__ import annotations

import os
import random
import shutil

import pytest
import trio

from lafsfs.grid.api import ShareKind
from lafsfs.journal.faultpoints import watch
from lafsfs.mutable.keypool import KeyPool
from tests.journal.test_crashes import after_power_failure
from tests.vfs.conftest import ME, open_world
from tests.vfs.crashes import LARGE, Image, copied_directory, copied_grid, developed, storied

STORIES = int(os.environ.get("LAFSFS_STORIES", "4"))
SEED = int(os.environ.get("LAFSFS_SEED", "1"))
seeds = pytest.mark.parametrize("seed", range(SEED, SEED + STORIES))


@seeds
async def test_killed_anywhere(broker, tmp_path, patient_clock, seed):
    async with KeyPool.open(2) as pool:
        async with storied(broker, tmp_path, seed, pool) as story:
            root = story.world.tree.directory_inode(1).cap
            with watch(story.photograph):
                for _ in range(25):
                    await story.act()
        assert len(story.images) > 20
        for number, image in enumerate(story.images):
            await developed(image, story, root, pool, again=number % 40 == 7)


@seeds
async def test_without_power_at_any_moment(broker, tmp_path, patient_clock, seed):
    """What the last sync brought to the disk is there, and the rest up to some moment."""
    chance = random.Random(seed)
    safe, safe_state = tmp_path / "safe", 0
    syncing: list[int] = []
    images: list[Image] = []

    def remember(place: str) -> None:
        nonlocal safe_state
        if place == "journal.sync.contents":
            syncing.append(story.accepted)
        elif place == "journal.sync.after" or place.startswith("journal.checkpoint"):
            shutil.rmtree(safe, ignore_errors=True)
            copied_directory(story.directory, safe)
            safe_state = syncing[-1] if syncing else 0

    async with KeyPool.open(2) as pool:
        async with storied(broker, tmp_path, seed, pool) as story:
            root = story.world.tree.directory_inode(1).cap
            await story.world.tree.sync()
            with watch(remember):
                for number in range(40):
                    await story.act()
                    if safe.exists() and chance.random() < 0.5:
                        last = copied_directory(story.directory, tmp_path / f"last{number}")
                        lost = tmp_path / f"lost{number}"
                        after_power_failure(safe, last, lost, chance)
                        first, now = safe_state, len(story.states) - 1
                        images.append(
                            Image("power", lost, copied_grid(broker), first, now, is_older=True)
                        )
        assert images
        for image in images:
            await developed(image, story, root, pool)


async def test_an_upload_under_a_random_key_is_repeated_under_the_same(
    broker, tmp_path, patient_clock
):
    """Wherever it is killed, no share is left that no name leads to."""
    settings = {"convergence": None, "max_age": 1e6}
    async with KeyPool.open(2) as pool:
        async with storied(broker, tmp_path, SEED, pool, **settings) as story:
            root = story.world.tree.directory_inode(1).cap
            with watch(story.photograph):
                await story.world.write("small", bytes(5000))
                await story.world.write("large", bytes(LARGE))
                await story.world.write("many", os.urandom(3 << 20))
                opened, _ = await story.world.fs.create(1, b"open", 0o600, os.O_WRONLY, ME)
                await story.world.fs.write(opened.handle, 0, bytes(LARGE))
                await trio.sleep(30)
                await story.world.flush(opened.handle)
                await story.world.fs.release(opened.handle)
                await trio.sleep(30)
        assert len(story.images) > 20
        for image in story.images:
            async with open_world(
                image.broker, image.directory, root, key_pool=pool, sync=False, convergence=None
            ) as world:
                assert await world.fs.flush_all() == ()
                named = {child.cap.storage_index for child in (await world.on_grid()).values()}
            stored = {
                index
                for server in image.broker.servers
                for (index, _), share in server.shares.items()
                if share.kind is ShareKind.IMMUTABLE
            }
            assert stored <= named, image.place


async def test_the_grid_is_away_for_an_hour(broker, servers, tmp_path, patient_clock):
    """Everything goes on, also behind a crash, and is on the grid when that is back."""
    async with KeyPool.open(2) as pool:
        async with storied(broker, tmp_path, 3, pool, max_age=1e6) as story:
            for _ in range(5):
                await story.act()
            for server in servers:
                server.before_call = None
                server.down = True
            for _ in range(20):
                await story.act()
                await trio.sleep(180)
            story.photograph("away")
            image = story.images[-1]
            for server in servers:
                server.down = False
            await trio.sleep(300)
            assert (await story.world.fs.status()).is_settled
            root = story.world.tree.directory_inode(1).cap
        await developed(image, story, root, pool)


async def test_the_grid_is_full(broker, servers, tmp_path, patient_clock):
    """It is said which file waits and why; with room again it goes on by itself."""
    async with KeyPool.open(2) as pool, storied(broker, tmp_path, 3, pool) as story:
        world = story.world
        for server in servers:
            server.full = True
        await world.write("waits", bytes(10_000))
        await world.mkdir("folder")
        await trio.sleep(100)
        status = await world.fs.status()
        assert status.failed == 2
        told = {file.path: file.error for file in status.pending}
        assert "room" in told["waits"]
        assert await world.read("waits") == bytes(10_000)
        for server in servers:
            server.full = False
        await trio.sleep(300)
        assert (await world.fs.status()).is_settled
        assert sorted(await world.on_grid()) == ["folder", "waits"]
