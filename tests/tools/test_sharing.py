"""Files that two processes use at a time, mapped files, sparse files and times of directories."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys

import pytest

from tests.tools.other import another_process

PAGE = mmap.PAGESIZE


@pytest.fixture
def other():
    with another_process() as other:
        yield other


# --- two processes --------------------------------------------------------------------------------


def test_what_one_process_writes_another_reads(here, other):
    path = here / "file"
    other(f"fd = os.open({str(path)!r}, os.O_RDWR | os.O_CREAT, 0o644)")
    fd = os.open(path, os.O_RDWR)
    for step in range(20):
        os.pwrite(fd, b"%04d" % step, step * 3000)
        assert other(f"os.pread(fd, 4, {step * 3000})") == b"%04d" % step
        other(f"os.pwrite(fd, b'other', {step * 3000 + 4})")
        assert os.pread(fd, 9, step * 3000) == b"%04dother" % step
        assert os.fstat(fd).st_size == other("os.fstat(fd).st_size") == step * 3000 + 9
    other("os.ftruncate(fd, 10)")
    assert os.fstat(fd).st_size == 10
    assert os.pread(fd, 100, 0) == b"0000other\0"
    os.fsync(fd)
    os.close(fd)
    assert other("os.pread(fd, 4, 0)") == b"0000"
    other("os.close(fd)")
    assert path.read_bytes() == b"0000other\0"


def test_names_that_one_process_makes_another_sees(here, other):
    other(f"os.chdir({str(here)!r})")
    for step in range(10):
        (here / f"dir{step}").mkdir()
        other(f"open('dir{step}/file', 'w').close()")
        os.rename(here / f"dir{step}", here / f"moved{step}")
        assert other(f"os.listdir('moved{step}')") == ["file"]
        assert other(f"os.stat('dir{step}')") == ("OSError", errno.ENOENT)
        other(f"os.unlink('moved{step}/file')")
        assert os.listdir(here / f"moved{step}") == []
        (here / f"moved{step}").rmdir()
    assert other("os.listdir('.')") == []


APPENDER = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
for number in range(int(sys.argv[3])):
    os.write(fd, f"{sys.argv[2]} {number}\\n".encode())
os.close(fd)
"""


def test_two_processes_append_to_one_file(here, folder):
    path, lines = here / "log", 400
    processes = [
        subprocess.Popen([sys.executable, "-c", APPENDER, str(path), name, str(lines)])
        for name in ("one", "another")
    ]
    assert [process.wait(120) for process in processes] == [0, 0]

    def check():
        found = path.read_text().splitlines()
        for name in ("one", "another"):
            mine = [line for line in found if line.startswith(f"{name} ")]
            assert mine == [f"{name} {number}" for number in range(lines)]
        assert len(found) == 2 * lines

    check()
    folder.remount()
    check()


def test_one_of_two_processes_makes_a_file_exclusively(here, other):
    path = str(here / "lock")
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    for _ in range(10):
        os.close(os.open(path, flags))
        assert other(f"os.open({path!r}, {flags})") == ("OSError", errno.EEXIST)
        other(f"os.unlink({path!r})")
        other(f"os.close(os.open({path!r}, {flags}))")
        with pytest.raises(FileExistsError):
            os.open(path, flags)
        os.unlink(path)


def test_a_file_removed_by_another_process_stays_open(here, other, folder):
    path = here / "file"
    path.write_bytes(b"contents" * 1000)
    fd = os.open(path, os.O_RDWR)
    other(f"os.unlink({str(path)!r})")
    assert os.fstat(fd).st_nlink == 0
    os.pwrite(fd, b"changed!", 8000)
    assert os.pread(fd, 100_000, 0) == b"contents" * 1000 + b"changed!"
    os.close(fd)
    assert os.listdir(here) == []
    folder.remount()
    assert os.listdir(here) == []


# --- mapped files ---------------------------------------------------------------------------------


def test_a_shared_mapping_is_seen_by_another_process(here, other, folder):
    path = here / "mapped"
    path.write_bytes(bytes(3 * PAGE + 100))
    path = str(path)
    other(f"fd = os.open({path!r}, os.O_RDWR)")
    other("shared = mmap.mmap(fd, 0)")
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[PAGE - 3 : PAGE + 3] = b"across"
        assert other(f"shared[{PAGE - 3}:{PAGE + 3}]") == b"across"
        other(f"shared[{3 * PAGE}:{3 * PAGE + 5}] = b'there'")
        assert mapping[3 * PAGE : 3 * PAGE + 5] == b"there"
        assert os.pread(file.fileno(), 5, 3 * PAGE) == b"there"
        os.pwrite(file.fileno(), b"by write", 10)
        assert mapping[10:18] == b"by write"
        assert other("shared[10:18]") == b"by write"
        mapping.flush()
    other("shared.flush()")
    other("shared.close()")
    other("os.close(fd)")
    expected = bytearray(3 * PAGE + 100)
    expected[PAGE - 3 : PAGE + 3] = b"across"
    expected[3 * PAGE : 3 * PAGE + 5] = b"there"
    expected[10:18] = b"by write"
    with open(path, "rb") as file:
        assert file.read() == expected
    folder.remount()
    with open(path, "rb") as file:
        assert file.read() == expected


def test_a_mapping_outlives_its_descriptor(here, folder):
    path = here / "mapped"
    path.write_bytes(b"." * (2 * PAGE))
    fd = os.open(path, os.O_RDWR)
    mapping = mmap.mmap(fd, 0)  # which keeps a descriptor of its own; it goes with the mapping
    os.close(fd)
    mapping[PAGE : PAGE + 4] = b"late"
    mapping.close()
    assert path.read_bytes()[PAGE : PAGE + 5] == b"late."
    folder.remount()
    assert path.read_bytes()[PAGE : PAGE + 5] == b"late."


def test_a_private_mapping_changes_nothing(here):
    path = here / "mapped"
    path.write_bytes(b"original")
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapping,
    ):
        mapping[0:8] = b"changed!"
        assert mapping[:] == b"changed!"
    assert path.read_bytes() == b"original"


def test_a_mapping_of_a_file_that_shrinks_and_grows(here):
    path = here / "mapped"
    path.write_bytes(b"x" * (3 * PAGE))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        os.ftruncate(file.fileno(), 100)
        os.ftruncate(file.fileno(), 3 * PAGE)
        assert mapping[:] == b"x" * 100 + bytes(3 * PAGE - 100)
        mapping[2 * PAGE : 2 * PAGE + 1] = b"y"
    assert path.read_bytes() == b"x" * 100 + bytes(2 * PAGE - 100) + b"y" + bytes(PAGE - 1)


# --- sparse files ---------------------------------------------------------------------------------


def test_sparse_files(here, folder):
    path = here / "sparse"
    pieces = {0: b"begin", 3_000_000: b"middle", 10_000_000: b"near the end"}
    with path.open("wb", buffering=0) as file:
        for offset in (3_000_000, 10_000_000, 0):
            os.pwrite(file.fileno(), pieces[offset], offset)
        file.truncate(12_345_678)

    def check():
        expected = bytearray(12_345_678)
        for offset, piece in pieces.items():
            expected[offset : offset + len(piece)] = piece
        assert path.stat().st_size == 12_345_678
        assert path.read_bytes() == expected

    check()
    folder.remount()
    check()
    os.truncate(path, 3_000_003)
    os.truncate(path, 3_000_010)
    pieces = {0: b"begin", 3_000_000: b"mid"}
    with path.open("rb") as file:
        file.seek(2_999_999)
        assert file.read() == b"\0mid" + bytes(7)


def test_a_hole_of_many_gigabytes_reads_as_zeros(here):
    path = here / "huge"
    size = 1 << 40
    with path.open("w+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"far away", size - 8)
        assert os.pread(file.fileno(), 16, size - 16) == bytes(8) + b"far away"
        assert os.pread(file.fileno(), 10, size // 2) == bytes(10)
        file.truncate(100)
    assert path.read_bytes() == bytes(100)


# --- directories ----------------------------------------------------------------------------------

CHANGES = {
    "create": lambda d: (d / "new").touch(),
    "mkdir": lambda d: (d / "new").mkdir(),
    "symlink": lambda d: (d / "new").symlink_to("nowhere"),
    "mkfifo": lambda d: os.mkfifo(d / "new"),
    "link": lambda d: os.link(d / "file", d / "new"),
    "unlink": lambda d: (d / "file").unlink(),
    "rmdir": lambda d: (d / "dir").rmdir(),
    "rename": lambda d: (d / "file").rename(d / "new"),
    "replace": lambda d: (d / "file").rename(d / "file2"),
    "move away": lambda d: (d / "file").rename(d / "dir" / "file"),
    "move here": lambda d: (d / "full" / "deep").rename(d / "deep"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_names_moves_the_directorys_times(here, change):
    (here / "file").write_bytes(b"x")
    (here / "file2").write_bytes(b"y")
    (here / "dir").mkdir()
    (here / "full").mkdir()
    (here / "full" / "deep").mkdir()
    os.utime(here, ns=(10**18, 10**18))
    before = here.stat()
    assert before.st_mtime_ns == 10**18
    CHANGES[change](here)
    after = here.stat()
    assert after.st_mtime_ns > before.st_mtime_ns
    assert after.st_ctime_ns > before.st_ctime_ns


def test_a_change_of_contents_leaves_the_directorys_mtime(here, folder):
    (here / "file").write_bytes(b"x")
    (here / "dir").mkdir()
    os.utime(here, ns=(10**18, 10**18))
    (here / "file").write_bytes(b"something else")
    (here / "file").chmod(0o600)
    (here / "dir" / "inside").touch()
    assert here.stat().st_mtime_ns == 10**18
    folder.remount()
    assert here.stat().st_mtime_ns == 10**18


def test_dot_dot_of_a_renamed_directory(here, other, folder):
    (here / "one" / "moved").mkdir(parents=True)
    (here / "two").mkdir()
    other(f"os.chdir({str(here / 'one' / 'moved')!r})")
    os.rename(here / "one" / "moved", here / "two" / "renamed")
    for inside in (here / "two" / "renamed",):
        assert os.path.samefile(inside / "..", here / "two")
    assert other("os.path.samefile('..', '../../two')") is True
    assert other("os.getcwd()") == str(here / "two" / "renamed")
    other("open('../from-inside', 'w').close()")
    assert sorted(os.listdir(here / "two")) == ["from-inside", "renamed"]
    other("os.rename('../renamed', '../../one/back')")
    assert other("os.path.samefile('..', '../../one')") is True
    other("os.chdir('/')")
    folder.remount()
    assert os.path.samefile(here / "one" / "back" / "..", here / "one")
