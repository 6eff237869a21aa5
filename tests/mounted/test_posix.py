"""System calls on a mount do what they do on any local file system."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
import socket
import stat
import threading

import pytest

from tests.mounted.harness import ROOT

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2


@pytest.fixture
def here(mount, request):
    """An empty directory of the test's own, below one mount for all."""
    path = mount / request.node.name.replace("/", "_")[:200]
    path.mkdir()
    return path


def assert_fails(number, function, *args, **kwargs):
    """Call and require that errno."""
    with pytest.raises(OSError, match=re.escape(os.strerror(number))) as caught:
        function(*args, **kwargs)
    assert caught.value.errno == number, caught.value


def renameat2(old, new, flags):
    result = LIBC.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


# --- contents -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 55, 56, 4096, 131073, (1 << 20) + 3])
def test_write_and_read(here, size):
    data = os.urandom(size)
    path = here / "file"
    path.write_bytes(data)
    assert path.read_bytes() == data
    assert path.stat().st_size == size


def test_writes_at_any_offset(here):
    path = here / "file"
    path.write_bytes(b"0123456789")
    with path.open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"abc", 4)
        assert os.pread(file.fileno(), 100, 0) == b"0123abc789"
        os.pwrite(file.fileno(), b"end", 15)
        assert os.pread(file.fileno(), 100, 0) == b"0123abc789\0\0\0\0\0end"
    assert path.read_bytes() == b"0123abc789\0\0\0\0\0end"


def test_truncate_and_ftruncate(here):
    path = here / "file"
    path.write_bytes(b"x" * 1000)
    os.truncate(path, 10)
    assert path.read_bytes() == b"x" * 10
    with path.open("r+b") as file:
        os.ftruncate(file.fileno(), 20)
        assert os.fstat(file.fileno()).st_size == 20
    assert path.read_bytes() == b"x" * 10 + b"\0" * 10
    path.write_bytes(b"new")
    assert path.read_bytes() == b"new"


def test_append(here):
    path = here / "log"
    for number in range(5):
        with path.open("ab") as file:
            file.write(b"%d\n" % number)
    assert path.read_bytes() == b"0\n1\n2\n3\n4\n"


def test_two_handles_see_each_other(here):
    path = here / "file"
    with path.open("w+b", buffering=0) as one, path.open("r+b", buffering=0) as two:
        one.write(b"from one")
        assert two.read() == b"from one"
        os.pwrite(two.fileno(), b"two", 5)
        assert os.pread(one.fileno(), 100, 0) == b"from two"
        os.fsync(one.fileno())
    assert path.read_bytes() == b"from two"


def test_unlinked_but_open(here):
    path = here / "file"
    path.write_bytes(b"here")
    with path.open("r+b", buffering=0) as file:
        path.unlink()
        assert not path.exists()
        assert file.read() == b"here"
        file.write(b" still")
        assert os.pread(file.fileno(), 100, 0) == b"here still"
        assert os.fstat(file.fileno()).st_nlink == 0
        path.write_bytes(b"another")
    assert path.read_bytes() == b"another"


def test_replaced_while_open(here):
    (here / "old").write_bytes(b"old")
    (here / "new").write_bytes(b"new")
    with (here / "old").open("rb", buffering=0) as file:
        os.replace(here / "new", here / "old")
        assert file.read() == b"old"
    assert (here / "old").read_bytes() == b"new"
    assert os.listdir(here) == ["old"]


def test_renamed_while_written(here):
    with (here / "tmp").open("wb", buffering=0) as file:
        file.write(b"first ")
        os.rename(here / "tmp", here / "final")
        file.write(b"second")
    assert (here / "final").read_bytes() == b"first second"
    assert os.listdir(here) == ["final"]


def test_mapped_pages(here):
    path = here / "file"
    path.write_bytes(b"m" * 10000)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as pages:
        assert pages[9990:] == b"m" * 10
        pages[0:5] = b"hello"
        pages.flush()
    assert path.read_bytes()[:6] == b"hellom"


def test_many_writers_of_one_directory(here):
    def write(number):
        (here / f"{number}").write_bytes(b"%d" % number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(os.listdir(here), key=int) == [str(number) for number in range(20)]
    assert all((here / str(number)).read_bytes() == b"%d" % number for number in range(20))


# --- opening --------------------------------------------------------------------------------------


def test_exclusive_create(here):
    path = here / "lock"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    path.write_bytes(b"mine")
    assert_fails(errno.EEXIST, os.open, path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    assert path.read_bytes() == b"mine"


def test_what_is_not_there(here):
    assert_fails(errno.ENOENT, os.stat, here / "nothing")
    assert_fails(errno.ENOENT, os.unlink, here / "nothing")
    assert_fails(errno.ENOENT, os.rename, here / "nothing", here / "something")
    (here / "file").write_bytes(b"")
    assert_fails(errno.ENOTDIR, os.stat, here / "file" / "below")
    assert_fails(errno.ENOTDIR, os.rmdir, here / "file")
    assert os.listdir(here) == ["file"]


def test_names_that_cannot_be(here):
    assert_fails(errno.ENAMETOOLONG, os.mkdir, here / ("n" * 256))
    assert_fails(errno.EILSEQ, os.mkdir, os.fsencode(here) + b"/\xff\xfe")
    (here / ("n" * 255)).mkdir()
    assert os.listdir(here) == ["n" * 255]


@pytest.mark.parametrize("name", ["e\u0301", "é", "日本語", "\N{FISH}", "with space", "a\nb", "-"])
def test_names_come_back_as_they_went(here, name):
    (here / name).write_bytes(b"x")
    assert os.listdir(here) == [name]
    assert (here / name).read_bytes() == b"x"


# --- directories ----------------------------------------------------------------------------------


def test_directories(here):
    (here / "a" / "b" / "c").mkdir(parents=True)
    assert_fails(errno.EEXIST, os.mkdir, here / "a")
    assert_fails(errno.ENOTEMPTY, os.rmdir, here / "a")
    assert_fails(errno.EISDIR, os.unlink, here / "a")
    os.rmdir(here / "a" / "b" / "c")
    os.rmdir(here / "a" / "b")
    assert os.listdir(here / "a") == []
    descriptor = os.open(here, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


def test_listing_while_deleting(here):
    names = {f"file{number:04}" for number in range(300)}
    for name in names:
        (here / name).symlink_to("target")
    seen = []
    with os.scandir(here) as entries:
        for entry in entries:
            seen.append(entry.name)
            os.unlink(here / entry.name)
    assert len(seen) == len(set(seen))
    assert set(seen) == names
    assert os.listdir(here) == []


def test_dot_dot(here):
    (here / "a").mkdir()
    assert os.stat(here / "a" / "..").st_ino == os.stat(here).st_ino
    assert os.stat(here / "a" / ".").st_ino == os.stat(here / "a").st_ino


# --- renaming -------------------------------------------------------------------------------------


def test_rename_within_and_across(here):
    (here / "a").mkdir()
    (here / "b").mkdir()
    (here / "a" / "file").write_bytes(b"moved")
    os.chmod(here / "a" / "file", 0o640)
    number = os.stat(here / "a" / "file").st_ino
    os.rename(here / "a" / "file", here / "a" / "other")
    os.rename(here / "a" / "other", here / "b" / "file")
    assert os.listdir(here / "a") == []
    assert (here / "b" / "file").read_bytes() == b"moved"
    assert stat.S_IMODE(os.stat(here / "b" / "file").st_mode) == 0o640
    assert os.stat(here / "b" / "file").st_ino == number


def test_rename_directories(here):
    (here / "a" / "in").mkdir(parents=True)
    (here / "empty").mkdir()
    (here / "full" / "x").mkdir(parents=True)
    assert_fails(errno.ENOTEMPTY, os.rename, here / "a", here / "full")
    assert_fails(errno.EINVAL, os.rename, here / "a", here / "a" / "in" / "a")
    os.rename(here / "a", here / "empty")
    assert os.listdir(here / "empty") == ["in"]
    (here / "file").write_bytes(b"")
    assert_fails(errno.ENOTDIR, os.rename, here / "full", here / "file")
    assert_fails(errno.EISDIR, os.rename, here / "file", here / "full")


def test_rename_noreplace_and_exchange(here):
    (here / "a").write_bytes(b"a")
    (here / "b").write_bytes(b"b")
    assert_fails(errno.EEXIST, renameat2, here / "a", here / "b", RENAME_NOREPLACE)
    renameat2(here / "a", here / "b", RENAME_EXCHANGE)
    assert (here / "a").read_bytes() == b"b"
    assert (here / "b").read_bytes() == b"a"
    renameat2(here / "a", here / "c", RENAME_NOREPLACE)
    assert sorted(os.listdir(here)) == ["b", "c"]
    (here / "d").mkdir()
    renameat2(here / "b", here / "d", RENAME_EXCHANGE)
    assert (here / "b").is_dir()
    assert (here / "d").read_bytes() == b"a"


# --- links and special files ----------------------------------------------------------------------


def test_symbolic_links(here):
    os.symlink("target/of/any kind", here / "link")
    assert os.readlink(here / "link") == "target/of/any kind"
    assert stat.S_ISLNK(os.lstat(here / "link").st_mode)
    assert os.lstat(here / "link").st_size == len("target/of/any kind")
    (here / "file").write_bytes(b"x")
    os.symlink("file", here / "good")
    assert (here / "good").read_bytes() == b"x"
    assert_fails(errno.EINVAL, os.readlink, here / "file")


def test_hard_links(here):
    (here / "one").write_bytes(b"same")
    (here / "sub").mkdir()
    os.link(here / "one", here / "two")
    os.link(here / "one", here / "sub" / "three")
    numbers = {os.stat(here / name).st_ino for name in ("one", "two", "sub/three")}
    assert len(numbers) == 1
    assert os.stat(here / "two").st_nlink == 3
    (here / "two").unlink()
    assert (here / "one").read_bytes() == b"same"
    assert_fails(errno.EPERM, os.link, here / "sub", here / "directory")


def test_equal_files_are_not_hard_links(here):
    for name in ("a", "b"):
        (here / name).write_bytes(b"equal" * 100)
    assert os.stat(here / "a").st_ino != os.stat(here / "b").st_ino
    assert os.stat(here / "a").st_nlink == 1


def test_special_files(here):
    os.mkfifo(here / "fifo", 0o600)
    assert stat.S_ISFIFO(os.stat(here / "fifo").st_mode)
    if ROOT:
        os.mknod(here / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        assert os.stat(here / "null").st_rdev == os.makedev(1, 3)
    with socket.socket(socket.AF_UNIX) as server:
        directory = os.open(here, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{directory}/socket")
        os.close(directory)
        assert stat.S_ISSOCK(os.stat(here / "socket").st_mode)
    reader = os.open(here / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(here / "fifo", os.O_WRONLY)
    os.write(writer, b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    os.close(writer)


# --- attributes -----------------------------------------------------------------------------------


def test_modes_owners_and_times(here):
    path = here / "file"
    path.write_bytes(b"x")
    os.chmod(path, 0o4751)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o4751
    if ROOT:
        os.chown(path, 1234, 5678)
        assert (os.stat(path).st_uid, os.stat(path).st_gid) == (1234, 5678)
    os.utime(path, ns=(1_000_000_000_123_456_789, -1_000_000_001))
    assert os.stat(path).st_atime_ns == 1_000_000_000_123_456_789
    assert os.stat(path).st_mtime_ns == -1_000_000_001
    before = os.stat(path).st_ctime_ns
    os.chmod(path, 0o600)
    assert os.stat(path).st_ctime_ns >= before


def test_writing_moves_the_times(here):
    path = here / "file"
    path.write_bytes(b"x")
    os.utime(path, ns=(1, 1))
    with path.open("ab") as file:
        file.write(b"y")
    assert os.stat(path).st_mtime_ns > 1
    os.utime(here, ns=(1, 1))
    assert os.stat(here).st_mtime_ns == 1
    (here / "another").write_bytes(b"")
    assert os.stat(here).st_mtime_ns > 1


def test_umask_and_create_modes(here):
    descriptor = os.open(here / "file", os.O_CREAT | os.O_WRONLY, 0o604)
    os.close(descriptor)
    assert stat.S_IMODE(os.stat(here / "file").st_mode) == 0o604
    os.mkdir(here / "directory", 0o711)
    assert stat.S_IMODE(os.stat(here / "directory").st_mode) == 0o711


def test_extended_attributes(here):
    path = here / "file"
    path.write_bytes(b"x")
    os.setxattr(path, "user.a", b"\0binary\xff")
    os.setxattr(path, "user.empty", b"")
    assert os.getxattr(path, "user.a") == b"\0binary\xff"
    assert {"user.a", "user.empty"} <= set(os.listxattr(path))
    if ROOT:
        os.setxattr(path, "trusted.t", b"root's")
        assert "trusted.t" in os.listxattr(path)
    assert_fails(errno.EEXIST, os.setxattr, path, "user.a", b"", os.XATTR_CREATE)
    assert_fails(errno.ENODATA, os.setxattr, path, "user.b", b"", os.XATTR_REPLACE)
    os.removexattr(path, "user.a")
    assert_fails(errno.ENODATA, os.getxattr, path, "user.a")
    assert_fails(errno.ENODATA, os.removexattr, path, "user.a")


def test_capabilities_as_extended_attributes(here):
    (here / "file").write_bytes(b"c" * 100)
    (here / "folder").mkdir()
    assert os.getxattr(here / "file", "user.lafs.kind") == b"CHK"
    assert os.getxattr(here / "file", "user.lafs.cap").startswith(b"URI:CHK:")
    assert os.getxattr(here / "folder", "user.lafs.kind") == b"DIR2"
    assert os.getxattr(here / "folder", "user.lafs.readcap").startswith(b"URI:DIR2-RO:")
    assert os.getxattr(here / "folder", "user.lafs.verifycap").startswith(b"URI:DIR2-Verifier:")
    assert_fails(errno.EPERM, os.setxattr, here / "file", "user.lafs.cap", b"x")


def test_free_space(mount):
    space = os.statvfs(mount.path)
    below = os.statvfs(mount.path.parent)
    assert space.f_namemax == 255
    assert 0 < space.f_bavail * space.f_frsize <= below.f_blocks * below.f_frsize
    assert space.f_blocks >= space.f_bfree
