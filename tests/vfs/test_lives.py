"""A mount that is killed again and again beside another one: nothing that was accepted is lost.

``make test-crash`` tells more stories: ``LAFSFS_STORIES`` of them, from ``LAFSFS_SEED`` on.
"""

from __future__ import annotations

import os
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import trio

from lafsfs.journal.faultpoints import watch
from lafsfs.mutable.keypool import KeyPool
from lafsfs.vfs.tree.inodes import FileInode
from tests.vfs.conftest import ROOT, open_world
from tests.vfs.crashes import copied_directory
from tests.vfs.racing import contents
from tests.vfs.test_names_clients import Ledger, Program

if TYPE_CHECKING:
    from pathlib import Path

STORIES = int(os.environ.get("LAFSFS_STORIES", "2"))
SEED = int(os.environ.get("LAFSFS_SEED", "0"))
LIVES = 8
STEPS = 200  # of the mount that lives on


class Tee:
    """A recorder that keeps a ledger, too."""

    def __init__(self, recorder, ledger: Ledger) -> None:
        self._recorder = recorder
        self._ledger = ledger

    def __getattr__(self, name: str):
        return getattr(self._recorder, name)

    def changed(self, inode) -> None:
        self._recorder.changed(inode)
        self._ledger.changed(inode)

    def changed_name(self, binding) -> None:
        self._recorder.changed_name(binding)
        self._ledger.changed_name(binding)


class Mortal(Program):
    """What it has written counts when that was accepted before it was killed.

    What it was about to overwrite counts no more: that it is emptied goes along with any commit,
    before whoever empties it is told.
    """

    is_alive = True

    async def write(self) -> None:
        known, alive = set(self.written), False
        try:
            await super().write()
            alive = self.is_alive
        finally:
            if not alive:
                self.written = known
            if not self.is_alive:
                self._give_up_target()

    def _give_up_target(self) -> None:
        parent, name = self.target
        binding = self.world.tree.directory_inode(parent).directory.names.get(name.decode())
        for edge in () if binding is None else binding.edges:
            if isinstance(edge.inode, FileInode):
                self.ledger.give_up(edge.inode)


@dataclass
class Lives:
    """One client, life after life."""

    broker: object
    root: object
    directory: Path
    pool: KeyPool
    random: random.Random
    ledgers: list[Ledger] = field(default_factory=list)
    written: set[bytes] = field(default_factory=set)
    places: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def mounted(self):
        settings = {"quiet": 1.0, "retry_first": 1.0, "max_age": 1.0, "sync": False}
        ledger = Ledger()
        self.ledgers.append(ledger)
        async with open_world(
            self.broker, self.directory, self.root, key_pool=self.pool, **settings
        ) as world:
            for inode in world.tree.table:
                if isinstance(inode, FileInode) and inode.is_dirty and inode.edges:
                    ledger.written[inode] = await world.read_ino(inode.number)
            tee = Tee(world.tree.recorder, ledger)
            world.tree.recorder = world.tree.outgoing.recorder = tee
            yield world, ledger

    async def live(self, number: int) -> None:
        """Work until killed, at whatever place."""
        left = self.random.randrange(20, 400)
        after = self.directory.with_name(f"life{number}")

        def count(place: str) -> None:
            try:
                trio.lowlevel.current_task()
            except RuntimeError:
                trio.from_thread.run_sync(count, place)
                return
            nonlocal left
            left -= 1
            if not left:
                self.places.append(place)
                copied_directory(self.directory, after)
                program.is_alive = False
                scope.cancel()

        with trio.CancelScope() as scope:
            async with self.mounted() as (world, ledger):
                program = Mortal(world, ledger, self.random.random(), f"{number}.")
                with watch(count):
                    await program.run(10**6)
        self.written |= program.written
        self.directory = after


@pytest.mark.parametrize("seed", range(SEED, SEED + STORIES))
async def test_killed_again_and_again_beside_another_mount(broker, tmp_path, patient_clock, seed):
    async with KeyPool.open(2) as pool:
        async with open_world(broker, tmp_path / "first", key_pool=pool) as first:
            await first.mkdir("d")
            await first.mkdir("e")
            await first.settled()
            root = first.tree.directory_inode(ROOT).cap
        lives = Lives(broker, root, tmp_path / "one", pool, random.Random(seed))
        ledger = Ledger()
        settings = {"quiet": 1.0, "retry_first": 1.0, "max_age": 1.0, "waits": False}
        async with open_world(
            broker, tmp_path / "two", root, host="two", key_pool=pool, recorder=ledger, **settings
        ) as two:
            beside = Program(two, ledger, seed, "two.")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(beside.run, STEPS)
                for number in range(LIVES):
                    await lives.live(number)
            async with lives.mounted() as (one, _):
                await one.settled()
                await two.settled()
                while one.tree.outgoing.pending or two.tree.outgoing.pending:
                    await one.settled()
                    await two.settled()
            found = set((await contents(two)).values())
    written = lives.written | beside.written
    given_up = set().union(*(one.close() for one in (*lives.ledgers, ledger)))
    assert len(lives.written) > LIVES
    lost = written - found - given_up
    assert not lost, lives.places
