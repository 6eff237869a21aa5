"""Directories of Tahoe client nodes, as ``tahoe create-node`` and a first start leave them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from lafsfs.crypto import base32
from tests.gbs.discovery.announced import Signer, announcement, furl

if TYPE_CHECKING:
    from pathlib import Path

TAHOE_CFG = """\
# -*- mode: conf; coding: utf-8 -*-

[node]
nickname =
reveal-IP-address = true
web.port = tcp:3456:interface=127.0.0.1

[client]
helper.furl =
shares.needed = 2
shares.happy = 3
shares.total = 4

[storage]
enabled = false
"""

LEASE_SECRET, CONVERGENCE = b"l" * 32, b"c" * 32


def cached(*names: str, **more: object) -> str:
    """The cache of an introducer that heard of these servers."""
    return yaml.safe_dump(
        [{"ann": announcement(name) | more, "key_s": Signer(name).key} for name in names]
    )


def introducers(**furls: str) -> str:
    return yaml.safe_dump({"introducers": {name: {"furl": text} for name, text in furls.items()}})


def make_node(path: Path, *servers: str) -> Path:
    """A node that has heard of ``servers`` from its default introducer."""
    private = path / "private"
    private.mkdir(parents=True)
    (path / "tahoe.cfg").write_text(TAHOE_CFG)
    (private / "secret").write_text(base32.encode(LEASE_SECRET) + "\n")
    (private / "convergence").write_text(base32.encode(CONVERGENCE) + "\n")
    (private / "introducers.yaml").write_text(introducers(default=furl("introducer")))
    (private / "introducer_default_cache.yaml").write_text(cached(*servers))
    return path
