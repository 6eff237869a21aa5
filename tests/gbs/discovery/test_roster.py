"""Servers come, move and go while the grid is in use; and who may be given new shares."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import trio

from lafsfs.errors import ConfigError, ServerUnavailableError
from lafsfs.gbs.discovery.announcements import bare_record
from lafsfs.gbs.discovery.node_dir import NodeDirectory
from lafsfs.gbs.discovery.roster import NOT_SEEN, POLL, RETRY, UNPROVEN, Roster, load_ids
from lafsfs.gbs.discovery.sources import Sources
from lafsfs.gbs.nurl import parse_nurl
from lafsfs.gbs.server import GBSServer
from tests.fakes import FakeServer
from tests.gbs.discovery.announced import Signer, furl, nurl, tub_id
from tests.gbs.discovery.nodes import cached, make_node

if TYPE_CHECKING:
    from pathlib import Path

    from lafsfs.gbs.discovery.announcements import ServerRecord

SI = b"s" * 16


class MovingServer(FakeServer):
    """A server in memory that notes where it is said to be."""

    def __init__(self, record: ServerRecord, server_id: bytes) -> None:
        super().__init__(record.name, server_id=server_id, permutation_seed=record.permutation_seed)
        self.nurls = record.nurls
        self.closed = 0

    async def move(self, nurls: Any) -> None:
        self.nurls = nurls

    async def aclose(self) -> None:
        self.closed += 1


class Handshakes:
    """Learns ids as handshakes do, from servers that are up."""

    def __init__(self) -> None:
        self.up: dict[bytes, bytes] = {}
        self.asked: list[str] = []

    async def __call__(self, nurl: Any) -> bytes:
        self.asked.append(nurl.authority)
        await trio.sleep(1)
        if nurl.pin not in self.up:
            raise ServerUnavailableError(f"{nurl.authority}: refused")
        return self.up[nurl.pin]


@pytest.fixture
def handshakes() -> Handshakes:
    return Handshakes()


Open = Callable[..., Roster]


@pytest.fixture
def roster(tmp_path: Path, handshakes: Handshakes) -> Open:
    """``roster(sources, *local)``, of servers in memory."""

    def make(sources: Sources, *local: FakeServer) -> Roster:
        return Roster(sources, local, tmp_path / "ids", make=MovingServer, learn=handshakes)

    return make


@pytest.fixture
def node(tmp_path: Path) -> Path:
    return make_node(tmp_path / "node", "one", "two")


def of_node(path: Path) -> Sources:
    node = NodeDirectory(path)
    return Sources().with_node(node, node.settings(), path.parent / "own")


def announce(node: Path, *servers: str, **more: Any) -> None:
    (node / "private" / "introducer_default_cache.yaml").write_text(cached(*servers, **more))


def configure(node: Path, text: str) -> None:
    path = node / "tahoe.cfg"
    path.write_text(path.read_text() + text)


async def until(true: Callable[[], bool]) -> None:
    """Wait for what happens after files were read, in threads, which know no virtual time."""
    for _ in range(1000):
        if true():
            return
        await trio.sleep(POLL)
    raise AssertionError("it does not happen")


def names(roster: Roster) -> list[str]:
    return sorted(server.name for server in roster.broker.servers)


async def test_announced_servers_are_used(roster: Open, node: Path) -> None:
    local = FakeServer("disk")
    grid = roster(of_node(node), local)
    await grid.refresh()
    assert names(grid) == ["disk", "one", "two"]
    (one,) = (server for server in grid.broker.servers if server.name == "one")
    assert one.server_id == tub_id("one")
    assert one.permutation_seed == b"seed of one"
    assert grid.local == (local,)
    assert [entry.fault for entry in grid.entries()] == [None, None]


async def test_real_servers_are_made_and_closed(node: Path, tmp_path: Path) -> None:
    async with Roster.open(of_node(node), [], tmp_path / "ids") as grid:
        one, two = grid.broker.servers
        assert isinstance(one, GBSServer)
        assert {one.server_id, two.server_id} == {tub_id("one"), tub_id("two")}
        assert not (tmp_path / "ids").exists()


async def test_a_running_grid_picks_up_what_changes(
    roster: Open, node: Path, patient_clock: Any
) -> None:
    grid = roster(of_node(node))
    await grid.refresh()
    one = next(server for server in grid.broker.servers if server.name == "one")
    two = next(server for server in grid.broker.servers if server.name == "two")
    grid.broker.note_success(one, 0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(grid.follow)
        announce(node, "one", "three", **{"anonymous-storage-NURLs": [nurl("one", "new.host:1")]})
        await until(lambda: names(grid) == ["one", "three"])
        assert one in grid.broker.servers
        assert one.nurls == (parse_nurl(nurl("one", "new.host:1")),)
        assert grid.broker.health(one).latency == 0.5
        await until(lambda: two.closed == 1)
        assert one.closed == 0
        nursery.cancel_scope.cancel()
    await grid.aclose()
    assert one.closed == 1


async def test_a_server_of_another_id_is_another_server(roster: Open, node: Path) -> None:
    grid = roster(of_node(node))
    await grid.refresh()
    old = {server.name: server for server in grid.broker.servers}
    announce(node, "one", **{"permutation-seed-base32": "aaaa"})
    await grid.refresh()
    (new,) = grid.broker.servers
    assert new is not old["one"]
    assert old["one"].closed == 1
    assert new.closed == 0


async def test_a_broken_file_changes_nothing(
    roster: Open, node: Path, patient_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    grid = roster(of_node(node))
    await grid.refresh()
    cache = node / "private" / "introducer_default_cache.yaml"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(grid.follow)
        cache.write_text("- [")
        await until(lambda: bool(caplog.messages))
        await trio.sleep(5 * POLL)
        assert names(grid) == ["one", "two"]
        (warning,) = caplog.messages
        assert f"{cache}, line 1" in warning
        announce(node, "three")
        await until(lambda: names(grid) == ["three"])
        nursery.cancel_scope.cancel()


async def test_a_broken_file_at_the_start_is_an_error(roster: Open, node: Path) -> None:
    (node / "private" / "servers.yaml").write_text("storage: 5\n")
    with pytest.raises(ConfigError, match=r"servers\.yaml, line 1"):
        await roster(of_node(node)).refresh()


async def test_servers_that_cannot_be_used_are_kept_with_the_reason(
    roster: Open, node: Path
) -> None:
    announce(node, "one", **{"anonymous-storage-NURLs": None})
    grid = roster(of_node(node))
    await grid.refresh()
    (entry,) = grid.entries()
    assert entry.server is None
    assert "1.19" in (entry.fault or "")
    assert grid.broker.servers == ()


# --- bare NURLs -----------------------------------------------------------------------------------


def bare(*names: str) -> Sources:
    return Sources(servers=tuple(bare_record([parse_nurl(nurl(n))], "", n) for n in names))


async def test_the_id_of_a_bare_nurl_is_learnt_once_and_for_ever(
    roster: Open, handshakes: Handshakes, tmp_path: Path, patient_clock: Any
) -> None:
    handshakes.up = {parse_nurl(nurl("one")).pin: tub_id("one")}
    grid = roster(bare("one"))
    await grid.refresh()
    (server,) = grid.broker.servers
    assert server.server_id == server.permutation_seed == tub_id("one")
    assert list(load_ids(tmp_path / "ids").values()) == [tub_id("one")]
    assert (tmp_path / "ids").stat().st_mode & 0o777 == 0o600
    handshakes.up = {}
    again = roster(bare("one"))
    await again.refresh()
    assert again.broker.servers[0].server_id == tub_id("one")
    assert len(handshakes.asked) == 1


async def test_servers_that_were_never_reached_are_asked_again(
    roster: Open, handshakes: Handshakes, patient_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    up, down = parse_nurl(nurl("up")), parse_nurl(nurl("down"))
    handshakes.up = {up.pin: tub_id("up")}
    grid = roster(bare("up", "down"))
    started = trio.current_time()
    await grid.refresh()
    assert trio.current_time() - started < 2  # both were asked at once
    assert names(grid) == ["up"]
    assert [entry.fault for entry in grid.entries()] == [
        None,
        f"{NOT_SEEN}: {down.authority}: refused",
    ]
    assert "down is left out for now" in caplog.text
    async with trio.open_nursery() as nursery:
        nursery.start_soon(grid.follow)
        await until(lambda: handshakes.asked[2:] == [down.authority])
        assert trio.current_time() >= RETRY
        assert names(grid) == ["up"]
        handshakes.up[down.pin] = tub_id("down")
        await until(lambda: names(grid) == ["down", "up"])
        asked = len(handshakes.asked)
        await trio.sleep(RETRY + 2 * POLL)
        assert len(handshakes.asked) == asked
        nursery.cancel_scope.cancel()


async def test_ids_that_were_noted_wrongly(roster: Open, tmp_path: Path) -> None:
    for text in ("nonsense", "[]", '{"a": 5}', '{"a": "a"}'):
        (tmp_path / "ids").write_text(text)
        with pytest.raises(ConfigError, match="ids"):
            await roster(bare("one")).refresh()


# --- one id, one server ---------------------------------------------------------------------------


async def test_two_records_of_one_id_are_one_server(
    roster: Open, handshakes: Handshakes, node: Path, patient_clock: Any
) -> None:
    handshakes.up = {parse_nurl(nurl("x")).pin: tub_id("one")}
    directory = NodeDirectory(node)
    grid = roster(bare("x").with_node(directory, directory.settings(), node.parent / "own"))
    await grid.refresh()
    assert names(grid) == ["two", "x"]
    (fault,) = (entry.fault for entry in grid.entries() if entry.fault)
    assert "it has the id of x" in fault


@pytest.mark.parametrize("first", ["true", "false"])
async def test_who_announces_the_id_of_another_is_not_believed(
    roster: Open, handshakes: Handshakes, node: Path, patient_clock: Any, first: str
) -> None:
    """Secrets made for that id, write enablers among them, would go to the impostor."""
    claimed = {"anonymous-storage-FURL": furl("true")}
    true, false = cached("true"), cached("false", **claimed)
    cache = node / "private" / "introducer_default_cache.yaml"
    cache.write_text(true + false if first == "true" else false + true)
    handshakes.up = {parse_nurl(nurl(name)).pin: tub_id(name) for name in ("true", "false")}
    grid = roster(of_node(node))
    await grid.refresh()
    assert names(grid) == ["true"]
    assert [entry.fault for entry in grid.entries() if entry.fault] == [UNPROVEN]
    handshakes.up = {}  # what was proven once stays so
    await grid.refresh()
    assert names(grid) == ["true"]
    unproven = roster(of_node(node))
    await unproven.refresh()
    assert names(unproven) == []


async def test_only_what_servers_say_themselves_must_be_proven(node: Path) -> None:
    assert all(record.announced for record in of_node(node).read())
    assert not any(record.announced for record in bare("x").servers)


async def test_a_directory_of_ours_that_is_also_announced(roster: Open, node: Path) -> None:
    local = FakeServer("disk", server_id=tub_id("one"))
    grid = roster(of_node(node), local)
    await grid.refresh()
    assert names(grid) == ["disk", "two"]


# --- who may be given shares ----------------------------------------------------------------------


async def test_grid_managers_decide(roster: Open, node: Path) -> None:
    manager = Signer("manager")
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    configure(node, f"[grid_managers]\nalice = pub-{manager.key}\n")
    entries = []
    for name, end in (("good", now + day), ("late", now - day)):
        certificate = manager.certificate(Signer(name), expires=end.isoformat())
        entries.append(cached(name, **{"grid-manager-certificates": [certificate]}))
    entries.append(cached("bare"))
    cache = node / "private" / "introducer_default_cache.yaml"
    cache.write_text("".join(entries))
    local = FakeServer("disk")
    grid = roster(of_node(node), local)
    await grid.refresh()
    assert names(grid) == ["bare", "disk", "good", "late"]
    accepted = {s.name for s in grid.broker.servers if grid.broker.accepts_new_shares(s)}
    assert accepted == {"disk", "good"}
    assert {e.record.name for e in grid.entries() if e.accepts_new_shares} == {"good"}


async def test_without_grid_managers_everybody_may(roster: Open, node: Path) -> None:
    grid = roster(of_node(node))
    await grid.refresh()
    assert all(map(grid.broker.accepts_new_shares, grid.broker.servers))


async def test_preferred_servers_come_first(roster: Open, node: Path) -> None:
    announce(node, *"abcdefgh")
    configure(node, f"[client]\npeers.preferred = {Signer('h').key},{Signer('c').key}\n")
    grid = roster(of_node(node))
    await grid.refresh()
    for index in range(8):
        order = grid.broker.servers_for(bytes([index]) * 16)
        assert {server.name for server in order[:2]} == {"c", "h"}
