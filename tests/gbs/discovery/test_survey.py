"""Every server is asked, and whatever is wrong with one is said of that one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from lafsfs.gbs.discovery.announcements import FOOLSCAP_ONLY, record_of
from lafsfs.gbs.discovery.roster import Roster
from lafsfs.gbs.discovery.sources import Sources
from lafsfs.gbs.discovery.survey import PATIENCE, survey
from tests.fakes import FakeServer
from tests.gbs.discovery.announced import Signer, announcement, tub_id
from tests.gbs.discovery.test_roster import MovingServer

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("good", "slow", "down", "hung", "old")


async def test_a_survey(tmp_path: Path, patient_clock: Any) -> None:
    made: dict[str, MovingServer] = {}

    def make(record: Any, server_id: bytes) -> MovingServer:
        made[record.name] = MovingServer(record, server_id)
        return made[record.name]

    old = {"anonymous-storage-NURLs": None}
    records = [
        record_of(Signer(name).key, announcement(name, **(old if name == "old" else {})), name)
        for name in NAMES
    ]
    local = FakeServer("/disk", capacity=1000)
    roster = Roster(Sources(servers=tuple(records)), [local], tmp_path / "ids", make=make)
    await roster.refresh()
    made["slow"].delay = 2.0
    made["down"].down = True
    made["hung"].hang()
    reports = await survey(roster)
    assert trio.current_time() <= PATIENCE
    assert [report.name for report in reports] == ["/disk", *NAMES]
    disk, good, slow, down, hung, foolscap = reports
    assert (disk.addresses, disk.origin, disk.fault) == (("/disk",), "", None)
    assert disk.version is not None
    assert disk.version.available_space == 1000
    assert (good.server_id, good.addresses) == (tub_id("good"), ("127.0.0.1:1234",))
    assert good.fault is None
    assert slow.round_trip == 2.0
    assert (down.fault, down.version) == ("down", None)
    assert "no answer within" in (hung.fault or "")
    assert foolscap.fault == FOOLSCAP_ONLY
    assert foolscap.origin == "old"
