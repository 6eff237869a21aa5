"""``lafsfs serve``: what is typed, what is printed and kept, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
import yaml

from lafsfs.cli.serve import parse_address, parse_host, parse_room
from lafsfs.errors import UsageError
from lafsfs.gbs.nurl import parse_nurl
from lafsfs.gbs.server import GBSServer
from tests.grid import contract

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Run


class Serving:
    """A ``lafsfs serve`` in a process of its own."""

    def __init__(self, environment: dict[str, str | None], *arguments: str) -> None:
        given = {**os.environ, **environment}
        command = [sys.executable, "-W", "error", "-m", "lafsfs", "serve", *arguments]
        self.process = subprocess.Popen(
            command,
            env={name: value for name, value in given.items() if value is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.nurl = self.process.stdout.readline().strip()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Ask it to end; returns its exit code and what it said."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_serves_until_it_is_told_to_stop(
    home: Path, environment: dict[str, str | None], number: int
) -> None:
    serving = Serving(environment, "--listen", "127.0.0.1:0", "--nickname", "Carol")
    directory = home / "data" / "storage"
    try:
        trio.run(use, serving.nurl)
        assert (directory / "nurl").read_text().strip() == serving.nurl
        assert stat.S_IMODE((directory / "nurl").stat().st_mode) == 0o600
        (entry,) = yaml.safe_load((directory / "announcement.yaml").read_text())["storage"].values()
        assert entry["ann"]["nickname"] == "Carol"
        assert entry["ann"]["anonymous-storage-NURLs"] == [serving.nurl]
    finally:
        code, said = serving.end(number)
    assert code == 0
    assert f"serving {directory} at 127.0.0.1:" in said
    assert "Traceback" not in said
    assert serving.nurl.partition("#")[0].rpartition("/")[2] not in said


async def use(text: str) -> None:
    nurl = parse_nurl(text)
    server = GBSServer([nurl], server_id=b"i" * 20)
    await contract.store(server, b"data")
    assert await server.read_share(contract.IMMUTABLE, contract.SI, 0, 0, 10) == b"data"
    await server.aclose()


def test_it_is_found_again_where_it_was(home: Path, environment: dict[str, str | None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    arguments = ("--listen", f"127.0.0.1:{port}", "--storage", str(home / "shares-here"))
    first = Serving(environment, *arguments)
    assert first.end()[0] == 0
    second = Serving(environment, *arguments, "--read-only", "--reserve", "1GiB")
    assert second.end()[0] == 0
    assert second.nurl == first.nurl != ""


def test_an_unplugged_disk_is_not_made_anew(
    home: Path, environment: dict[str, str | None], run: Run
) -> None:
    disk = home / "disk"
    serving = Serving(environment, "--listen", "127.0.0.1:0", "--storage", str(disk))
    assert serving.end()[0] == 0
    disk.rename(home / "unplugged")
    disk.mkdir()
    result = run("serve", "--listen", "127.0.0.1:0", "--storage", str(disk), ok=False)
    assert "is empty" in result.stderr
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--listen", "nowhere"], 2, "not PORT, HOST:PORT"),
        (["--listen", "192.0.2.1:1"], 1, "cannot listen on 192.0.2.1, port 1"),
        (["--listen", "127.0.0.1:0", "--metrics", "0.0.0.0:0"], 2, "loopback"),
        (["--listen", "127.0.0.1:0", "--reserve", "much"], 2, "must be a size"),
        (["--listen", "127.0.0.1:0", "--advertise", "a:b"], 2, "not HOST"),
        (["--storage", "/proc/self/nowhere"], 1, "nowhere"),
    ],
)
def test_what_cannot_be_is_one_line(
    run: Run, arguments: list[str], code: int, message: str
) -> None:
    result = run("serve", *arguments, ok=False)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stdout == ""


def test_of_several_directories_one_is_chosen(
    home: Path, environment: dict[str, str | None], run: Run
) -> None:
    environment["LAFSFS_STORAGE"] = f"{home}/a{os.pathsep}{home}/b"
    assert "--storage" in run("serve", "--listen", "127.0.0.1:0", ok=False).stderr


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_address, "3457", (None, 3457)),
        (parse_address, ":0", (None, 0)),
        (parse_address, "127.0.0.1:65535", ("127.0.0.1", 65535)),
        (parse_address, "[::1]:80", ("::1", 80)),
        (parse_address, "localhost:80", ("localhost", 80)),
        (parse_host, "example.org", ("example.org", None)),
        (parse_host, "example.org:443", ("example.org", 443)),
        (parse_host, "[2001:db8::1]", ("2001:db8::1", None)),
        (parse_host, "[2001:db8::1]:443", ("2001:db8::1", 443)),
        (parse_room, "20G", 20 << 30),
    ],
)
def test_what_is_typed(parse: Callable[[str], Any], text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_address, ""),
        (parse_address, "65536"),
        (parse_address, "::1"),
        (parse_address, "::1:80"),
        (parse_address, "[::1]"),
        (parse_address, "host:"),
        (parse_address, "-1"),
        (parse_host, ""),
        (parse_host, "::1"),
        (parse_host, "host:0"),
        (parse_host, "host:65536"),
        (parse_host, "[::1"),
        (parse_room, "1Q"),
    ],
)
def test_what_makes_no_sense(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)
