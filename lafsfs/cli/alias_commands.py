"""``lafsfs alias``: the names under which the user keeps capabilities."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from lafsfs.cli.aliases import check_alias_name
from lafsfs.cli.locations import read_capability
from lafsfs.cli.session import aliases_of, create_alias, directory_format_of, with_config
from lafsfs.cli.tree_commands import mutable_format
from lafsfs.cli.warning import warn
from lafsfs.errors import ChildExistsError, ConfigError, NotADirectoryNodeError, UsageError

if TYPE_CHECKING:
    from lafsfs.cli.config import Config


@click.group()
def alias() -> None:
    """Names for whole trees, such as home:"""


@alias.command("list")
@with_config
def list_aliases(config: Config) -> None:
    """Show the aliases, their kinds and rights.

    The last word tells capabilities apart and gives none away; 'cap show' shows them.
    """
    aliases = aliases_of(config)
    for name in aliases.names():
        try:
            cap = aliases.get(name)
        except ConfigError as error:
            click.echo(f"{name}: broken")
            warn(str(error))
        else:
            click.echo(f"{name}: {cap.kind} {cap.rights} {cap.digest}")


@alias.command()
@click.argument("name")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["sdmf", "mdmf"]),
    help="How its table is stored. [default: from the configuration, sdmf]",
)
@with_config
def create(config: Config, name: str, format_name: str | None) -> None:
    """Make a new directory and name it."""
    name = check_alias_name(name)
    wanted = mutable_format(format_name or directory_format_of(config))
    assert wanted is not None
    create_alias(config, name, wanted)
    click.echo(f"{name}: is a new, empty directory")


@alias.command()
@click.argument("name")
@with_config
def add(config: Config, name: str) -> None:
    """Name a directory whose capability is read from standard input."""
    name = check_alias_name(name)
    aliases = aliases_of(config)
    aliases.require_writable()
    if name in aliases:
        raise ChildExistsError(f"there is an alias {name!r} already")
    cap = read_capability()
    if not cap.can_read:
        raise UsageError("this capability verifies and does not read: an alias would be no use")
    if not cap.is_directory:
        raise NotADirectoryNodeError(
            f"this {cap.kind} capability is of a file; ln attaches it to a directory"
        )
    aliases.add(name, cap)
    click.echo(f"{name}: is {cap.kind}, {cap.rights}")


@alias.command()
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@with_config
def remove(config: Config, name: str, yes: bool) -> None:
    """Forget a name, and its capability with it.

    Without another copy of the capability, what it leads to is lost.
    """
    name = check_alias_name(name)
    aliases = aliases_of(config)
    aliases.require_writable()
    if name not in aliases:
        raise UsageError(f"there is no alias {name!r}")
    if not yes and sys.stdin.isatty():
        click.confirm(
            f"Without another copy of its capability, what is in {name}: is lost. Go on?",
            abort=True,
            err=True,
        )
    aliases.remove(name)
