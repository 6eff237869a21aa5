"""The subscriber is kept running and ends with us; the program itself, over a scripted Foolscap."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from lafsfs.errors import ConfigError
from lafsfs.gbs.discovery.cache import Announcement, read_cache, write_cache
from lafsfs.gbs.discovery.furl import parse_furl
from lafsfs.gbs.discovery.subscription import (
    PROGRAM,
    first_announcements,
    keep_subscribed,
    run_subscriber,
)
from tests.gbs.discovery.announced import Signer, announcement, furl

if TYPE_CHECKING:
    from collections.abc import Callable

DOUBLES = Path(__file__).parent / "doubles"
ROOT = Path(__file__).parents[3]
PROTOCOL = "http://allmydata.org/tahoe/protocols/introducer/v2"
INTRODUCER = parse_furl(furl("introducer"))

TELLS = "import os, sys; print(os.getpid(), sys.argv[1:], sys.stdin.readline(), file=sys.stderr)"
READS_ON = "import os, sys; print(os.getpid(), file=sys.stderr, flush=True); sys.stdin.read()"
DEAF = "import time; time.sleep(600)"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.fixture
def scripted(tmp_path: Path) -> Callable[..., list[str]]:
    """``scripted(ACTION, ...)``: our program, with Foolscap and Twisted played from a script."""

    def make(*then: Any, version: str = PROTOCOL) -> list[str]:
        script = {"version": [version], "furl": furl("introducer"), "then": then}
        (tmp_path / "script.json").write_text(json.dumps(script))
        return [
            "env",
            f"PYTHONPATH={DOUBLES}{os.pathsep}{ROOT}",
            f"INTRODUCER_SCRIPT={tmp_path / 'script.json'}",
            sys.executable,
            "-m",
            "lafsfs.gbs.discovery.introducer",
        ]

    return make


def announce(*names: str, seqnum: int = 1, by: str | None = None) -> tuple[str, Any]:
    signed = [Signer(by or name).signed(announcement(name, seqnum)) for name in names]
    return "announce", [[part.decode() for part in parts] for parts in signed]


def heard(cache: Path) -> set[str]:
    return {found.values["nickname"] for found in read_cache(cache)}


async def until(true: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while True:
            if true():
                return
            await trio.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_is_called_lafsfs_where_the_user_is_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "lafsfs").mkdir()
    (tmp_path / "lafsfs" / "__init__.py").write_text("print('not ours')")
    result = subprocess.run(
        PROGRAM,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert result.returncode != 0  # there is no fURL for it
    assert b"not ours" not in result.stdout + result.stderr


async def test_what_is_announced_gets_into_the_cache(scripted: Any, tmp_path: Path) -> None:
    cache = tmp_path / "state" / "cache.yaml"
    forged = announce("forged", by="one")[1][0]
    forged[2] = Signer("forged").key
    program = scripted(
        announce("one", "two"),
        ("announce", [forged]),
        announce("one", seqnum=1, by="one"),
        announce("one again", seqnum=2, by="one"),
    )
    said: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_subscriber, INTRODUCER, cache, said.append, program)
        await until(lambda: cache.exists() and heard(cache) == {"one again", "two"})
        nursery.cancel_scope.cancel()
    assert cache.stat().st_mode & 0o777 == 0o600
    assert said == ["an announcement is refused: the signature does not verify"]


async def test_it_is_started_again_and_forgets_nothing(
    scripted: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache.yaml"
    write_cache(cache, [Announcement(Signer("old").key, announcement("old"))])
    script = scripted(("crash",))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_subscribed, INTRODUCER, cache, script)
        await until(lambda: "exit code 7" in caplog.text)
        scripted(announce("one"))
        await until(lambda: heard(cache) == {"old", "one"})
        nursery.cancel_scope.cancel()
    assert "swissnum" not in caplog.text


async def test_it_ends_with_us(tmp_path: Path) -> None:
    said: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_subscriber, INTRODUCER, tmp_path, said.append, python(READS_ON))
        await until(lambda: bool(said))
        assert is_alive(int(said[0]))
        nursery.cancel_scope.cancel()
    assert not is_alive(int(said[0]))


def test_it_ends_when_its_parent_is_gone(scripted: Any, tmp_path: Path) -> None:
    cache = tmp_path / "cache.yaml"
    command = [*scripted(announce("one")), str(cache)]
    done = subprocess.run(command, input=furl("introducer") + "\n", text=True, timeout=60)
    assert done.returncode == 0


async def test_the_furl_is_not_among_the_arguments(tmp_path: Path) -> None:
    said: list[str] = []
    code = await run_subscriber(INTRODUCER, tmp_path / "cache", said.append, python(TELLS))
    assert code == 0
    _, arguments, line = said[0].split(maxsplit=2)
    assert arguments == f"['{tmp_path / 'cache'}']"
    assert line == furl("introducer")


async def test_a_program_that_does_not_listen(tmp_path: Path) -> None:
    said: list[str] = []
    code = await run_subscriber(INTRODUCER, tmp_path, said.append, python("raise SystemExit(3)"))
    assert (code, said) == (3, [])


async def test_what_it_says_is_bounded_and_harmless(tmp_path: Path) -> None:
    said: list[str] = []
    loud = "import sys; sys.stderr.write('\\x1b[2J' + 'x' * 10**6 + '\\nend\\n')"
    assert await run_subscriber(INTRODUCER, tmp_path, said.append, python(loud)) == 0
    assert said[-1] == "end"
    assert all(line.isprintable() and len(line) <= 500 for line in said)


@pytest.mark.parametrize("furl_text", ["", "nonsense", "pb://x@y/z#v=1"])
def test_used_wrongly(scripted: Any, tmp_path: Path, furl_text: str) -> None:
    command = [*scripted(), str(tmp_path / "cache")]
    done = subprocess.run(command, input=furl_text, text=True, capture_output=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    done = subprocess.run(scripted(), input=furl("introducer"), text=True, capture_output=True)
    assert done.returncode == 2


# --- joining --------------------------------------------------------------------------------------


@pytest.fixture
def joined(tmp_path: Path) -> Callable[..., Any]:
    """Join through a program, and return what was heard."""

    async def join(program: list[str], seconds: float = 30) -> set[str]:
        await first_announcements(INTRODUCER, tmp_path / "cache.yaml", seconds, program)
        return heard(tmp_path / "cache.yaml")

    return join


async def test_the_first_announcements(joined: Any, scripted: Any) -> None:
    assert await joined(scripted(announce("one", "two"))) == {"one", "two"}
    assert await joined(scripted()) == {"one", "two"}


async def test_an_introducer_that_knows_nobody(joined: Any, scripted: Any) -> None:
    assert await joined(scripted()) == set()


async def test_an_introducer_that_refuses(joined: Any, scripted: Any) -> None:
    with pytest.raises(ConfigError, match="does not let us subscribe: not you"):
        await joined(scripted(("refuse", "not you")))


async def test_an_introducer_of_another_version(joined: Any, scripted: Any) -> None:
    with pytest.raises(ConfigError, match="version 2"):
        await joined(scripted(version="v3"))


async def test_an_introducer_that_is_away(scripted: Any, tmp_path: Path) -> None:
    away = parse_furl(furl("elsewhere"))
    with pytest.raises(ConfigError) as caught:
        await first_announcements(away, tmp_path / "cache.yaml", 3, scripted())
    assert "cannot be reached, trying on: Connection refused" in str(caught.value)
    assert "swissnum" not in str(caught.value)


async def test_a_program_that_says_nothing(joined: Any) -> None:
    with pytest.raises(ConfigError, match="nothing was heard"):
        await joined(python(DEAF), seconds=0.5)


async def test_a_program_that_ends_at_once(joined: Any) -> None:
    with pytest.raises(ConfigError, match="no module; its subscriber ended \\(exit code 1\\)"):
        await joined(python("raise SystemExit('no module')"))
