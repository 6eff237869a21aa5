"""Case 4: stock clients against ``lafsfs serve``, alone and among stock servers in one grid."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import pytest
import yaml

from tests.interop.ours import Ours, Served, serving
from tests.interop.tables import FEW_SIZES, SERVERS, SHARES, contents
from tests.stock import Client, added_client, wait_until

pytestmark = pytest.mark.interop

FILES = [(format, size) for format, sizes in FEW_SIZES.items() for size in sizes]
MUTABLE = ("sdmf", "mdmf")
OURS = 5


@dataclass
class Side:
    """A stock client, lafsfs as that client, and the servers of ours that both use."""

    client: Client
    ours: Ours
    served: list[Served]
    root: str

    def plant(self, name):
        """A new directory: what stock and what lafsfs calls it."""
        return self.client.web.make_child_directory(self.root, name), f"tahoe:{name}"


def servers_yaml(served):
    """What a client is to be told, out of what the servers wrote down."""
    announced = [yaml.safe_load(server.announcement)["storage"] for server in served]
    return yaml.safe_dump({"storage": {k: v for item in announced for k, v in item.items()}})


@pytest.fixture(scope="module", params=["alone", "among stock servers"])
def side(request, tahoe, tmp_path_factory):
    base = tmp_path_factory.mktemp("served")
    furl, count = None, OURS
    if request.param != "alone":
        furl, count = request.getfixturevalue("stock").furl, OURS + SERVERS
    with serving(base, OURS) as served:
        static = servers_yaml(served)
        added = added_client(
            tahoe, base / "client", furl=furl, shares=SHARES, connected=count, static=static
        )
        with added as client:
            root = client.web.make_directory()
            (client.private / "aliases").write_text(f"tahoe: {root}\n")
            ours = Ours(base / "ours", ("--node-dir", str(client.directory)))
            yield Side(client, ours, served, root)


def good_shares(web, cap):
    return web.check(cap)["results"]["count-shares-good"]


def test_stock_writes_and_reads(side):
    web = side.client.web
    caps = {(f, size): web.put(contents(f, size), f) for f, size in FILES}
    for (format, size), cap in caps.items():
        assert web.get(cap) == contents(format, size), (format, size)
        if not cap.startswith("URI:LIT:"):
            assert good_shares(web, cap) == SHARES.total, (format, size)
    cap, what = side.plant("written by stock")
    web.link(cap, {f"{f}-{size}": cap for (f, size), cap in caps.items()})
    with side.ours.mount(what) as mount:
        for format, size in FILES:
            assert (mount / f"{format}-{size}").read_bytes() == contents(format, size)


def test_lafsfs_writes_and_stock_reads(side):
    web = side.client.web
    cap, what = side.plant("written by lafsfs")
    with side.ours.mount(what) as mount:
        for size in FEW_SIZES["chk"]:
            (mount / str(size)).write_bytes(contents("chk", size))
        (mount / "folder").mkdir()
    for size in FEW_SIZES["chk"]:
        assert web.get(cap, str(size)) == contents("chk", size)
    for result in web.deep_check(cap):
        assert result["check-results"]["results"]["healthy"], result["path"]


@pytest.mark.parametrize("format", MUTABLE)
def test_stock_edits(side, format):
    """Longer, shorter, empty, and in the middle, each tested and set by the servers."""
    web = side.client.web
    cap = web.put(b"", format)
    for turn, size in enumerate((1000, 400_000, 7, 131_073, 0, 55)):
        data = contents(f"turn {turn}", size)
        web.request("PUT", web.path(cap), data)
        assert web.get(cap) == data
        if size:  # stock cannot do it with an empty file
            web.request("PUT", f"{web.path(cap)}?offset={size // 2}", b"in place")
            assert web.get(cap) == data[: size // 2] + b"in place" + data[size // 2 + 8 :]
    assert good_shares(web, cap) == SHARES.total


def test_stock_repairs(side):
    web = side.client.web
    cap, mutable = web.put(contents("repaired", 300_000)), web.put(b"repaired", "sdmf")
    for prefix in (side.served[0].storage / "shares").iterdir():
        shutil.rmtree(prefix)  # without ``shares`` itself it would count as unplugged
    assert good_shares(web, mutable) < SHARES.total or good_shares(web, cap) < SHARES.total
    for each in (cap, mutable):
        web.request("POST", web.path(each) + "?t=check&verify=true&repair=true")
        assert good_shares(web, each) == SHARES.total
    assert web.get(cap) == contents("repaired", 300_000)
    assert web.get(mutable) == b"repaired"


def test_stock_renews_leases(side):
    web = side.client.web
    cap, _ = side.plant("leased")
    web.put_child(cap, "file", contents=contents("leased", 1000))
    web.put_child(cap, "mutable", contents=b"leased", format="mdmf")
    path = web.path(cap) + "?t=stream-deep-check&add-lease=true"
    said = web.request("POST", path).decode()
    assert said.count('"healthy": true') >= 3
    assert "error" not in said.lower()


def test_a_server_comes_back(side):
    """Down, stock does without it; up again, it is the same server to its slots."""
    web, server = side.client.web, side.served[1]
    data = contents("comes back", 500_000)
    cap, mutable = web.put(data), web.put(b"first", "sdmf")
    count = web.connected()
    server.kill()
    assert web.get(cap) == data
    web.request("PUT", web.path(mutable), b"second")
    assert web.get(mutable) == b"second"
    server.start()
    server.wait()
    side.client.wait_for(count)

    def is_whole_again():  # stock takes a while to use a server that it is connected to
        web.request("PUT", web.path(mutable), b"third")
        return good_shares(web, mutable) == SHARES.total

    wait_until(is_whole_again, "writing to the server that came back")
    assert web.get(mutable) == b"third"
    assert good_shares(web, cap) == SHARES.total


def test_what_the_servers_say(side):
    """Nothing that a client did made one of them complain of itself."""
    for server in side.served:
        said = server.log.read_text()
        assert "Traceback" not in said
        assert "ERROR" not in said
