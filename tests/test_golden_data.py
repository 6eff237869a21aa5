"""The golden data is whole: contents regenerate to their hashes and every share is there."""

from __future__ import annotations

import hashlib

import pytest

from tests import golden_data as golden


@pytest.mark.parametrize("name", golden.OBJECTS)
def test_contents_regenerate(name: str) -> None:
    data = golden.contents(name)
    assert len(data) == golden.OBJECTS[name].size
    assert hashlib.sha256(data).hexdigest() == golden.OBJECTS[name].sha256


@pytest.mark.parametrize("name", [*golden.OBJECTS, *golden.TREES])
def test_every_object_has_all_its_shares(name: str) -> None:
    entry = (golden.OBJECTS | golden.TREES)[name]
    if entry.storage_index is None:
        assert entry.verify is None
        return
    shares = golden.shares_of(entry.storage_index)
    assert sorted(shnum for _, shnum in shares) == list(range(golden.N))


def test_identities_have_their_lengths() -> None:
    assert len(golden.SERVERS) == 5
    for server in golden.SERVERS.values():
        assert len(server.server_id) == 20
        assert len(server.spki_hash) == 32
        assert (server.directory / "shares").is_dir()
    assert len(golden.CONVERGENCE) == len(golden.LEASE_SECRET) == 32
