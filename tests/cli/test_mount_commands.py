"""``lafsfs mount`` and ``umount`` for real, as typed, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lafsfs.cli.mount_table import find_mount
from tests import golden_data as golden
from tests.cli.shell import TIMEOUT

if TYPE_CHECKING:
    from tests.cli.shell import Shell

HELPER = Path(__file__).parents[2] / "contrib" / "mount.lafsfs"


def test_from_nothing_to_a_folder_and_back(shell: Shell) -> None:
    said = shell.mount()
    assert said.startswith(f"home: is mounted on {shell.mountpoint}\n")
    for told in ("umount", str(shell.home / "data" / "storage"), str(shell.home / "config")):
        assert told in said
    assert "URI:" not in said
    assert find_mount(shell.mountpoint) is not None
    (shell.mountpoint / "hello.txt").write_text("hello\n")
    (shell.mountpoint / "photos").mkdir()
    assert shell.umount() == ""
    assert list(shell.mountpoint.iterdir()) == []
    assert not shell.record.is_held()
    assert shell.run("ls") == "hello.txt\nphotos/\n"
    assert shell.run("get", "home:hello.txt", "-") == "hello\n"
    shell.run("put", "-", "home:photos/cat", stdin="meow")
    shell.mount("home:")
    assert (shell.mountpoint / "photos" / "cat").read_text() == "meow"
    shell.umount()
    shell.mount("home:photos")
    assert os.listdir(shell.mountpoint) == ["cat"]
    shell.umount()


def test_a_capability_from_standard_input(shell: Shell) -> None:
    shell.run("alias", "create", "work")
    shell.run("put", "-", "work:a", stdin="data")
    shown = shell.run("cap", "show", "work:")
    read_cap = next(line.split()[-1] for line in shown.splitlines() if "read cap" in line)
    shell.mount("-", stdin=read_cap)
    assert (shell.mountpoint / "a").read_text() == "data"
    with pytest.raises(OSError, match="Read-only file system"):
        (shell.mountpoint / "b").write_text("data")
    shell.umount()


CANNOT_BE_MOUNTED = (  # what, standard input, the fault to name
    ("-", golden.TREES["dir-sdmf"].cap[:-1], "fingerprint"),
    ("-", golden.OBJECTS["imm-1000"].cap, "file"),
    ("-", golden.OBJECTS["sdmf-1000"].cap, "file"),
    ("-", golden.TREES["dir-sdmf"].verify or "", "verif"),
    ("-", golden.TREES["dir-sdmf"].cap, "share"),  # of another grid
    ("-", "", "no capability"),
    ("home:nothing", "", "home:nothing does not exist"),
    ("home:file", "", "file"),
)


def test_what_cannot_be_mounted(shell: Shell) -> None:
    shell.run("alias", "create", "home")
    shell.run("put", "-", "home:file", stdin="data")
    for what, stdin, fault in CANNOT_BE_MOUNTED:
        reason = shell.mount(what, stdin=stdin, code=1)
        assert fault in reason
        assert "URI:" not in reason
        assert find_mount(shell.mountpoint) is None
        assert not shell.record.is_held()


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("-o", "nonsense"), "nonsense"),
        (("-o", "uid=ada lovelace"), "uid"),
        (("work:",), "no alias"),
        (("photos",), "home:photos"),
    ],
)
def test_command_lines_that_make_no_sense(
    shell: Shell, arguments: tuple[str, ...], fault: str
) -> None:
    assert fault in shell.mount(*arguments, code=2)
    assert not (shell.home / "data").exists()


def test_mountpoints_that_will_not_do(shell: Shell) -> None:
    (shell.mountpoint / "in the way").write_text("")
    assert "not empty" in shell.mount(code=1)
    (shell.mountpoint / "in the way").unlink()
    shell.mountpoint.rmdir()
    assert "does not exist" in shell.mount(code=1)
    shell.mountpoint.write_text("")
    assert "not a directory" in shell.mount(code=1)
    shell.mountpoint.unlink()
    shell.mountpoint.mkdir()
    assert not (shell.home / "config" / "aliases").exists()  # nothing was made for nothing
    shell.mount()
    assert "already" in shell.mount(code=1)
    (shell.mountpoint / "alive").write_text("yes")
    shell.umount()


def test_umount_of_nothing(shell: Shell) -> None:
    assert "nothing of lafsfs" in shell.umount(code=1)
    assert "nothing of lafsfs" in shell.run("umount", "/proc", code=1)


def test_umount_of_a_folder_in_use_leaves_it(shell: Shell) -> None:
    shell.mount()
    with open(shell.mountpoint / "file", "w") as file:
        assert "in use" in shell.umount(code=1)
        file.write("still there")
    assert (shell.mountpoint / "file").read_text() == "still there"
    shell.umount()
    assert shell.run("get", "home:file", "-") == "still there"


def test_options_are_passed_on(shell: Shell) -> None:
    shell.run("alias", "create", "home")
    shell.run("put", "-", "home:file", stdin="data")
    (shell.home / "config" / "config.toml").write_text('[mount]\noptions = "umask=077,uid=12"\n')
    shell.mount("-o", "ro", "-o", "gid=34,noauto")
    status = (shell.mountpoint / "file").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o077) == (12, 34, 0)
    with pytest.raises(OSError, match="Read-only file system"):
        (shell.mountpoint / "new").write_text("")
    shell.umount()


def test_sigterm_unmounts_cleanly(shell: Shell) -> None:
    shell.mount()
    (shell.mountpoint / "file").write_text("stored")
    mount = shell.record.read()
    assert mount is not None
    os.kill(mount.pid, signal.SIGTERM)
    assert shell.record.wait() is None
    assert find_mount(shell.mountpoint) is None
    assert shell.run("get", "home:file", "-") == "stored"


def killed(shell: Shell) -> None:
    """End the mount by force."""
    mount = shell.record.read()
    assert mount is not None
    os.kill(mount.pid, signal.SIGKILL)
    shell.record.wait()


def test_a_mount_that_was_killed_is_told_of(shell: Shell) -> None:
    shell.mount()
    killed(shell)
    for command in ("status", "flush"):
        assert "mount it again" in shell.run(command, str(shell.mountpoint), code=1)
    assert shell.run("status") == ""
    assert "had ended before" in shell.umount(code=1)
    assert find_mount(shell.mountpoint) is None


def test_a_mount_that_was_killed_gives_way_to_the_next(shell: Shell) -> None:
    shell.mount("-o", "quiet=3600")
    (shell.mountpoint / "file").write_text("accepted")
    killed(shell)
    result = subprocess.run(
        shell.command("mount", str(shell.mountpoint)),
        env=shell.environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert result.stdout.count("1 pending change") == 1
    assert result.stderr.count("\n") == 1
    assert "an earlier mount" in result.stderr
    log = (shell.home / "state" / "lafsfs.log").read_text()
    assert " WARNING lafsfs.mount: journal: 1 pending change" in log
    assert (shell.mountpoint / "file").read_text() == "accepted"
    shell.umount()
    assert shell.run("get", "home:file", "-") == "accepted"


def test_umount_lazily_does_not_wait_for_who_uses_it(shell: Shell) -> None:
    shell.mount()
    with open(shell.mountpoint / "file", "w") as file:
        file.write("before")
        said = shell.run("umount", "--lazy", str(shell.mountpoint))
        assert "ends when nothing uses it any more" in said
        assert find_mount(shell.mountpoint) is None
        file.write(" and after")
    assert shell.record.wait() is None
    assert shell.run("get", "home:file", "-") == "before and after"


def test_the_advice_can_be_typed_where_lafsfs_is_not_on_the_path(shell: Shell) -> None:
    shell.environment["PATH"] = "/usr/bin:/bin"
    said = shell.mount()
    advice = next(line for line in said.splitlines() if "unmount with" in line)
    command = advice.partition("unmount with")[2]
    subprocess.run(["sh", "-c", command], env=shell.environment, timeout=TIMEOUT, check=True)
    assert find_mount(shell.mountpoint) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_mount_of_another_user(shell: Shell) -> None:
    shell.mount()
    for function in ("require_ours", "detach"):
        program = (
            "import os, sys\nfrom pathlib import Path\nfrom lafsfs.cli import mountpoints\n"
            "from lafsfs.errors import MountError\nos.setuid(65534)\n"
            f"try:\n    mountpoints.{function}(Path(sys.argv[1]))\n"
            "except MountError as error:\n    print(error)\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", program, str(shell.mountpoint)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
        assert "is another user's (root)" in result.stdout
    shell.umount()


def test_in_the_foreground_until_interrupted(shell: Shell) -> None:
    with subprocess.Popen(
        shell.command("mount", "--foreground", str(shell.mountpoint)),
        env=shell.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("home: is mounted")
        (shell.mountpoint / "file").write_text("stored")
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 0
    assert find_mount(shell.mountpoint) is None
    assert shell.run("get", "home:file", "-") == "stored"


def test_python_without_a_terminal_or_input(shell: Shell) -> None:
    """As from a service manager: all three standard streams closed or empty."""
    command = shell.command("mount", str(shell.mountpoint))
    script = 'exec "$@" <&- >&- 2>&-'
    result = subprocess.run(
        ["sh", "-c", script, "sh", *command], env=shell.environment, timeout=TIMEOUT, check=False
    )
    assert result.returncode == 0
    assert find_mount(shell.mountpoint) is not None
    shell.umount()


# --- the helper of mount(8) -----------------------------------------------------------------------


def helper(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = tmp_path / "lafsfs"
    command.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    command.chmod(0o755)
    return subprocess.run(
        ["sh", str(HELPER), *arguments],
        env=os.environ | {"LAFSFS": str(command)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        (["home:", "/mnt"], ["mount", "home:", "/mnt"]),
        (["home:", "/m nt", "-o", "rw"], ["mount", "home:", "/m nt"]),
        (
            ["home:a b", "/mnt", "-n", "-v", "-o", "noauto,ro,_netdev,uid=5,x-systemd.automount"],
            ["mount", "home:a b", "/mnt", "-o", "ro,uid=5"],
        ),
        (["home:", "/mnt", "-r", "-o", "allow_other"], ["mount", "home:", "/mnt", "-o"]),
        (["home:", "/mnt", "-f"], []),
    ],
)
def test_fstab(tmp_path: Path, arguments: list[str], passed: list[str]) -> None:
    result = helper(tmp_path, *arguments)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[: len(passed)] == passed
    assert ("-f" in arguments) == (result.stdout == "")


def test_fstab_without_a_path(tmp_path: Path) -> None:
    """As mount(8) calls it."""
    command = tmp_path / "lafsfs"
    command.write_text("#!/bin/sh\n/usr/bin/env\n")
    command.chmod(0o755)
    result = subprocess.run(
        ["/bin/sh", str(HELPER), "home:", "/mnt"],
        env={"LAFSFS": str(command)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert "\nPATH=/usr/local/sbin:" in f"\n{result.stdout}"


def test_fstab_is_no_place_for_capabilities(tmp_path: Path) -> None:
    result = helper(tmp_path, golden.TREES["dir-sdmf"].cap, "/mnt")
    assert (result.returncode, result.stdout) == (1, "")
    assert "alias" in result.stderr
    assert helper(tmp_path, "home:").returncode == 1
