"""What was written is there after a remount, in every particular."""

from __future__ import annotations

import errno
import os
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from lafsfs.caps import LiteralCap, parse
from lafsfs.nodes.edits import SetChild
from tests.mounted.harness import ROOT, Grid
from tests.mounted.snapshot import snapshot

# A POSIX ACL as the kernel stores it: version 2, then (tag, permissions, id) for each entry:
# owner rwx, user 1234 r-x, group r-x, mask r-x, others ---.
NOBODY = 0xFFFFFFFF
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in (
        (0x01, 7, NOBODY),
        (0x02, 5, 1234),
        (0x04, 5, NOBODY),
        (0x10, 5, NOBODY),
        (0x20, 0, NOBODY),
    )
)


def populate(root):
    """One of everything, each with attributes of its own."""
    (root / "folder" / "below").mkdir(parents=True)
    (root / "folder" / "file").write_bytes(os.urandom(200_000))
    (root / "small").write_bytes(b"small")
    (root / "empty").write_bytes(b"")
    os.symlink("folder/file", root / "link")
    os.link(root / "small", root / "folder" / "hard")
    os.mkfifo(root / "fifo", 0o620)
    (root / "decomposed e\u0301").write_bytes(b"nfd")
    os.setxattr(root / "small", "user.note", b"\0\xff")
    os.setxattr(root / "folder", "user.note", b"of a folder")
    os.setxattr(root / "folder" / "file", "system.posix_acl_access", ACL)
    os.chmod(root / "folder" / "below", 0o1777)
    os.chmod(root / "small", 0o6755)
    os.utime(root / "small", ns=(11, 12_000_000_013))
    os.utime(root / "link", ns=(21, 22_000_000_023), follow_symlinks=False)
    os.utime(root / "folder", ns=(31, 32_000_000_033))
    os.chmod(root, 0o751)
    if ROOT:
        os.mknod(root / "device", 0o600 | stat.S_IFBLK, os.makedev(7, 300))
        os.chown(root / "folder" / "file", 1, 2)
        os.chown(root, 3, 4)


def test_everything_comes_back(grid):
    with grid.mount() as mount:
        populate(mount.path)
        before = snapshot(mount.path)
        root = os.stat(mount.path)
    with grid.mount() as mount:
        assert snapshot(mount.path) == before
        again = os.stat(mount.path)
        assert stat.S_IMODE(again.st_mode) == 0o751
        assert (again.st_uid, again.st_gid) == (root.st_uid, root.st_gid)
        assert os.getxattr(mount / "folder/file", "system.posix_acl_access") == ACL


def test_attributes_changed_later_come_back(grid):
    with grid.mount() as mount:
        populate(mount.path)
    with grid.mount() as mount:
        os.chmod(mount / "small", 0o400)
        os.utime(mount / "empty", ns=(1, 2))
        os.removexattr(mount / "small", "user.note")
        os.rename(mount / "folder", mount / "renamed")
        before = snapshot(mount.path)
    with grid.mount() as mount:
        assert snapshot(mount.path) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts_cleanly(grid, number):
    with grid.mount() as mount:
        (mount / "file").write_bytes(b"x" * 1000)
        os.chmod(mount / "file", 0o640)  # still waiting for company when the signal comes
        mount.signal(number)
        mount.wait()
    with grid.mount() as mount:
        assert (mount / "file").read_bytes() == b"x" * 1000
        assert stat.S_IMODE(os.stat(mount / "file").st_mode) == 0o640


def test_what_was_closed_survives_a_crash(grid):
    with grid.mount() as mount:
        (mount / "folder").mkdir()
        (mount / "folder" / "file").write_bytes(b"x" * 1000)
        mount.kill()
    with grid.mount() as mount:
        mount.expect_log("from an earlier mount")
        assert (mount / "folder" / "file").read_bytes() == b"x" * 1000


def test_a_mount_of_a_folder_within(grid):
    with grid.mount() as mount:
        (mount / "folder").mkdir()
        (mount / "folder" / "file").write_bytes(b"within")
        cap = os.getxattr(mount / "folder", "user.lafs.cap").decode()
        readcap = os.getxattr(mount / "folder", "user.lafs.readcap").decode()
    with grid.mount(readcap) as mount:
        assert (mount / "file").read_bytes() == b"within"
        with pytest.raises(OSError, match="Read-only"):
            (mount / "new").write_bytes(b"")
    with grid.mount(cap) as mount:
        (mount / "new").write_bytes(b"new")
    with grid.mount() as mount:
        assert sorted(os.listdir(mount / "folder")) == ["file", "new"]


def test_two_mounts_of_one_tree(grid):
    with grid.mount() as one, grid.mount(state="elsewhere") as two:
        assert os.listdir(one.path) == os.listdir(two.path) == []
        two.expect_log("conflicting copy")
        (one / "from one").write_bytes(b"1")
        (two / "from two").write_bytes(b"2")
        (one / "both").write_bytes(b"one's")
        (two / "both").write_bytes(b"two's")  # which has not seen the other's yet, or has
    with grid.mount() as mount:
        contents = {path.name: path.read_bytes() for path in mount.path.iterdir()}
        assert contents.pop("from one") == b"1"
        assert contents.pop("from two") == b"2"
        both = contents.pop("both")
        assert (both, list(contents.values())) in ((b"two's", []), (b"one's", [b"two's"]))
        assert all(name.startswith("both.conflicted-") for name in contents)


def test_changes_from_elsewhere_are_seen(grid):
    with grid.mount() as mount:
        (mount / "file").write_bytes(b"old" * 100)
        assert (mount / "file").read_bytes() == b"old" * 100
        cap = parse(os.getxattr(mount / "file", "user.lafs.cap").decode())

        async def change(maker):
            directory = maker.directory(parse(grid.cap))
            await directory.edit([SetChild("another", cap), SetChild("file", LiteralCap(b"new"))])

        grid.run(change)
        time.sleep(3.5)  # longer than a listing is believed
        assert (mount / "another").read_bytes() == b"old" * 100
        assert (mount / "file").read_bytes() == b"new"
        assert sorted(os.listdir(mount.path)) == ["another", "file"]


def test_options(grid):
    with grid.mount() as mount:
        (mount / "file").write_bytes(b"x")
        os.chmod(mount / "file", 0o777)
    with grid.mount(options="ro") as mount:
        assert (mount / "file").read_bytes() == b"x"
        with pytest.raises(OSError, match="Read-only"):
            (mount / "new").write_bytes(b"")
    with grid.mount(options="uid=1234,gid=5678,umask=027,nodev,noatime") as mount:
        status = os.stat(mount / "file")
        assert (status.st_uid, status.st_gid) == (1234, 5678)
        assert stat.S_IMODE(status.st_mode) == 0o750
    with grid.mount(options="allow_other" if ROOT else "nodev") as mount:
        mounts = Path("/proc/mounts").read_text().splitlines()
        (line,) = [line for line in mounts if str(mount.path) in line]
        assert line.startswith("lafsfs ")
        assert " fuse.lafsfs " in line
        assert ("allow_other" in line) == ROOT


NOBODYS_ERRAND = """
import os, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
a = sys.argv[2:]
try:
    print(eval(sys.argv[1]))
except OSError as error:
    print(error.errno)
"""


def as_nobody(expression: str, *arguments: object) -> str:
    """What an expression over ``a`` (the arguments) gives another user, or the errno."""
    command = [sys.executable, "-c", NOBODYS_ERRAND, expression, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def public_grid():
    """A grid below directories that other users can pass, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        yield Grid.create(Path(directory) / "grid")


def test_what_other_users_may_see(public_grid):
    with public_grid.mount(options="allow_other" if ROOT else "") as mount:
        os.chmod(mount.path, 0o755)
        (mount / "open").write_bytes(b"for all to read" * 100)
        os.chmod(mount / "open", 0o644)
        (mount / "shut").write_bytes(b"for me" * 100)
        os.chmod(mount / "shut", 0o600)
        os.setxattr(mount / "open", "user.note", b"seen")
        assert os.getxattr(mount / "open", "user.lafs.cap").startswith(b"URI:CHK:")
        if not ROOT:
            return
        assert as_nobody("open(a[0]).read(7)", mount / "open") == "for all"
        assert as_nobody("open(a[0]).read(7)", mount / "shut") == str(errno.EACCES)
        assert as_nobody("os.mkdir(a[0])", mount / "new") == str(errno.EACCES)
        assert as_nobody("os.getxattr(a[0], 'user.note')", mount / "open") == "b'seen'"
        for name in ("cap", "readcap", "verifycap"):
            asked = f"os.getxattr(a[0], 'user.lafs.{name}')"
            assert as_nobody(asked, mount / "open") in map(str, (errno.ENODATA, errno.EACCES))
        assert "lafs" not in as_nobody("os.listxattr(a[0])", mount / "open")
