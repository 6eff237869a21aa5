"""The web API of a stock client."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

REQUEST_SECONDS = 120.0  # for one request: a 100 MB upload takes 20


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
        headers = {"Accept": "text/plain, application/json"}  # or errors come as pages of HTML
        request = urllib.request.Request(self.url + path, body, headers, method=method)
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
        except OSError:
            return []
        return known

    def connected(self) -> int:
        """How many storage servers the client is connected to."""
        states = (server["connection_status"].lower() for server in self.servers())
        return sum(state.startswith("connected") for state in states)
