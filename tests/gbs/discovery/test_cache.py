"""Caches of announcements: stock's own form, broken ones by line, round trips of anything."""

from __future__ import annotations

import stat
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.crypto import base32
from lafsfs.errors import ConfigError
from lafsfs.gbs.discovery.cache import Announcement, newest, read_cache, write_cache
from tests.gbs.discovery.announced import Signer, announcement, furl, nurl, tub_id

if TYPE_CHECKING:
    from pathlib import Path

# As stock 1.20 wrote it, with other names in it.
STOCK = f"""\
- ann:
    anonymous-storage-FURL: {furl("one")}
    anonymous-storage-NURLs:
    - {nurl("one")}
    app-versions: []
    my-version: tahoe-lafs/1.20.0
    nickname: ''
    nonce: p3co3k76fijh4rgp747dchcvz7n7rqdagowheeeaajjcfozskh2a
    oldest-supported: 1.0.0
    permutation-seed-base32: {base32.encode(bytes(range(52)))}
    seqnum: 1
    service-name: storage
    version: 0
  key_s: {Signer("one").key}
"""


def test_stock_caches(tmp_path: Path) -> None:
    path = tmp_path / "introducer_default_cache.yaml"
    path.write_text(STOCK)
    (found,) = read_cache(path)
    record = found.record()
    assert record.key == Signer("one").key
    assert record.server_id == tub_id("one")
    assert record.permutation_seed is not None
    assert len(record.permutation_seed) == 52
    assert record.name == Signer("one").key[3:11]
    assert record.fault is None
    assert record.origin == f"{path}, line 1"
    assert found.seqnum == 1


def test_nothing_announced_yet(tmp_path: Path) -> None:
    assert read_cache(tmp_path / "missing") == []
    for text in ("", "[]\n", "# nothing\n"):
        (tmp_path / "cache").write_text(text)
        assert read_cache(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("- ann: [\n", "line 2: not valid YAML"),
        ("a: b\nc: d: e\n", "line 2: not valid YAML"),
        ("storage: {}\n", "line 1: a list is needed"),
        ("\n\njust text\n", "line 3: a list is needed"),
        ("- \x00\n", "not valid YAML"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_files_that_are_no_caches(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "cache.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_cache(path)
    assert str(caught.value).startswith(str(path))
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_cache(tmp_path)
    (tmp_path / "latin").write_bytes(b"- a\n- \xff\n")
    with pytest.raises(ConfigError, match="line 2: not UTF-8"):
        read_cache(tmp_path / "latin")
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ConfigError, match="more than"):
        read_cache(tmp_path / "huge")


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ("- text\n", 1),
        ("- {}\n", 1),
        (f"- key_s: {Signer('x').key}\n", 1),
        ("- key_s: nonsense\n  ann: {}\n", 1),
        ("- key_s: []\n  ann: {}\n", 1),
        (f"- key_s: {Signer('x').key}\n  ann: []\n", 2),
        (f"- key_s: {Signer('x').key}\n  ann:\n    a: !!python/object:os.system x\n", 3),
        (f"- key_s: {Signer('x').key}\n  ann:\n    [a]: b\n", 3),
    ],
)
def test_a_bad_entry_does_not_spoil_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, entry: str, line: int
) -> None:
    path = tmp_path / "cache.yaml"
    path.write_text(entry + STOCK)
    assert [found.key for found in read_cache(path)] == [Signer("one").key]
    (message,) = caplog.messages
    assert f"{path}, line {line}" in message
    assert "swissnum" not in message


def test_other_services_are_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    write_cache(path, [Announcement(Signer("x").key, announcement("x") | {"service-name": "stub"})])
    assert read_cache(path) == []


def test_written_for_its_owner_alone_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "state" / "introducers" / "cache.yaml"
    announced = [Announcement(Signer(n).key, announcement(n)) for n in ("one", "two")]
    write_cache(path, announced)
    write_cache(path, announced)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["cache.yaml"]
    assert read_cache(path) == announced
    assert {entry["key_s"] for entry in yaml.safe_load(path.read_text())} == {
        a.key for a in announced
    }


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        write_cache(tmp_path / "file" / "cache", [])


def test_the_newest_of_each() -> None:
    one, two = Signer("one").key, Signer("two").key
    old, new = Announcement(one, announcement("one", 1)), Announcement(one, announcement("one", 2))
    other = Announcement(two, announcement("two", 1))
    assert newest([old, other, new]) == newest([new, old, other]) == [new, other]
    unnumbered = Announcement(one, announcement("one", seqnum=None))
    assert newest([new, unnumbered]) == [new]
    assert newest([unnumbered, new]) == [new]
    assert newest([new, Announcement(one, announcement("one", seqnum=True))]) == [new]


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
surrogates = st.text(st.characters(categories=["Cs", "Cc", "Zl", "Zs", "Lu"]), max_size=5)


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=8) | surrogates, json_like | surrogates, max_size=4))
def test_whatever_json_may_hold_survives(tmp_path_factory: pytest.TempPathFactory, more) -> None:
    path = tmp_path_factory.getbasetemp() / "any-cache.yaml"
    announced = [Announcement(Signer("one").key, more | announcement("one"))]
    write_cache(path, announced)
    assert read_cache(path) == announced


@settings(max_examples=100)
@given(st.data())
def test_damaged_files(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    raw = bytearray(STOCK.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    with suppress(ConfigError):
        assert len([found.record() for found in read_cache(path)]) <= 1
