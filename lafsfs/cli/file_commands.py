"""``get`` and ``put``: contents between local files and the grid."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lafsfs.cli.locations import find_location
from lafsfs.cli.progress import progress_bar
from lafsfs.cli.session import aliases_of, run_on_grid, with_config
from lafsfs.cli.tree_commands import mutable_format, report
from lafsfs.errors import UsageError

if TYPE_CHECKING:
    from lafsfs.cli.config import Config
    from lafsfs.cli.locations import Location
    from lafsfs.cli.tree import Slot
    from lafsfs.nodes.edits import Outcome
    from lafsfs.nodes.maker import NodeMaker


@click.command()
@click.argument("where")
@click.argument("local", required=False)
@with_config
def get(config: Config, where: str, local: str | None) -> None:
    """Fetch a file.

    LOCAL is a name, a directory, or - for standard output; this directory by default.
    """
    from lafsfs.cli.transfer import contents, local_sink

    location = find_location(where, aliases_of(config))
    target = local_target(location, local)

    async def fetched(maker: NodeMaker) -> None:
        from lafsfs.cli.tree import find_cap

        size, pieces = await contents(maker, await find_cap(maker, location))
        with local_sink(target) as file, progress_bar(location.shown, size) as progress:
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    file.write(piece)
                    progress(len(piece))

    run_on_grid(config, fetched)


def local_target(location: Location, local: str | None) -> Path | None:
    """The local file to write, None for standard output."""
    if local == "-":
        return None
    path = Path(local) if local is not None else Path()
    if not path.is_dir():
        return path
    if location.name is None:
        raise UsageError("say what to call it here: a capability by itself has no name")
    return path / location.name


@click.command()
@click.argument("local")
@click.argument("where")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["chk", "sdmf", "mdmf"]),
    help="Immutable (chk) or mutable. [default: what is there is kept mutable, new files are chk]",
)
@with_config
def put(config: Config, local: str, where: str, format_name: str | None) -> None:
    """Store a file, or standard input.

    LOCAL is the file, or - for standard input. WHERE is a name, or a directory to put it in.
    """
    from lafsfs.cli.transfer import Counted, local_source, upload

    location = find_location(where, aliases_of(config))
    path = None if local == "-" else Path(local)

    async def stored(maker: NodeMaker) -> tuple[Slot, Outcome | None]:
        from lafsfs.cli.tree import find_target, link, require_write

        slot = await find_target(maker, location, path.name if path else None)
        require_write(slot)
        replaced = None if format_name == "chk" else slot.child
        with local_source(path) as source:
            passes = 2 if format_name in (None, "chk") and config.convergence == "client" else 1
            with progress_bar(slot.where.shown, source.size * passes) as progress:
                counted = Counted(source, progress)
                cap = await upload(maker, counted, mutable_format(format_name or ""), replaced)
        if slot.child is not None and slot.child.cap == cap:
            return slot, None
        return slot, await link(slot, cap)

    slot, outcome = run_on_grid(config, stored)
    report(outcome, slot.where)
