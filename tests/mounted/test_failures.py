"""What is broken, missing or wrong: clear errors, and everything else goes on."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess

import pytest

from lafsfs.caps import DirectoryCap, MutableFormat, parse
from lafsfs.crypto import base32
from lafsfs.errors import MountError, UsageError
from lafsfs.fuse.options import IGNORED_OPTIONS, KERNEL_OPTIONS, MountOptions
from lafsfs.fuse.session import check_mountpoint
from lafsfs.nodes.edits import SetChild
from tests.mounted.harness import Grid, eventually


def shares_of(grid, cap):
    """The share files of an object, in all servers."""
    name = base32.encode(parse(cap).storage_index)
    return [
        share
        for storage in grid.storage
        for share in (storage / "shares" / name[:2] / name).iterdir()
    ]


def cap_of(path, attribute="user.lafs.cap"):
    return os.getxattr(path, attribute).decode()


# --- while mounted --------------------------------------------------------------------------------


def test_a_file_whose_shares_are_gone(grid):
    with grid.mount() as mount:
        for name in ("a", "b", "c"):
            (mount / name).write_bytes(name.encode() * 1000)
        (mount / "folder").mkdir()
        (mount / "folder" / "in it").write_bytes(b"i" * 1000)
        lost = cap_of(mount / "b"), cap_of(mount / "folder")
    for cap in lost:
        for share in shares_of(grid, cap):
            share.unlink()
    with grid.mount() as mount:
        mount.expect_log("share", "recover", "version")
        assert sorted(os.listdir(mount.path)) == ["a", "b", "c", "folder"]
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            (mount / "b").read_bytes()
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            os.listdir(mount / "folder")
        assert (mount / "a").read_bytes() == b"a" * 1000
        (mount / "new").write_bytes(b"n" * 1000)
        (mount / "b").unlink()
        assert sorted(os.listdir(mount.path)) == ["a", "c", "folder", "new"]


def test_a_damaged_file(grid):
    with grid.mount() as mount:
        (mount / "file").write_bytes(os.urandom(300_000))
        cap = cap_of(mount / "file")
    (share,) = shares_of(grid, cap)
    data = bytearray(share.read_bytes())
    data[150_000] ^= 1
    share.write_bytes(data)
    with grid.mount() as mount:
        mount.expect_log("share")
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            (mount / "file").read_bytes()
        (mount / "file").write_bytes(b"better")
        assert (mount / "file").read_bytes() == b"better"


def test_a_folder_whose_table_is_none(grid):
    async def fill(maker):
        file = await maker.create_mutable(MutableFormat.SDMF, b"5:short")
        root = maker.directory(parse(grid.cap))
        await root.edit([SetChild("broken", DirectoryCap(file.cap)), SetChild("fine", file.cap)])

    grid.run(fill)
    with grid.mount() as mount:
        mount.expect_log("netstring", "table")
        assert sorted(os.listdir(mount.path)) == ["broken", "fine"]
        assert (mount / "broken").is_dir()
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            os.listdir(mount / "broken")
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            (mount / "broken" / "new").write_bytes(b"")
        assert (mount / "fine").read_bytes() == b"5:short"
        os.rename(mount / "broken", mount / "still broken")
        assert sorted(os.listdir(mount.path)) == ["fine", "still broken"]


def test_a_disk_is_unplugged(tmp_path):
    grid = Grid.create(tmp_path / "grid", servers=3)
    data = os.urandom(100_000)
    with grid.mount() as mount:
        mount.expect_log("unplugged", "happi", "server")
        (mount / "before").write_bytes(data)
        grid.storage[1].rename(tmp_path / "unplugged")
        (mount / "during").write_bytes(data)
        assert (mount / "before").read_bytes() == data
    grid.storage[1].mkdir()
    with grid.mount() as mount:
        mount.expect_log("unplugged", "server")
        (mount / "after").write_bytes(data)
        for name in ("before", "during", "after"):
            assert (mount / name).read_bytes() == data
    assert os.listdir(grid.storage[1]) == []
    grid.storage[1].rmdir()
    (tmp_path / "unplugged").rename(grid.storage[1])
    with grid.mount() as mount:
        assert sorted(os.listdir(mount.path)) == ["after", "before", "during"]
        (mount / "again").write_bytes(data)


def test_the_grid_goes_away_and_comes_back(grid, tmp_path):
    with grid.mount() as mount:
        mount.expect_log("gone", "unplugged", "server", "grid", "happ", "publish", "retr")
        (mount / "before").write_bytes(b"b" * 1000)
        grid.storage[0].rename(tmp_path / "unplugged")
        with pytest.raises(OSError):  # noqa: PT011 - any error is right, silence is not
            (mount / "during").write_bytes(b"d" * 1000)
        (tmp_path / "unplugged").rename(grid.storage[0])
        (mount / "after").write_bytes(b"a" * 1000)
    with grid.mount() as mount:
        assert (mount / "before").read_bytes() == b"b" * 1000
        assert (mount / "after").read_bytes() == b"a" * 1000
        assert (mount / "during").read_bytes() == b"d" * 1000  # failed, but not forgotten


def test_strange_names_are_escaped_or_left_out(grid):
    strange = ["a/b", "..", ".", "nul\0", "n" * 300, "fine"]

    async def fill(maker):
        file = (await maker.create_mutable(MutableFormat.SDMF, b"contents")).cap
        root = maker.directory(parse(grid.cap))
        await root.edit([SetChild(name, file) for name in strange])

    grid.run(fill)
    with grid.mount() as mount:
        names = os.listdir(mount.path)
        assert "fine" in names
        for name in names:
            assert os.stat(mount / name).st_size == 8
            assert (mount / name).read_bytes() == b"contents"
        (mount / "new").write_bytes(b"")

    async def listed(maker):
        return set(await maker.directory(parse(grid.cap)).table())

    assert grid.run(listed) == {*strange, "new"}


def test_fifty_thousand_entries(grid):
    async def fill(maker):
        file = (await maker.create_mutable(MutableFormat.SDMF, b"")).cap.read_cap()
        large = await maker.create_directory(MutableFormat.SDMF)
        await large.edit([SetChild(f"file {number:05}", file) for number in range(50_000)])
        await maker.directory(parse(grid.cap)).edit([SetChild("large", large.cap)])

    grid.run(fill)
    with grid.mount() as mount:
        names = os.listdir(mount / "large")
        assert len(names) == len(set(names)) == 50_000
        os.unlink(mount / "large" / "file 31415")
        (mount / "large" / "another").write_bytes(b"x")
        assert len(os.listdir(mount / "large")) == 50_000


# --- refusing to mount ----------------------------------------------------------------------------


def test_mountpoints_that_cannot_be(grid, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_bytes(b"")
    with grid.mount() as mount:
        for path, why in (
            (tmp_path / "nothing", "does not exist"),
            (full, "not empty"),
            (full / "file", "not a directory"),
            (mount.path, "mounted"),
        ):
            code, said = grid.try_mount(None, path)
            assert code == 1
            assert said.startswith("MountError: ")
            assert why in said
            assert len(said.splitlines()) == 1
        assert os.listdir(mount.path) == []


def test_no_fuse_device(tmp_path):
    with pytest.raises(MountError, match="there is no"):
        check_mountpoint(tmp_path, device=tmp_path / "fuse")
    check_mountpoint(tmp_path)


def test_capabilities_that_cannot_be_mounted(grid, tmp_path):
    point = tmp_path / "point"
    point.mkdir()

    async def make(maker):
        return (await maker.create_mutable(MutableFormat.SDMF, b"a file")).cap

    file = grid.run(make)
    root = parse(grid.cap)
    elsewhere = Grid.create(tmp_path / "elsewhere").cap
    for cap in (file, root.verify_cap(), elsewhere):
        code, said = grid.try_mount(cap, point)
        assert code == 1, said
        assert "Error: " in said.splitlines()[-1], said
        assert "Traceback" not in said
        assert not {grid.cap.split(":")[2], elsewhere.split(":")[2]} & set(said.split(":"))
        assert not os.path.ismount(point)


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "other"])
def test_a_root_that_cannot_be_read(grid, tmp_path, damage):
    point = tmp_path / "point"
    point.mkdir()
    (share,) = shares_of(grid, grid.cap)
    data = share.read_bytes()
    if damage == "gone":
        share.unlink()
    elif damage == "cut":
        share.write_bytes(data[:600])
    elif damage == "flipped":
        share.write_bytes(data[:480] + bytes([data[480] ^ 1]) + data[481:])
    else:
        other = Grid.create(tmp_path / "other")
        (stranger,) = shares_of(other, other.cap)
        shutil.copyfile(stranger, share)
    code, said = grid.try_mount(None, point)
    assert code == 1
    assert "Error: " in said.splitlines()[-1]
    assert not os.path.ismount(point)


def test_storage_that_is_something_else(grid, tmp_path):
    point = tmp_path / "point"
    point.mkdir()
    shutil.rmtree(grid.storage[0])
    grid.storage[0].mkdir()
    (grid.storage[0] / "holiday.jpg").write_bytes(b"")
    code, said = grid.try_mount(None, point)
    assert code == 1
    assert "storage directory" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        *("nonsense", "uid=me", "umask=9", "umask=1000", "gid=", "uid=-1"),
        *("deadline=", "deadline=0", "deadline=-1", "deadline=soon", "refresh=1e3", "refresh=inf"),
    ],
)
def test_options_that_do_not_exist(text):
    with pytest.raises(UsageError):
        MountOptions.parse(text)


def test_options_that_do():
    options = MountOptions.parse("ro,,defaults,x-systemd.automount,uid=1,gid=2,umask=022,nodev,rw")
    assert options == MountOptions(
        read_only=True, uid=1, gid=2, umask=0o022, kernel=frozenset({"nodev"})
    )
    slow = MountOptions.parse("deadline=300,refresh=0.5")
    assert (slow.deadline, slow.refresh) == (300, 0.5)
    assert options.for_fuse() == {
        "default_permissions",
        "fsname=lafsfs",
        "subtype=lafsfs",
        "nodev",
        "ro",
    }


def test_all_that_we_pass_on_is_known_to_libfuse(grid):
    opposites = {"suid", "dev", "exec", "atime", "async"}
    for chosen in (opposites, KERNEL_OPTIONS - opposites):
        with grid.mount(options=",".join(sorted(chosen | IGNORED_OPTIONS))) as mount:
            shown = os.statvfs(mount / ".")
            assert bool(shown.f_flag & os.ST_NOEXEC) == ("noexec" in chosen)
            assert bool(shown.f_flag & os.ST_NOSUID) == ("nosuid" in chosen)


# --- ending without a grid ------------------------------------------------------------------------


def test_told_twice_to_stop_it_stops_without_the_grid(grid, tmp_path):
    with grid.mount(sync=False) as mount:
        (mount / "file").write_bytes(b"x")
        grid.storage[0].rename(tmp_path / "unplugged")
        os.chmod(mount / "file", 0o600)
        mount.signal(signal.SIGTERM)
        eventually(lambda: "not on the grid" in mount.log)
        mount.signal(signal.SIGTERM)
        mount.expect_log("not on the grid", "gone", "publish", "newest", "journal")
        mount.wait()
        assert "in the journal" in mount.log
        assert not os.path.ismount(mount.path)
    (tmp_path / "unplugged").rename(grid.storage[0])
    with grid.mount() as mount:
        mount.expect_log("from an earlier mount", "is the newest to be had, but")
        assert (mount / "file").read_bytes() == b"x"
        assert stat.S_IMODE(os.stat(mount / "file").st_mode) == 0o600


def test_what_could_not_be_stored_is_said_at_the_end(grid, tmp_path):
    with grid.mount(sync=False) as mount:
        (mount / "file").write_bytes(b"x")
        grid.storage[0].rename(tmp_path / "unplugged")
        os.chmod(mount / "file", 0o600)
        subprocess.run(["fusermount3", "-u", str(mount.path)], check=True)
        eventually(lambda: "not on the grid" in mount.log)
        (tmp_path / "unplugged").rename(grid.storage[0])
        mount.expect_log("not on the grid", "gone", "publish", "newest")
        mount.wait()
    with grid.mount() as mount:
        assert stat.S_IMODE(os.stat(mount / "file").st_mode) == 0o600
