"""Grids for the mounted tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.mounted.harness import Grid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.mounted.harness import Mount


@pytest.fixture
def grid(tmp_path) -> Grid:
    """An embedded grid of one directory, with an empty root."""
    return Grid.create(tmp_path / "grid")


@pytest.fixture(scope="module")
def mount(tmp_path_factory) -> Iterator[Mount]:
    """One mount for all tests of a module, each of which keeps to names of its own.

    As people mount: what was accepted goes to the grid in the background.
    """
    with Grid.create(tmp_path_factory.mktemp("mount") / "grid").mount(sync=False) as mount:
        yield mount
