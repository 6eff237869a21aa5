"""What a user may write to name something in a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lafsfs.caps import parse
from lafsfs.cli.aliases import Aliases
from lafsfs.cli.locations import find_location
from lafsfs.errors import BadCapabilityError, BadNameError, UsageError
from tests import golden_data as golden

if TYPE_CHECKING:
    from pathlib import Path

TREE = parse(golden.TREES["dir-sdmf"].cap)
IMMUTABLE = golden.TREES["dir-immutable"].cap


@pytest.fixture
def aliases(tmp_path: Path) -> Aliases:
    aliases = Aliases(tmp_path / "aliases")
    aliases.add("home", TREE)
    return aliases


@pytest.mark.parametrize(
    ("text", "path", "shown"),
    [
        ("home:", (), "home:"),
        ("home:a", ("a",), "home:a"),
        ("home:a/b c", ("a", "b c"), "home:a/b c"),
        ("home:/a//b/", ("a", "b"), "home:a/b"),
        ("home:a:b", ("a:b",), "home:a:b"),
        ("home:日本", ("日本",), "home:日本"),
    ],
)
def test_alias_and_path(aliases: Aliases, text: str, path: tuple[str, ...], shown: str) -> None:
    location = find_location(text, aliases)
    assert (location.root, location.path, location.shown) == (TREE, path, shown)
    assert location.name == (path[-1] if path else None)


def test_up_and_down(aliases: Aliases) -> None:
    root = find_location("home:", aliases)
    below = root.child("a").child("b")
    assert below == find_location("home:a/b", aliases)
    assert below.parent.parent == root
    with pytest.raises(UsageError, match="whole tree"):
        _ = root.parent


@pytest.mark.parametrize("prefix", ["", "ro.", "imm."])
def test_capabilities_work_but_warn(
    aliases: Aliases, capsys: pytest.CaptureFixture[str], prefix: str
) -> None:
    text = (
        golden.TREES["dir-imm"].cap if "dir-imm" in golden.TREES else golden.OBJECTS["imm-56"].cap
    )
    location = find_location(f"{prefix}{text}/a/b", aliases)
    assert (location.root, location.path) == (parse(text), ("a", "b"))
    warning = capsys.readouterr().err
    assert "others can see" in warning
    assert text.split(":")[-1] not in location.shown
    assert text.split(":")[2][:10] not in warning + location.shown


@pytest.mark.parametrize(
    ("text", "error", "fault"),
    [
        ("photos", UsageError, "home:photos"),
        ("", UsageError, "not alias:path"),
        ("work:a", UsageError, "no alias 'work'"),
        ("a b:c", UsageError, "one word"),
        ("home:a/../b", BadNameError, r"\.\."),
        ("home:./a", BadNameError, r"\.\."),
        ("home:\udcff", BadNameError, "UTF-8"),
        ("URI:DIR2:short", BadCapabilityError, "cut short"),
    ],
)
def test_faults(aliases: Aliases, text: str, error: type[Exception], fault: str) -> None:
    with pytest.raises(error, match=fault):
        find_location(text, aliases)
