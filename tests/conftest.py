"""What every test has in common.

No test measures time, so Hypothesis does not either: a busy machine is not a failure. In CI the
same examples are tried every time; whoever hunts for more runs with ``--hypothesis-profile=hunt``.
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("hunt", deadline=None, max_examples=5000)
settings.load_profile("ci" if os.environ.get("CI") else "default")

REAL = {"cli", "gbs", "mounted", "tools"}  # tests of whole processes, sockets, signals and mounts
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What depends on when the kernel runs and delivers what is tried once more; it shows."""
    for item in items:
        if item.path.relative_to(HERE).parts[0] in REAL:
            item.add_marker(pytest.mark.flaky(reruns=1))
