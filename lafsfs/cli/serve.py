"""``lafsfs serve``: a storage directory for everybody who has its NURL."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lafsfs.cli.config import Places, load_config
from lafsfs.cli.sizes import parse_size
from lafsfs.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from lafsfs.gbs.service import Service
    from lafsfs.gbs.service.run import Address

DEFAULT_LISTEN = "3457"  # Tahoe's web API has 3456
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # end it in an orderly way
MAX_FILES = 1 << 16  # open at a time: two for each connection, at most

_ADDRESS = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]*):)?(?P<port>[0-9]{1,5})")
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(?P<port>[0-9]{1,5}))?")


@click.command()
@click.option(
    "--storage",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The directory to serve; made if there is none. By default the one that mounts use.",
)
@click.option(
    "--listen",
    multiple=True,
    default=[DEFAULT_LISTEN],
    show_default=True,
    metavar="ADDRESS",
    help="PORT, HOST:PORT or [IPV6]:PORT; without a host, all of this machine's. Repeatable.",
)
@click.option(
    "--advertise",
    multiple=True,
    metavar="HOST[:PORT]",
    help="How clients reach it, if not as it listens: what the NURL says. Repeatable.",
)
@click.option("--reserve", default="0", metavar="SIZE", help="Room to leave free, such as 20G.")
@click.option("--read-only", is_flag=True, help="Take no writes of any kind.")
@click.option(
    "--nickname", metavar="NAME", help="What clients call it. By default the host's name."
)
@click.option("--metrics", metavar="ADDRESS", help="HOST:PORT for Prometheus: a loopback address.")
def serve(
    storage: Path | None,
    listen: tuple[str, ...],
    advertise: tuple[str, ...],
    reserve: str,
    read_only: bool,
    nickname: str | None,
    metrics: str | None,
) -> None:
    """Serve a storage directory over HTTPS.

    To lafsfs and to Tahoe-LAFS 1.19 or later. Prints its NURL: whoever has that may store and read
    shares here. It is kept in DIR/nurl, beside DIR/announcement.yaml, which goes into
    private/servers.yaml of Tahoe clients.
    """
    import logging

    import trio

    from lafsfs.grid.known import open_directories

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    places = Places.find()
    directory = storage.absolute() if storage else only_directory(places)
    addresses = [parse_address(text) for text in listen]
    advertised = [parse_host(text) for text in advertise]
    metrics_at = parse_address(metrics) if metrics else None
    reserved = parse_room(reserve)
    name = nickname or socket.gethostname()
    allow_files()
    try:
        places.config.mkdir(0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make {places.config}: {error.strerror}") from None

    async def run() -> None:
        from lafsfs.gbs.service import running_service

        known = places.config / "storage.json"
        with trio.open_signal_receiver(*STOPPING) as signals:  # first: one may come at any time
            async with (
                open_directories([directory], known, reserved=reserved, read_only=read_only) as (
                    server,
                ),
                running_service(
                    server, listen=addresses, advertise=advertised, metrics_at=metrics_at
                ) as service,
            ):
                await trio.to_thread.run_sync(service.identity.publish, service.nurls, name)
                tell(service, directory)
                await anext(aiter(signals))

    trio.run(run)


def only_directory(places: Places) -> Path:
    """The one directory that is configured. Raises UsageError where there are several."""
    configured = load_config(places).storage or (places.data / "storage",)
    if len(configured) > 1:
        raise UsageError("several storage directories are configured: choose one with --storage")
    return configured[0]


def tell(service: Service, directory: Path) -> None:
    """Print the NURLs, and on standard error what to do with them."""
    for nurl in service.nurls:
        click.echo(nurl.danger_text())
    where = ", ".join(nurl.authority for nurl in service.nurls)
    click.echo(f"serving {directory} at {where}", err=True)
    click.echo(f"  for lafsfs         what {directory}/nurl says", err=True)
    click.echo(f"  for Tahoe clients  {directory}/announcement.yaml", err=True)
    if service.metrics_port is not None:
        click.echo(f"  metrics            port {service.metrics_port}", err=True)
    if not service.identity.certified:
        click.echo(
            "lafsfs: warning: the files here were stored under an id that has no certificate; to "
            "change them, clients need the announcement and not only the NURL",
            err=True,
        )


def allow_files() -> None:
    """Let this process open as many files as it may need for all its connections."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# --- what is typed --------------------------------------------------------------------------------


def parse_address(text: str) -> Address:
    """``PORT``, ``HOST:PORT`` or ``[IPV6]:PORT``. Raises UsageError."""
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) >= 1 << 16:
        raise UsageError(f"{text!r} is not PORT, HOST:PORT or [IPV6]:PORT")
    return (match["host"] or "").strip("[]") or None, int(match["port"])


def parse_host(text: str) -> tuple[str, int | None]:
    """``HOST``, ``HOST:PORT``, ``[IPV6]`` or ``[IPV6]:PORT``. Raises UsageError."""
    match = _HOST.fullmatch(text)
    port = int(match["port"]) if match and match["port"] else None
    if match is None or (port is not None and not 0 < port < 1 << 16):
        raise UsageError(f"{text!r} is not HOST or HOST:PORT")
    return match["host"].strip("[]"), port


def parse_room(text: str) -> int:
    """Bytes to leave free. Raises UsageError."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(f"--reserve {error}") from None
