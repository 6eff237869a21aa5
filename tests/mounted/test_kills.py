"""SIGKILL at any moment: what was accepted is there when it is mounted again, and gets to the grid.

``make test-crash KILLS=2000`` kills far more often.
"""

from __future__ import annotations

import math
import os

import pytest

from tests.mounted.kills import Campaign

KILLS = int(os.environ.get("LAFSFS_KILLS", "12"))
SEED = int(os.environ.get("LAFSFS_SEED", "1"))
OPERATIONS = 60  # of one mount
IN_A_ROW = 12  # mounts of one grid


@pytest.mark.parametrize("number", range(math.ceil(KILLS / IN_A_ROW)))
def test_killed_at_any_moment(grid, tmp_path, number):
    campaign = Campaign(grid, tmp_path / "work", (SEED << 20) + number)
    for _ in range(min(IN_A_ROW, KILLS - number * IN_A_ROW)):
        campaign.kill(OPERATIONS)
    campaign.assert_all_is_back()
