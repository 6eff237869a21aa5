"""Mutable files that stock Tahoe-LAFS wrote: read, and changed as stock would."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from lafsfs.caps import MutableReadCap, MutableWriteCap, parse
from lafsfs.grid.secrets import ClientSecrets
from lafsfs.mutable.file import MutableFile
from lafsfs.mutable.servermap import Mode
from tests.fakes import golden_grid
from tests.golden_data import CONVERGENCE, LEASE_SECRET, OBJECTS, contents

if TYPE_CHECKING:
    from pathlib import Path

    from lafsfs.grid.broker import Broker

MUTABLE = sorted(name for name, golden in OBJECTS.items() if golden.kind in ("SDMF", "MDMF"))
SECRETS = ClientSecrets(LEASE_SECRET, CONVERGENCE)


def opened(name: str, grid: Broker, *, writable: bool = True) -> MutableFile:
    golden = OBJECTS[name]
    cap = parse(golden.cap if writable else golden.ro)
    assert isinstance(cap, MutableWriteCap | MutableReadCap)
    return MutableFile(cap, grid, SECRETS)


@pytest.mark.parametrize("writable", [True, False], ids=["write", "read"])
@pytest.mark.parametrize("name", MUTABLE)
async def test_reads_what_stock_wrote(name: str, writable: bool, tmp_path: Path) -> None:
    file = opened(name, golden_grid(tmp_path), writable=writable)
    data = await file.download_best()
    assert hashlib.sha256(data).hexdigest() == OBJECTS[name].sha256
    assert await file.size() == OBJECTS[name].size


@pytest.mark.parametrize("name", MUTABLE)
async def test_maps_all_that_stock_placed(name: str, tmp_path: Path) -> None:
    servermap = await opened(name, golden_grid(tmp_path)).servermap(Mode.CHECK)
    assert servermap.settled()
    assert len(servermap.shares) == 10
    best = servermap.best()
    assert best is not None
    assert (best.k, best.n) == (3, 10)


@pytest.mark.parametrize("name", MUTABLE)
async def test_modifies_what_stock_wrote(name: str, tmp_path: Path) -> None:
    grid = golden_grid(tmp_path)
    file = opened(name, grid)
    before = await file.version()
    after = await file.modify(lambda old: b"new beginning" + old)
    assert after == b"new beginning" + contents(name)
    fresh = MutableFile(file.cap.read_cap(), grid, SECRETS)
    assert await fresh.download_best() == after
    servermap = await fresh.servermap(Mode.CHECK)
    assert servermap.settled()
    assert [version.seqnum for version in servermap.versions()] == [before.seqnum + 1]
