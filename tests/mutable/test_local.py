"""What directory operations cost on the default grid: one directory on this machine, 1-of-1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lafsfs.grid.broker import Broker
from lafsfs.grid.encoding import Encoding
from lafsfs.grid.local import LocalServer
from lafsfs.mutable import file
from lafsfs.mutable.file import MutableFile
from tests.mutable.conftest import SECRETS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from lafsfs.caps import MutableFormat


class Counted:
    """A LocalServer that lists the verbs it is asked for."""

    def __init__(self, server: LocalServer) -> None:
        self._server = server
        self.verbs: list[str] = []

    def __getattr__(self, name: str) -> object:
        value = getattr(self._server, name)
        if not callable(value):
            return value
        self.verbs.append(name)
        return value


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Counted]:
    local = await LocalServer.open(tmp_path / "storage", create=True)
    yield Counted(local)
    await local.aclose()


def adding(data: bytes) -> Callable[[bytes], bytes]:
    return lambda old: old + data


async def test_each_edit_is_one_call(server: Counted, format_: MutableFormat) -> None:
    broker, encoding = Broker([server]), Encoding(1, 1, 1)
    made = await file.create(format_, b"", broker=broker, secrets=SECRETS, encoding=encoding)
    assert server.verbs == ["read_test_write"]
    for letter in (b"a", b"b", b"c"):
        server.verbs.clear()
        await made.modify(adding(letter))
        assert server.verbs == ["read_test_write"]
    reopened = MutableFile(made.cap, broker, SECRETS)  # as after a remount
    server.verbs.clear()
    assert await reopened.download_best() == b"abc"
    assert server.verbs == ["read_test_write"]
    await reopened.modify(adding(b"d"))
    assert server.verbs == ["read_test_write"] * 2
    server.verbs.clear()
    assert await reopened.download_best() == b"abcd"
    assert server.verbs == ["read_share"]
