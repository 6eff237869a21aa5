"""``ls``, ``mkdir``, ``rm``, ``mv`` and ``ln``."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from lafsfs.cli.locations import find_location, read_secret
from lafsfs.cli.session import (
    aliases_of,
    default_alias,
    directory_format_of,
    run_on_grid,
    with_config,
)
from lafsfs.cli.warning import warn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lafsfs.caps import Cap, MutableFormat, UnknownCap
    from lafsfs.cli.config import Config
    from lafsfs.cli.locations import Location
    from lafsfs.nodes.edits import Outcome
    from lafsfs.nodes.maker import NodeMaker


def report(outcome: Outcome | None, where: Location) -> None:
    """Say so if an edit met somebody else's."""
    from lafsfs.cli.tree import conflict_message

    warn(conflict_message(outcome, where))


def mutable_format(name: str) -> MutableFormat | None:
    """``sdmf`` and ``mdmf`` as the format, anything else as None."""
    from lafsfs.caps import MutableFormat

    return {"sdmf": MutableFormat.SDMF, "mdmf": MutableFormat.MDMF}.get(name)


@click.command()
@click.argument("where", required=False)
@click.option("-l", "--long", is_flag=True, help="Kind, rights, size and time beside each name.")
@click.option("--json", "as_json", is_flag=True, help="The same for programs.")
@with_config
def ls(config: Config, where: str | None, long: bool, as_json: bool) -> None:
    """List a directory, or show one file.

    WHERE is home: by default; with --node-dir, tahoe:.
    """
    location = find_location(where or default_alias(config), aliases_of(config))

    async def listed(maker: NodeMaker) -> list[dict[str, Any]]:
        from lafsfs.cli.tree import existing, find_cap, find_slot

        cap = await find_cap(maker, location)
        if cap.is_directory:
            listing = await maker.directory(cap).table()
            return [row(name, child.cap, child.metadata) for name, child in listing.items()]
        if not location.path:
            return [row(location.shown, cap, {})]
        child = existing(await find_slot(maker, location))
        return [row(child.name, child.cap, child.metadata)]

    rows = sorted(run_on_grid(config, listed), key=lambda item: item["name"])
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
    else:
        for line in lines(rows, long=long):
            click.echo(line)


def row(name: str, cap: Cap | UnknownCap, metadata: Any) -> dict[str, Any]:  # noqa: ANN401
    """What is shown of one child: values of JSON, sizes in bytes, times in Unix seconds."""
    from lafsfs.caps import CHKCap, LiteralCap

    system = metadata.get("tahoe")
    changed = system.get("linkmotime") if isinstance(system, dict) else None
    return {
        "name": name,
        "kind": cap.kind,
        "rights": cap.rights,
        "size": cap.size if isinstance(cap, CHKCap | LiteralCap) else None,
        "linked": changed if isinstance(changed, int | float) else None,
    }


def lines(rows: Iterable[dict[str, Any]], *, long: bool) -> Iterable[str]:
    """One line for each child; directories end in a slash."""
    for item in rows:
        name = printable(item["name"]) + ("/" if item["kind"].startswith("DIR2") else "")
        if not long:
            yield name
            continue
        size = "-" if item["size"] is None else str(item["size"])
        yield f"{item['kind']:9} {item['rights']:11} {size:>12}  {moment(item['linked'])}  {name}"


def printable(name: str) -> str:
    """A name without anything that would command a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def moment(seconds: float | None) -> str:
    """A time in sixteen columns, or as many blanks."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else " " * 16
    except (OverflowError, ValueError, OSError):
        return "?" * 16


@click.command()
@click.argument("where")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["sdmf", "mdmf", "immutable"]),
    help="How its table is stored. [default: from the configuration, sdmf]",
)
@click.option("-p", "--parents", is_flag=True, help="Make what is missing on the way as well.")
@with_config
def mkdir(config: Config, where: str, format_name: str | None, parents: bool) -> None:
    """Make an empty directory."""
    location = find_location(where, aliases_of(config))
    wanted = mutable_format(format_name or directory_format_of(config))

    async def made(maker: NodeMaker) -> Outcome | None:
        from lafsfs.cli.tree import make_directory

        return await make_directory(maker, location, wanted, parents=parents)

    report(run_on_grid(config, made), location)


@click.command()
@click.argument("where")
@click.option("-r", "--recursive", is_flag=True, help="Directories with everything in them.")
@with_config
def rm(config: Config, where: str, recursive: bool) -> None:
    """Unlink a file or a directory."""
    location = find_location(where, aliases_of(config))

    async def removed(maker: NodeMaker) -> bool:
        from lafsfs.cli.tree import remove

        return await remove(maker, location, recursive=recursive)

    if not run_on_grid(config, removed):
        warn(f"{location.shown} was changed by somebody else meanwhile, and is kept")


@click.command()
@click.argument("source")
@click.argument("target")
@with_config
def mv(config: Config, source: str, target: str) -> None:
    """Rename or move: TARGET is a new name, or a directory to move into."""
    aliases = aliases_of(config)
    locations = find_location(source, aliases), find_location(target, aliases)

    async def moved(maker: NodeMaker) -> Outcome:
        from lafsfs.cli.tree import rename

        return await rename(maker, *locations)

    report(run_on_grid(config, moved), locations[1])


@click.command()
@click.argument("where")
@with_config
def ln(config: Config, where: str) -> None:
    """Attach a capability, read from standard input, under a new name.

    It may be of a kind this version does not know, if it begins with ro. or imm.
    """
    location = find_location(where, aliases_of(config))
    text = read_secret("capability")

    async def linked(maker: NodeMaker) -> Outcome:
        from lafsfs.caps import parse_child
        from lafsfs.cli.tree import find_slot, link
        from lafsfs.errors import ChildExistsError

        cap = parse_child(text, None)
        slot = await find_slot(maker, location)
        if slot.child is not None:
            raise ChildExistsError(f"{location.shown} exists already")
        return await link(slot, cap)

    report(run_on_grid(config, linked), location)
