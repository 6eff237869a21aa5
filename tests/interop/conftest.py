"""One real grid for all these tests, from the first that needs it to the last.

Tests that take servers down put them back up. Every test works in a directory of its own.
"""

from __future__ import annotations

import itertools
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.interop.ours import Ours
from tests.interop.tables import SERVERS, SHARES
from tests.stock import find_tahoe, stock_grid

if TYPE_CHECKING:
    from collections.abc import Callable


def pytest_collection_modifyitems(items):
    """Stock nodes reconnect and give up in their own time: what fails is tried twice more."""
    for item in items:
        if item.get_closest_marker("interop"):
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.fixture(scope="package")
def tahoe():
    """The stock command."""
    found = find_tahoe()
    if found is None:
        pytest.fail("no tahoe command: run 'make test-interop', or set TAHOE to one")
    return found


@pytest.fixture(scope="package")
def stock(tahoe, tmp_path_factory):
    """An introducer, five storage servers, and a client with a web API."""
    base = tmp_path_factory.mktemp("stock")
    with stock_grid(tahoe, base, servers=SERVERS, shares=SHARES) as grid:
        yield grid


@pytest.fixture(scope="package")
def ours(stock, tmp_path_factory):
    """lafsfs on the same grid, as the same client, straight from the client's directory."""
    return Ours(tmp_path_factory.mktemp("ours"), ("--node-dir", str(stock.client.directory)))


@dataclass(frozen=True)
class Tree:
    """A new directory: its write capability for stock, and what lafsfs calls it."""

    cap: str
    what: str


@pytest.fixture(scope="package")
def plant(tahoe, stock) -> Callable[..., Tree]:
    """Makes directories below the alias ``tahoe:``, which both sides know."""
    node = ["-d", str(stock.client.directory)]
    subprocess.run([tahoe, *node, "create-alias", "tahoe"], check=True, capture_output=True)
    aliases = (stock.client.private / "aliases").read_text()
    root = aliases.partition("tahoe: ")[2].strip()
    numbers = itertools.count()

    def planted(format: str = "sdmf") -> Tree:
        name = f"tree-{next(numbers)}"
        cap = stock.web.make_child_directory(root, name, format=format)
        return Tree(cap, f"tahoe:{name}")

    return planted
