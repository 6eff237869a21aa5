"""Grids for the mounted tests."""

from __future__ import annotations

import pytest

from tests.mounted.harness import Grid


@pytest.fixture
def grid(tmp_path) -> Grid:
    """An embedded grid of one directory, with an empty root."""
    return Grid.create(tmp_path / "grid")
