"""Storage directories that were used before and are not there now."""

from __future__ import annotations

import shutil

import pytest

from lafsfs.errors import ConfigError, ServerUnavailableError, UsageError
from lafsfs.grid.api import ShareKind
from lafsfs.grid.known import load_known, open_directories

INDEX = b"i" * 16


@pytest.fixture
def note(tmp_path):
    return tmp_path / "storage.json"


async def opened(directories, note):
    async with open_directories(directories, note) as servers:
        return servers


async def test_identities_stay(tmp_path, note):
    directories = [tmp_path / "one", tmp_path / "two"]
    first = await opened(directories, note)
    again = await opened(directories[::-1], note)
    assert [server.server_id for server in first] == [server.server_id for server in again[::-1]]
    assert set(load_known(note)) == {str(path) for path in directories}


async def test_an_unplugged_directory_is_not_made_again_but_comes_back(tmp_path, note, caplog):
    directories = [tmp_path / "one", tmp_path / "two"]
    before = await opened(directories, note)
    directories[1].rename(tmp_path / "unplugged")
    directories[1].mkdir()
    async with open_directories(directories, note) as servers:
        assert "is its disk unplugged" in caplog.text
        assert servers[1].server_id == before[1].server_id
        with pytest.raises(ServerUnavailableError):
            await servers[1].version()
        assert not list(directories[1].iterdir())
        directories[1].rmdir()
        (tmp_path / "unplugged").rename(directories[1])
        assert await servers[1].list_shares(ShareKind.MUTABLE, INDEX) == frozenset()


async def test_nothing_at_all_is_there(tmp_path, note, caplog):
    directory = tmp_path / "one"
    await opened([directory], note)
    directory.rename(tmp_path / "unplugged")
    with pytest.raises(ServerUnavailableError, match="is its disk unplugged"):
        await opened([directory], note)
    assert not caplog.records  # it is said once


@pytest.mark.parametrize("text", ["", "[]", '{"/a": 1}', '{"/a": {"id": "a", "seed": "a"}}', "\0"])
async def test_a_broken_note_is_named(tmp_path, note, text):
    note.write_text(text)
    with pytest.raises(ConfigError, match=r"storage\.json"):
        await opened([tmp_path / "one"], note)


async def test_a_directory_of_something_else_is_left_alone(tmp_path, note):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError):
        await opened([tmp_path], note)
    with pytest.raises(ConfigError):
        await opened([tmp_path / "file"], note)


async def test_one_directory_is_one_server(tmp_path, note):
    one, two = tmp_path / "one", tmp_path / "two"
    await opened([one], note)
    (tmp_path / "link").symlink_to(one)
    for again in (one, tmp_path / "x" / ".." / "one", tmp_path / "link"):
        with pytest.raises(UsageError, match="named twice"):
            await opened([one, again], note)
    shutil.copytree(one, two)
    with pytest.raises(UsageError, match="copy of the other"):
        await opened([one, two], note)
