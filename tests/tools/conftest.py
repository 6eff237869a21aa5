"""One mount for each module of tests, and a directory in it for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.tools.folder import mounted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.tools.folder import Folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    with mounted(tmp_path_factory.mktemp("home")) as folder:
        yield folder


@pytest.fixture
def here(folder: Folder, request: pytest.FixtureRequest) -> Path:
    """An empty directory of the test's own; the test may be run again."""
    name = request.node.name.replace("/", "_")[:100]
    path = next(p for n in range(100) if not (p := folder / f"{name}.{n}").exists())
    path.mkdir()
    return path
