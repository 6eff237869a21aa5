"""A progress bar on standard error, where somebody is watching."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lafsfs.vfs.status import Status


@contextlib.contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show ``total`` bytes going by; call what this yields with each number of bytes done."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(label), total=total)
        yield lambda done: progress.update(task, advance=done)


@contextlib.contextmanager
def pending_bar() -> Iterator[Callable[[Status], None]]:
    """Show what is pending become less; call what this yields with each status of the mount."""
    if not sys.stderr.isatty():
        yield lambda status: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    from lafsfs.vfs.status import pending_amount, shown_size

    columns = (BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        most = 0

        def show(status: Status) -> None:
            nonlocal most
            # every file and name counts a little, so that small ones move the bar too
            left = status.size - status.done + 1024 * (status.files + status.names)
            most = max(most, left)
            amount = pending_amount(status.files, status.names, status.size - status.done)
            rate = f", {shown_size(status.rate)}/s" if status.rate else ""
            failed = f", {status.failed} failed" if status.failed else ""
            text = f"{amount} to go{rate}{failed}"
            progress.update(task, total=most or 1, completed=most - left, description=text)

        yield show
