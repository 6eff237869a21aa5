"""Killed at every place: what was accepted is there afterwards, and gets to the grid."""

from __future__ import annotations

import pytest

from lafsfs.journal.faultpoints import watch
from lafsfs.mutable.keypool import KeyPool
from tests.vfs.crashes import developed, storied


@pytest.mark.parametrize("seed", range(6))
async def test_killed_anywhere(broker, tmp_path, patient_clock, seed):
    async with KeyPool.open(2) as pool:
        async with storied(broker, tmp_path, seed, pool) as story:
            root = story.world.tree.directory_inode(1).cap
            with watch(story.photograph):
                for _ in range(25):
                    await story.act()
        print(len(story.images), __import__("collections").Counter(i.place for i in story.images))
        assert len(story.images) > 40
        for image in story.images:
            await developed(image, story, root, pool)
