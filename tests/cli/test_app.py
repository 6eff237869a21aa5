"""Errors become one line and an exit code; only bugs show tracebacks."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from lafsfs import __version__
from lafsfs.cli.app import COMMANDS, Commands, exit_code, lafsfs, only_error
from lafsfs.errors import (
    BadCapabilityError,
    HashMismatchError,
    LafsError,
    NotEnoughSharesError,
    UsageError,
)

if TYPE_CHECKING:
    from pathlib import Path

BUG = ZeroDivisionError("a bug")


def command_that_raises(error: BaseException) -> click.Group:
    """A command tree of one command."""

    @click.command()
    def fail() -> None:
        raise error

    class OneCommand(Commands):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            return fail

    return OneCommand(name="lafsfs")


def grouped(*errors: BaseException) -> BaseException:
    return BaseExceptionGroup("outer", [BaseExceptionGroup("inner", list(errors))])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("no such thing"), 2, "lafsfs: no such thing\n"),
        (BadCapabilityError("cut short"), 1, "lafsfs: cut short\n"),
        (HashMismatchError(), 1, "lafsfs: HashMismatchError\n"),
        (grouped(UsageError("deep")), 2, "lafsfs: deep\n"),
        (grouped(NotEnoughSharesError("few"), UsageError("x")), 1, "lafsfs: few\n"),
        (KeyboardInterrupt(), 130, ""),
        (grouped(UsageError("x"), KeyboardInterrupt()), 130, ""),
    ],
)
def test_errors_are_one_line(error: BaseException, code: int, line: str) -> None:
    result = CliRunner().invoke(command_that_raises(error), ["fail"])
    assert (result.exit_code, result.stderr) == (code, line)


@pytest.mark.parametrize("error", [BUG, grouped(UsageError("x"), BUG), LafsError("ours")])
def test_bugs_are_not_hidden(error: BaseException) -> None:
    result = CliRunner().invoke(command_that_raises(error), ["fail"])
    assert result.exception is error


def test_the_error_of_a_group() -> None:
    usage, few = UsageError("a"), NotEnoughSharesError("b")
    assert only_error(BaseExceptionGroup("", [few, usage])) is few
    assert only_error(BaseExceptionGroup("", [few, ExceptionGroup("", [BUG])])) is BUG
    assert (exit_code(usage), exit_code(few)) == (2, 1)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(lafsfs, [command, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")


@pytest.mark.parametrize("group", [[], ["alias"], ["cap"], ["grid"], ["lease"]])
def test_a_list_of_commands_has_whole_sentences(group: list[str]) -> None:
    said = CliRunner(env={"COLUMNS": "80"}).invoke(lafsfs, [*group, "--help"]).output
    assert "..." not in said.partition("Commands:")[2]
    assert group or "Exit codes: 0 done" in said


def test_version_and_unknown_commands() -> None:
    assert __version__ in CliRunner().invoke(lafsfs, ["--version"]).output
    assert CliRunner().invoke(lafsfs, ["nonsense"]).exit_code == 2


def test_help_loads_no_heavy_library() -> None:
    program = (
        "import sys\nfrom click.testing import CliRunner\nfrom lafsfs.cli.app import lafsfs\n"
        "assert CliRunner().invoke(lafsfs, ['--version']).exit_code == 0\n"
        "heavy = {'trio', 'pyfuse3', 'Crypto', 'cryptography', 'zfec', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_progress_is_shown_where_somebody_is_watching(tmp_path: Path) -> None:
    places = {f"LAFSFS_{kind}_DIR": str(tmp_path / kind) for kind in ("CONFIG", "DATA", "STATE")}
    environment = os.environ | places | {"TERM": "xterm", "COLUMNS": "100"}
    (tmp_path / "file").write_bytes(bytes(300_000))
    ours, theirs = pty.openpty()
    shown = b""
    try:
        for arguments in (["alias", "create", "home"], ["put", str(tmp_path / "file"), "home:"]):
            subprocess.run(
                [sys.executable, "-m", "lafsfs", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=theirs,
                check=True,
            )
        shown = os.read(ours, 1 << 16)
    finally:
        os.close(theirs)
        os.close(ours)
    assert b"home:file" in shown
