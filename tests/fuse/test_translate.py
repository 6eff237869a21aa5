"""Whatever goes wrong, the kernel gets an errno and the log no secret."""

from __future__ import annotations

import errno
import inspect
import logging

import pyfuse3
import pytest
import trio

from lafsfs import errors
from lafsfs.errors import LafsError
from lafsfs.fuse.translate import QUIET, Repeats, scrubbed, to_fuse_error

CLASSES = [
    item
    for _, item in inspect.getmembers(errors, inspect.isclass)
    if issubclass(item, LafsError) and item is not errors.CorruptShareError
]
SECRET = "URI:DIR2:sqnjy2xpvx2jcve6uq4otrhfom:32cspxjz2hmb5l6vi2lfy25j47kaqkt2vyjyjvp5etfbcx6foq7q"


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_has_its_errno(kind):
    assert to_fuse_error(kind("why"), "read").errno == kind.errno != 0


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (errors.CorruptShareError("server", 3, "why"), errno.EIO),
        (OSError(errno.ENOSPC, "full"), errno.ENOSPC),
        (OSError(errno.EBADF, "a bug"), errno.EIO),
        (OSError("without a number"), errno.EIO),
        (trio.TooSlowError(), errno.ETIMEDOUT),
        (MemoryError(), errno.ENOMEM),
        (ZeroDivisionError(), errno.EIO),
        (pyfuse3.FUSEError(errno.ENOTTY), errno.ENOTTY),
    ],
)
def test_other_errors(error, number):
    assert to_fuse_error(error, "read").errno == number


def test_groups_are_unwrapped():
    caller, grid = errors.NoSuchChildError("no"), errors.NotEnoughSharesError("few")
    assert to_fuse_error(ExceptionGroup("", [caller]), "x").errno == errno.ENOENT
    nested = ExceptionGroup("", [caller, ExceptionGroup("", [grid, caller])])
    assert to_fuse_error(nested, "x").errno == errno.EIO
    assert to_fuse_error(ExceptionGroup("", [grid, KeyError("bug")]), "x").errno == errno.EIO


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_what_is_no_error_passes(error):
    for raised in (error, BaseExceptionGroup("", [ValueError(), error])):
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - compared below
            to_fuse_error(raised, "x")
        assert caught.value is raised


def test_what_is_logged(caplog):
    caplog.set_level(logging.DEBUG)
    to_fuse_error(errors.NoSuchChildError("nothing there"), "lookup")
    to_fuse_error(errors.NotEnoughSharesError("2 of 3 shares"), "read")
    try:
        raise KeyError(SECRET)
    except KeyError as error:
        to_fuse_error(error, "write")
    levels = [record.levelname for record in caplog.records]
    assert levels == ["DEBUG", "WARNING", "ERROR"]
    assert "test_what_is_logged" in caplog.records[2].message
    assert "sqnjy2" not in caplog.text
    assert "2 of 3 shares" in caplog.text


def test_scrubbing_leaves_words_alone():
    text = "zero. retro: no such directory /srv/storage, errno: 5"
    assert scrubbed(text) == text
    for secret in (SECRET, f"'{SECRET}'", SECRET.split(":")[2], "ro.URI:LIT:abc", "pb://x@y"):
        assert scrubbed(f"x {secret} y").replace("'", "").startswith("x <redacted>")


def test_one_trouble_is_told_once_a_minute():
    now = 0.0
    repeats = Repeats(lambda: now)

    def passes(message, level=logging.WARNING):
        return repeats.filter(logging.LogRecord("x", level, "x.py", 1, message, (), None))

    assert passes("read: no shares")
    assert not passes("read: no shares")
    assert not passes("read: shares no")  # reasons come in any order
    assert passes("read: other shares")
    assert passes("read: no shares", logging.ERROR)
    now += QUIET + 1
    assert passes("read: no shares")
