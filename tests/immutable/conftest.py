"""Time that waits for worker threads."""

from __future__ import annotations

import pytest

from tests.patience import PatientClock


@pytest.fixture
def patient_clock():
    """A virtual clock for tests whose work is done by threads, however slow these are today."""
    return PatientClock(idle=0.0)
