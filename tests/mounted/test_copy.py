"""The demonstration: a real tree goes in with ``cp -a``, and comes out the same after a remount."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from tests.mounted.snapshot import snapshot

LIBRARY = Path(sysconfig.get_path("stdlib"))
MOST_FILES = 1500  # enough to be real, few enough for every commit


def take_some(library: Path, target: Path) -> int:
    """Copy whole folders of the library until there are enough files; add links and odd names."""
    count = 0
    for folder in sorted(path for path in library.iterdir() if path.is_dir()):
        files = sum(len(names) for _, _, names in os.walk(folder))
        if folder.name == "site-packages" or count + files > MOST_FILES:
            continue
        shutil.copytree(folder, target / folder.name, symlinks=True)
        count += files
    for number, path in enumerate(sorted(target.rglob("*.py"))[:40]):
        os.chmod(path, (0o400, 0o644, 0o755, 0o2711)[number % 4])
        if number % 3 == 0:
            os.link(path, path.with_name(f"hard link to {path.name}"))
        if number % 5 == 0:
            os.symlink(f"../{path.parent.name}/{path.name}", path.with_suffix(".lnk"))
    (target / "empty folder").mkdir()
    os.symlink("nowhere", target / "dangling")
    return count


def diff(one: Path, two: Path) -> str:
    """What ``diff -r`` finds; nothing, one hopes."""
    command = ["diff", "-r", "--no-dereference", str(one), str(two)]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


def test_a_real_tree(grid, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    assert take_some(LIBRARY, source) > 300
    expected = snapshot(source, numbers=False)
    with grid.mount() as mount:
        subprocess.run(["cp", "-a", str(source), str(mount / "copy")], check=True)
        assert diff(source, mount / "copy") == ""
        assert snapshot(mount / "copy", numbers=False) == expected
        numbers = snapshot(mount / "copy")
    with grid.mount() as mount:
        assert diff(source, mount / "copy") == ""
        assert snapshot(mount / "copy") == numbers
        assert snapshot(mount / "copy", numbers=False) == expected
        shutil.rmtree(mount / "copy")
        assert os.listdir(mount.path) == []
