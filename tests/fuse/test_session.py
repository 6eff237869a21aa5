"""What the session keeps quiet about."""

from __future__ import annotations

import errno
import logging
import os

import pytest

from lafsfs.fuse.session import is_late_reply


@pytest.mark.parametrize(
    ("message", "number", "late"),
    [
        ("fuse_release(): fuse_reply_* failed with %s", errno.ENOENT, True),
        ("fuse_read(): fuse_reply_* failed with %s", errno.ENODEV, True),
        ("fuse_read(): fuse_reply_* failed with %s", errno.EINVAL, False),
        ("something else: %s", errno.ENOENT, False),
    ],
)
def test_late_replies(message, number, late):
    arguments = (os.strerror(number),)
    record = logging.LogRecord("pyfuse3", logging.ERROR, "", 0, message, arguments, None)
    assert is_late_reply(record) == late
