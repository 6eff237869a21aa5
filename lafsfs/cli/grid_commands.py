"""``lafsfs grid``: the storage servers there are, and how to hear of more."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from lafsfs.cli.config import Places, load_config
from lafsfs.cli.locations import read_secret
from lafsfs.cli.logs import log_messages
from lafsfs.cli.servers import join as write_down
from lafsfs.cli.session import settings_of, with_config
from lafsfs.cli.warning import warn
from lafsfs.errors import ConfigError, FormatError, UsageError

if TYPE_CHECKING:
    from lafsfs.cli.config import Config
    from lafsfs.gbs.discovery.furl import Furl
    from lafsfs.gbs.discovery.survey import Report


@click.group()
def grid() -> None:
    """The storage servers that shares are on."""


@grid.command()
@click.argument("furl", default="-")
def join(furl: str) -> None:
    """Use all servers that an introducer announces, from now on.

    FURL is the introducer's, as in a Tahoe node's private/introducers.yaml. Without it, or with -,
    it is read from standard input, where others cannot see it. Introducers need Foolscap:
    pip install 'lafsfs[introducer]'.
    """
    import trio

    from lafsfs.gbs.discovery.cache import read_cache
    from lafsfs.gbs.discovery.sources import own_cache
    from lafsfs.gbs.discovery.subscription import (
        INTRODUCTION,
        MISSING,
        can_subscribe,
        first_announcements,
    )

    config = load_config(Places.find())
    if not config.joined:
        raise UsageError(
            "join adds to the grid of the configuration: unset LAFSFS_STORAGE,"
            " LAFSFS_NODE_DIRECTORY, LAFSFS_SERVERS and LAFSFS_INTRODUCERS first"
        )
    introducer = parse(furl)
    if furl != "-":
        warn("others can see a fURL on the command line; without one, it is asked for")
    if not can_subscribe():
        raise ConfigError(MISSING)
    cache = own_cache(config.cache_directory, introducer)
    trio.run(first_announcements, introducer, cache, INTRODUCTION)
    new = write_down(config, introducer)
    known = len(read_cache(cache))
    click.echo(f"{'joined' if new else 'joined before'}: {known} storage servers are announced")
    for directory in set(config.storage) - set(load_config(config.places).storage):
        if directory.exists():
            click.echo(f"  what was stored in {directory} is there: --storage {directory} uses it")


def parse(text: str) -> Furl:
    """An introducer's fURL, from the command line or standard input."""
    from lafsfs.gbs.discovery.furl import parse_furl

    try:
        return parse_furl(read_secret("fURL") if text == "-" else text)
    except FormatError as error:
        raise UsageError(str(error)) from None


@grid.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@with_config
def servers(config: Config, as_json: bool) -> None:
    """Ask every storage server how it is, and list them all."""
    import trio

    from lafsfs.gbs.discovery.survey import survey
    from lafsfs.mount import open_servers

    async def ask() -> list[Report]:
        async with open_servers(settings_of(config)) as roster:
            return await survey(roster)

    log_messages()
    reports = trio.run(ask)
    if as_json:
        click.echo(json.dumps([as_object(report) for report in reports], indent=1))
    elif reports:
        show(reports)
    else:
        click.echo("no storage server is configured, and none was announced", err=True)


def as_object(report: Report) -> dict[str, Any]:
    """One server for programs: sizes in bytes, times in seconds."""
    from lafsfs.crypto import base32

    version = report.version
    return {
        "name": report.name,
        "id": None if report.server_id is None else base32.encode(report.server_id),
        "addresses": list(report.addresses),
        "origin": report.origin or None,
        "connected": version is not None,
        "problem": report.fault,
        "version": version.application if version else None,
        "round_trip": report.round_trip,
        "free_space": version.available_space if version else None,
        "accepts_new_shares": report.accepts_new_shares,
    }


def show(reports: list[Report]) -> None:
    """The servers as a table."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("Name", "Id", "Address", "State", "Version"):
        table.add_column(title, overflow="fold")
    for title in ("Round trip", "Free"):
        table.add_column(title, justify="right", no_wrap=True)
    for report in sorted(reports, key=lambda report: report.name):
        table.add_row(*map(Text, row(report)))
    width = None if sys.stdout.isatty() else 1000  # programs and files have no edge to fold at
    Console(width=width, highlight=False, soft_wrap=False).print(table)


def row(report: Report) -> tuple[str, ...]:
    """One server's line, cell by cell."""
    from lafsfs.crypto import base32
    from lafsfs.vfs.status import shown_size

    version = report.version
    state = "connected" if version else (report.fault or "unknown")
    if version and not report.accepts_new_shares:
        state = "connected; no Grid Manager's certificate, so only read from"
    return (
        report.name,
        base32.encode(report.server_id)[:8] if report.server_id else "",
        ", ".join(report.addresses),
        state,
        version.application if version else "",
        "" if report.round_trip is None else f"{report.round_trip * 1000:.1f} ms",
        shown_size(version.available_space) if version else "",
    )
