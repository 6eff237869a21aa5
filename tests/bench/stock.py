"""A stock Tahoe-LAFS node on loopback, 1-of-1 like the embedded default grid: what we compare with.

Stock runs from an environment of its own (``make bench`` makes it), never from ours. Every process
is started with ``--allow-stdin-close`` and ended by its process id.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

START_SECONDS = 60.0  # a node on a busy two-core machine takes about five


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(ready: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + START_SECONDS
    while not ready():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} did not start within {START_SECONDS:.0f} s")
        time.sleep(0.1)


class StockNode:
    """The web API of a running stock node."""

    def __init__(self, web: str, directory: Path) -> None:
        self.web = web
        self.directory = directory

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.web + path, data=body, method=method)
        with urllib.request.urlopen(request) as reply:
            answer: bytes = reply.read()
            return answer

    def put(self, contents: bytes) -> str:
        return self.request("PUT", "/uri?format=chk", contents).decode()

    def get(self, cap: str) -> bytes:
        return self.request("GET", f"/uri/{cap}")

    def make_directory(self) -> str:
        return self.request("POST", "/uri?t=mkdir").decode()

    def put_child(self, directory: str, name: str, contents: bytes) -> None:
        self.request("PUT", f"/uri/{directory}/{name}", contents)

    def make_child_directory(self, directory: str, name: str) -> None:
        self.request("POST", f"/uri/{directory}/{name}?t=mkdir")

    def connected(self) -> bool:
        try:
            status = json.loads(self.request("GET", "/?t=json"))
        except (OSError, urllib.error.URLError):
            return False
        return any(
            s["connection_status"].lower().startswith("connected") for s in status["servers"]
        )


@contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextmanager
def stock_node(tahoe: Path, base: Path) -> Iterator[StockNode]:
    """One introducer and one node that stores and serves; gone when the block ends."""
    intro_port, node_port, web_port = free_port(), free_port(), free_port()

    def local(port: int) -> list[str]:
        return [
            f"--port=tcp:{port}:interface=127.0.0.1",
            f"--location=tcp:127.0.0.1:{port}",
        ]

    def make(*arguments: str) -> None:
        subprocess.run([tahoe, *arguments], check=True, stdout=subprocess.DEVNULL)

    intro, node = base / "introducer", base / "node"
    with ExitStack() as stack:
        make("create-introducer", *local(intro_port), str(intro))
        run = [str(tahoe), "run", "--allow-stdin-close"]
        stack.enter_context(running([*run, str(intro)], base / "introducer.log"))
        furl = intro / "private" / "introducer.furl"
        wait_until(furl.exists, "the introducer")
        shares = ["--shares-needed=1", "--shares-happy=1", "--shares-total=1"]
        web = f"--webport=tcp:{web_port}:interface=127.0.0.1"
        make(
            "create-node",
            *local(node_port),
            f"--introducer={furl.read_text().strip()}",
            web,
            *shares,
            str(node),
        )
        stack.enter_context(running([*run, str(node)], base / "node.log"))
        stock = StockNode(f"http://127.0.0.1:{web_port}", node)
        wait_until(stock.connected, "the node")
        yield stock


def find_tahoe() -> Path | None:
    """The stock command named by ``$TAHOE`` or found on the PATH."""
    named = os.environ.get("TAHOE") or shutil.which("tahoe")
    return Path(named) if named else None
