"""``make test-stress``: fio and stress-ng's file system stressors, verifying, on a real mount.

Uses what is installed of the two, and fails if neither is. Every fio job writes a pattern that is
verified as it goes, again when all is written, and once more by another process after a remount.
Every stressor of stress-ng runs for a while by itself with ``--verify``; what it made has to be
gone afterwards. A server that says anything fails the whole.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.tools.folder import mounted

if TYPE_CHECKING:
    from tests.tools.folder import Folder

PATIENCE = 600.0  # seconds for one job or stressor
WATCHDOG = 7200.0  # seconds for all

COMMON = ("--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--randseed=5")
JOBS = {
    "sequential": ("--rw=write", "--bs=128k", "--size=48m", "--ioengine=psync"),
    "random": ("--rw=randwrite", "--bsrange=512-70k", "--size=24m", "--ioengine=psync"),
    "random with fsync": ("--rw=randwrite", "--bs=4k", "--size=2m", "--fsync=32"),
    "read and write": ("--rw=randrw", "--bs=8k", "--size=16m", "--ioengine=psync"),
    "mapped": ("--rw=randwrite", "--bs=4k", "--size=16m", "--ioengine=mmap"),
    "direct": ("--rw=randwrite", "--bs=16k", "--size=16m", "--direct=1", "--ioengine=psync"),
    "asynchronous": ("--rw=randwrite", "--bs=16k", "--size=16m", "--ioengine=libaio"),
    "four at a time": ("--rw=randwrite", "--bs=16k", "--size=6m", "--numjobs=4"),
}

# Stressors and their limits: what they do by default is made for the memory of big machines.
STRESSORS: dict[str, tuple[str, ...]] = {
    "access": (),
    "aio": (),
    "chdir": ("--chdir-dirs", "64"),
    "chmod": (),
    "chown": (),
    "copy-file": ("--copy-file-bytes", "128M"),
    "dentry": ("--dentries", "64"),
    "dir": ("--dir-dirs", "64"),
    "dirdeep": ("--dirdeep-dirs", "1", "--dirdeep-inodes", "64"),
    "dirmany": (),
    "dnotify": (),
    "fcntl": (),
    "file-ioctl": (),
    "filename": ("--filename-opts", "posix"),
    "flock": (),
    "fpunch": (),
    "fsize": (),
    "fstat": (),
    "getdent": (),
    "hdd": ("--hdd-bytes", "16M", "--hdd-opts", "wr-rnd,rd-rnd,fsync"),
    "inotify": (),
    "io": (),
    "iomix": ("--iomix-bytes", "4M"),
    "lease": (),
    "link": (),
    "locka": (),
    "lockf": (),
    "lockofd": (),
    "mknod": (),
    "mmap": ("--mmap-bytes", "4M", "--mmap-file"),
    "mmapmany": (),
    "msync": ("--msync-bytes", "1M"),
    "open": ("--open-max", "200"),
    "readahead": ("--readahead-bytes", "8M"),
    "rename": (),
    "revio": ("--revio-bytes", "1M"),
    "seek": ("--seek-size", "4M"),
    "sendfile": ("--sendfile-size", "1M"),
    "splice": (),
    "symlink": (),
    "sync-file": ("--sync-file-bytes", "4M"),
    "touch": (),
    "utime": (),
    "xattr": (),
}
NOT_HERE = (3, 4)  # exit codes: no resources, not implemented on this system


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def fio(folder: Folder, only: list[str]) -> list[str]:
    """Run the jobs of fio; what went wrong, one line for each."""
    jobs = {name: job for name, job in JOBS.items() if not only or name in only}
    commands = {}
    failed = []
    for number, (name, job) in enumerate(jobs.items()):
        directory = folder / f"fio{number}"
        directory.mkdir()
        commands[name] = ("fio", f"--name=job{number}", f"--directory={directory}", *COMMON, *job)
        done = run(*commands[name], "--do_verify=1", cwd=folder.path.parent)
        report("fio", name, done)
        if done.returncode:
            failed.append(f"fio, {name}: {last_line(done.stdout)}")
    if jobs:
        folder.remount()
    for name, command in commands.items():
        done = run(*command, "--verify_only", cwd=folder.path.parent)
        report("fio after a remount", name, done)
        if done.returncode:
            failed.append(f"fio after a remount, {name}: {last_line(done.stdout)}")
    return failed


def stress_ng(folder: Folder, only: list[str], seconds: int, instances: int) -> list[str]:
    """Run the stressors, so many instances of each; what went wrong, one line for each."""
    directory = folder / "stress"
    directory.mkdir()
    failed = []
    for name, limits in STRESSORS.items():
        if only and name not in only:
            continue
        options = ("--temp-path", str(directory), "--timeout", str(seconds), "--verify")
        done = run(
            "stress-ng", f"--{name}", str(instances), *limits, *options, cwd=folder.path.parent
        )
        report("stress-ng", name, done)
        if done.returncode not in (0, *NOT_HERE):
            failed.append(f"stress-ng, {name}: {last_line(done.stdout)}")
        if left := os.listdir(directory):
            failed.append(f"stress-ng, {name}: left {left}")
            shutil.rmtree(directory)
            directory.mkdir()
    return failed


def report(program: str, name: str, done: subprocess.CompletedProcess[str]) -> None:
    verdict = "fine" if done.returncode == 0 else f"exit code {done.returncode}"
    if program == "stress-ng" and done.returncode in NOT_HERE:
        verdict = "cannot be done here"
    print(f"{program:20} {name:20} {verdict}", flush=True)
    if done.returncode:
        print(done.stdout[-3000:], flush=True)


def last_line(text: str) -> str:
    complaints = [line for line in text.splitlines() if "fail" in line or "error" in line]
    return (complaints or text.splitlines() or ["no output"])[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("only", nargs="*", help="names of stressors or of fio's jobs")
    parser.add_argument("--seconds", type=int, default=10, help="for each stressor")
    parser.add_argument("--instances", type=int, default=2, help="of each stressor at a time")
    arguments = parser.parse_args()
    installed = [name for name in ("fio", "stress-ng") if shutil.which(name)]
    if not installed:
        parser.error("neither fio nor stress-ng is installed")
    only: list[str] = arguments.only
    failed: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="lafsfs-stress-") as scratch,
        mounted(Path(scratch), watchdog=WATCHDOG) as folder,
    ):
        if "fio" in installed and (not only or set(only) & JOBS.keys()):
            failed += fio(folder, only)
        if "stress-ng" in installed and (not only or set(only) & STRESSORS.keys()):
            failed += stress_ng(folder, only, arguments.seconds, arguments.instances)
    print("\n".join(failed))
    print(f"{', '.join(installed)}: {len(failed)} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
