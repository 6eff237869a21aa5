"""Case 5: a storage server is killed, hangs, is emptied, filled or given another key under way.

The grid is 3-of-10, happy with 4 of its 5 servers, so what one server does must never be seen but
for the time it takes. Afterwards the server is put right, and everything goes on with it.
"""

from __future__ import annotations

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.interop.tables import SERVERS, contents
from tests.stock import wait_until

pytestmark = pytest.mark.interop

BIG = 8_000_000  # bytes, eight segments: reading and writing it takes longer than ending a process
BEGINNING = 300_000
UNAVAILABLE = "|".join(map(os.strerror, (errno.EIO, errno.EHOSTUNREACH, errno.ETIMEDOUT)))


class Trouble:
    """What can happen to a server while it is used, and how to put it right."""

    def __init__(self, stock, number):
        self.server = stock.servers[number]
        self._put_right = []  # what is left to do

    def strike(self, what):
        """Let something happen to the server; ``what`` is one of the methods below."""
        self._put_right.append(getattr(self, what)())

    def put_right(self):
        """Undo what happened."""
        while self._put_right:
            self._put_right.pop()()

    def killed(self):
        self.server.kill()
        return self.server.start_again

    def hung(self):
        self.server.hang()
        return self.server.go_on

    def emptied(self):
        for path in (self.server.storage / "shares").iterdir():
            if path.name != "incoming":
                shutil.rmtree(path)
        return lambda: None

    def filled(self):
        self._start_again_with("1000P")
        return lambda: self._start_again_with("0")

    def _start_again_with(self, reserved_space):
        self.server.stop()
        self.server.configure("storage", "reserved_space", reserved_space)
        self.server.start_again()

    def given_another_key(self):
        """Another tub, therefore another pin in its NURL, another id, and other write enablers.

        It is announced by the same signing key, and at the same address.
        """
        private, old = self.server.private, self.server.directory / "old private"
        self.server.stop()
        shutil.copytree(private, old)
        for path in (private / "node.pem", *private.glob("*.furl")):
            path.unlink()
        self.server.start_again()

        def put_back():
            self.server.stop()
            shutil.rmtree(private)
            old.rename(private)
            self.server.start_again()

        return put_back


MISFORTUNES = ("killed", "hung", "emptied", "filled", "given_another_key")


@contextmanager
def trouble_with(stock, *numbers):
    """Trouble that servers may have, and have no more when the block has ended."""
    troubles = [Trouble(stock, number) for number in numbers]
    try:
        yield troubles
    finally:
        put_right(stock, troubles)


def put_right(stock, troubles):
    """Undo what happened, and wait until stock is connected to all servers again."""
    for trouble in troubles:
        trouble.put_right()
    stock.client.wait_for(SERVERS, stock.servers)


@pytest.mark.parametrize("number", [1])
@pytest.mark.parametrize("what", MISFORTUNES)
def test_while_reading(stock, ours, plant, what, number):
    tree, web = plant(), stock.web
    big = contents("big", BIG)
    small = {f"{f} {size}": contents(f, size) for f in ("sdmf", "mdmf") for size in (10, 200_000)}
    small |= {f"chk {size}": contents("chk", size) for size in (10, 100, 2_000_000)}
    web.put_child(tree.cap, "big", contents=big)
    below = web.make_child_directory(tree.cap, "below")
    for name, data in small.items():
        web.put_child(below, name, contents=data, format=name.split()[0])
    with trouble_with(stock, number) as troubles, ours.mount(tree.what) as mount:
        mount.expect_log("")
        with (mount / "big").open("rb", buffering=0) as file:
            beginning = file.read(BEGINNING)
            troubles[0].strike(what)
            assert beginning + file.read() == big
        assert set(os.listdir(mount / "below")) == small.keys()
        for name, data in small.items():
            assert (mount / "below" / name).read_bytes() == data
        put_right(stock, troubles)
        assert (mount / "below").is_dir()
        assert web.get(tree.cap, "big") == big


@pytest.mark.parametrize("number", [2])
@pytest.mark.parametrize("what", MISFORTUNES)
def test_while_writing(stock, ours, plant, what, number):
    tree, web = plant(), stock.web
    big = contents(what, BIG)
    web.put_child(tree.cap, "mutable", contents=b"before", format="mdmf")
    incoming = stock.servers[number].storage / "shares" / "incoming"
    with trouble_with(stock, number) as troubles, ThreadPoolExecutor(1) as pool:
        with ours.mount(tree.what) as mount:
            mount.expect_log("")
            written = pool.submit((mount / "big").write_bytes, big)
            wait_until(
                lambda: written.done() or any(incoming.rglob("*/*")),
                "the server gets a share",
                every=0.005,
            )
            troubles[0].strike(what)
            assert written.result() == BIG
            (mount / "small").write_bytes(b"small")
            (mount / "folder").mkdir()
            (mount / "folder" / "file").write_bytes(contents("file", 10_000))
            with (mount / "mutable").open("ab") as file:
                file.write(b" and after")
            (mount / "small").rename(mount / "folder" / "moved")
            assert (mount / "mutable").read_bytes() == b"before and after"
        put_right(stock, troubles)
        assert web.get(tree.cap, "big") == big
        assert web.get(tree.cap, "folder", "moved") == b"small"
        assert web.get(tree.cap, "folder", "file") == contents("file", 10_000)
        assert web.get(tree.cap, "mutable") == b"before and after"
        assert set(web.children(tree.cap)) == {"big", "folder", "mutable"}
        with ours.mount(tree.what) as mount:
            mount.expect_log("")
            (mount / "mutable").write_bytes(b"all is well")
            (mount / "folder" / "again").write_bytes(b"again")
            assert (mount / "big").read_bytes() == big
        assert web.get(tree.cap, "mutable") == b"all is well"
        assert web.get(tree.cap, "folder", "again") == b"again"


def succeeds(action, *arguments):
    """Whether it does what it is to do, by now."""
    try:
        action(*arguments)
    except OSError:
        return False
    return True


def test_too_few_servers_are_left(stock, ours, plant):
    """Whoever asks is told; nothing that was accepted is lost; all goes on when they are back."""
    tree, web = plant(), stock.web
    files = {name: contents(f"{tree.what} {name}", 100_000) for name in ("read", "unread")}
    for name, data in files.items():
        web.put_child(tree.cap, name, contents=data)
    with trouble_with(stock, *range(1, SERVERS)) as troubles, ours.mount(tree.what) as mount:
        mount.expect_log("")
        assert (mount / "read").read_bytes() == files["read"]
        for trouble in troubles:
            trouble.strike("killed")
        assert set(os.listdir(mount.path)) == files.keys()
        with pytest.raises(OSError, match=UNAVAILABLE):
            (mount / "unread").read_bytes()
        with pytest.raises(OSError, match=UNAVAILABLE):
            (mount / "written").write_bytes(b"while they were away")
        put_right(stock, troubles)
        wait_until(lambda: succeeds((mount / "unread").read_bytes), "what is there can be read")
        assert (mount / "unread").read_bytes() == files["unread"]
        wait_until(lambda: succeeds((mount / "after").write_bytes, b"after"), "a file is written")
    assert web.get(tree.cap, "written") == b"while they were away"
    assert web.get(tree.cap, "after") == b"after"
