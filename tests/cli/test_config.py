"""Flags over environment over file; and what makes no sense is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lafsfs.cli.config import KEYS, Places, load_config
from lafsfs.cli.session import directory_format_of, encoding_of, settings_of
from lafsfs.errors import ConfigError, UsageError

FULL = """
storage = ["/mnt/a", "/mnt/b"]

[encoding]
needed = 2
happy = 3
total = 4
segment_size = 131072
convergence = "random"
directories = "mdmf"

[mount]
options = "ro,umask=077"
"""


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "config").mkdir()
    return Places(tmp_path / "config", tmp_path / "data", tmp_path / "state")


def write(places: Places, text: str) -> None:
    (places.config / "config.toml").write_text(text, encoding="utf-8")


def test_defaults(places: Places) -> None:
    config = load_config(places, {})
    assert config.storage == (places.data / "storage",)
    assert (config.convergence, directory_format_of(config)) == ("client", "sdmf")
    assert encoding_of(config) is None
    assert settings_of(config).convergent


def test_the_file(places: Places) -> None:
    write(places, FULL)
    config = load_config(places, {})
    assert config.storage == (Path("/mnt/a"), Path("/mnt/b"))
    assert (config.needed, config.happy, config.total, config.segment_size) == (2, 3, 4, 131072)
    assert (config.convergence, config.directory_format) == ("random", "mdmf")
    assert config.mount_options == "ro,umask=077"
    settings = settings_of(config)
    assert settings.encoding is not None
    assert (settings.encoding.k, settings.encoding.happy, settings.encoding.n) == (2, 3, 4)
    assert not settings.convergent


def test_the_environment_wins_over_the_file(places: Places) -> None:
    write(places, FULL)
    environment = {
        "LAFSFS_STORAGE": "/mnt/x:/mnt/y:~/z",
        "LAFSFS_NEEDED": "1",
        "LAFSFS_CONVERGENCE": "client",
        "LAFSFS_MOUNT_OPTIONS": "",
    }
    config = load_config(places, environment)
    assert config.storage == (Path("/mnt/x"), Path("/mnt/y"), Path("~/z").expanduser())
    assert (config.needed, config.happy) == (1, 3)
    assert config.convergence == "client"
    assert config.mount_options == "ro,umask=077"  # an empty variable says nothing


def test_the_command_line_wins_over_all(places: Places) -> None:
    write(places, FULL)
    config = load_config(places, {"LAFSFS_STORAGE": "/mnt/x"}, (Path("relative"),))
    assert config.storage == (Path.cwd() / "relative",)


@pytest.mark.parametrize(
    ("directories", "text", "expected"),
    [
        (3, "needed = 1", (1, 1, 3)),
        (3, "needed = 3", (3, 3, 3)),
        (1, "needed = 3\ntotal = 10", (3, 3, 10)),
        (1, "total = 5", (1, 1, 5)),
        (5, "happy = 4", (3, 4, 5)),
    ],
)
def test_encoding_overrides(
    places: Places, directories: int, text: str, expected: tuple[int, int, int]
) -> None:
    write(places, f"[encoding]\n{text}\n")
    config = load_config(places, {}, tuple(Path(f"/mnt/{i}") for i in range(directories)))
    encoding = encoding_of(config)
    assert encoding is not None
    assert (encoding.k, encoding.happy, encoding.n) == expected


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("storage = [", "not valid"),
        ("storage = '/mnt/a'\nstorage = '/mnt/b'", "not valid"),
        ("storage = [1]", "storage must be a list"),
        ("storage = []", "empty"),
        ("stroage = ['/mnt']", "unknown setting 'stroage'"),
        ("[encoding]\nk = 3", "unknown setting 'encoding.k'"),
        ("[encoding]\nneeded = 0", "encoding.needed must be"),
        ("[encoding]\nneeded = true", "encoding.needed must be"),
        ("[encoding]\nneeded = 'many'", "encoding.needed must be"),
        ("[encoding]\nconvergence = 'sometimes'", "one of client, random"),
        ("[mount]\noptions = 5", "mount.options must be"),
        (
            "[mount]\noptions = 'umask=9'",
            "line 2: mount.options cannot be used: mount option",
        ),
        ("[cache]\ndisk = -1", "cache.disk must be"),
        ("[cache]\ndisk = true", "cache.disk must be"),
        ("[cache]\ndisk = '1 pound'", "cache.disk must be"),
        ("[cache]\ndisk = '1i'", "cache.disk must be"),
        ("[cache]\ndisk = '1.5G'", "cache.disk must be"),
        ("[cache]\nmemory = '1M'", "cache.memory must be at least"),
        ("encoding = 5", "unknown setting 'encoding'"),
        (
            "# mine\nstroage = ['/mnt']",
            "line 2: unknown setting 'stroage'; did you mean 'storage'?",
        ),
        ("[encoding]\n'neded' = 1", "line 2: unknown setting 'encoding.neded'; did you mean"),
        ("[cache]\nmemory='1G'\n[ encoding ]\n  needed = 0", "line 4: encoding.needed must be"),
        ("encoding = {needed = 0}", "config.toml: encoding.needed must be"),
        ("\n[[grid.server]]\nnurl = 'x'", "line 2: unknown setting 'grid.server'; did you mean"),
    ],
)
def test_bad_files_are_named(places: Places, text: str, fault: str) -> None:
    write(places, text)
    with pytest.raises(ConfigError) as caught:
        load_config(places, {})
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("5000", 5000),
        ("70 B", 70),
        ("3k", 3072),
        ("512M", 512 << 20),
        ("1GB", 10**9),
        ("2 GiB", 2 << 30),
        ("1t", 1 << 40),
        ("2Pib", 2 << 50),
    ],
)
def test_sizes(places: Places, text: str, size: int) -> None:
    write(places, f"[cache]\ndisk = {text!r}")
    assert load_config(places, {}).cache_disk == size
    assert load_config(places, {"LAFSFS_CACHE_DISK": "7G"}).cache_disk == 7 << 30


def test_caches(places: Places) -> None:
    caches = settings_of(load_config(places, {})).caches
    assert (caches.disk, caches.directory) == (None, places.state / "cache")
    write(places, "[cache]\nmemory = '16M'\ndisk = 0")
    caches = settings_of(load_config(places, {})).caches
    assert (caches.memory, caches.disk) == (16 << 20, 0)


def test_a_file_that_is_not_text(places: Places) -> None:
    (places.config / "config.toml").write_bytes(b"storage = '\xff'")
    with pytest.raises(ConfigError, match=r"config\.toml"):
        load_config(places, {})
    (places.config / "config.toml").unlink()
    (places.config / "config.toml").mkdir()
    with pytest.raises(ConfigError, match=r"config\.toml"):
        load_config(places, {})


@pytest.mark.parametrize("variable", ["LAFSFS_NEEDED", "LAFSFS_CONVERGENCE"])
def test_bad_variables_are_named(places: Places, variable: str) -> None:
    with pytest.raises(UsageError, match=variable):
        load_config(places, {variable: "nonsense"})


def test_one_directory_twice_is_not_two_servers(places: Places) -> None:
    with pytest.raises(UsageError, match="twice"):
        load_config(places, {}, (Path("/mnt/a"), Path("/mnt/a")))


# --- where shares go ------------------------------------------------------------------------------

NURL = "pb://x@y/z#v=1"  # looked at by nobody here

GRID = f"""
storage = ["/mnt/a", "{NURL}"]

[grid]
introducers = ["one", "two"]
managers = ["manager"]

[[grid.servers]]
nurl = "{NURL}"
name = "attic"
"""


def test_servers_in_the_file(places: Places) -> None:
    write(places, GRID)
    config = load_config(places, {})
    assert (config.storage, config.nurls) == ((Path("/mnt/a"),), (NURL,))
    assert config.introducers == ("one", "two")
    assert config.servers == ({"nurl": NURL, "name": "attic"},)
    assert config.managers == ("manager",)
    assert config.joined
    assert "z#v" not in repr(config)


@pytest.mark.parametrize(
    ("environment", "typed", "expected"),
    [
        ({"LAFSFS_STORAGE": f"{NURL} ~/x"}, {}, ((Path("~/x").expanduser(),), (NURL,))),
        ({"LAFSFS_STORAGE": "/mnt/x:/mnt/y"}, {"storage": [NURL]}, ((), (NURL,))),
        ({}, {"storage": [NURL, "/mnt/z"]}, ((Path("/mnt/z"),), (NURL,))),
        ({"LAFSFS_STORAGE": "/mnt/x"}, {"node_directory": Path("/node")}, ((), ())),
        ({"LAFSFS_NODE_DIRECTORY": "/node"}, {}, ((), ())),
    ],
)
def test_where_shares_go_is_one_choice(
    places: Places, environment: dict[str, str], typed: dict[str, Any], expected: tuple[Any, Any]
) -> None:
    write(places, GRID)
    (places.config / "private").mkdir()
    (places.config / "private" / "introducers").write_text("")
    config = load_config(places, environment, **typed)
    assert (config.storage, config.nurls) == expected
    assert (config.introducers, config.servers, config.joined) == ((), (), False)
    assert config.managers == ("manager",)
    node = config.node_directory
    assert node == (None if expected != ((), ()) else Path("/node"))


@pytest.mark.parametrize(
    "text",
    [
        "[grid]\nnode_directory = '~/.tahoe'",
        "[grid]\nintroducers = ['one']",
        f"[[grid.servers]]\nnurl = '{NURL}'",
        f"storage = ['{NURL}']",
    ],
)
def test_the_embedded_grid_is_for_those_who_have_no_other(places: Places, text: str) -> None:
    write(places, text)
    assert load_config(places, {}).storage == ()


@pytest.mark.parametrize("name", ["introducers", "servers.yaml"])
def test_what_was_joined_is_another_grid(places: Places, name: str) -> None:
    (places.config / "private").mkdir()
    (places.config / "private" / name).write_text("")
    assert load_config(places, {}).storage == ()
    assert load_config(places, {"LAFSFS_STORAGE": "/mnt/a"}).storage == (Path("/mnt/a"),)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[grid]\nservers = ['x']", "must be tables"),
        ("[grid]\nservers = 5", "must be tables"),
        ("[grid]\nintroducers = 'x y'\nmanagers = [5]", "list of strings"),
        ("[grid]\nnode_directory = ''", "must be a directory"),
        ("[grid]\nnode_dir = 'x'", "unknown setting 'grid.node_dir'"),
    ],
)
def test_bad_grids_are_named(places: Places, text: str, fault: str) -> None:
    write(places, text)
    with pytest.raises(ConfigError, match=r"config\.toml") as caught:
        load_config(places, {})
    assert fault in str(caught.value)


def test_every_key_has_its_own_variable() -> None:
    assert len({key.variable for key in KEYS}) == len({key.name for key in KEYS}) == len(KEYS)


def test_places_follow_the_environment(tmp_path: Path) -> None:
    found = Places.find({"LAFSFS_CONFIG_DIR": str(tmp_path), "LAFSFS_STATE_DIR": "~/state"})
    assert found.config == tmp_path
    assert found.state == Path("~/state").expanduser()
    assert found.data.is_absolute()
    assert found.cache is None  # below the state
    assert Places.find({"LAFSFS_CACHE_DIR": "/c", "LAFSFS_STATE_DIR": "/s"}).cache == Path("/c")
    assert str(Places.find({}).cache).endswith("lafsfs")
