"""``lafsfs cap``: what a capability is and which weaker ones it gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lafsfs.cli.locations import find_location
from lafsfs.cli.session import aliases_of, run_on_grid, with_config

if TYPE_CHECKING:
    from lafsfs.caps import Cap, UnknownCap
    from lafsfs.cli.config import Config
    from lafsfs.nodes.maker import NodeMaker


@click.group()
def cap() -> None:
    """Capabilities: the strings that are the right to read or write."""


@cap.command()
@click.argument("what", default="-")
@click.option("--secret", is_flag=True, help="Show the capability itself too: keep it safe.")
@with_config
def show(config: Config, what: str, secret: bool) -> None:
    """Explain a capability: from standard input (-), or of alias:path.

    The read capability lets whoever has it read; the verify capability shows nothing.
    """
    location = find_location(what, aliases_of(config))

    async def found(maker: NodeMaker) -> Cap | UnknownCap:
        from lafsfs.cli.tree import find_cap

        return await find_cap(maker, location)

    shown = run_on_grid(config, found) if location.path else location.root
    for label, value in description(shown, secret=secret):
        click.echo(f"{label + ':':15} {value}")


def description(cap: Cap | UnknownCap, *, secret: bool) -> list[tuple[str, str]]:
    """What to say of a capability, as labels and values."""
    from lafsfs.crypto import base32

    rows = [("kind", cap.kind), ("rights", cap.rights)]
    rows.append(("object", "can change" if cap.is_mutable else "never changes"))
    if cap.storage_index is not None:
        rows.append(("storage index", base32.encode(cap.storage_index)))
    rows += encoding(cap)
    if secret:
        rows.append(("capability", cap.danger_text()))
    if cap.read_cap() != cap:
        rows.append(("read cap", cap.read_cap().danger_text()))
    verify_cap = cap.verify_cap()
    if verify_cap is not None and verify_cap != cap:
        rows.append(("verify cap", verify_cap.danger_text()))
    return rows


def encoding(cap: Cap | UnknownCap) -> list[tuple[str, str]]:
    """Shares and size, of the kinds whose capabilities tell."""
    from lafsfs.caps import CHKCap, CHKVerifyCap, DirectoryCap, LiteralCap

    file = cap.backing if isinstance(cap, DirectoryCap) else cap
    if isinstance(file, CHKCap | CHKVerifyCap):
        return [("shares", f"any {file.k} of {file.n}"), ("size", f"{file.size} bytes")]
    if isinstance(file, LiteralCap):
        return [
            ("shares", "none: the contents are in the capability"),
            ("size", f"{file.size} bytes"),
        ]
    return []
