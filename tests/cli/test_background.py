"""Going into the background: ready, or one line that says why not; and who waits for whom.

Forking is done in processes of their own: the test process has threads.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from lafsfs.cli.mount_record import MountRecord
from lafsfs.cli.mount_table import MountEntry, parse_mountinfo
from lafsfs.errors import MountError


def parent(tmp_path: Path, work: str) -> subprocess.CompletedProcess[str]:
    """Run ``work`` (the body of a function with ``ready``) in the background of a new process."""
    program = f"""
import os, signal, sys, time
from pathlib import Path
from lafsfs.cli.background import BackgroundError, run_in_background
from lafsfs.errors import MountError, UsageError
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by who runs tests with ``&``
here = Path({str(tmp_path)!r})

def work(ready):
{textwrap.indent(textwrap.dedent(work), "    ")}

try:
    run_in_background(work, here / "state" / "log")
except BackgroundError as error:
    print(f"code {{error.code}}: {{error}}")
else:
    print("ready")
"""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
    )


def wait_until_asleep(pid: int) -> None:
    """Until the process waits for something in the kernel."""
    status = Path(f"/proc/{pid}/stat")
    while status.read_text().rpartition(")")[2].split()[0] != "S":
        time.sleep(0.01)


def test_ready(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    work = """
        print("a warning before", file=sys.stderr)
        ready()
        print("a warning after", file=sys.stderr)
        fifo = os.open(here / "fifo", os.O_WRONLY)
        os.write(fifo, f"{os.getcwd()} {os.isatty(0)} {os.getsid(0) == os.getpid()}".encode())
        """
    result = parent(tmp_path, work)
    assert (result.stdout, result.stderr) == ("ready\n", "a warning before\n")
    assert (tmp_path / "fifo").read_text() == "/ False True"  # it went on after its parent
    assert (tmp_path / "state" / "log").read_text() == "a warning after\n"


@pytest.mark.parametrize(
    ("work", "expected", "shown"),
    [
        ("raise MountError('no such place')", "code 1: no such place", ""),
        ("raise UsageError('no such option')", "code 2: no such option", ""),
        (
            "raise ExceptionGroup('', [ExceptionGroup('', [MountError('deep')])])",
            "code 1: deep",
            "",
        ),
        ("1 / 0", "code 1: a bug in lafsfs: ZeroDivisionError", "Traceback"),
        ("os._exit(7)", "code 7: the mount ended before it was ready", ""),
        ("os.kill(os.getpid(), signal.SIGKILL)", "code 9: the mount ended", ""),
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(30)", "code 130: interrupted", ""),
        ("return", "code 1: the mount ended before it was ready", ""),
    ],
)
def test_failures(tmp_path: Path, work: str, expected: str, shown: str) -> None:
    result = parent(tmp_path, work)
    assert result.stdout.startswith(expected)
    assert result.stdout.count("\n") == 1
    assert result.stderr.startswith(shown)
    assert bool(result.stderr) == bool(shown)


def test_a_failure_after_ready_is_in_the_log(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    work = """
    ready()
    keep = os.open(here / "fifo", os.O_WRONLY)  # its reader learns when this process has ended
    raise MountError('a server went away')
    """
    assert parent(tmp_path, work).stdout == "ready\n"
    assert (tmp_path / "fifo").read_text() == ""
    assert (tmp_path / "state" / "log").read_text() == "lafsfs: a server went away\n"


def test_interrupting_the_parent_stops_the_child(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    work = """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    open(here / "fifo", "w").close()
    signal.sigtimedwait({signal.SIGTERM}, 60)
    os._exit(3)
    """
    program = f"""
import os, signal, sys
from pathlib import Path
from lafsfs.cli.background import run_in_background
signal.signal(signal.SIGINT, signal.default_int_handler)
here = Path({str(tmp_path)!r})
def work(ready):
{textwrap.indent(textwrap.dedent(work), "    ")}
try:
    run_in_background(work, here / "log")
except KeyboardInterrupt:
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        print("no child left")
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        (tmp_path / "fifo").read_bytes()
        wait_until_asleep(process.pid)  # in its read: a signal just before would not end that
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert output == b"no child left\n"


# --- the record of a mount ------------------------------------------------------------------------


@pytest.fixture
def record(tmp_path: Path) -> MountRecord:
    return MountRecord(tmp_path / "state", tmp_path / "mnt")


def test_a_mount_that_ends_well_leaves_nothing(record: MountRecord, tmp_path: Path) -> None:
    assert not record.is_held()
    assert record.wait() is None
    with record.held():
        assert record.is_held()
        mount = record.read()
        assert mount is not None
        assert (mount.pid, mount.error) == (os.getpid(), None)
        assert mount.mountpoint == str(tmp_path / "mnt")
        other = MountRecord(tmp_path / "state", tmp_path / "other")
        with other.held():
            assert other.is_held()
    assert not record.is_held()
    assert record.wait() is None
    assert list((tmp_path / "state" / "mounts").iterdir()) == []


def hold(record: MountRecord, error: Exception | None = None) -> None:
    with record.held():
        if error is not None:
            raise error


def test_only_one_process_serves_a_mountpoint(record: MountRecord) -> None:
    with record.held():
        with pytest.raises(MountError, match="already"):
            hold(record)
        assert record.is_held()
    hold(record)


def test_how_a_mount_ended_badly_is_told(record: MountRecord) -> None:
    with pytest.raises(MountError):
        hold(record, MountError("two files are not stored"))
    ended = record.wait()
    assert ended is not None
    assert ended.error == "two files are not stored"
    record.forget()
    assert record.wait() is None


def test_an_end_badly_told_by_trio_is_told_in_one_line(record: MountRecord) -> None:
    failures = ExceptionGroup("nursery", [ExceptionGroup("inner", [MountError("not stored")])])
    with pytest.raises(ExceptionGroup):
        hold(record, failures)
    ended = record.wait()
    assert ended is not None
    assert ended.error == "not stored"


def test_a_bug_is_told_by_its_type_alone(record: MountRecord) -> None:
    with pytest.raises(KeyError):
        hold(record, KeyError("URI:DIR2:secret"))
    ended = record.wait()
    assert ended is not None
    assert ended.error == "a bug in lafsfs: KeyError"


def test_records_are_private(record: MountRecord, tmp_path: Path) -> None:
    with record.held():
        directory = tmp_path / "state" / "mounts"
        (file,) = directory.iterdir()
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (directory.parent, directory, file)]
    assert modes == [0o700, 0o700, 0o600]


def test_a_process_that_was_killed_holds_nothing(record: MountRecord, tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from lafsfs.cli.mount_record import MountRecord
with MountRecord(Path({str(tmp_path / "state")!r}), Path({str(tmp_path / "mnt")!r})).held():
    os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", program], check=False, timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert not record.is_held()
    ended = record.wait()
    assert ended is not None
    assert (ended.pid > 0, ended.error) == (True, None)


def test_a_record_that_cannot_be_written_is_one_line(record: MountRecord) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # as a disk that is full
    try:
        with pytest.raises(MountError, match=r"cannot write .*: File too large"):
            hold(record)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pid": "x", "error": null}', "\udcff"])
def test_a_spoilt_record_is_no_bug(record: MountRecord, tmp_path: Path, text: str) -> None:
    with pytest.raises(MountError):
        hold(record, MountError("x"))
    (path,) = (tmp_path / "state" / "mounts").iterdir()
    assert json.loads(path.read_text())["error"] == "x"
    path.write_bytes(text.encode(errors="surrogateescape"))
    ended = record.wait()
    assert ended is not None
    assert (ended.pid, ended.error) == (0, None)


# --- what is mounted where ------------------------------------------------------------------------

MOUNTINFO = r"""
24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 24 0:35 / /home/ada/my\040lafs rw,nosuid,nodev shared:5 master:1 - fuse.lafsfs lafsfs user_id=7
41 24 0:36 / /home/ada/tab\011\134 rw - fuse.sshfs ada@example:\040 rw
not a mount line
42 24 0:37 / /odd rw
"""


def test_mountinfo() -> None:
    assert parse_mountinfo(MOUNTINFO) == [
        MountEntry("/", "ext4", "/dev/sda1"),
        MountEntry("/home/ada/my lafs", "fuse.lafsfs", "lafsfs", 7),
        MountEntry("/home/ada/tab\t\\", "fuse.sshfs", "ada@example: "),
    ]
    assert [entry.is_ours for entry in parse_mountinfo(MOUNTINFO)] == [False, True, False]
