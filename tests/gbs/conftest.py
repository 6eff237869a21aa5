"""What the tests of the HTTPS client share."""

from __future__ import annotations

import pytest

IDLE = 0.05  # seconds of real time in which nothing happened on any socket


@pytest.fixture
def patient_clock(mock_clock):
    """A virtual clock that jumps only once the sockets have been silent for a while."""
    mock_clock.autojump_threshold = IDLE
    return mock_clock
