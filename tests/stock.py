"""Stock Tahoe-LAFS on loopback, for comparing with (``make bench``) and living with (interop).

Stock runs from an environment of its own, never from ours. A grid is an introducer, storage servers
and a client with a web API, each a process, each started with ``--allow-stdin-close`` and ended by
its process id. Ports are whatever is free. Nothing here sleeps for a time: it waits for conditions,
and when one does not come true it says which, with the end of the node's log.
"""

from __future__ import annotations

import configparser
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

START_SECONDS = 90.0  # a node on a busy two-core machine takes about five
STOP_SECONDS = 30.0
REQUEST_SECONDS = 120.0  # for one request to the web API: a 100 MB upload takes 20
LOG_LINES = 20  # of a node that did not do what it should


def find_tahoe() -> Path | None:
    """The stock command named by ``$TAHOE`` or found on the PATH."""
    named = os.environ.get("TAHOE") or shutil.which("tahoe")
    return Path(named).absolute() if named else None


def free_ports(count: int) -> list[int]:
    """TCP ports on loopback that nobody uses, all different."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def wait_until(
    ready: Callable[[], bool],
    what: str,
    *,
    seconds: float = START_SECONDS,
    why_not: Callable[[], str] = str,
) -> None:
    """Return as soon as ``ready()`` is true; say ``what`` did not come true, and ``why_not()``."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}\n{why_not()}")
        time.sleep(0.05)


# --- the web API ----------------------------------------------------------------------------------


class WebError(Exception):
    """What the web API refused: ``status``, and the first lines of why."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status}: {body.decode(errors='replace')[:1000]}")
        self.status = status


class WebClient:
    """The web API of a stock client. Paths are lists of names below a directory's capability."""

    def __init__(self, url: str) -> None:
        self.url = url

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """One request. Raises WebError."""
        request = urllib.request.Request(self.url + path, data=body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as reply:
                answer: bytes = reply.read()
                return answer
        except urllib.error.HTTPError as error:
            with error:
                raise WebError(error.code, error.read()) from None

    def json(self, method: str, path: str, body: bytes | None = None) -> Any:
        """One request that is answered in JSON."""
        return json.loads(self.request(method, path, body))

    @staticmethod
    def path(cap: str, *names: str) -> str:
        """The URL's path of what is under ``names`` below a capability."""
        return "/uri/" + "/".join(quote(part, safe=":") for part in (cap, *names))

    def put(self, contents: bytes, format: str = "chk") -> str:
        """Store a file that is in no directory; its capability."""
        return self.request("PUT", f"/uri?format={format}", contents).decode()

    def get(self, cap: str, *names: str) -> bytes:
        return self.request("GET", self.path(cap, *names))

    def put_child(self, cap: str, *names: str, contents: bytes, format: str | None = None) -> str:
        """Store a file under a name; without a ``format`` a mutable one is overwritten in place."""
        chosen = f"?format={format}" if format else ""
        return self.request("PUT", self.path(cap, *names) + chosen, contents).decode()

    def make_directory(self, format: str = "sdmf") -> str:
        return self.request("POST", f"/uri?t=mkdir&format={format}").decode()

    def make_child_directory(self, cap: str, *names: str, format: str = "sdmf") -> str:
        path = f"{self.path(cap, *names)}?t=mkdir&format={format}"
        return self.request("POST", path).decode()

    def make_immutable_directory(self, children: Mapping[str, str]) -> str:
        """A directory that never changes; ``children``: names to immutable capabilities."""
        body = json.dumps(self._table(children)).encode()
        return self.request("POST", "/uri?t=mkdir-immutable", body).decode()

    def link(self, cap: str, children: Mapping[str, str]) -> None:
        """Put capabilities under names, all at once."""
        self.link_as(cap, self._table(children))

    def link_as(self, cap: str, children: Mapping[str, Any]) -> None:
        """The same for children that are described as :meth:`information` does."""
        body = json.dumps(children).encode()
        self.request("POST", self.path(cap) + "?t=set_children", body)

    def read_cap(self, cap: str) -> str:
        """The capability that only reads."""
        read_cap: str = self.information(cap)[1]["ro_uri"]
        return read_cap

    def _table(self, children: Mapping[str, str]) -> dict[str, Any]:
        return {name: self.information(cap) for name, cap in children.items()}

    def unlink(self, cap: str, *names: str) -> None:
        self.request("DELETE", self.path(cap, *names))

    def rename(self, cap: str, name: str, new_name: str) -> None:
        query = f"?t=rename&from_name={quote(name)}&to_name={quote(new_name)}"
        self.request("POST", self.path(cap) + query)

    def information(self, cap: str, *names: str) -> Any:
        """``[kind, {...}]`` as the web API describes an object."""
        return self.json("GET", self.path(cap, *names) + "?t=json")

    def children(self, cap: str, *names: str) -> dict[str, Any]:
        """A directory's children, as the web API describes them."""
        kind, directory = self.information(cap, *names)
        assert kind == "dirnode"
        children: dict[str, Any] = directory["children"]
        return children

    def check(self, cap: str) -> Any:
        """``tahoe check --verify``: every byte of every share."""
        return self.json("POST", self.path(cap) + "?t=check&verify=true&output=JSON")

    def deep_check(self, cap: str) -> list[Any]:
        """``tahoe deep-check --verify``: one result for each object in a tree."""
        path = self.path(cap) + "?t=stream-deep-check&verify=true"
        units = [json.loads(line) for line in self.request("POST", path).splitlines() if line]
        return [unit for unit in units if unit["type"] != "stats"]

    def servers(self) -> list[dict[str, Any]]:
        """The storage servers the client knows; none while it does not answer."""
        try:
            known: list[dict[str, Any]] = self.json("GET", "/?t=json")["servers"]
        except (OSError, WebError):
            return []
        return known

    def connected(self) -> int:
        """How many storage servers the client is connected to."""
        states = (server["connection_status"].lower() for server in self.servers())
        return sum(state.startswith("connected") for state in states)


# --- nodes ----------------------------------------------------------------------------------------


@dataclass
class Node:
    """One stock node: its directory, and its process while it runs."""

    tahoe: Path
    directory: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        return self.directory.with_name(self.directory.name + ".log")

    @property
    def private(self) -> Path:
        return self.directory / "private"

    @property
    def storage(self) -> Path:
        return self.directory / "storage"

    def start(self) -> None:
        """Start it; whether it has come up is for the caller to find out."""
        assert self.process is None
        command = [str(self.tahoe), "run", "--allow-stdin-close", str(self.directory)]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait until it has ended; nothing happens if it does not run."""
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)  # or one that hangs would never hear it
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End it as a power cut would."""
        self.stop(signal.SIGKILL)

    def hang(self) -> None:
        """Let it keep its connections and say nothing, until :meth:`go_on`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def configure(self, section: str, option: str, value: str | None) -> None:
        """Change ``tahoe.cfg`` for the next start; ``None`` takes a setting out."""
        path = self.directory / "tahoe.cfg"
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(path)
        if value is None:
            parser.remove_option(section, option)
        else:
            parser.set(section, option, value)
        with path.open("w") as file:
            parser.write(file)

    def last_words(self) -> str:
        """The end of its log, and its state."""
        state = "not started" if self.process is None else f"exit code {self.process.poll()}"
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join([f"{self.directory.name}: {state}", *lines[-LOG_LINES:]])


@dataclass
class Grid:
    """An introducer, storage servers, and a client; all run.

    The client is one of the servers where it serves by itself (:func:`stock_node`).
    """

    introducer: Node
    servers: list[Node]
    client: Node
    web: WebClient

    def wait_for(self, count: int) -> None:
        """Wait until the client is connected to ``count`` servers."""
        wait_until(
            lambda: self.web.connected() == count,
            f"the stock client is connected to {count} servers",
            why_not=self._why_not,
        )

    def _why_not(self) -> str:
        states = [f"{s['nickname']}: {s['connection_status']}" for s in self.web.servers()]
        nodes = (self.introducer, self.client, *self.servers)
        return "\n".join([*states, *(node.last_words() for node in nodes)])


@dataclass(frozen=True)
class Shares:
    """A client's ``shares.*``."""

    needed: int
    happy: int
    total: int

    @property
    def options(self) -> list[str]:
        return [
            f"--shares-needed={self.needed}",
            f"--shares-happy={self.happy}",
            f"--shares-total={self.total}",
        ]


def at(port: int) -> list[str]:
    """The options of a node that listens there."""
    return [f"--port=tcp:{port}:interface=127.0.0.1", f"--location=tcp:127.0.0.1:{port}"]


def web_at(port: int) -> str:
    return f"--webport=tcp:{port}:interface=127.0.0.1"


def storage_server(node: Node, port: int, furl: str) -> list[str]:
    """The command that creates a node which only stores."""
    name = node.directory.name
    introducer = f"--introducer={furl}"
    options = [*at(port), introducer, "--webport=none", f"--nickname={name}"]
    return ["create-node", *options, str(node.directory)]


def client_of(node: Node, web_port: int, furl: str, shares: Shares) -> list[str]:
    """The command that creates a node which only uses."""
    options = [f"--introducer={furl}", web_at(web_port), *shares.options]
    return ["create-client", *options, str(node.directory)]


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


@contextmanager
def started(*nodes: Node) -> Iterator[None]:
    """Nodes that run while the block does, or until somebody ends them before."""
    with ExitStack() as stack:
        for node in nodes:
            node.start()
            stack.callback(node.stop)
        yield


@contextmanager
def running_introducer(tahoe: Path, base: Path) -> Iterator[tuple[Node, str]]:
    """An introducer, and its fURL."""
    introducer = Node(tahoe, base / "introducer")
    (port,) = free_ports(1)
    create(tahoe, [["create-introducer", *at(port), str(introducer.directory)]])
    furl = introducer.private / "introducer.furl"
    with started(introducer):
        wait_until(furl.exists, "the introducer has a fURL", why_not=introducer.last_words)
        yield introducer, furl.read_text().strip()


@contextmanager
def stock_grid(tahoe: Path, base: Path, *, servers: int, shares: Shares) -> Iterator[Grid]:
    """A real grid; gone when the block ends. ``base`` is a directory that exists."""
    with running_introducer(tahoe, base) as (introducer, furl):
        *ports, web_port = free_ports(servers + 1)
        nodes = [Node(tahoe, base / f"server{number}") for number in range(servers)]
        client = Node(tahoe, base / "client")
        commands = [storage_server(*pair, furl) for pair in zip(nodes, ports, strict=True)]
        commands.append(client_of(client, web_port, furl, shares))
        create(tahoe, commands)
        with started(*nodes, client):
            web = WebClient(f"http://127.0.0.1:{web_port}")
            grid = Grid(introducer, nodes, client, web)
            grid.wait_for(servers)
            yield grid


@contextmanager
def stock_node(
    tahoe: Path, base: Path, *, prepare: Callable[[Node], None] = lambda node: None
) -> Iterator[Grid]:
    """One node that stores for itself, 1-of-1 like the embedded default grid.

    ``prepare`` is called before the node's first start.
    """
    with running_introducer(tahoe, base) as (introducer, furl):
        port, web_port = free_ports(2)
        node = Node(tahoe, base / "node")
        join = [f"--introducer={furl}", web_at(web_port), *Shares(1, 1, 1).options]
        create(tahoe, [["create-node", *at(port), *join, str(node.directory)]])
        prepare(node)
        with started(node):
            web = WebClient(f"http://127.0.0.1:{web_port}")
            grid = Grid(introducer, [node], node, web)
            grid.wait_for(1)
            yield grid
