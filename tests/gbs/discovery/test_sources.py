"""Who wins when several files speak of one server."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import yaml

from lafsfs.gbs.discovery.announcements import bare_record, record_of
from lafsfs.gbs.discovery.cache import Announcement, write_cache
from lafsfs.gbs.discovery.furl import parse_furl
from lafsfs.gbs.discovery.node_dir import NodeDirectory
from lafsfs.gbs.discovery.sources import Sources, merged
from lafsfs.gbs.nurl import parse_nurl
from tests.gbs.discovery.announced import Signer, announcement, furl, nurl
from tests.gbs.discovery.nodes import cached, introducers, make_node

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def of_node(path: Path, sources: Sources | None = None) -> Sources:
    node = NodeDirectory(path)
    return (sources or Sources()).with_node(node, node.settings(), path.parent / "own")


def names(sources: Sources) -> dict[str, str]:
    return {record.key: record.name for record in sources.read()}


def test_the_servers_of_a_node(tmp_path: Path) -> None:
    path = make_node(tmp_path / "node", "one", "two")
    private = path / "private"
    (private / "introducers.yaml").write_text(introducers(default=furl("a"), play=furl("b")))
    (private / "introducer_play_cache.yaml").write_text(cached("three"))
    (private / "introducer_left_cache.yaml").write_text(cached("of a grid that was left"))
    static = {"attic": {"ann": announcement("attic")}}
    (private / "servers.yaml").write_text(yaml.safe_dump({"storage": static}))
    sources = of_node(path)
    assert set(names(sources).values()) == {"one", "two", "three", "attic"}
    assert len(sources.introducers) == 2


def test_what_the_user_wrote_wins_over_announcements(tmp_path: Path) -> None:
    path = make_node(tmp_path / "node", "one", "two")
    key = Signer("one").key
    mine = announcement("one") | {"nickname": "mine"}
    (path / "private" / "servers.yaml").write_text(
        yaml.safe_dump({"storage": {key: {"ann": mine}}})
    )
    assert names(of_node(path))[key] == "mine"
    configured = record_of(key, announcement("one") | {"nickname": "configured"}, "")
    assert names(of_node(path, Sources(servers=(configured,))))[key] == "configured"


def test_the_newer_announcement_wins_whichever_cache_it_is_in(tmp_path: Path) -> None:
    path = make_node(tmp_path / "node")
    key = Signer("one").key
    sources = of_node(path)
    (introducer,) = sources.introducers
    own = introducer.own
    for ours, theirs in ((1, 2), (2, 1)):
        write_cache(own, [Announcement(key, announcement("ours", ours))])
        (path / "private" / "introducer_default_cache.yaml").write_text(
            yaml.safe_dump([{"ann": announcement("theirs", theirs), "key_s": key}])
        )
        assert names(sources) == {key: "ours" if ours > theirs else "theirs"}


def test_our_own_cache_may_be_broken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sources = of_node(make_node(tmp_path / "node", "one"))
    path = sources.introducers[0].own
    path.parent.mkdir()
    path.write_text("{nonsense")
    assert set(names(sources).values()) == {"one"}
    assert str(path) in caplog.text


def test_settings_of_a_node_add_to_ours(tmp_path: Path) -> None:
    path = make_node(tmp_path / "node")
    with open(path / "tahoe.cfg", "a") as file:
        file.write(f"[grid_managers]\nalice = pub-{Signer('alice').key}\n")
    furls = [parse_furl(furl("introducer")), parse_furl(furl("other"))]
    ours = Sources(managers=(Signer("bob").raw,), preferred=frozenset({"v0-x"}))
    sources = of_node(path, ours.with_introducers(furls, tmp_path / "own"))
    assert sources.managers == (Signer("bob").raw, Signer("alice").raw)
    assert sources.preferred == {"v0-x"}
    theirs = path / "private" / "introducer_default_cache.yaml"
    assert [introducer.others for introducer in sources.introducers] == [(theirs,), ()]
    assert [introducer.is_unheard() for introducer in sources.introducers] == [False, True]
    theirs.unlink()
    assert [introducer.is_unheard() for introducer in sources.introducers] == [True, True]
    assert Sources().read() == ()


def test_a_bare_nurl_adds_an_address_to_a_server_that_is_known() -> None:
    known = record_of(Signer("one").key, announcement("one"), "")
    other = parse_nurl(nurl("one", "10.0.0.1:99"))
    stranger = parse_nurl(nurl("stranger"))
    bare = [bare_record([other], ""), bare_record([stranger], "")]
    found = {record.key: record for record in merged(bare, [known])}
    assert found.pop(known.key).nurls == (other, *known.nurls)
    assert list(found.values()) == [bare_record([stranger], "")]


def test_bare_nurls_with_one_pin_are_one_server() -> None:
    nurls = [parse_nurl(nurl("one", f"10.0.0.{i}:99")) for i in (1, 2)]
    (record,) = merged([bare_record([n], "") for n in nurls], [])
    assert record.nurls == tuple(nurls)
    assert record.key == bare_record(nurls, "").key


def test_what_is_known_of_a_nurl_is_kept() -> None:
    record = replace(bare_record([parse_nurl(nurl("one"))], ""), server_id=b"i" * 20)
    assert list(merged([record], [])) == [record]


def test_names_tell_servers_apart(tmp_path: Path) -> None:
    path = make_node(tmp_path / "node")
    same = {"nickname": "home server"}
    (path / "private" / "introducer_default_cache.yaml").write_text(
        cached("one", "two", **same) + cached("three")
    )
    assert sorted(names(of_node(path)).values()) == sorted(
        ["three", *(f"home server ({Signer(n).key[3:11]})" for n in ("one", "two"))]
    )


def test_every_change_of_a_file_shows(tmp_path: Path) -> None:
    path = make_node(tmp_path / "node", "one")
    sources = of_node(path)
    seen = [sources.signature()]
    (path / "private" / "servers.yaml").write_text("storage: {}\n")
    seen.append(sources.signature())
    (path / "private" / "introducer_default_cache.yaml").write_text(cached("one", "two"))
    seen.append(sources.signature())
    write_cache(sources.introducers[0].own, [])
    seen.append(sources.signature())
    write_cache(sources.introducers[0].own, [])
    seen.append(sources.signature())
    assert len(set(seen)) == 5
    assert sources.signature() == seen[-1]
