"""A directory is the same server however it is reached."""

from __future__ import annotations

import shutil

import pytest

from lafsfs.crypto import base32, x509
from lafsfs.errors import ConfigError, ServerUnavailableError
from lafsfs.grid.identity import Identity, ensure_identity, load_identity
from lafsfs.grid.local import LocalServer
from tests.golden_data import SERVERS


@pytest.fixture
def stock(tmp_path):
    """A directory that a stock server left: slots, and no certificate beside them."""
    directory = tmp_path / "storage"
    shutil.copytree(SERVERS["s2"].directory, directory)
    return directory


async def test_a_directory_with_slots_keeps_the_id_they_record(stock):
    golden = SERVERS["s2"]
    for _ in range(2):
        server = await LocalServer.open(stock, create=False)
        assert server.server_id == golden.server_id
    assert (stock / "server-id").read_text().strip() == base32.encode(golden.server_id)
    assert not (stock / "node.pem").exists()
    shutil.rmtree(stock / "shares")
    (stock / "shares").mkdir()
    assert load_identity(stock) == Identity.of(golden.server_id)


def test_shares_from_elsewhere_do_not_outvote_the_directorys_own(stock):
    slot = next(path for path in (stock / "shares").glob("??/*/*") if path.stat().st_size < 5000)
    foreign = stock / "shares" / "aa" / slot.parent.name / "0"
    foreign.parent.mkdir(parents=True)
    data = slot.read_bytes()
    foreign.write_bytes(data[:32] + b"x" * 20 + data[52:])
    assert load_identity(stock) == Identity.of(SERVERS["s2"].server_id)


def test_what_is_no_container_names_nobody(tmp_path):
    bucket = tmp_path / "shares" / "aa" / "aabc"
    (bucket / "1").mkdir(parents=True)
    (bucket / "0").write_bytes(b"Tahoe mutable container v2\n\xc3\x55\x21\x99\x25" + bytes(100))
    assert load_identity(tmp_path) is None


def test_a_certificate_comes_before_what_containers_say(stock):
    pem = x509.make_node_certificate()
    (stock / "node.pem").write_bytes(pem)
    assert ensure_identity(stock) == Identity.of(x509.server_id_of(pem))


def test_the_storage_of_a_tahoe_node_is_that_node(tmp_path):
    pem = x509.make_node_certificate()
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "node.pem").write_bytes(pem)
    (tmp_path / "storage" / "shares").mkdir(parents=True)
    assert ensure_identity(tmp_path / "storage") == Identity.of(x509.server_id_of(pem))
    assert not (tmp_path / "storage" / "node.pem").exists()
    (tmp_path / "other" / "shares").mkdir(parents=True)
    assert ensure_identity(tmp_path / "other") != ensure_identity(tmp_path / "storage")


@pytest.mark.parametrize("name", ["node.pem", "server-id"])
@pytest.mark.parametrize("contents", [b"", b"nonsense", b"\xff\xfe", b"a" * 31])
async def test_an_unreadable_identity_is_said_and_not_replaced(tmp_path, name, contents):
    (tmp_path / "shares").mkdir()
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(ConfigError, match=name):
        await LocalServer.open(tmp_path, create=True)
    assert (tmp_path / name).read_bytes() == contents


async def test_another_identity_than_the_directorys_is_noticed(stock):
    server = LocalServer(stock, Identity.of(b"x" * 20))
    with pytest.raises(ServerUnavailableError, match="another storage directory"):
        await server.version()
