"""Everything that stock Tahoe-LAFS wrote, read through a mount."""

from __future__ import annotations

import errno
import hashlib
import os
import stat

import pytest

from lafsfs.caps import MutableFormat, parse, parse_child
from lafsfs.nodes.edits import SetChild
from tests.golden_data import OBJECTS, TREES, contents
from tests.mounted.harness import Grid

REFUSED = "|".join(map(os.strerror, (errno.EROFS, errno.EACCES, errno.EPERM)))


async def root_of_everything(maker):
    """A new directory that has every golden object, with all rights and with fewer."""
    directory = await maker.create_directory(MutableFormat.SDMF)
    edits = [SetChild(name, parse(item.cap)) for name, item in OBJECTS.items()]
    edits += [SetChild(f"{name}.ro", parse(item.ro)) for name, item in OBJECTS.items()]
    edits += [SetChild(name, parse(tree.cap)) for name, tree in TREES.items()]
    edits += [SetChild(f"{name}.ro", parse(tree.ro)) for name, tree in TREES.items()]
    edits.append(SetChild("unknown", parse_child(None, "ro.lafs:from:the:future")))
    await directory.edit(edits)
    return directory.cap.danger_text()


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """A mount of everything, for tests that only read."""
    grid = Grid.golden(tmp_path_factory.mktemp("golden") / "grid")
    grid.cap = grid.run(root_of_everything)
    with grid.mount() as mount:
        yield mount


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_all_are_listed(golden):
    names = {*OBJECTS, *TREES}
    assert names | {f"{name}.ro" for name in names} <= set(os.listdir(golden.path))


@pytest.mark.parametrize("suffix", ["", ".ro"])
@pytest.mark.parametrize("name", OBJECTS)
def test_files(golden, name, suffix):
    path = golden / f"{name}{suffix}"
    data = path.read_bytes()
    assert digest(data) == OBJECTS[name].sha256
    assert path.stat().st_size == OBJECTS[name].size == len(data)
    assert stat.S_ISREG(path.stat().st_mode)


@pytest.mark.parametrize("name", [name for name, item in OBJECTS.items() if item.size > 1000])
def test_ranges(golden, name):
    expected = contents(name)
    size = len(expected)
    with (golden / name).open("rb", buffering=0) as file:
        for offset in (0, 1, size // 3, size - 1, size, size + 10, 131072, 131071):
            for length in (1, 4096, 131073):
                assert os.pread(file.fileno(), length, offset) == expected[offset : offset + length]


@pytest.mark.parametrize("suffix", ["", ".ro"])
@pytest.mark.parametrize("name", TREES)
def test_folders(golden, name, suffix):
    folder = golden / f"{name}{suffix}"
    children = TREES[name].children
    known = {child for child, target in children.items() if target != "?unknown"}
    assert known <= set(os.listdir(folder))
    for child, target in children.items():
        if target in OBJECTS:
            assert digest((folder / child).read_bytes()) == OBJECTS[target].sha256
        elif target == "?dir":
            assert (folder / child).is_dir()
            os.listdir(folder / child)


def test_a_listing_with_strange_children_is_whole(golden):
    seen = {entry.name: entry.stat(follow_symlinks=False) for entry in os.scandir(golden.path)}
    assert seen.keys() == set(os.listdir(golden.path))


def test_what_stock_wrote_is_changed_and_stays_readable(tmp_path):
    grid = Grid.golden(tmp_path / "grid")
    cap = TREES["dir-sdmf"].cap
    with grid.mount(cap) as mount:
        for name in ("sdmf.txt", "mdmf.bin"):
            with (mount / name).open("r+b") as file:
                file.seek(5)
                file.write(b"changed in place")
        (mount / "new folder").mkdir()
        (mount / "new folder" / "file").write_bytes(b"n" * 1000)
        (mount / "plain.txt").rename(mount / "new folder" / "moved.txt")
        (mount / "empty").unlink()
    with grid.mount(cap) as mount:
        for name, target in (("sdmf.txt", "sdmf-1000"), ("mdmf.bin", "mdmf-131073")):
            before = contents(target)
            assert (mount / name).read_bytes() == before[:5] + b"changed in place" + before[21:]
        moved = mount / "new folder" / "moved.txt"
        assert digest(moved.read_bytes()) == OBJECTS["imm-1000"].sha256
        assert (mount / "new folder" / "file").read_bytes() == b"n" * 1000
        names = set(TREES["dir-sdmf"].children) - {"plain.txt", "empty", "from-the-future"}
        assert names < set(os.listdir(mount.path))
    caps_of = grid.run(lambda maker: children_of(maker, cap))
    assert caps_of["sdmf.txt"] == parse(OBJECTS["sdmf-1000"].cap)
    assert caps_of["mdmf.bin"] == parse(OBJECTS["mdmf-131073"].cap)
    assert caps_of["from-the-future"].kind == "unknown"


async def children_of(maker, cap):
    listing = await maker.directory(parse(cap)).table()
    return {name: child.cap for name, child in listing.items()}


@pytest.mark.parametrize("name", TREES)
def test_a_read_capability_refuses_at_once(golden, name):
    folder = golden / f"{name}.ro"
    before = sorted(os.listdir(folder))
    attempts = [
        lambda: (folder / "new").write_bytes(b""),
        lambda: (folder / "new").mkdir(),
        lambda: os.symlink("x", folder / "link"),
    ]
    if before:
        first = folder / before[0]
        attempts += [
            lambda: os.unlink(first),
            lambda: os.rename(first, folder / "renamed"),
            lambda: os.chmod(first, 0o600),
            lambda: os.truncate(first, 1),
        ]
    for attempt in attempts:
        with pytest.raises(OSError, match=REFUSED):
            attempt()
    assert sorted(os.listdir(folder)) == before
