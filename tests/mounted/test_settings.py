"""What a mount is made from: the client's secrets and the default encoding."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from lafsfs.crypto import base32
from lafsfs.errors import ConfigError
from lafsfs.grid.encoding import Encoding
from lafsfs.grid.private import load_secrets
from lafsfs.mount import Settings, open_grid
from tests.golden_data import CONVERGENCE, LEASE_SECRET


def test_secrets_are_made_once_and_are_private(tmp_path):
    directory = tmp_path / "config" / "private"
    secrets = load_secrets(directory)
    assert load_secrets(directory) == secrets
    assert secrets.lease_secret != secrets.convergence_secret
    for made in (directory, directory.parent):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert sorted(os.listdir(directory)) == ["convergence", "secret"]
    for name in os.listdir(directory):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600


def test_two_first_uses_at_once_agree(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(load_secrets, [tmp_path] * 8))
    assert len(set(found)) == 1


def test_a_tahoe_nodes_secrets_are_understood(tmp_path):
    (tmp_path / "secret").write_text(base32.encode(LEASE_SECRET) + "\n")
    (tmp_path / "convergence").write_text(base32.encode(CONVERGENCE) + "\n")
    secrets = load_secrets(tmp_path)
    assert (secrets.lease_secret, secrets.convergence_secret) == (LEASE_SECRET, CONVERGENCE)


@pytest.mark.parametrize("text", [b"", b"a\n", b"\xff\xfe", b"A" * 52, b"a" * 53])
def test_a_broken_secret_is_named_and_not_shown(tmp_path, text):
    (tmp_path / "secret").write_bytes(text)
    with pytest.raises(ConfigError, match=r"secret does not hold") as caught:
        load_secrets(tmp_path)
    assert "aaaa" not in str(caught.value)
    assert (tmp_path / "secret").read_bytes() == text


def test_a_place_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError):
        load_secrets(tmp_path / "file")


@pytest.mark.parametrize(("count", "k"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
async def test_default_encoding(tmp_path, count, k):
    storage = tuple(tmp_path / str(number) for number in range(count))
    async with open_grid(Settings(storage, tmp_path / "config", tmp_path / "state")) as maker:
        assert maker.grid.encoding == Encoding(k, k, count)
        assert maker.grid.convergence == maker.grid.secrets.convergence_secret


async def test_random_keys(tmp_path):
    settings = Settings((tmp_path / "s",), tmp_path / "c", tmp_path / "state", convergent=False)
    async with open_grid(settings) as maker:
        assert maker.grid.convergence is None
