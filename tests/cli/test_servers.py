"""What the configuration says of servers, in the terms of those who look for them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from lafsfs.cli.config import Config, Places
from lafsfs.cli.servers import introducers_of, join, joined_introducers, sources_of
from lafsfs.cli.session import (
    aliases_of,
    default_alias,
    directory_format_of,
    encoding_of,
    settings_of,
)
from lafsfs.crypto import base32
from lafsfs.errors import ConfigError, UsageError
from lafsfs.gbs.discovery.furl import parse_furl
from lafsfs.gbs.nurl import parse_nurl
from lafsfs.grid.encoding import Encoding
from tests.gbs.discovery.announced import Signer, furl, nurl, tub_id
from tests.gbs.discovery.nodes import make_node

if TYPE_CHECKING:
    from pathlib import Path

ONE = parse_nurl(nurl("one"))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    places = Places(tmp_path / "config", tmp_path / "data", tmp_path / "state")
    return Config(places, storage=(), joined=True)


def server(config: Config, **table: Any) -> Any:
    (record,) = sources_of(replace(config, servers=(table,))).servers
    return record


def test_nurls(config: Config) -> None:
    sources = sources_of(replace(config, nurls=(nurl("one"), nurl("two"))))
    assert [record.nurls for record in sources.servers] == [
        (ONE,),
        (parse_nurl(nurl("two")),),
    ]
    assert all(record.is_bare for record in sources.servers)
    with pytest.raises(UsageError, match="storage: NURL"):
        sources_of(replace(config, nurls=("pb://nonsense",)))


def test_tables(config: Config) -> None:
    found = server(config, nurl=nurl("one"))
    assert (found.is_bare, found.server_id, found.permutation_seed) == (True, None, None)
    assert found.name == "127.0.0.1:1234"
    found = server(
        config,
        nurls=[nurl("one"), nurl("one", "[::1]:1")],
        name="attic",
        id=base32.encode(tub_id("one")),
        key=Signer("one").key,
        seed=base32.encode(b"seed"),
    )
    assert len(found.nurls) == 2
    assert (found.name, found.key) == ("attic", Signer("one").key)
    assert (found.server_id, found.permutation_seed) == (tub_id("one"), b"seed")
    found = server(config, nurl=nurl("one"), key=Signer("one").key)
    assert (found.server_id, found.permutation_seed) == (None, Signer("one").raw)


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ({}, "nurl"),
        ({"nurls": []}, "nurl"),
        ({"nurl": 5}, "nurl"),
        ({"nurls": nurl("one")}, "nurl"),
        ({"nurl": nurl("one"), "nurls": [nurl("one")]}, "nurl"),
        ({"nurl": furl("one")}, "NURL: no #v=1"),
        ({"nurl": nurl("one"), "port": 5}, "unknown setting 'port'"),
        ({"nurl": nurl("one"), "name": 5}, "name must be a string"),
        ({"nurl": nurl("one"), "id": "aaaa"}, "base32"),
        ({"nurl": nurl("one"), "key": "aaaa"}, "Ed25519 key"),
        ({"nurl": nurl("one"), "seed": "1"}, "base32"),
    ],
)
def test_bad_tables_are_named(config: Config, table: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sources_of(replace(config, servers=({"nurl": nurl("good")}, table)))
    assert "[[grid.servers]], number 2" in str(caught.value)
    assert fault in str(caught.value)
    assert "swissnum" not in str(caught.value)


def test_introducers_and_managers(config: Config) -> None:
    alice = Signer("alice")
    sources = sources_of(
        replace(config, introducers=(furl("intro"),), managers=(f"pub-{alice.key}", alice.key))
    )
    (introducer,) = sources.introducers
    assert introducer.furl == parse_furl(furl("intro"))
    assert introducer.own.parent == config.places.state / "introducers"
    assert sources.managers == (alice.raw, alice.raw)
    with pytest.raises(UsageError, match=r"grid\.introducers: fURL"):
        sources_of(replace(config, introducers=(nurl("intro"),)))
    with pytest.raises(UsageError, match=r"grid\.managers"):
        sources_of(replace(config, managers=("x",)))


def test_joining(config: Config) -> None:
    one, two = parse_furl(furl("one")), parse_furl(furl("two"))
    assert introducers_of(config) == []
    assert join(config, one)
    assert not join(config, one)
    assert join(config, two)
    assert introducers_of(config) == joined_introducers(config) == [one, two]
    assert config.joined_file.stat().st_mode & 0o777 == 0o600
    moved = parse_furl(furl("one", "tcp:new.host:1"))
    assert join(config, moved)
    assert joined_introducers(config) == [two, moved]
    assert introducers_of(replace(config, joined=False)) == []


def test_a_list_of_introducers_that_was_edited(config: Config) -> None:
    config.joined_file.parent.mkdir(parents=True)
    config.joined_file.write_text(f"# mine\n\n  {furl('one')}  \n")
    assert len(joined_introducers(config)) == 1
    config.joined_file.write_text(f"{furl('one')}\nnonsense\n")
    with pytest.raises(ConfigError, match="introducers, line 2: fURL"):
        joined_introducers(config)


# --- a node's directory ---------------------------------------------------------------------------


@pytest.fixture
def of_node(config: Config, tmp_path: Path) -> Config:
    node = make_node(tmp_path / "node", "one")
    return replace(config, node_directory=node, joined=False)


def test_a_nodes_grid(of_node: Config) -> None:
    settings = settings_of(of_node)
    assert settings.encoding == Encoding(2, 3, 4)
    assert settings.node is not None
    assert settings.node.secrets().lease_secret == b"l" * 32
    assert [record.name for record in settings.sources.read()] == ["one"]
    assert directory_format_of(of_node) == "sdmf"


def test_what_is_meant_where_nothing_is_said(config: Config, of_node: Config) -> None:
    assert (default_alias(config), default_alias(of_node)) == ("home:", "tahoe:")


def test_what_we_are_told_wins_over_the_node(of_node: Config) -> None:
    assert encoding_of(replace(of_node, needed=1)) == Encoding(1, 3, 4)
    assert encoding_of(replace(of_node, needed=4, happy=1, total=5)) == Encoding(4, 1, 5)
    assert encoding_of(replace(of_node, total=2)) == Encoding(2, 2, 2)
    assert of_node.node_directory is not None
    with open(of_node.node_directory / "tahoe.cfg", "a") as file:
        file.write("[client]\nmutable.format = MDMF\n")
    assert directory_format_of(of_node) == "mdmf"
    assert directory_format_of(replace(of_node, directory_format="sdmf")) == "sdmf"


def test_a_nodes_aliases_are_only_read(of_node: Config) -> None:
    assert of_node.node_directory is not None
    private = of_node.node_directory / "private"
    cap = "URI:DIR2-LIT:"
    (private / "root_dir.cap").write_text(f"{cap}\n")
    aliases = aliases_of(of_node)
    assert aliases.names() == ["tahoe"]
    assert aliases.get("tahoe").danger_text() == cap
    (private / "aliases").write_text(f"work: {cap}\n")
    assert aliases.names() == ["tahoe", "work"]
    for change in (
        lambda: aliases.add("new", aliases.get("work")),
        lambda: aliases.remove("work"),
        aliases.require_writable,
    ):
        with pytest.raises(UsageError, match="only read"):
            change()
