"""``lafsfs lease``: keeping servers from forgetting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lafsfs.cli.locations import find_location
from lafsfs.cli.session import aliases_of, run_on_grid, with_config
from lafsfs.cli.warning import warn
from lafsfs.errors import UsageError

if TYPE_CHECKING:
    from lafsfs.caps import Cap, UnknownCap
    from lafsfs.cli.config import Config
    from lafsfs.cli.locations import Location
    from lafsfs.nodes.leases import Renewals
    from lafsfs.nodes.maker import NodeMaker

MAX_SHOWN = 10  # paths of one kind of trouble


@click.group()
def lease() -> None:
    """Keep servers from deleting: a lease lasts for a month."""


@lease.command()
@click.argument("where", nargs=-1)
@with_config
def renew(config: Config, where: tuple[str, ...]) -> None:
    """Renew the leases on WHERE and all below it.

    On everything that has an alias, by default. Once a week is often enough.
    """
    aliases = aliases_of(config)
    names = where or tuple(f"{name}:" for name in aliases.names())
    if not names:
        raise UsageError("there is no alias yet: say what to renew")
    locations = [find_location(name, aliases) for name in names]

    async def renewed(maker: NodeMaker) -> Renewals:
        from lafsfs.nodes.leases import renew_leases

        starts = [await start(maker, location) for location in locations]
        return await renew_leases(maker, starts)

    result = run_on_grid(config, renewed)
    count = result.renewed
    click.echo("1 object has a new lease" if count == 1 else f"{count} objects have new leases")
    for line in troubles(result):
        warn(line)
    if not result.is_complete:
        raise click.exceptions.Exit(1)


async def start(maker: NodeMaker, location: Location) -> tuple[tuple[str, ...], Cap | UnknownCap]:
    """Where to begin, and how to name it."""
    from lafsfs.cli.tree import find_cap

    return (location.shown,), await find_cap(maker, location)


def troubles(result: Renewals) -> list[str]:
    """What did not go well, one line each."""
    lines = [
        f"{name} did not answer for {count} objects: {result.reasons[name]}"
        for name, count in result.failures.most_common()
    ]
    lines += [f"{shown(path)} could not be read: {why}" for path, why in result.unreadable]
    lines += [f"no server has a share of {shown(path)}" for path in result.lost[:MAX_SHOWN]]
    if len(result.lost) > MAX_SHOWN:
        lines.append(f"... nor of {len(result.lost) - MAX_SHOWN} more")
    if result.unknown:
        lines.append(f"{result.unknown} children are of kinds that this version does not know")
    return lines


def shown(path: tuple[str, ...]) -> str:
    """The beginning and the names that lead on from it."""
    first, *rest = path
    return first + ("" if first.endswith(":") or not rest else "/") + "/".join(rest)
