"""The embedded grid and a stock node, by turns on one storage directory.

The directory's key goes with it: a stock node that has its ``node.pem`` is the same server, to
which the same write enablers and lease secrets belong.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager

import pytest

from tests.interop.ours import Ours
from tests.interop.tables import FEW_SIZES, NAMES, contents
from tests.stock import stock_node

pytestmark = pytest.mark.interop

MUTABLE = ("sdmf", "mdmf")
FILES = [(format, size) for format, sizes in FEW_SIZES.items() for size in sizes]


@contextmanager
def stock_over(tahoe, storage, base):
    """The web API of a stock node that serves a directory which lafsfs made."""
    base.mkdir()

    def take_over(node):
        shutil.rmtree(node.storage, ignore_errors=True)
        node.storage.symlink_to(storage)
        shutil.copy(storage / "node.pem", node.private / "node.pem")

    with stock_node(tahoe, base, prepare=take_over) as grid:
        yield grid.web


def ours_write(ours):
    with ours.mount("home:") as mount:
        for size in FEW_SIZES["chk"]:
            (mount / f"chk-{size}").write_bytes(contents("chk", size))
        for number, name in enumerate(NAMES):
            (mount / name).write_bytes(b"%d" % number)
        (mount / "a" / "b" / "c").mkdir(parents=True)
        (mount / "a" / "b" / "c" / "file").write_bytes(b"deep")
        os.symlink("a/b", mount / "link")
    for format in MUTABLE:
        for size in FEW_SIZES[format]:
            name = f"home:{format}-{size}"
            ours.run("put", "--format", format, "-", name, contents=contents(format, size))


def assert_tree_is_healthy(web, root):
    """Every share of every object is there and good."""
    for result in web.deep_check(root):
        assert result["check-results"]["results"]["healthy"], result["path"]


def assert_stock_reads(web, root):
    assert_tree_is_healthy(web, root)
    for format, size in FILES:
        assert web.get(root, f"{format}-{size}") == contents(format, size)
    for number, name in enumerate(NAMES):
        assert web.get(root, name) == b"%d" % number
    assert web.get(root, "a", "b", "c", "file") == b"deep"


def stock_writes(web, root):
    for format, size in FILES:
        data = contents(f"stock {format}", size)
        if format in MUTABLE:
            web.put_child(root, f"{format}-{size}", contents=data + b"edited by stock")
        web.put_child(root, "a", f"{format}-{size}", contents=data, format=format)
    web.unlink(root, "link")
    web.rename(root, "plain", "renamed by stock")
    web.make_child_directory(root, "stock folder", "below", format="mdmf")


def assert_ours_reads(mount):
    names = {*NAMES, "renamed by stock", "stock folder", "a"} - {"plain"}
    assert set(os.listdir(mount.path)) == names | {f"{f}-{size}" for f, size in FILES}
    assert (mount / "renamed by stock").read_bytes() == b"0"
    for format, size in FILES:
        data = contents(f"stock {format}", size)
        assert (mount / "a" / f"{format}-{size}").read_bytes() == data
        if format in MUTABLE:
            assert (mount / f"{format}-{size}").read_bytes() == data + b"edited by stock"


def ours_writes_more(mount):
    for format, size in FILES:
        if format in MUTABLE:
            with (mount / f"{format}-{size}").open("ab") as file:
                file.write(b", and by lafsfs")
            with (mount / "a" / f"{format}-{size}").open("r+b") as file:
                file.write(b"in place")
    (mount / "stock folder" / "below" / "file").write_bytes(b"ours")


def assert_stock_reads_what_both_wrote(web, root):
    assert_tree_is_healthy(web, root)
    assert web.get(root, "stock folder", "below", "file") == b"ours"
    for format, size in FILES:
        data = contents(f"stock {format}", size)
        if format in MUTABLE:
            expected = data + b"edited by stock, and by lafsfs"
            assert web.get(root, f"{format}-{size}") == expected
            assert web.get(root, "a", f"{format}-{size}") == b"in place" + data[8:]


def test_by_turns(tahoe, tmp_path):
    storage = tmp_path / "shares"
    ours = Ours(tmp_path / "ours", ("--storage", str(storage)))
    ours_write(ours)
    root = (tmp_path / "ours" / "config" / "aliases").read_text().split(": ")[1].strip()
    with stock_over(tahoe, storage, tmp_path / "first") as web:
        assert_stock_reads(web, root)
        stock_writes(web, root)
    with ours.mount("home:") as mount:
        assert_ours_reads(mount)
        ours_writes_more(mount)
    with stock_over(tahoe, storage, tmp_path / "second") as web:
        assert_stock_reads_what_both_wrote(web, root)
