"""The aliases file: stock's format, private, atomic, and forgiving of lines it does not know."""

from __future__ import annotations

import stat
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.caps import parse
from lafsfs.cli.aliases import Aliases, check_alias_name, write_private
from lafsfs.errors import ChildExistsError, ConfigError, UsageError
from tests import golden_data as golden

if TYPE_CHECKING:
    from pathlib import Path

TREES = [parse(tree.cap) for tree in golden.TREES.values()]


@pytest.fixture
def aliases(tmp_path: Path) -> Aliases:
    return Aliases(tmp_path / "config" / "aliases")


def test_add_get_remove(aliases: Aliases) -> None:
    assert aliases.names() == []
    aliases.add("home", TREES[0])
    aliases.add("work", TREES[1])
    assert aliases.names() == ["home", "work"]
    assert aliases.get("work") == TREES[1]
    assert "home" in aliases
    aliases.remove("home")
    assert aliases.names() == ["work"]
    assert "home" not in aliases


def test_the_format_is_stocks(aliases: Aliases) -> None:
    aliases.add("home", TREES[0])
    assert aliases.path.read_text() == f"home: {TREES[0].danger_text()}\n"


def test_only_the_owner_can_read_it(aliases: Aliases) -> None:
    aliases.add("home", TREES[0])
    assert stat.S_IMODE(aliases.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(aliases.path.parent.stat().st_mode) == 0o700
    aliases.path.chmod(0o644)
    aliases.add("work", TREES[1])
    assert stat.S_IMODE(aliases.path.stat().st_mode) == 0o600


def test_what_a_person_wrote_is_kept(aliases: Aliases) -> None:
    aliases.path.parent.mkdir()
    own = f"# mine\n\n  home :  {TREES[0].danger_text()}  \nnot an alias\nbroken: URI:nothing\n"
    aliases.path.write_text(own)
    aliases.add("work", TREES[1])
    aliases.remove("work")
    assert aliases.path.read_text() == own
    assert aliases.names() == ["home", "broken"]
    assert aliases.get("home") == TREES[0]
    with pytest.raises(ConfigError, match="aliases, line 5: alias 'broken'"):
        aliases.get("broken")


def test_faults(aliases: Aliases) -> None:
    with pytest.raises(UsageError, match="none yet"):
        aliases.get("home")
    with pytest.raises(UsageError, match="no alias"):
        aliases.remove("home")
    aliases.add("home", TREES[0])
    before = aliases.path.read_bytes()
    with pytest.raises(ChildExistsError):
        aliases.add("home", TREES[1])
    with pytest.raises(UsageError, match="home:"):
        aliases.get("work")
    assert aliases.path.read_bytes() == before
    aliases.path.write_bytes(b"\nhome: \xff\n")
    with pytest.raises(ConfigError, match="aliases, line 2: not UTF-8"):
        aliases.names()
    aliases.path.unlink()
    aliases.path.mkdir()
    with pytest.raises(ConfigError, match="cannot read"):
        aliases.names()


def test_a_broken_root_capability_is_named(tmp_path: Path) -> None:
    root_cap = tmp_path / "root_dir.cap"
    root_cap.write_text("URI:DIR2:secret\n")
    with pytest.raises(ConfigError, match=r"root_dir\.cap, line 1: alias 'tahoe'") as caught:
        Aliases(tmp_path / "aliases", read_only=True, root_cap=root_cap).get("tahoe")
    assert "secret" not in str(caught.value)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file"):
        Aliases(tmp_path / "file" / "aliases").add("home", TREES[0])


def test_processes_that_add_at_once_lose_nothing(aliases: Aliases) -> None:
    names = [f"a{number}" for number in range(20)]
    threads = [threading.Thread(target=aliases.add, args=(name, TREES[0])) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(aliases.names()) == sorted(names)
    assert [path.name for path in aliases.path.parent.iterdir()] == ["aliases"]


def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "aliases"
    link.symlink_to(tmp_path / "real" / "aliases")
    write_private(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "real" / "aliases").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["", ":", "a:b", "a/b", "a b", "-a", "#a", "URI", "a\n", "a\0"])
def test_bad_names(name: str) -> None:
    with pytest.raises(UsageError):
        check_alias_name(name)


@given(st.text(max_size=20))
def test_a_good_name_is_found_again(name: str) -> None:
    try:
        good = check_alias_name(name)
    except UsageError:
        return
    assert check_alias_name(good + ":") == good
    assert f"{good}: x".strip().partition(":")[0] == good
    assert not good.startswith("#")
