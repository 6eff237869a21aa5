"""Case 1: stock writes, a lafsfs mount reads."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata

import pytest

from tests.interop.tables import CHK_SEGMENT, MDMF_SEGMENT, NAMES, SIZES, contents

pytestmark = pytest.mark.interop

FILES = [(format, size) for format, sizes in SIZES.items() for size in sizes]
MUTABLE = ("sdmf", "mdmf")
DEPTH = 12


@pytest.fixture(scope="module")
def files(stock, ours, plant):
    """A mount of a directory in which stock stored every kind and size, twice linked."""
    tree = plant()
    caps = {f"{f}-{size}": stock.web.put(contents(f, size), f) for f, size in FILES}
    stock.web.link(tree.cap, caps)
    below = stock.web.make_child_directory(tree.cap, "read-only")
    stock.web.link(below, {name: stock.web.read_cap(cap) for name, cap in caps.items()})
    with ours.mount(tree.what) as mount:
        yield mount


@pytest.mark.parametrize("folder", [".", "read-only"])
@pytest.mark.parametrize(("format", "size"), FILES)
def test_files(files, folder, format, size):
    path = files / folder / f"{format}-{size}"
    status = path.stat()
    assert stat.S_ISREG(status.st_mode)
    assert status.st_size == size
    assert path.read_bytes() == contents(format, size)


@pytest.mark.parametrize("format", SIZES)
def test_ranges_across_segments(files, format):
    size = SIZES[format][-1]
    expected = contents(format, size)
    segment = MDMF_SEGMENT if format == "mdmf" else CHK_SEGMENT
    with (files / f"{format}-{size}").open("rb", buffering=0) as file:
        for offset in (0, 1, segment - 1, segment, segment + 1, size - 1, size, size + 1):
            for length in (1, 3, 4096, segment, 2 * segment):
                assert os.pread(file.fileno(), length, offset) == expected[offset : offset + length]


@pytest.mark.parametrize("name", [f"{f}-{size}" for f, size in FILES if f in MUTABLE])
def test_read_capabilities_do_not_write(files, name):
    path = files / "read-only" / name
    before = path.read_bytes()
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        path.open("r+b").close()
    assert path.read_bytes() == before


@pytest.mark.parametrize("format", MUTABLE)
def test_nested_folders(stock, ours, plant, format):
    tree = plant(format)
    names = [f"level {number}" for number in range(DEPTH)]
    cap = tree.cap
    for depth in range(DEPTH + 1):
        stock.web.put_child(cap, "file", contents=b"%d" % depth)
        if depth < DEPTH:
            cap = stock.web.make_child_directory(cap, names[depth], format=format)
    with ours.mount(tree.what) as mount:
        found = [path for path, _, _ in os.walk(mount.path)]
        assert len(found) == DEPTH + 1
        for depth in range(DEPTH + 1):
            path = mount.path.joinpath(*names[:depth])
            assert sorted(os.listdir(path)) == sorted(["file", *names[depth : depth + 1]])
            assert (path / "file").read_bytes() == b"%d" % depth


def test_folders_of_every_kind(stock, ours, plant):
    tree, web = plant(), stock.web
    chk, literal = web.put(contents("chk", 1000)), web.put(b"literal")
    small = web.make_immutable_directory({"literal": literal})
    big = web.make_immutable_directory({"file": chk, "small": small})
    folders = {"immutable": big, "empty immutable": web.make_immutable_directory({})}
    for format in MUTABLE:
        folder = folders[format] = web.make_directory(format)
        web.link(folder, {"file": chk, "immutable": big})
        folders[f"{format} read-only"] = web.read_cap(folder)
        folders[f"empty {format}"] = web.make_directory(format)
    web.link(tree.cap, folders)
    with ours.mount(tree.what) as mount:
        assert set(os.listdir(mount.path)) == folders.keys()
        for format in MUTABLE:
            for name in (format, f"{format} read-only"):
                assert (mount / name / "file").read_bytes() == contents("chk", 1000)
                below = mount / name / "immutable"
                assert sorted(os.listdir(below)) == ["file", "small"]
                assert (below / "small" / "literal").read_bytes() == b"literal"
            assert os.listdir(mount / f"empty {format}") == []
        assert os.listdir(mount / "empty immutable") == []
        for name in ("immutable", "empty immutable", "sdmf read-only", "mdmf read-only"):
            with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
                (mount / name / "new").write_bytes(b"")


def test_names(stock, ours, plant):
    tree = plant()
    for number, name in enumerate(NAMES):
        stock.web.put_child(tree.cap, name, contents=b"%d" % number)
    stock.web.put_child(tree.cap, "e\u0301 decomposed", contents=b"stock composes it")
    with ours.mount(tree.what) as mount:
        composed = unicodedata.normalize("NFC", "e\u0301 decomposed")
        assert sorted(os.listdir(mount.path)) == sorted([*NAMES, composed])
        for number, name in enumerate(NAMES):
            assert (mount / name).read_bytes() == b"%d" % number
        assert (mount / composed).read_bytes() == b"stock composes it"


def test_children_that_no_file_system_can_show_as_they_are(stock, ours, plant):
    """Names that are none here, too long ones, and kinds from the future: the rest is unharmed."""
    tree, web = plant(), stock.web
    odd = ("..", ".", "y" * 300, "日" * 100)
    web.link(tree.cap, {name: web.put(b"odd") for name in odd} | {"even": web.put(b"even")})
    future = {"ro_uri": "ro.lafs:from:the:future"}
    web.link_as(tree.cap, {"future": ["unknown", future]})
    with ours.mount(tree.what) as mount:
        names = os.listdir(mount.path)
        assert len(names) == len(odd) + 2
        assert (mount / "even").read_bytes() == b"even"
        shown = set(names) - {"even", "future"}
        assert {(mount / name).read_bytes() for name in shown} == {b"odd"}
        (mount / "even").rename(mount / "still even")
    assert set(web.children(tree.cap)) == {*odd, "future", "still even"}
