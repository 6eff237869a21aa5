"""Programs that people use, as they use them, at sizes that fit.

Git, rsync, unzip and a C compiler may be missing. The tests of those four are skipped then, with
a word. What they do to a file system is done all the same, by Python: ``saving.py`` replays how git
and rsync store, and below are rsync's comparison, an archive unpacked by ``zipfile`` and what a
linker does.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import stat
import subprocess
import tarfile
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from tests.mounted.snapshot import snapshot
from tests.tools.other import another_process

LIMIT = 200.0  # seconds for one command
REPOSITORY = Path(__file__).parents[2]


def needs(program: str, instead: str) -> pytest.MarkDecorator:
    """Skip where a program is missing, and say what is tested all the same."""
    return pytest.mark.skipif(
        shutil.which(program) is None, reason=f"{program} is not installed; {instead} all the same"
    )


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """What a command prints. It has to succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C.UTF-8", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def make_tree(root: Path) -> None:
    """Files of many sizes, directories, both kinds of links, odd names, modes, times, xattrs."""
    random_source = random.Random(5)
    root.mkdir()
    for number, size in enumerate((0, 1, 55, 56, 4096, 5000, 131_073, 700_000)):
        folder = root / f"folder {number % 3}" / "Ünïcode" / f"deep{number}"
        folder.mkdir(parents=True)
        path = folder / f"file {number}.bin"
        path.write_bytes(random_source.randbytes(size))
        path.chmod((0o644, 0o600, 0o755, 0o440)[number % 4])
        os.setxattr(path, "user.comment", b"number %d" % number)
        os.link(path, root / f"hard link {number}")
        (folder / "link").symlink_to(f"../deep{number}/file {number}.bin")
    (root / "empty").mkdir(mode=0o700)
    (root / "dangling").symlink_to("nowhere/at all")
    os.mkfifo(root / "fifo")
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        os.utime(path, ns=(10**18, 10**18 + number * 10**9 + 7), follow_symlinks=False)


@pytest.fixture
def source(tmp_path):
    """Such a tree on a local disk."""
    make_tree(tmp_path / "source")
    return tmp_path / "source"


# --- copying --------------------------------------------------------------------------------------


def test_cp_and_tar_and_back(here, source, folder):
    expected = snapshot(source, numbers=False)
    run("cp", "-a", source, here / "copy")
    tar = ("tar", "--xattrs", "--xattrs-include=user.*")
    run(*tar, "-cf", here / "archive.tar", "-C", here, "copy")
    (here / "unpacked").mkdir()
    run(*tar, "-xpf", here / "archive.tar", "-C", here / "unpacked")
    assert snapshot(here / "copy", numbers=False) == expected
    folder.remount()
    assert snapshot(here / "copy", numbers=False) == expected
    assert snapshot(here / "unpacked" / "copy", numbers=False) == expected
    with tarfile.open(here / "archive.tar") as archive:
        assert len(archive.getnames()) == len(expected) + 1


def zip_of(source: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(source.rglob("*")):
            if not file.is_symlink() and not file.is_fifo():
                archive.write(file, file.relative_to(source))


def unzip(archive: Path, target: Path) -> None:
    run("unzip", "-q", archive, "-d", target)


def unzip_by_hand(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        opened.extractall(target)


@pytest.mark.parametrize(
    "unpack", [unzip_by_hand, pytest.param(unzip, marks=needs("unzip", "zipfile unpacks"))]
)
def test_a_zip_archive(here, source, folder, unpack):
    zip_of(source, here / "archive.zip")
    unpack(here / "archive.zip", here / "unpacked")
    folder.remount()
    for file in [p for p in source.rglob("*") if p.is_file() and not p.is_symlink()]:
        assert (here / "unpacked" / file.relative_to(source)).read_bytes() == file.read_bytes()


@needs("rsync", "its comparison is done by hand")
def test_a_second_rsync_transfers_nothing(here, source, folder):
    command = ("rsync", "-aHAX", "--stats", "--itemize-changes", f"{source}/", f"{here}/")
    run(*command)
    assert snapshot(here, numbers=False) == snapshot(source, numbers=False)
    for remounts in (False, True):
        if remounts:
            folder.remount()
        said = run(*command)
        assert "Number of regular files transferred: 0\n" in said
        assert "Total transferred file size: 0 bytes\n" in said
        assert re.findall(r"^[<>ch.*][fdLDS].*", said, re.MULTILINE) == []  # not even an attribute
    (source / "empty" / "new").write_bytes(b"new")
    (source / "hard link 1").unlink()
    os.utime(source / "empty", ns=(10**18, 10**18))  # rsync itself looks at whole seconds only
    said = run(*command, "--delete", "--checksum")
    assert "Number of regular files transferred: 1\n" in said
    assert snapshot(here, numbers=False) == snapshot(source, numbers=False)


def test_a_second_copy_has_nothing_to_do(here, source, folder):
    """What rsync looks at: type, size and mtime to the nanosecond, mode, owner, xattrs."""
    shutil.copytree(source, here / "copy", symlinks=True, ignore=shutil.ignore_patterns("fifo"))

    def differing() -> list[Path]:
        return [
            path
            for path in source.rglob("*")
            if not path.is_fifo() and facts(path) != facts(here / "copy" / path.relative_to(source))
        ]

    assert differing() == []
    folder.remount()
    assert differing() == []
    (source / "hard link 4").write_bytes(b"changed")
    assert differing()


def facts(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    folder = stat.S_ISDIR(status.st_mode)
    xattrs = {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }
    return (
        status.st_mode,
        status.st_uid,
        status.st_gid,
        None if folder else status.st_size,
        status.st_mtime_ns,
        xattrs,
    )


# --- git ------------------------------------------------------------------------------------------

IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "T"), ("EMAIL", "t@example.org"), ("DATE", "2026-01-02T03:04:05Z"))
} | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


def git(where: Path, *arguments: str | Path) -> str:
    return run("git", "-c", "init.defaultBranch=main", *arguments, cwd=where, **IDENTITY)


@needs("git", "how it stores is replayed")
def test_git(here, folder):
    work = here / "work"
    git(here, "init", "-q", work)
    for commit in range(4):
        for number in range(5):
            path = work / f"folder{number % 3}" / f"file{number}.txt"
            path.parent.mkdir(exist_ok=True)
            with path.open("a") as file:
                file.writelines(f"{commit} {line}\n" for line in range(number * 40))
        git(work, "add", "-A")
        git(work, "commit", "-q", "-m", f"commit {commit}")
    git(work, "checkout", "-q", "-b", "side", "HEAD~2")
    (work / "side.txt").write_text("side\n")
    git(work, "add", "side.txt")
    git(work, "commit", "-q", "-m", "side")
    git(work, "checkout", "-q", "main")
    git(work, "merge", "-q", "--no-edit", "side")
    git(work, "gc", "-q", "--prune=now")
    git(here, "clone", "-q", work, "clone")  # with hard links to the packs
    git(here, "clone", "-q", "--no-local", "--bare", work, "bare.git")
    git(here / "clone", "commit", "-q", "--allow-empty", "-m", "from the clone")
    git(here / "clone", "push", "-q", here / "bare.git", "main:other")
    heads = [git(where, "rev-parse", "main") for where in (work, here / "clone")]
    assert heads[0] == git(here / "bare.git", "rev-parse", "main")
    assert heads[1] == git(here / "bare.git", "rev-parse", "other")
    folder.remount()
    for where in (work, here / "clone", here / "bare.git"):
        git(where, "fsck", "--full", "--strict")
    for where in (work, here / "clone"):
        assert git(where, "diff-files") == ""  # by what stat says, without a look at contents
        assert git(where, "status", "--porcelain") == ""
    assert git(work, "log", "--format=%s").count("\n") == 6


# --- SQLite ---------------------------------------------------------------------------------------

FILL = """
connection = sqlite3.connect({path!r}, isolation_level=None)
connection.execute('PRAGMA cache_size = 5')
connection.execute('BEGIN IMMEDIATE')
connection.executemany('INSERT INTO t VALUES (?, ?)', [(-n, 'x' * 500) for n in range(1, 400)])
"""


@pytest.mark.parametrize("journal", ["delete", "truncate", "persist", "wal"])
def test_sqlite(here, folder, journal):
    path = str(here / "data.db")
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as database,
        another_process() as other,
    ):
        (mode,) = database.execute(f"PRAGMA journal_mode = {journal}").fetchone()
        assert mode == journal
        database.execute("CREATE TABLE t (number INTEGER PRIMARY KEY, text)")
        other(f"connection = sqlite3.connect({path!r}, isolation_level=None, timeout=60)")
        for number in range(0, 40, 2):
            database.execute("INSERT INTO t VALUES (?, 'here')", (number,))
            other(f"connection.execute(\"INSERT INTO t VALUES ({number + 1}, 'there')\")")
        counted = "SELECT count(*), sum(number) FROM t"
        assert other(f"connection.execute('{counted}').fetchone()") == (40, 780)
        database.execute("BEGIN")
        database.execute("DELETE FROM t")
        database.execute("ROLLBACK")
        other("connection.close()")
        for line in FILL.format(path=path).strip().splitlines():
            other(line)
        other.kill()  # in the middle of a transaction that has spilled into the file
        assert database.execute(counted).fetchone() == (40, 780)
    folder.remount()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute(counted).fetchone() == (40, 780)
        database.execute("DELETE FROM t WHERE text = 'there'")
        database.commit()
        database.execute("VACUUM")
        assert database.execute(counted).fetchone() == (20, 380)


# --- building -------------------------------------------------------------------------------------

MAKEFILE = """
CFLAGS = -g -O1 -MMD
OBJECTS = main.o greet.o count.o
prog: libgreet.a main.o
	$(CC) -o $@ main.o -L. -lgreet
libgreet.a: greet.o count.o
	$(AR) rcs $@ $^
-include $(OBJECTS:.o=.d)
install: prog
	install -D -m 755 prog $(DESTDIR)/bin/prog
clean:
	rm -f prog *.o *.d *.a
"""
SOURCES = {
    "greet.h": '#define NAME "%s"\nvoid greet(void);\nint count(void);\n',
    "greet.c": '#include <stdio.h>\n#include "greet.h"\n'
    'void greet(void) { printf("hello %s %d\\n", NAME, count()); }\n',
    "count.c": "static int calls;\nint count(void) { return ++calls; }\n",
    "main.c": '#include "greet.h"\nint main(void) { greet(); greet(); return 0; }\n',
}


@needs("cc", "a linker's writes are replayed")
@needs("make", "a linker's writes are replayed")
def test_a_c_project(here, folder):
    (here / "Makefile").write_text(MAKEFILE)
    for name, text in SOURCES.items():
        (here / name).write_text(text.replace('NAME "%s"', 'NAME "world"'))
    run("make", "-j2", cwd=here)
    assert run("./prog", cwd=here) == "hello world 1\nhello world 2\n"
    assert "up to date" in run("make", cwd=here)
    folder.remount()
    assert "up to date" in run("make", cwd=here)  # make believes the times that came back
    header = here / "greet.h"
    header.write_text(header.read_text().replace("world", "again"))
    built = run("make", cwd=here)
    assert "main.o" in built
    assert "count.o" not in built.split("libgreet.a")[0]
    run("make", "install", f"DESTDIR={here}/root", cwd=here)
    assert run(here / "root" / "bin" / "prog") == "hello again 1\nhello again 2\n"
    run("make", "clean", cwd=here)
    assert sorted(os.listdir(here)) == sorted(["Makefile", "root", *SOURCES])


def test_what_a_linker_does(here, folder):
    """Written in pieces from the end to the beginning, made executable, and run."""
    program = Path(os.path.realpath(shutil.which("true") or "/bin/true")).read_bytes()
    path = here / "prog"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    for start in reversed(range(0, len(program), 10_000)):
        os.pwrite(fd, program[start : start + 10_000], start)
    os.ftruncate(fd, len(program))
    os.fchmod(fd, 0o755)
    os.close(fd)
    run(path)
    folder.remount()
    run(path)
    assert path.read_bytes() == program
