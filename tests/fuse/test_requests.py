"""The setting of a mount's backing device, on files that look like the kernel's."""

from __future__ import annotations

import os

import pytest

from lafsfs.fuse.requests import READ_AHEAD, enlarge_read_ahead

MOUNTINFO = r"""
22 1 8:1 / / rw,relatime - ext4 /dev/vda rw
40 22 0:41 / /home/me/la\040fs rw - fuse.lafsfs lafsfs rw
41 22 0:42 / /home/me/la\040fs rw - fuse.lafsfs lafsfs rw
42 22 0:43 / /home/me/la\040fs/inside rw - tmpfs none rw
odd
""".strip()


@pytest.fixture
def kernel(tmp_path):
    """Where mounts are listed, and where devices are; as keyword arguments."""
    mountinfo, devices = tmp_path / "mountinfo", tmp_path / "bdi"
    mountinfo.write_text(MOUNTINFO)
    for device in ("8:1", "0:41", "0:42", "0:43"):
        (devices / device).mkdir(parents=True)
        (devices / device / "read_ahead_kb").write_text("128\n")
    return {"mountinfo": mountinfo, "devices": devices}


def sizes(kernel):
    return {path.name: (path / "read_ahead_kb").read_text() for path in kernel["devices"].iterdir()}


def test_the_topmost_mount_there_and_no_other(kernel):
    assert enlarge_read_ahead("/home/me/la fs", **kernel)
    large = f"{READ_AHEAD >> 10}\n"
    assert sizes(kernel) == {"8:1": "128\n", "0:41": "128\n", "0:42": large, "0:43": "128\n"}


def test_what_is_not_mounted_is_left_alone(kernel):
    before = sizes(kernel)
    assert not enlarge_read_ahead("/home/me/elsewhere", **kernel)
    assert sizes(kernel) == before


@pytest.mark.parametrize("missing", ["mountinfo", "devices"])
def test_a_kernel_that_is_not_asked_that_way(kernel, missing):
    os.rename(kernel[missing], kernel[missing].with_name("gone"))
    assert not enlarge_read_ahead("/home/me/la fs", **kernel)
