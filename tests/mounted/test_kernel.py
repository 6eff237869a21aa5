"""What pyfuse3 has no handlers for: the kernel answers by itself, as docs/semantics.md ends."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import subprocess
import sys

import pytest

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
FICLONE = 0x40049409
FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602


@pytest.fixture
def path(mount, request):
    """A file of 5000 bytes of the test's own."""
    path = mount / request.node.name
    path.write_bytes(b"hello" * 1000)
    return path


@pytest.fixture
def fd(path):
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


def errno_of(function, *args):
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the caller compares the errno
        function(*args)
    return caught.value.errno


def test_fallocate(fd):
    assert LIBC.fallocate(fd, 0, 0, 10_000) == -1
    assert ctypes.get_errno() == errno.EOPNOTSUPP
    os.posix_fallocate(fd, 0, 10_000)
    assert os.pread(fd, 20_000, 0) == b"hello" * 1000 + bytes(5000)


def test_copies_inside_the_kernel(mount, fd):
    other = os.open(mount / "copy", os.O_RDWR | os.O_CREAT)
    try:
        assert os.copy_file_range(fd, other, 4000, 1000, 0) == 4000
        assert os.pread(other, 5000, 0) == b"hello" * 800
        assert errno_of(fcntl.ioctl, other, FICLONE, fd) == errno.EOPNOTSUPP
    finally:
        os.close(other)


def test_a_file_is_all_data(fd):
    os.truncate(fd, 100_000)
    assert os.lseek(fd, 0, os.SEEK_HOLE) == 100_000
    assert os.lseek(fd, 50_000, os.SEEK_DATA) == 50_000


def test_a_file_without_a_name(mount):
    assert errno_of(os.open, mount / ".", os.O_TMPFILE | os.O_RDWR) == errno.EOPNOTSUPP


@pytest.mark.parametrize("kind", ["flock", "lockf"])
def test_locks_hold_between_processes(path, fd, kind):
    program = f"""
import errno, fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.{kind}(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        sys.exit(error.errno)
"""
    command = [sys.executable, "-c", program, str(path)]
    getattr(fcntl, kind)(fd, fcntl.LOCK_EX)
    assert subprocess.run(command, check=False, timeout=30).returncode == errno.EAGAIN
    getattr(fcntl, kind)(fd, fcntl.LOCK_UN)
    assert subprocess.run(command, check=False, timeout=30).returncode == 0


def test_file_attributes_of_chattr(fd):
    for request in (FS_IOC_GETFLAGS, FS_IOC_SETFLAGS):
        assert errno_of(fcntl.ioctl, fd, request, bytes(8)) == errno.ENOTTY
