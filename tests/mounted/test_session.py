"""The FUSE adapter with a kernel on one side and a toy on the other."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading

import pytest

from tests.mounted.harness import REPOSITORY, Mount, eventually


@pytest.fixture
def toy(tmp_path):
    point = tmp_path / "toy"
    point.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.mounted.toy", str(point)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    mount = Mount.when_ready(process, point)
    try:
        yield mount
    except BaseException:
        mount.kill()
        raise
    if not mount.ended:
        mount.stop()


def test_a_bug_is_an_error_and_the_mount_goes_on(toy):
    toy.expect_log("ZeroDivisionError")
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        (toy / "bug").read_bytes()
    assert (toy / "counter").read_bytes() == b"         1"
    assert "ZeroDivisionError" in toy.log


def test_what_hangs_times_out_and_holds_nobody_up(toy):
    toy.expect_log("no answer within 1 seconds")
    errors = []

    def ask():
        try:
            os.getxattr(toy / "hang", "user.lafs.health")
        except OSError as error:
            errors.append(error.errno)

    threads = [threading.Thread(target=ask) for _ in range(150)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        os.statvfs(toy.path)
    assert (toy / "counter").read_bytes() == b"         1"
    for thread in threads:
        thread.join()
    assert errors == [errno.ETIMEDOUT] * 150
    with pytest.raises(OSError, match=os.strerror(errno.ETIMEDOUT)):
        (toy / "hang").read_bytes()


def test_the_kernel_forgets_when_told(toy):
    def seen():
        return (toy / "counter").read_bytes(), os.stat(toy / "counter").st_mtime_ns

    assert seen() == (b"         1", 0)
    assert seen() == (b"         1", 0)  # from the kernel's cache, both
    (toy / "poke").write_bytes(b"x")
    eventually(lambda: os.stat(toy / "counter").st_mtime_ns == 1)
    eventually(lambda: (toy / "counter").read_bytes() == b"         2")


def test_an_error_in_the_middle_of_a_listing(toy):
    toy.expect_log("ZeroDivisionError")
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        os.listdir(toy / "many")
    assert sorted(os.listdir(toy.path)) == ["bug", "counter", "hang", "poke"]
