"""A Tahoe node's directory: everything stock reads from it, and every broken file by its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.errors import ConfigError
from lafsfs.gbs.discovery.node_dir import NodeDirectory
from lafsfs.gbs.discovery.static import read_static_servers
from tests.gbs.discovery.announced import Signer, announcement, furl, tub_id
from tests.gbs.discovery.nodes import (
    CONVERGENCE,
    LEASE_SECRET,
    TAHOE_CFG,
    introducers,
    make_node,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def node(tmp_path: Path) -> NodeDirectory:
    return NodeDirectory(make_node(tmp_path / "node"))


def configure(node: NodeDirectory, text: str) -> None:
    (node.path / "tahoe.cfg").write_text(text)


def snapshot(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(directory.rglob("*"))
    }


def test_what_a_node_says(node: NodeDirectory) -> None:
    before = snapshot(node.path)
    found = node.settings()
    assert (found.encoding.k, found.encoding.happy, found.encoding.n) == (2, 3, 4)
    assert found.encoding.max_segment_size == 1 << 20
    assert found.mutable_format == "sdmf"
    assert found.grid_managers == ()
    assert found.preferred == frozenset()
    (introducer,) = found.introducers
    assert introducer.name == "default"
    assert introducer.furl.tub_id == tub_id("introducer")
    assert introducer.cache == node.private / "introducer_default_cache.yaml"
    secrets = node.secrets()
    assert (secrets.lease_secret, secrets.convergence_secret) == (LEASE_SECRET, CONVERGENCE)
    assert read_static_servers(node.servers_file) == []
    assert snapshot(node.path) == before


def test_what_stock_takes_where_nothing_is_said(node: NodeDirectory) -> None:
    configure(node, "[client]\n")
    found = node.settings()
    assert (found.encoding.k, found.encoding.happy, found.encoding.n) == (3, 7, 10)
    configure(node, "")
    assert node.settings() == found


def test_everything_that_counts(node: NodeDirectory) -> None:
    one, two = Signer("one"), Signer("two")
    configure(
        node,
        f"""\ufeff[client]
shares.needed : 1
shares.needed = 5
shares.happy=6
shares.total = 7
shares._max_immutable_segment_size_for_testing = 131072
mutable.format = mdmf
peers.preferred = {one.key} , {two.key},
introducer.furl = {furl("old")}
[grid_managers]
alice = pub-{one.key}
bob = pub-{two.key}
[connections]
tcp = TCP
""",
    )
    (node.private / "introducers.yaml").write_text(
        introducers(work=furl("work"), play=furl("play"))
    )
    found = node.settings()
    assert (found.encoding.k, found.encoding.happy, found.encoding.n) == (5, 6, 7)
    assert found.encoding.max_segment_size == 131072
    assert found.mutable_format == "mdmf"
    assert found.preferred == {one.key, two.key}
    assert found.grid_managers == (one.raw, two.raw)
    assert {i.name: i.cache.name for i in found.introducers} == {
        name: f"introducer_{name}_cache.yaml" for name in ("work", "play", "default")
    }


def test_nodes_without_introducers(node: NodeDirectory) -> None:
    (node.private / "introducers.yaml").unlink()
    assert node.settings().introducers == ()
    (node.private / "introducers.yaml").write_text("introducers: {}\n")
    assert node.settings().introducers == ()


def test_static_servers(node: NodeDirectory) -> None:
    key = Signer("one").key
    node.servers_file.write_text(
        yaml.safe_dump(
            {
                "storage": {
                    key: {"ann": announcement("one"), "connections": {"tcp": "tcp"}},
                    "my-serverid-1": {"ann": {"anonymous-storage-FURL": furl("two")}},
                    7: {"ann": announcement("seven")},
                }
            },
            sort_keys=False,
        )
    )
    found = {record.key: record for record in read_static_servers(node.servers_file)}
    assert found[key].name == "one"
    assert found[key].fault is None
    assert found["my-serverid-1"].server_id == tub_id("two")
    assert "Foolscap" in (found["my-serverid-1"].fault or "")
    assert found["7"].nurls
    for text in ("", "storage:\n", "storage: {}\n", "other: {}\n"):
        node.servers_file.write_text(text)
        assert read_static_servers(node.servers_file) == []


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("tahoe.cfg", None, "is not the directory of a Tahoe node"),
        ("tahoe.cfg", "nonsense", "tahoe.cfg, line 1"),
        ("tahoe.cfg", "[client]\nshares.needed\n", "tahoe.cfg, line 2"),
        ("tahoe.cfg", "[client\n", "tahoe.cfg"),
        ("tahoe.cfg", "[client]\n\nshares.needed = many\n", "tahoe.cfg, line 3: shares.needed"),
        ("tahoe.cfg", "[client]\nshares.total =\n", "tahoe.cfg, line 2: shares.total"),
        ("tahoe.cfg", "[client]\nshares.needed = 11\n", "tahoe.cfg, line 2: shares.*"),
        ("tahoe.cfg", "[client]\nshares.needed = -1\n", "tahoe.cfg, line 2: shares.*"),
        ("tahoe.cfg", "[client]\nmutable.format = %(x)s\n", "tahoe.cfg, line 2: a %"),
        ("tahoe.cfg", "[client]\nintroducer.furl = x\n", "tahoe.cfg, line 2: fURL"),
        ("tahoe.cfg", f"[client]\nintroducer.furl = {furl('x')}\n", "tahoe.cfg, line 2: "),
        ("tahoe.cfg", "[grid_managers]\na = pub-v0-x\n", "tahoe.cfg, line 2: base32"),
        ("tahoe.cfg", "[node]\nreveal-IP-address = false\n", "tahoe.cfg, line 2: reveal-IP"),
        ("tahoe.cfg", "[node]\nreveal-IP-address = maybe\n", "tahoe.cfg, line 2: reveal-IP"),
        ("tahoe.cfg", "[connections]\ntcp = tor\n", "tahoe.cfg, line 2: lafsfs connects"),
        ("tahoe.cfg", "[connections]\ntcp = disabled\n", "tahoe.cfg, line 2: lafsfs connects"),
        ("tahoe.cfg", b"[client]\n\xff\n", "tahoe.cfg, line 2: not UTF-8"),
        ("private/introducers.yaml", "introducers: []\n", "introducers.yaml, line 1: a mapping"),
        ("private/introducers.yaml", "introducers:\n  a: b\n", "introducers.yaml, line 2"),
        ("private/introducers.yaml", "introducers:\n  a: {}\n", "line 2: this introducer has"),
        (
            "private/introducers.yaml",
            "introducers:\n  a:\n    furl: x\n",
            "introducers.yaml, line 3: fURL",
        ),
        ("private/introducers.yaml", "introducers:\n  a: [\n", "introducers.yaml, line 3"),
        ("private/introducers.yaml", introducers(**{"../x": furl("x")}), "introducers.yaml"),
        ("private/secret", None, "private/secret is missing"),
        ("private/secret", "nonsense!\n", "private/secret, line 1"),
        ("private/secret", "", "private/secret, line 1"),
        ("private/secret", b"\xff", "private/secret, line 1"),
        ("private/convergence", None, "private/convergence is missing"),
        ("private/convergence", "UPPER\n", "private/convergence, line 1"),
        ("private/servers.yaml", "storage: [a]\n", "servers.yaml, line 1: a mapping"),
        ("private/servers.yaml", "storage:\n  v0-x: text\n", "servers.yaml, line 2: a mapping"),
        ("private/servers.yaml", "storage:\n  v0-x: {}\n", "servers.yaml, line 2: this server"),
        ("private/servers.yaml", "storage:\n  v0-x:\n    ann: 5\n", "servers.yaml, line 3: ann"),
        (
            "private/servers.yaml",
            "storage:\n  a:\n    ann: {}\n    connections: {tcp: tor}\n",
            "servers.yaml, line 4: lafsfs connects",
        ),
        ("private/servers.yaml", "storage: {\n", "servers.yaml, line 2"),
    ],
)
def test_broken_files(node: NodeDirectory, file: str, text: str | bytes | None, fault: str) -> None:
    path = node.path / file
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(ConfigError) as caught:
        (node.settings(), node.secrets(), read_static_servers(node.servers_file))
    message = str(caught.value)
    assert fault in message
    assert str(node.path) in message
    assert "\n" not in message
    assert "swissnum" not in message


def test_directories_that_are_not_there_or_not_ours(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not the directory of a Tahoe node"):
        NodeDirectory(tmp_path / "missing").settings()
    (tmp_path / "tahoe.cfg").mkdir()
    with pytest.raises(ConfigError, match=r"cannot read .*tahoe\.cfg"):
        NodeDirectory(tmp_path).settings()


@settings(max_examples=100)
@given(st.data())
def test_damaged_configurations(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.mkdir(exist_ok=True)
    raw = bytearray(TAHOE_CFG.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(raw) - 1))
        raw[position] = data.draw(st.sampled_from(b"[]=:%\n \xff\x00") | st.integers(0, 255))
    (path / "tahoe.cfg").write_bytes(raw)
    try:
        found = NodeDirectory(path).settings()
    except ConfigError:
        return
    assert 1 <= found.encoding.k <= found.encoding.n <= 256
