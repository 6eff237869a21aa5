"""Logs tell what went wrong and no secrets."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from lafsfs.cli.logs import MAX_REMEMBERED, REPEAT_AFTER, Repeats

SECRET = "URI:DIR2:" + "a" * 26 + ":" + "b" * 52
PROGRAM = """
import logging, sys
from lafsfs.cli import logs
getattr(logs, sys.argv[1])()
log = logging.getLogger("lafsfs.somewhere")
log.warning("a disk is away")
log.info("nobody asked")
try:
    {}[sys.argv[2]]
except KeyError as error:
    log.exception("a bug")
    logs.log_bug(error)
"""


def said(how: str) -> str:
    command = [sys.executable, "-c", PROGRAM, how, SECRET]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True, timeout=60).stderr


@pytest.mark.parametrize("how", ["log_messages", "log_with_times"])
def test_tracebacks_are_kept_and_secrets_are_not(how: str) -> None:
    text = said(how)
    assert text.count("Traceback") == text.count("KeyError: ") == 2
    for part in SECRET.split(":")[2:]:
        assert part not in text


def test_forms() -> None:
    assert said("log_messages").splitlines()[0] == "lafsfs: warning: a disk is away"
    assert (
        said("log_with_times").splitlines()[0].endswith(" WARNING lafsfs.somewhere: a disk is away")
    )


def test_messages_become_a_log() -> None:
    program = """
import logging
from lafsfs.cli.logs import log_messages, log_with_times
for how in (log_messages, log_with_times):
    how()
    for _ in range(2):
        logging.getLogger("lafsfs.somewhere").warning("a disk is away")
"""
    command = [sys.executable, "-c", program]
    text = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True, timeout=60).stderr
    first, second = text.splitlines()
    assert first == "lafsfs: warning: a disk is away"
    assert second.endswith(" WARNING lafsfs.somewhere: a disk is away")


def test_the_same_is_said_once_in_a_while() -> None:
    repeats = Repeats()

    def passes(message: str, created: float) -> bool:
        record = logging.makeLogRecord({"name": "x", "msg": message, "created": created})
        return repeats.filter(record)

    assert passes("a is away", 0.0)
    assert passes("b is away", 1.0)
    assert not passes("a is away", REPEAT_AFTER - 1)
    assert passes("a is away", REPEAT_AFTER)
    for number in range(MAX_REMEMBERED):  # what is remembered is bounded
        assert passes(str(number), REPEAT_AFTER)
    assert passes("a is away", REPEAT_AFTER + 1)
