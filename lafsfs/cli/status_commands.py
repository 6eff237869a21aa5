"""``lafsfs status`` and ``lafsfs flush``: what of a mount is not on the grid yet."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lafsfs.cli.config import Places
from lafsfs.cli.mount_record import MountRecord, records
from lafsfs.cli.mount_table import find_mount
from lafsfs.cli.mountpoints import died, require_ours
from lafsfs.cli.progress import pending_bar
from lafsfs.cli.showing_status import shown
from lafsfs.cli.warning import warn
from lafsfs.errors import LocalError, MountError

if TYPE_CHECKING:
    from collections.abc import Generator

    from lafsfs.control.client import Reply
    from lafsfs.vfs.status import Status

WATCH_EVERY: Final = 1.0  # seconds


@click.command()
@click.argument("mountpoint", required=False)
@click.option("--json", "as_json", is_flag=True, help="For programs: one object a line.")
@click.option("--watch", is_flag=True, help="Look again every second, until unmounted.")
@click.option(
    "--all", "everything", is_flag=True, help="Name all that the mount tells: 200 at most."
)
def status(mountpoint: str | None, as_json: bool, watch: bool, everything: bool) -> None:
    """Show what is not on the grid yet, and what failed and why.

    Of the mount on MOUNTPOINT, or of all your mounts. What was written is accepted when a
    program's call returns: it is kept on this machine until it is on the grid. Nothing is ever
    given up: what failed is tried again and again.
    """
    found = [mount_on(mountpoint)] if mountpoint else running()
    if not found:
        click.echo("nothing of lafsfs is mounted", err=True)
        return
    if watch:
        watch_until_ended(found, as_json=as_json, everything=everything)
        return
    for record in found:
        tell(record, status_of(record), as_json=as_json, everything=everything)


def watch_until_ended(found: list[MountRecord], *, as_json: bool, everything: bool) -> None:
    """Tell again and again, until none of the mounts answers any more."""
    from lafsfs.control.client import NoAnswerError

    while found:
        told = []
        for record in found:
            try:
                told.append((record, status_of(record)))
            except NoAnswerError:
                continue
        if told and sys.stdout.isatty() and not as_json:
            click.clear()
        for record, values in told:
            tell(record, values, as_json=as_json, everything=everything)
        found = [record for record, _ in told]
        if found:
            time.sleep(WATCH_EVERY)


def tell(record: MountRecord, values: Status, *, as_json: bool, everything: bool) -> None:
    """One mount's status on standard output."""
    if as_json:
        from lafsfs.control.messages import status_object

        told = {"mountpoint": str(record.mountpoint), **status_object(values)}
        click.echo(json.dumps(told))
        return
    for line in shown(str(record.mountpoint), values, everything=everything):
        click.echo(line)


@click.command()
@click.argument("mountpoint")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer.")
def flush(mountpoint: str, timeout: float | None) -> None:
    """Bring what was written to the grid now, and wait for it.

    All that was written under MOUNTPOINT; what is written meanwhile is not waited for. Exits with 1
    if not everything is on the grid; it is kept and tried again all the same.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    record = mount_on(mountpoint)
    last: Reply | None = None
    with pending_bar() as show, closing(ask_mount(record, "flush")) as replies:
        for last in replies:
            if last.errors is not None:
                break
            show(last.status)
            if deadline is not None and time.monotonic() >= deadline:
                break
    if last is None:
        raise LocalError("the mount ended before everything was on the grid")
    require_flushed(last, timeout)


def require_flushed(last: Reply, timeout: float | None) -> None:
    """Raises LocalError unless the last answer says that everything is on the grid."""
    from lafsfs.vfs.status import State, pending_amount

    pending = last.status
    amount = pending_amount(pending.files, pending.names, pending.size)
    if last.errors is None:
        ended = "the mount ended" if timeout is None else f"{timeout:g} seconds were over"
        if pending.is_settled:
            return
        raise LocalError(f"{ended} before everything was on the grid: {amount} pending")
    if not last.errors:
        return
    failed = next((file for file in pending.pending if file.state is State.FAILED), None)
    reason = last.errors[0] if failed is None else f"{failed.path}: {failed.error}"
    raise LocalError(f"{amount} not on the grid, and tried again: {reason}")


def mount_on(mountpoint: str) -> MountRecord:
    """The record of the mount that a path is in. Raises MountError if there is none of ours."""
    state = Places.find().state
    path = Path(mountpoint).expanduser().absolute()
    for spelled in (path, path.parent.resolve() / path.name):  # nothing inside a mount is touched
        for place in (spelled, *spelled.parents):
            record = MountRecord(state, place)
            if record.is_held():
                return record
            if find_mount(place) is not None:
                require_ours(place)
                raise MountError(died(place))
    raise MountError(f"nothing of lafsfs is mounted on {mountpoint}")


def running() -> list[MountRecord]:
    """Every mount of this user's whose process lives; those that have died are warned about."""
    found = records(Places.find().state)
    living = [record for record in found if record.is_held()]
    for record in found:
        if record not in living and find_mount(record.mountpoint) is not None:
            warn(died(record.mountpoint))
    return living


def status_of(record: MountRecord) -> Status:
    """Ask a mount. Raises NoAnswerError if it does not answer."""
    from lafsfs.control.client import NoAnswerError

    with closing(ask_mount(record, "status")) as replies:
        for reply in replies:
            return reply.status
    raise NoAnswerError(f"the mount on {record.mountpoint} does not answer")


def ask_mount(record: MountRecord, verb: str) -> Generator[Reply, None, None]:
    """The answers of a mount's process."""
    from lafsfs.control.client import ask

    return ask(record.socket, verb)
