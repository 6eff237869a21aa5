"""Reading through a real mount: caches that survive, reads that fail in time, changes that show."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lafsfs.fuse.requests import READ_AHEAD

CONTENTS = os.urandom(5_000_000)


@dataclass
class Client:
    """The command line with a configuration of its own, and three storage directories."""

    base: Path

    @property
    def point(self) -> Path:
        return self.base / "mnt"

    @property
    def log(self) -> str:
        return (self.base / "state" / "lafsfs.log").read_text()

    def command(self, *arguments: str, **environment: str) -> None:
        places = {f"LAFSFS_{p}_DIR": str(self.base / p.lower()) for p in ("CONFIG", "STATE")}
        storage = os.pathsep.join(str(self.base / f"disk{n}") for n in range(3))
        subprocess.run(
            [sys.executable, "-m", "lafsfs", *arguments],
            env=os.environ | places | {"LAFSFS_STORAGE": storage} | environment,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )

    @contextmanager
    def mounted(self, options: str = "", **environment: str):
        self.point.mkdir(exist_ok=True)
        self.command("mount", "-o", options, str(self.point), **environment)
        try:
            yield self.point
        finally:
            if os.path.ismount(self.point):
                self.command("umount", str(self.point))

    def shares(self) -> list[Path]:
        """The share files of what is large."""
        files = [p for p in self.base.glob("disk*/shares/*/*/*") if p.stat().st_size > 1_000_000]
        assert files
        return files

    def kill(self) -> None:
        """End the mount as a crash would."""
        (record,) = (p for p in (self.base / "state" / "mounts").iterdir() if p.is_file())
        pid = json.loads(record.read_text())["pid"]
        os.kill(pid, signal.SIGKILL)
        subprocess.run(["fusermount3", "-u", "-z", str(self.point)], check=True)


@pytest.fixture
def client(tmp_path):
    return Client(tmp_path)


def lose(shares: list[Path]) -> None:
    for share in shares:
        share.unlink()


def wait_until(condition, seconds=10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def cached(client: Client) -> int:
    """Bytes in the cache on the disk."""
    blobs = (client.base / "state" / "cache" / "segments").glob("??/*")
    return sum(blob.stat().st_size for blob in blobs)


@pytest.mark.parametrize("crash", [False, True])
def test_what_was_read_survives_remounts_and_crashes(client, crash):
    with client.mounted(LAFSFS_CACHE_DISK="100M") as point:
        (point / "film").write_bytes(CONTENTS)
    with client.mounted(LAFSFS_CACHE_DISK="100M") as point:
        assert (point / "film").read_bytes() == CONTENTS
        wait_until(lambda: cached(client) > len(CONTENTS))
        if crash:
            client.kill()
    lose(client.shares())
    with client.mounted(LAFSFS_CACHE_DISK="100M") as point:
        assert (point / "film").read_bytes() == CONTENTS
    with client.mounted(LAFSFS_CACHE_DISK="0") as point, pytest.raises(OSError, match="error"):
        (point / "film").read_bytes()


def test_nothing_is_copied_from_one_local_disk_to_another(client):
    with client.mounted() as point:
        (point / "film").write_bytes(CONTENTS)
    with client.mounted() as point:
        assert (point / "film").read_bytes() == CONTENTS
    assert cached(client) == 0


def test_the_kernel_asks_for_much_at_once_where_we_may_have_it_so(client):
    with client.mounted() as point:
        device = os.stat(point).st_dev
        name = f"{os.major(device)}:{os.minor(device)}"
        setting = Path("/sys/class/bdi") / name / "read_ahead_kb"
        if not os.access(setting, os.W_OK):
            pytest.skip("only root may")
        (point / "film").write_bytes(CONTENTS)
        assert (point / "film").read_bytes() == CONTENTS
        assert int(setting.read_text()) == READ_AHEAD >> 10


def test_a_read_that_cannot_succeed_fails_with_one_line(client):
    with client.mounted() as point:
        (point / "film").write_bytes(CONTENTS)
    lose(client.shares())
    with client.mounted("deadline=5") as point:
        before = client.log
        with pytest.raises(OSError, match="error") as caught:
            (point / "film").read_bytes()  # the kernel reads ahead, and asks again for a page
        assert caught.value.errno == errno.EIO
        (line,) = client.log.removeprefix(before).splitlines()
        assert "0 good shares" in line
        assert "2 are needed" in line
        assert "has none" in line
        assert "are back" in line


def test_health_is_told(client):
    with client.mounted() as point:
        (point / "film").write_bytes(CONTENTS)
        (point / "note").write_bytes(b"short")
    client.shares()[0].unlink()
    with client.mounted() as point:
        health = os.getxattr(point / "film", "user.lafs.health").decode()
        assert health == "2 shares of 3 on 2 servers, 2 needed, not verified"
        with open(point / "film", "rb") as film:
            film.read()
            health = os.getxattr(point / "film", "user.lafs.health").decode()
        assert health == "2 good shares of 3 on 2 servers, 2 needed"
        health = os.getxattr(point, "user.lafs.health").decode()
        assert health == "3 good shares of 3 on 3 servers, 2 needed"
        with pytest.raises(OSError, match="No data"):
            os.getxattr(point / "note", "user.lafs.health")  # has no shares
        assert "user.lafs.health" not in os.listxattr(point / "film")


def test_what_others_write_shows_in_a_file_that_stays_open(client):
    with client.mounted("refresh=0.3") as point:
        client.command("put", "--format", "mdmf", "/dev/null", "home:shared")
        wait_until(lambda: (point / "shared").exists())
        with open(point / "shared", "rb", buffering=0) as file:
            assert file.read() == b""
            (client.base / "new").write_bytes(b"from elsewhere")
            client.command("put", str(client.base / "new"), "home:shared")
            wait_until(lambda: os.pread(file.fileno(), 100, 0) == b"from elsewhere")
