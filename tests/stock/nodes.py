"""Stock nodes: made by stock's own commands, configured in their files, run as processes."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.stock.processes import Service, answers, wait_until
from tests.stock.web import WebClient

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def find_tahoe() -> Path | None:
    """The stock command named by ``$TAHOE`` or found on the PATH, if it is there."""
    named = shutil.which(os.environ.get("TAHOE") or "tahoe")
    return Path(named).absolute() if named else None


@dataclass(frozen=True)
class Shares:
    """A client's ``shares.*``."""

    needed: int
    happy: int
    total: int

    @property
    def options(self) -> list[str]:
        """For ``tahoe create-client``."""
        return [
            f"--shares-needed={self.needed}",
            f"--shares-happy={self.happy}",
            f"--shares-total={self.total}",
        ]


class Node(Service):
    """One stock node and its directory."""

    patience = 3.0  # a client that has lost a server before never ends, and nothing is lost

    def __init__(self, tahoe: Path, directory: Path) -> None:
        super().__init__(
            [str(tahoe), "run", "--allow-stdin-close", str(directory)],
            directory.with_name(directory.name + ".log"),
        )
        self.directory = directory

    @property
    def private(self) -> Path:
        """Where its secrets are."""
        return self.directory / "private"

    @property
    def storage(self) -> Path:
        """Where its shares are, if it has any."""
        return self.directory / "storage"

    def start_again(self) -> None:
        """Start one that has been up before, and wait until it can be reached."""
        self.start()
        port = int(self._configuration().get("node", "tub.port").split(":")[1])
        wait_until(lambda: answers(port), f"{self.directory.name} answers", why_not=self.last_words)

    def configure(self, section: str, option: str, value: str) -> None:
        """Change ``tahoe.cfg`` for the next start."""
        parser = self._configuration()
        parser.set(section, option, value)
        with (self.directory / "tahoe.cfg").open("w") as file:
            parser.write(file)

    def _configuration(self) -> configparser.ConfigParser:
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(self.directory / "tahoe.cfg")
        return parser


class Client(Node):
    """A node with a web API."""

    def __init__(self, tahoe: Path, directory: Path, web_port: int) -> None:
        super().__init__(tahoe, directory)
        self.web = WebClient(f"http://127.0.0.1:{web_port}")

    def wait_for(self, count: int, servers: Sequence[Node] = ()) -> None:
        """Wait until it is connected to exactly ``count`` storage servers.

        It asks them every second. ``servers``: nodes to be quoted when it does not come to that.
        """

        def why_not() -> str:
            states = [f"{s['nickname']}: {s['connection_status']}" for s in self.web.servers()]
            return "\n".join([*states, *(node.last_words() for node in (self, *servers))])

        what = f"the stock client is connected to {count} servers"
        wait_until(lambda: self.web.connected() == count, what, why_not=why_not)


def introducer_command(node: Node, port: int) -> list[str]:
    """Creates an introducer."""
    return ["create-introducer", *_at(port), str(node.directory)]


def server_command(node: Node, port: int, furl: str) -> list[str]:
    """Creates a node that only stores."""
    introducer, name = f"--introducer={furl}", f"--nickname={node.directory.name}"
    return ["create-node", *_at(port), introducer, "--webport=none", name, str(node.directory)]


def client_command(node: Node, web_port: int, furl: str | None, shares: Shares) -> list[str]:
    """Creates a node that only uses; ``furl`` is None for one without an introducer."""
    introducer = [] if furl is None else [f"--introducer={furl}"]
    options = [*introducer, _web_at(web_port), *shares.options]
    return ["create-client", *options, str(node.directory)]


def self_serving_command(
    node: Node, port: int, web_port: int, furl: str, shares: Shares
) -> list[str]:
    """Creates a node that stores and uses."""
    options = [f"--introducer={furl}", _web_at(web_port), *shares.options]
    return ["create-node", *_at(port), *options, str(node.directory)]


def _at(port: int) -> list[str]:
    return [f"--port=tcp:{port}:interface=127.0.0.1", f"--location=tcp:127.0.0.1:{port}"]


def _web_at(port: int) -> str:
    return f"--webport=tcp:{port}:interface=127.0.0.1"


def create(tahoe: Path, commands: Iterable[list[str]]) -> None:
    """Run ``tahoe create-...`` commands side by side."""
    processes = [
        subprocess.Popen(
            [tahoe, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for command in commands
    ]
    said = [process.communicate()[0] for process in processes]
    for process, text in zip(processes, said, strict=True):
        if process.returncode:
            raise RuntimeError(f"{process.args!r}: {text.decode(errors='replace')}")
