"""Case 2: lafsfs writes, stock reads and finds every share of every object healthy."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.interop.tables import CHK_SEGMENT, MDMF_SEGMENT, NAMES, SIZES, contents

pytestmark = pytest.mark.interop

FILES = [(format, size) for format, sizes in SIZES.items() for size in sizes]
MUTABLE = ("sdmf", "mdmf")
PIECE = 100_001  # bytes written at once, so that pieces and segments never end together
NEW_MUTABLE = (0, MDMF_SEGMENT + 1)  # bytes of the mutable files that ``lafsfs put`` makes


def write_in_pieces(path, data):
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(data), PIECE):
            file.write(data[start : start + PIECE])


def healthy(result):
    """Whether a check found all shares, each good; literals have none."""
    found = result["results"]
    if not result["storage-index"]:
        return found["healthy"] is True
    return (
        found["healthy"] is True
        and found["count-shares-good"] == found["count-shares-expected"] == 10
        and found["count-corrupt-shares"] == 0
        and found.get("count-unrecoverable-versions", 0) == 0
    )


@pytest.fixture(scope="module")
def files(stock, ours, plant):
    """A directory in which stock made mutable files, and a lafsfs mount wrote all the contents."""
    tree, web = plant(), stock.web
    web.link(
        tree.cap,
        {f"{f}-{size}": web.put(b"before" * 7, f) for f, size in FILES if f in MUTABLE},
    )
    with ours.mount(tree.what) as mount:
        for format, size in FILES:
            write_in_pieces(mount / f"{format}-{size}", contents(format, size))
    return tree


@pytest.mark.parametrize(("format", "size"), FILES)
def test_files(stock, files, format, size):
    name = f"{format}-{size}"
    assert stock.web.get(files.cap, name) == contents(format, size)
    kind, known = stock.web.information(files.cap, name)
    assert kind == "filenode"
    assert known["format"] == format.upper()
    assert known["mutable"] == (format in MUTABLE)
    if format not in MUTABLE:
        assert known["size"] == size
    cap = known.get("rw_uri") or known["ro_uri"]
    assert cap.startswith("URI:LIT:") == (format == "chk" and size <= 55)
    if not cap.startswith("URI:LIT:"):
        assert healthy(stock.web.check(cap))


def test_the_whole_tree(tahoe, stock, files):
    node = ["-d", str(stock.client.directory)]
    said = subprocess.run([tahoe, *node, "deep-check", files.what], check=True, capture_output=True)
    assert f"{len(FILES) + 1} objects checked, {len(FILES) + 1} healthy" in said.stdout.decode()


@pytest.mark.parametrize("size", NEW_MUTABLE)
@pytest.mark.parametrize("format", MUTABLE)
def test_mutable_files_that_lafsfs_made(stock, ours, plant, format, size):
    tree, data = plant(format), contents(format, size)
    ours.run("put", "--format", format, "-", f"{tree.what}/file", contents=data)
    assert stock.web.get(tree.cap, "file") == data
    _, known = stock.web.information(tree.cap, "file")
    assert known["format"] == format.upper()
    assert healthy(stock.web.check(known["rw_uri"]))
    stock.web.put_child(tree.cap, "file", contents=data + b"stock may write it")
    assert ours.run("get", f"{tree.what}/file", "-") == data + b"stock may write it"


def test_convergence_agrees(stock, ours, plant):
    """The same contents have the same capability, whoever stored them."""
    tree = plant()
    for size in (56, CHK_SEGMENT + 1):
        data = contents("converging", size)
        ours.run("put", "-", f"{tree.what}/{size}", contents=data)
        _, known = stock.web.information(tree.cap, str(size))
        assert stock.web.put(data) == known["ro_uri"]


def test_a_tree_of_everything(stock, ours, plant):
    """What programs make in a file system is something that stock can show, check and walk."""
    tree, web = plant(), stock.web
    deep = ["a", "b", "c", "d", "é", "f"]
    with ours.mount(tree.what) as mount:
        below = mount.path.joinpath(*deep)
        below.mkdir(parents=True)
        (below / "file").write_bytes(contents("deep", 1000))
        for number, name in enumerate(NAMES):
            (mount / name).write_bytes(b"%d" % number)
        os.symlink("a/b", mount / "link")
        os.link(below / "file", mount / "second name")
        (mount / "renamed away").write_bytes(b"moved")
        (mount / "renamed away").rename(below / "moved")
        (mount / "removed").write_bytes(b"removed")
        (mount / "removed").unlink()
        os.utime(mount / "plain", (10**9, 10**9))
        os.chmod(mount / "plain", 0o600)
        os.setxattr(mount / "plain", "user.note", b"\0\xff")
    assert set(web.children(tree.cap)) == {*NAMES, "a", "link", "second name"}
    for number, name in enumerate(NAMES):
        assert web.get(tree.cap, name) == b"%d" % number
    assert web.get(tree.cap, *deep, "file") == contents("deep", 1000)
    assert web.get(tree.cap, "second name") == contents("deep", 1000)
    assert web.get(tree.cap, *deep, "moved") == b"moved"
    assert [r["path"] for r in web.deep_check(tree.cap) if not healthy(r["check-results"])] == []


def test_what_stock_keeps_true_is_true(stock, ours, plant):
    """Stock's own metadata, and other programs', survive what lafsfs changes, and the reverse."""
    tree, web = plant(), stock.web
    described = web.information(web.put(b"file"))
    described[1]["metadata"] = {"of another program": {"a": [1, None, "é"]}}
    web.link_as(tree.cap, {"file": described})
    before = web.children(tree.cap)["file"][1]["metadata"]
    with ours.mount(tree.what) as mount:
        os.chmod(mount / "file", 0o640)
        os.utime(mount / "file", ns=(10**18, 10**18))
    after = web.children(tree.cap)["file"][1]["metadata"]
    assert after["of another program"] == before["of another program"]
    assert after["tahoe"]["linkcrtime"] == before["tahoe"]["linkcrtime"]
    assert after["tahoe"]["linkmotime"] >= before["tahoe"]["linkmotime"]
    web.put_child(tree.cap, "other", contents=b"stock rewrites the table")
    with ours.mount(tree.what) as mount:
        status = (mount / "file").stat()
        assert status.st_mode & 0o7777 == 0o640
        assert status.st_mtime_ns == 10**18
