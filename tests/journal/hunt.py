"""Looking for a power failure or a damaged disk that the journal does not survive.

    python -m tests.journal.hunt [FIRST [COUNT]]

What tests/journal try with a few seeds, with as many as there is time for. Prints how it went.
"""

from __future__ import annotations

import logging
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import trio
from trio.testing import MockClock

from lafsfs.journal import Journal, Put
from lafsfs.journal.faultpoints import watch
from tests.journal.model import KEY, Story, copied
from tests.journal.test_crashes import after_power_failure
from tests.journal.test_damage import outcome_of

STEPS = 60


async def hunt(seed: int, base: Path, seen: Counter[str]) -> None:
    """One story, with a power failure and a flipped bit after each step."""
    story, chance, safe = Story(base / "j", seed), random.Random(seed), base / "safe"

    def remember(place: str) -> None:
        if place.startswith("journal.checkpoint") or place == "journal.sync.after":
            shutil.rmtree(safe, ignore_errors=True)
            copied(story.directory, safe)

    with watch(remember):
        async with Journal.open(story.directory, KEY) as journal:
            journal.commit({100: Put(b"")})
            journal.commit({}, [100])
            await journal.sync()
            for _ in range(STEPS):
                await story.act(journal)
                last = copied(story.directory, base / "last")
                await cut_power(story, safe, last, chance, seen)
                await flip_a_bit(story, last, chance, seen)
                shutil.rmtree(last)


async def cut_power(
    story: Story, safe: Path, last: Path, chance: random.Random, seen: Counter[str]
) -> None:
    lost = last.with_name("lost")
    after_power_failure(safe, last, lost, chance)
    state = await story.found(lost)
    assert state in story.states[story.safe :]
    seen["power: nothing lost" if state == story.now else "power: went back"] += 1
    shutil.rmtree(lost)


async def flip_a_bit(story: Story, last: Path, chance: random.Random, seen: Counter[str]) -> None:
    path = chance.choice(
        [last / "journal.db", last / "journal.db-wal", *(last / "contents").iterdir()]
    )
    raw = bytearray(path.read_bytes())
    if raw:
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        path.write_bytes(raw)
        seen[f"flipped bit: {await outcome_of(last, story)}"] += 1


def main(first: int = 0, count: int = 100) -> None:
    """Hunt with ``count`` seeds from ``first`` on."""
    logging.disable(logging.CRITICAL)
    seen: Counter[str] = Counter()
    for seed in range(first, first + count):
        with tempfile.TemporaryDirectory() as directory:
            try:
                trio.run(hunt, seed, Path(directory), seen, clock=MockClock())
            except BaseException:
                print(f"seed {seed}:")
                raise
    for outcome, number in sorted(seen.items()):
        print(f"{number:8} {outcome}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
