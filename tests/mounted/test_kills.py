"""SIGKILL at any moment: what was accepted is there when it is mounted again, and gets to the grid.

``make test-crash KILLS=2000`` kills far more often.
"""

from __future__ import annotations

import os
import random

import pytest

from tests.mounted.kills import assert_all_is_back_after_a_kill

KILLS = int(os.environ.get("LAFSFS_KILLS", "12"))
SEED = int(os.environ.get("LAFSFS_SEED", "1"))
OPERATIONS = 60


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_any_moment(grid, tmp_path, number):
    seed = (SEED << 20) + number
    fault = f"any:{random.Random(seed).randrange(1, 6 * OPERATIONS)}"
    assert_all_is_back_after_a_kill(grid, tmp_path / "work", seed, fault, OPERATIONS)
