"""A home of its own for every test of the command line, and a way to run commands in it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from lafsfs.cli.app import lafsfs
from lafsfs.cli.config import KEYS
from lafsfs.cli.mount_table import find_mount
from tests.cli.shell import Shell

if TYPE_CHECKING:
    from pathlib import Path

Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty home directory."""
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def environment(home: Path) -> dict[str, str | None]:
    """The environment of a user who has nothing yet; ``None`` unsets what the tester has."""
    return {
        "HOME": str(home),
        "LAFSFS_CONFIG_DIR": str(home / "config"),
        "LAFSFS_DATA_DIR": str(home / "data"),
        "LAFSFS_STATE_DIR": str(home / "state"),
        **{key.variable: None for key in KEYS},
    }


@pytest.fixture
def run(environment: dict[str, str | None]) -> Iterator[Run]:
    """Run ``lafsfs ARGUMENTS``; ``ok`` (the default) requires that it succeeds, None nothing."""

    def command(*arguments: str, ok: bool | None = True, **options: Any) -> Result:
        result = CliRunner(env=environment).invoke(lafsfs, arguments, **options)
        if ok:
            assert result.exit_code == 0, result.output
        elif ok is False:
            assert result.exit_code in (1, 2), result.output
            assert isinstance(result.exception, SystemExit), result.exception
            assert result.stderr.count("\n") == 1 or result.stderr.startswith("Usage:")
        return result

    return command


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    home, mountpoint = tmp_path / "home", tmp_path / "my lafs"
    home.mkdir()
    mountpoint.mkdir()
    shell = Shell(home, mountpoint)
    yield shell
    if find_mount(mountpoint) is not None:
        subprocess.run(["fusermount3", "-u", "-z", str(mountpoint)], check=True)
        shell.record.wait()
