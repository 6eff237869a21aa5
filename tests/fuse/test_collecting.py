"""The collector is set in a process of its own: it belongs to all that runs here."""

from __future__ import annotations

import subprocess
import sys

ASK = """
import gc
from lafsfs.fuse.collecting import spare_the_old

young, middle, old = gc.get_threshold()
spare_the_old()
assert gc.get_threshold()[:2] == (young, middle)
assert gc.get_threshold()[2] >= 50 * max(old, 1)
assert gc.get_freeze_count() > 1000

class Cycle:
    def __init__(self):
        self.me = self
        alive.add(id(self))

    def __del__(self):
        alive.discard(id(self))

alive = set()
for _ in range(100_000):
    Cycle()
print(len(alive) < 20_000)
"""


def test_garbage_is_still_collected():
    said = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    assert said.stdout == "True\n"
