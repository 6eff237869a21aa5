"""The control socket: what a mount answers, to whom, and what no client can do to it."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
import tempfile
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.control.client import NoAnswerError, ask
from lafsfs.control.messages import pack, parse_status, request, status_object, verb_of
from lafsfs.control.server import MAX_CLIENTS, open_control
from lafsfs.errors import FormatError, LocalError, NotHappyError
from lafsfs.vfs.status import PendingFile, ServerState, State, Status

FILE = PendingFile("a/b\\xff", State.UPLOADING, 1000, 300, 1e9, None)
STATUS = Status(
    now=2e9,
    files=1,
    names=2,
    failed=1,
    size=1000,
    done=300,
    rate=12.5,
    settled=1e9,
    journal=77,
    pending=(FILE, PendingFile("c", State.FAILED, 0, 0, 1.5e9, "no room")),
    servers=(ServerState("one", 0), ServerState("two", 3)),
)


class Mount:
    """Something to control."""

    def __init__(self) -> None:
        self.flushes = 0
        self.given_up = 0
        self.left = 0
        self.go_on = trio.Event()
        self.begun = trio.Event()
        self.errors: tuple[LocalError | NotHappyError, ...] = ()
        self.broken = False

    async def status(self) -> Status:
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise RuntimeError("a bug")
        return STATUS

    async def flush_all(self):
        self.flushes += 1
        self.begun.set()
        try:
            await self.go_on.wait()
        except trio.Cancelled:
            self.given_up += 1
            raise
        return self.errors

    def leave(self) -> None:
        self.left += 1


@asynccontextmanager
async def controlled(directory):
    """A mount, and the path of its socket, which is longer than a socket's path may be."""
    mount = Mount()
    path = directory / ("d" * 100) / "m.socket"
    async with open_control(path, mount, mount.leave):
        yield mount, path


@pytest.fixture
async def control(tmp_path):
    async with controlled(tmp_path) as both:
        yield both


async def asked(path, verb):
    """All answers, as the command line gets them: in a thread."""
    return await trio.to_thread.run_sync(lambda: list(ask(path, verb)))


async def said(path, data: bytes, *, more: bool = False) -> bytes:
    """What comes back when a client says ``data``, and nothing more."""
    with socket.socket(socket.AF_UNIX) as raw:
        directory = os.open(path.parent, os.O_PATH)
        raw.connect(f"/proc/self/fd/{directory}/{path.name}")
        os.close(directory)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(raw))
        await stream.send_all(data)
        if not more:
            await stream.send_eof()
        received = b""
        while chunk := await stream.receive_some():
            received += chunk
        return received


async def test_status(control):
    _, path = control
    [reply] = await asked(path, "status")
    assert (reply.status, reply.errors) == (STATUS, None)


def test_programs_are_told_how_many_are_not_named():
    assert status_object(STATUS)["unnamed"] == 1


async def test_flush_reports_until_it_is_done(control):
    mount, path = control
    mount.errors = (NotHappyError("too few servers"),)

    async def let_go() -> None:
        await mount.begun.wait()
        mount.go_on.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(let_go)
        replies = await asked(path, "flush")
    assert [reply.errors for reply in replies[:-1]] == [None] * (len(replies) - 1)
    assert replies[-1].errors == ("too few servers",)
    assert (mount.flushes, mount.given_up) == (1, 0)


async def test_a_flush_ends_with_whoever_wanted_it(control):
    mount, path = control

    def first() -> None:
        with closing(ask(path, "flush")) as replies:
            next(replies)

    await trio.to_thread.run_sync(first)
    with trio.fail_after(60):
        while not mount.given_up:  # noqa: ASYNC110 - the server tells nobody
            await trio.sleep(0.01)
    assert await asked(path, "status")


async def test_leave(control):
    mount, path = control
    await asked(path, "leave")
    assert mount.left == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"status\n",
        b"{}\n",
        b"[]\n",
        b"[" * 4000 + b"\n",
        b"x" * 4096,
        request("explode"),
        pack({"version": 2, "verb": "status"}),
        request("status").rstrip(),
        b"\xff\n",
    ],
)
async def test_what_makes_no_sense_is_refused_and_does_no_harm(control, data):
    _, path = control
    answer = await said(path, data)
    assert list(json.loads(answer)) == ["error"]
    assert await asked(path, "status")


async def test_those_who_come_and_say_nothing_keep_nobody_out(control, autojump_clock):
    _, path = control
    answers: list[bytes] = []

    async def silent() -> None:
        answers.append(await said(path, b"", more=True))

    async with trio.open_nursery() as nursery:
        for _ in range(MAX_CLIENTS):
            nursery.start_soon(silent)
        await trio.testing.wait_all_tasks_blocked()
        answer = await said(path, request("status"))
    assert parse_status(json.loads(answer)["status"]) == STATUS
    assert [list(json.loads(answer)) for answer in answers] == [["error"]] * MAX_CLIENTS
    assert all(b"without an end" in answer for answer in answers)


async def test_a_bug_ends_the_answer_and_not_the_mount(control, caplog):
    mount, path = control
    mount.broken = True
    assert await asked(path, "status") == []
    assert "answering on the control socket" in caplog.text
    mount.broken = False
    assert await asked(path, "status")


async def test_the_socket_is_the_users_alone_and_goes_with_the_mount(tmp_path):
    async with controlled(tmp_path) as (_, path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.exists()
    with pytest.raises(NoAnswerError):
        await asked(path, "status")


async def test_the_socket_of_a_mount_that_was_killed_is_replaced(tmp_path):
    path = tmp_path / "m.socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    mount = Mount()
    with pytest.raises(NoAnswerError):
        await asked(path, "status")
    async with open_control(path, mount, mount.leave):
        assert await asked(path, "status")


async def test_a_socket_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    mount = Mount()
    with pytest.raises(LocalError, match="socket"):
        async with open_control(tmp_path / "file" / "m.socket", mount, mount.leave):
            pass


ASK = """
import os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    print(connection.makefile().read())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_other_users_are_refused():
    mount = Mount()
    with tempfile.TemporaryDirectory() as name:  # pytest's own let nobody pass
        os.chmod(name, 0o755)
        path = Path(name) / "m.socket"
        async with open_control(path, mount, mount.leave):
            os.chmod(path, 0o666)  # as if the first bolt had failed
            command = [sys.executable, "-c", ASK, str(path)]
            result = await trio.run_process(command, capture_stdout=True)
    assert "another user" in json.loads(result.stdout)["error"]


def test_every_verb_and_no_other():
    for verb in ("status", "flush", "leave"):
        assert verb_of(request(verb)) == verb
    with pytest.raises(FormatError):
        verb_of(request("stop"))


NUMBERS = st.integers(0, 2**60) | st.floats(0, 1e18)
FILES = st.builds(
    PendingFile,
    st.text(),
    st.sampled_from(State),
    st.integers(0, 2**60),
    st.integers(0, 2**60),
    NUMBERS,
    st.none() | st.text(),
)
STATUSES = st.builds(
    Status,
    NUMBERS,
    st.integers(0, 2**30),
    st.integers(0, 2**30),
    st.integers(0, 2**30),
    st.integers(0, 2**60),
    st.integers(0, 2**60),
    NUMBERS,
    NUMBERS,
    st.integers(0, 2**60),
    st.lists(FILES, max_size=3).map(tuple),
    st.lists(st.builds(ServerState, st.text(), st.integers(0, 99)), max_size=3).map(tuple),
)


@given(STATUSES)
def test_a_status_comes_back(status):
    assert parse_status(json.loads(pack(status_object(status)))) == status


@given(
    st.recursive(
        st.none() | st.booleans() | NUMBERS | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_what_is_no_status_is_refused(values):
    with pytest.raises(FormatError):
        parse_status(values)


def test_fields_of_a_newer_version_are_left_out():
    values = status_object(STATUS) | {"new": 1}
    values["pending"][0]["new"] = 1
    values["servers"][0]["new"] = 1
    assert parse_status(values) == STATUS
