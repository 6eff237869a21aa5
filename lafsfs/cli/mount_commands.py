"""``lafsfs mount`` and ``lafsfs umount``."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lafsfs.cli.aliases import HOME
from lafsfs.cli.background import BackgroundError, run_in_background
from lafsfs.cli.config import Places
from lafsfs.cli.locations import find_location
from lafsfs.cli.logs import log_messages, log_with_times
from lafsfs.cli.mount_record import MountRecord
from lafsfs.cli.mount_table import find_mount
from lafsfs.cli.mountpoints import absolute, clear_dead, detach, typed
from lafsfs.cli.progress import pending_bar
from lafsfs.cli.session import (
    aliases_of,
    create_alias,
    default_alias,
    directory_format_of,
    run_on_grid,
    settings_of,
    with_config,
)
from lafsfs.cli.tree_commands import mutable_format
from lafsfs.cli.warning import warn
from lafsfs.errors import LocalError, MountError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lafsfs.caps import Cap, UnknownCap
    from lafsfs.cli.config import Config
    from lafsfs.cli.locations import Location
    from lafsfs.nodes.maker import NodeMaker
    from lafsfs.vfs.status import Left

LOOK_EVERY = 0.25  # seconds between two looks at a mount that is ending


@click.command()
@click.argument("what_and_where", nargs=-1, metavar="[WHAT] MOUNTPOINT")
@click.option(
    "-o",
    "options",
    multiple=True,
    metavar="OPTIONS",
    help="See above; repeatable.",
)
@click.option("-f", "--foreground", is_flag=True, help="Stay, until unmounted or interrupted.")
@with_config
def mount(
    config: Config, what_and_where: tuple[str, ...], options: tuple[str, ...], foreground: bool
) -> None:
    """Mount WHAT, home: by default, on the directory MOUNTPOINT.

    WHAT is an alias, alias:path, or - for a capability on standard input. The alias home: is made
    when it is first used. With --node-dir the aliases are the Tahoe node's, and tahoe: the default.
    MOUNTPOINT must exist and be empty. The mount goes on in the background; its log is lafsfs.log
    in ~/.local/state/lafsfs.

    \b
    lafsfs mount ~/lafs
    lafsfs mount home:photos ~/photos -o ro
    lafsfs mount --storage /mnt/disk1 --storage /mnt/disk2 ~/lafs
    lafsfs mount --node-dir ~/.tahoe tahoe: ~/lafs

    What -o takes, separated by commas:

    \b
    ro                     refuse all changes
    sync                   closing a file waits until it is on the grid
    allow_other            other users may use the folder, too
    uid=N gid=N umask=OCT  shown instead of what is stored
    deadline=SECONDS       when a read that is not answered fails (60)
    refresh=SECONDS        how often to look for others' changes (2)
    quiet=SECONDS          how long a file rests before it goes to the grid (1)
    """
    if not 1 <= len(what_and_where) <= 2:
        raise click.UsageError("say what to mount (home: by default) and where")
    what, where = (default_alias(config), *what_and_where)[-2:]
    mountpoint = Path(where).expanduser().resolve()
    wanted = what_to_mount(config, what)
    all_options = ",".join((config.mount_options, *options))

    def work(ready: Callable[[Sequence[str]], None]) -> None:
        serve(config, wanted, mountpoint, all_options, ready)

    def tell(notes: Sequence[str]) -> None:
        shown = f"{HOME}:" if wanted is None else wanted.shown
        for line in (*told(config, shown, mountpoint), *(f"  {note}" for note in notes)):
            click.echo(line)

    if foreground:
        work(lambda notes: tell(()))  # they are in the log, which is seen
        return
    try:
        notes = run_in_background(work, config.places.state / "lafsfs.log")
    except BackgroundError as error:
        click.echo(f"lafsfs: {error}", err=True)
        raise click.exceptions.Exit(error.code) from None
    tell(notes)


def what_to_mount(config: Config, what: str) -> Location | None:
    """The location to mount, or None for a home: that is yet to be made."""
    aliases = aliases_of(config)
    own = config.node_directory is None
    if own and what == f"{HOME}:" and HOME not in aliases:
        return None
    return find_location(what, aliases)


def told(config: Config, shown: str, mountpoint: Path) -> list[str]:
    """What to say once the mount is there."""
    return [
        f"{shown} is mounted on {mountpoint}",
        f"  unmount with   {typed('umount', str(mountpoint))}",
        *(f"  shares in      {path}" for path in config.storage),
        *([f"  Tahoe node     {config.node_directory}"] if config.node_directory else []),
        f"  configuration  {config.places.config}",
    ]


def serve(
    config: Config,
    wanted: Location | None,
    mountpoint: Path,
    options: str,
    ready: Callable[[Sequence[str]], None],
) -> None:
    """Mount and serve until unmounted, in this process.

    Raises:
        MountError: the mount cannot be made.
        LafsError: the root cannot be read.
    """
    import trio

    from lafsfs.fuse.options import MountOptions
    from lafsfs.fuse.session import check_mountpoint
    from lafsfs.mount import run_mount

    log_messages()
    parsed = MountOptions.parse(options)
    directory_format = mutable_format(directory_format_of(config))
    assert directory_format is not None
    record = MountRecord(config.places.state, mountpoint)
    if clear_dead(mountpoint, record):
        warn(f"the process of an earlier mount on {mountpoint} had ended")
    check_mountpoint(mountpoint)

    def at_work(notes: Sequence[str]) -> None:
        ready(notes)
        log_with_times()  # standard error is the log by now

    with record.held():
        root = root_of(config, wanted)

        async def run() -> Left | None:
            return await run_mount(
                settings_of(config),
                root,
                mountpoint,
                parsed,
                directory_format=directory_format,
                control=record.socket,
                ready=at_work,
            )

        left = trio.run(run)
        record.left = None if left is None else str(left)


def root_of(config: Config, wanted: Location | None) -> Cap:
    """The capability to mount; home: is made now if it is not there yet."""
    from lafsfs.caps import UnknownCap

    if wanted is None:
        format = mutable_format(directory_format_of(config))
        assert format is not None
        return create_alias(config, HOME, format)
    if not wanted.path:
        return wanted.root

    async def found(maker: NodeMaker) -> Cap | UnknownCap:
        from lafsfs.cli.tree import find_cap

        return await find_cap(maker, wanted)

    cap = run_on_grid(config, found)
    if isinstance(cap, UnknownCap):
        raise UsageError(f"{wanted.shown} is of a kind that this version cannot mount")
    return cap


@click.command()
@click.argument("mountpoint")
@click.option("--lazy", is_flag=True, help="Even if it is in use: the mount ends when it is not.")
@click.option("--now", is_flag=True, help="Do not wait for the grid: the journal keeps the rest.")
def umount(mountpoint: str, lazy: bool, now: bool) -> None:
    """Unmount, once everything that was written is on the grid.

    The folder is free at once; the waiting can be interrupted, and goes on in the background. What
    cannot be brought to the grid, or is not to be waited for (--now), stays in the journal on this
    machine, and the next mount brings it there. Exits with 1 if not everything is on the grid,
    unless that was wanted.
    """
    path = absolute(Path(mountpoint).expanduser())
    record = MountRecord(Places.find().state, path)
    if find_mount(path) is not None:
        detach(path, lazy=lazy)
    elif not record.is_held():
        raise MountError(f"nothing of lafsfs is mounted on {path}")
    if now:
        leave(record)
    elif not gone_soon(record):
        show_waiting(record, lazy=lazy)
    if lazy and not gone_soon(record):
        click.echo(f"{path} is free; the mount ends when nothing uses it any more")
        return
    ended = record.wait()
    if ended is None:
        return
    record.forget()
    if ended.error is not None:
        raise LocalError(f"the mount ended with an error: {ended.error}")
    if ended.left is not None and now:
        click.echo(ended.left)
    elif ended.left is not None:
        raise LocalError(ended.left)
    elif ended.pid:
        raise LocalError(
            "the process of this mount had ended before: what was accepted is in the journal, "
            "and the next mount brings it to the grid"
        )


def leave(record: MountRecord) -> None:
    """Tell the process of a mount that was unmounted not to wait for the grid."""
    from lafsfs.control.client import NoAnswerError, ask

    with contextlib.suppress(NoAnswerError):  # it has ended already
        list(ask(record.socket, "leave"))


def show_waiting(record: MountRecord, *, lazy: bool) -> None:
    """Show what is pending until the process of a mount has ended, or does not answer.

    ``lazy``: or until nothing is pending, since the mount lasts for as long as it is in use.
    """
    from lafsfs.control.client import NoAnswerError, ask

    if not sys.stderr.isatty():
        click.echo("waiting until everything is on the grid", err=True)
    with pending_bar() as show, contextlib.suppress(NoAnswerError):
        while record.is_held():
            for reply in ask(record.socket, "status"):
                show(reply.status)
                if lazy and reply.status.is_settled:
                    return
            time.sleep(LOOK_EVERY)


def gone_soon(record: MountRecord) -> bool:
    """Whether the process that serves the mount ends within a second or so."""
    for _ in range(10):
        if not record.is_held():
            return True
        time.sleep(0.1)
    return False
