"""What a mount stands on locally: where it stages what is written, and records what is accepted.

A mount that can write has a journal, in a directory of its own for each mounted capability, whose
name and key follow from the capability: nobody learns from the directory what was mounted. Without
one (mounted read-only) nothing is ever recorded.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import trio

from lafsfs.crypto.hashes import derive_key, tagged_hash
from lafsfs.errors import JournalError
from lafsfs.journal import Journal, Limits
from lafsfs.vfs.recording.durable import JournalRecorder
from lafsfs.vfs.recording.recorder import MemoryRecorder
from lafsfs.vfs.recording.replay import Found, replay
from lafsfs.vfs.staging.area import StagingArea

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from lafsfs.caps import Cap
    from lafsfs.nodes.maker import NodeMaker
    from lafsfs.vfs.api import VfsSettings
    from lafsfs.vfs.recording.recorder import Recorder
    from lafsfs.vfs.tree.tree import Tree

log = logging.getLogger(__name__)

_TAG: Final = b"lafsfs_journal_v1"


@dataclass(frozen=True, slots=True)
class Ground:
    """Made by :func:`open_ground`."""

    area: StagingArea
    recorder: Recorder
    journal: Journal | None = None

    async def restore(self, tree: Tree) -> Found:
        """Have everything pending again that an earlier mount left, and record from now on.

        Raises:
            JournalError: the journal cannot be read.
        """
        recorder = self.recorder
        if self.journal is None or not isinstance(recorder, JournalRecorder):
            return Found()
        found = await replay(tree, recorder, self.journal.take_rows())
        tree.nursery.start_soon(recorder.run)
        return replace(found, went_back=self.journal.went_back)


@asynccontextmanager
async def open_ground(root: Cap, maker: NodeMaker, settings: VfsSettings) -> AsyncIterator[Ground]:
    """The ground of a mount of ``root``.

    Raises:
        JournalBusyError: it is mounted already.
        JournalError: the journal cannot be used, and says what to do.
        LocalError: the local directories cannot be used.
    """
    if settings.journal_directory is None or settings.read_only:
        async with StagingArea.open(settings.staging_directory) as area:
            yield Ground(area, MemoryRecorder())
        return
    place, key = journal_of(settings.journal_directory, root)
    limits = Limits(staged=settings.journal_limit)
    async with (
        Journal.open(place, key, limits) as journal,
        StagingArea.over(
            journal, hashed=maker.begin_hash, draws_keys=not maker.is_convergent
        ) as area,
    ):
        recorder = JournalRecorder(journal)
        try:
            yield Ground(area, recorder, journal)
        finally:
            with trio.CancelScope(shield=True):
                await _record_the_rest(recorder)


def journal_of(directory: Path, root: Cap) -> tuple[Path, bytes]:
    """Where the journal of a root is, and its key."""
    seen = tagged_hash(_TAG, root.read_cap().danger_text().encode())
    master = tagged_hash(_TAG, root.danger_text().encode())
    return directory / derive_key(seen, b"name")[:16].hex(), derive_key(master, b"key")


async def _record_the_rest(recorder: JournalRecorder) -> None:
    """What was settled last. The rows that it had are right without it, and done again."""
    try:
        await recorder.accept()
    except JournalError as error:
        log.warning("the journal does not hear of what was settled last: %s", error)
