"""What programs save is there, and nothing else, at once and after a remount.

Each is replayed (``saving.py``), and run itself where it is installed (``editors.py``): the test's
name says which. All save first, two times each; then there is one remount for all. On another
mount, which waits with everything until it is unmounted, all save once more: of what was only
passing, nothing is on the grid then.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from lafsfs.formats import containers
from lafsfs.formats.slot import parse_slot_header
from tests.tools.editors import PROGRAMS
from tests.tools.folder import mounted
from tests.tools.saving import SEQUENCES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.tools.folder import Folder
    from tests.tools.saving import Save

NAME = "Brief an Öffi.txt"
MODE = 0o640
VERSIONS = tuple(
    b"".join(b"version %d, line %d\n" % (version, line) for line in range(lines))
    for version, lines in ((0, 3), (1, 40), (2, 700))
)
SAVES: dict[str, Save] = {
    **{f"{name}-replayed": save for name, save in SEQUENCES.items()},
    **{f"{name}-itself": save for name, save in PROGRAMS.items()},
}


def check(directory: Path, version: int, left: tuple[str, ...]) -> None:
    """The file has this version's contents and its mode; the backup has the one before."""
    path = directory / NAME
    assert path.read_bytes() == VERSIONS[version]
    assert path.stat().st_size == len(VERSIONS[version])
    assert stat.S_IMODE(path.stat().st_mode) == MODE
    assert sorted(os.listdir(directory)) == sorted((NAME, *left))
    for name in left:
        assert (directory / name).read_bytes() in VERSIONS[:version]


def save_twice(save: Save, directory: Path) -> tuple[str, ...]:
    directory.mkdir()
    path = directory / NAME
    path.write_bytes(VERSIONS[0])
    path.chmod(MODE)
    for version in (1, 2):
        with path.open("rb") as reader:  # who has it open goes on reading something whole
            left = save(path, VERSIONS[version])
            assert reader.read() in VERSIONS[: version + 1]
        check(directory, version, left)
    return left


@pytest.fixture(scope="module")
def saved(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Folder, dict[str, tuple[str, ...] | Exception]]]:
    """All have saved, and the folder was mounted again: what each left, or how it failed."""
    results: dict[str, tuple[str, ...] | Exception] = {}
    with mounted(tmp_path_factory.mktemp("home")) as folder:
        for name, save in SAVES.items():
            try:
                results[name] = save_twice(save, folder / name)
            except Exception as error:
                results[name] = error
        folder.remount()
        yield folder, results


@pytest.mark.parametrize("name", SAVES)
def test_a_save_is_whole_at_once_and_after_a_remount(name, saved):
    folder, results = saved
    result = results[name]
    if isinstance(result, Exception):
        raise result
    check(folder / name, 2, result)


def stored(folder: Folder) -> tuple[dict[str, int], list[int]]:
    """What the grid has: versions of mutable slots, and sizes of immutable shares."""
    slots: dict[str, int] = {}
    shares: list[int] = []
    for path in (folder.home / "data").glob("**/shares/*/*/*"):
        data = path.read_bytes()
        if containers.is_mutable(data):
            held = data[containers.MUTABLE_DATA_OFFSET :]
            slots[path.parent.name] = parse_slot_header(held).prefix.seqnum
        else:
            shares.append(containers.parse_immutable_header(data, len(data)).data_length)
    return slots, shares


def test_what_was_only_passing_never_leaves_the_machine(tmp_path):
    """New directories are written once, and all save the same over the same: two contents go."""
    with mounted(tmp_path, options="quiet=10000") as folder:
        before, shares = stored(folder)
        assert not shares
        for name, save in SAVES.items():
            (folder / name).mkdir()
            path = folder / name / NAME
            path.write_bytes(VERSIONS[1])
            save(path, VERSIONS[2])
        assert stored(folder) == (before, [])
        folder.remount()
        after, shares = stored(folder)
        assert len(shares) == 2
        made = sorted(number for name, number in after.items() if name not in before)
        assert made == [1] * len(SAVES)
