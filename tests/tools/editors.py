"""The programs themselves, told to save: only where they are installed (see ``saving.py``).

As there, each saves ``contents`` to ``path`` and returns the names that it leaves beside it.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.tools.saving import Save

PATIENCE = 60.0  # seconds for a program


def run(*command: str | Path, directory: Path) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=directory,
        env={**os.environ, "HOME": str(directory), "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def vim(path: Path, contents: bytes) -> tuple[str, ...]:
    return _vim(path, contents, "nobackup backupcopy=auto")


def vim_copying(path: Path, contents: bytes) -> tuple[str, ...]:
    return (*_vim(path, contents, "backup backupcopy=yes"), f"{path.name}~")


def _vim(path: Path, contents: bytes, options: str) -> tuple[str, ...]:
    source = path.parent.parent / f"{path.parent.name}.new"
    source.write_bytes(contents)
    always = f"set viminfo= backupskip= writebackup swapfile {options}"
    edit = ("-c", f"%!cat {source}", "-c", "wq")
    run("vim", "-N", "-u", "NONE", "-es", "--cmd", always, *edit, path.name, directory=path.parent)
    source.unlink()
    return ()


def emacs(path: Path, contents: bytes) -> tuple[str, ...]:
    source = path.parent.parent / f"{path.parent.name}.new"
    source.write_bytes(contents)
    program = f"""(progn
        (setq make-backup-files t backup-enable-predicate (lambda (_) t) create-lockfiles t)
        (find-file "{path}") (erase-buffer) (insert-file-contents "{source}") (save-buffer))"""
    run("emacs", "--batch", "-Q", "--eval", program, directory=path.parent.parent)
    source.unlink()
    return (f"{path.name}~",)


def sed(path: Path, contents: bytes) -> tuple[str, ...]:
    """The whole file is replaced by another, by its first line."""
    source = path.parent.parent / f"{path.parent.name}.new"
    source.write_bytes(contents)
    run("sed", "-i", "-e", f"1r {source}", "-e", "d", path.name, directory=path.parent)
    source.unlink()
    return ()


def rsync(path: Path, contents: bytes) -> tuple[str, ...]:
    source = path.parent.parent / f"{path.parent.name}.source"
    source.mkdir(exist_ok=True)
    shutil.copy2(path, source / path.name)  # with its mode
    (source / path.name).write_bytes(contents)
    os.utime(source / path.name, ns=(10**18, 10**18 + len(contents)))
    run("rsync", "-aHAX", f"{source}/", f"{path.parent}/", directory=path.parent)
    shutil.rmtree(source)
    return ()


def nano(path: Path, contents: bytes) -> tuple[str, ...]:
    """By its keys, on a terminal: cut everything, insert a file, write, leave."""
    source = path.parent.parent / f"{path.parent.name}.new"
    source.write_bytes(contents)
    terminal, its_end = pty.openpty()
    process = subprocess.Popen(
        ["nano", "-I", "--backup", "--locking", "--nonewlines", path.name],
        cwd=path.parent,
        env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", "HOME": str(path.parent)},
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
        start_new_session=True,
    )
    os.close(its_end)
    with process:
        try:
            _await(terminal, b"Exit")  # it reads keys from here on
            cut_all, insert, write = b"\x1b\\\x1ba\x1b/\x0b", b"\x12%b\r", b"\x0f\r"
            os.write(terminal, cut_all + insert % os.fsencode(source) + write)
            _await(terminal, b"Wrote")
            os.write(terminal, b"\x18")
            _drain(terminal)
        finally:
            os.close(terminal)  # which hangs up on it, if it is still there
    source.unlink()
    assert process.returncode == 0
    return (f"{path.name}~",)


def _await(terminal: int, text: bytes) -> None:
    deadline, seen = time.monotonic() + PATIENCE, b""
    while text not in seen:
        assert time.monotonic() < deadline, seen[-500:]
        if select.select([terminal], [], [], 1.0)[0]:
            seen += os.read(terminal, 65536)


def _drain(terminal: int) -> None:
    """Read until the other end is closed, as a terminal does, or nothing has come for long."""
    with contextlib.suppress(OSError):
        while select.select([terminal], [], [], PATIENCE)[0]:
            os.read(terminal, 65536)


PROGRAMS: dict[str, Save] = {
    save.__name__: save
    for save in (vim, vim_copying, nano, emacs, sed, rsync)
    if shutil.which(save.__name__.partition("_")[0])
}
