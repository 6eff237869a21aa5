"""What commands say on standard error. Here by itself: ``flush`` is to start at once."""

from __future__ import annotations

import click


def warn(message: str | None) -> None:
    """One line on standard error, if there is anything to say."""
    if message:
        click.echo(f"lafsfs: warning: {message}", err=True)
