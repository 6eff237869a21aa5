"""The root of the command tree, and the one place where errors become messages and exit codes.

Exit codes: 0 done; 2 the command line makes no sense; 1 anything else; 130 interrupted. An error
that is somebody's fault is one line on standard error; only a bug shows a traceback.
"""

from __future__ import annotations

import importlib
from typing import IO, Any

import click

from lafsfs import __version__
from lafsfs.errors import Fault, LafsError, UsageError

# Where each command is defined; imported when it is used.
COMMANDS = {
    "alias": "lafsfs.cli.alias_commands:alias",
    "cap": "lafsfs.cli.cap_commands:cap",
    "flush": "lafsfs.cli.status_commands:flush",
    "get": "lafsfs.cli.file_commands:get",
    "grid": "lafsfs.cli.grid_commands:grid",
    "lease": "lafsfs.cli.lease_commands:lease",
    "ln": "lafsfs.cli.tree_commands:ln",
    "ls": "lafsfs.cli.tree_commands:ls",
    "mkdir": "lafsfs.cli.tree_commands:mkdir",
    "mount": "lafsfs.cli.mount_commands:mount",
    "mv": "lafsfs.cli.tree_commands:mv",
    "put": "lafsfs.cli.file_commands:put",
    "rm": "lafsfs.cli.tree_commands:rm",
    "serve": "lafsfs.cli.serve:serve",
    "status": "lafsfs.cli.status_commands:status",
    "umount": "lafsfs.cli.mount_commands:umount",
}


class Failure(click.ClickException):
    """A :class:`LafsError` on its way to the user."""

    def __init__(self, error: LafsError) -> None:
        super().__init__(str(error) or type(error).__name__)

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"lafsfs: {self.format_message()}", file=file, err=file is None)


class UsageFailure(Failure):
    """A command line that makes no sense."""

    exit_code = 2


def failure(error: LafsError) -> Failure:
    """The failure to raise for an error that is not a bug."""
    return UsageFailure(error) if isinstance(error, UsageError) else Failure(error)


def exit_code(error: LafsError) -> int:
    """What a command that met this error exits with."""
    return failure(error).exit_code


def only_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error of a group to report: an interrupt, else a bug, else the first there is."""
    errors = _flat(group)
    for error in errors:
        if isinstance(error, KeyboardInterrupt):
            return error
    for error in errors:
        if not isinstance(error, LafsError):
            return error
    return errors[0]


def summary(failure: BaseException) -> str:
    """One line that says what went wrong. A bug's own words may tell a secret; its type cannot."""
    error = only_error(failure) if isinstance(failure, BaseExceptionGroup) else failure
    if isinstance(error, LafsError) and error.fault is not Fault.BUG:
        return str(error) or type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return f"a bug in lafsfs: {type(error).__name__}"


def _flat(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _flat(inner)]
    return [error]


class Commands(click.Group):
    """A group that loads its commands late and turns errors into :class:`Failure`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        try:
            return super().invoke(ctx)
        except BaseExceptionGroup as group:
            error = only_error(group)
            if isinstance(error, LafsError) and error.fault is not Fault.BUG:
                raise failure(error) from group
            if isinstance(error, KeyboardInterrupt):
                raise click.exceptions.Exit(130) from group
            raise
        except LafsError as error:
            if error.fault is Fault.BUG:
                raise
            raise failure(error) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(130) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lafsfs")
def lafsfs() -> None:
    """Mount Tahoe-LAFS capabilities as folders: encrypted, erasure-coded, verified here.

    \b
    lafsfs mount ~/lafs     an encrypted folder: the tree home:, made the first time
    lafsfs status           what was written and is not on the grid yet
    lafsfs umount ~/lafs    unmount it, once everything is on the grid

    WHAT and WHERE name things in a tree: "home:", "home:photos/cat.jpg", or "-" for a capability on
    standard input. The grid is all storage servers that are configured: a directory of this machine
    unless you say otherwise.

    Exit codes: 0 done, 1 it could not be done (one line says why), 2 the command line makes no
    sense, 130 interrupted.
    """
