"""Announcements: what stock derives from them, and that no announcement can do harm."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.crypto import base32
from lafsfs.gbs.discovery.announcements import FOOLSCAP_ONLY, bare_record, record_of
from lafsfs.gbs.nurl import parse_nurl
from tests.gbs.discovery.announced import Signer, announcement, furl, nurl, tub_id

KEY = Signer("server").key


def test_what_stock_announces() -> None:
    record = record_of(KEY, announcement("server"), "there")
    assert record.key == KEY
    assert record.name == "server"
    assert record.nurls == (parse_nurl(nurl("server")),)
    assert record.server_id == tub_id("server")
    assert record.permutation_seed == b"seed of server"
    assert record.verifying_key == Signer("server").raw
    assert record.fault is None
    assert "swissnum" not in repr(record)


def test_several_addresses_in_one_order_whatever_order_they_come_in() -> None:
    texts = [nurl("server", f"127.0.0.{i}:1234") for i in range(1, 6)] + [
        nurl("server", "[::1]:1234")
    ]
    one = record_of(KEY, announcement("server", **{"anonymous-storage-NURLs": texts}), "")
    other = record_of(KEY, announcement("server", **{"anonymous-storage-NURLs": texts[::-1]}), "")
    as_set = record_of(KEY, announcement("server", **{"anonymous-storage-NURLs": set(texts)}), "")
    assert one.nurls == other.nurls == as_set.nurls
    assert len(one.nurls) == 6


def test_addresses_that_cannot_be_used_do_not_spoil_the_others() -> None:
    texts = ["pb+tor://x", nurl("server"), 5, "", None]
    record = record_of(KEY, announcement("server", **{"anonymous-storage-NURLs": texts}), "")
    assert record.nurls == (parse_nurl(nurl("server")),)
    assert record.fault is None


@pytest.mark.parametrize(
    ("key", "seed"),
    [
        (KEY, Signer("server").raw),
        ("my-serverid-1", hashlib.sha256(b"my-serverid-1").digest()),
        ("v0-tooshort", hashlib.sha256(b"v0-tooshort").digest()),
        ("größe", hashlib.sha256("größe".encode()).digest()),
    ],
)
def test_the_seed_of_servers_that_announce_none(key: str, seed: bytes) -> None:
    values = announcement("server", **{"permutation-seed-base32": None})
    assert record_of(key, values, "").permutation_seed == seed


def test_a_seed_of_another_length_is_used_as_it_is() -> None:
    seed = base32.encode(b"x" * 52)
    values = announcement("server", **{"permutation-seed-base32": seed})
    assert record_of(KEY, values, "").permutation_seed == b"x" * 52


def test_a_server_without_a_furl_has_no_id_yet() -> None:
    record = record_of(KEY, announcement("server", **{"anonymous-storage-FURL": None}), "")
    assert record.server_id is None
    assert record.fault is None


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"anonymous-storage-NURLs": None}, FOOLSCAP_ONLY),
        ({"anonymous-storage-NURLs": []}, FOOLSCAP_ONLY),
        ({"anonymous-storage-NURLs": None, "anonymous-storage-FURL": None}, "no address"),
        (
            {
                "anonymous-storage-NURLs": None,
                "anonymous-storage-FURL": None,
                "storage-options": [{"name": "x"}],
            },
            "plugins",
        ),
        ({"anonymous-storage-NURLs": "text"}, "not a list"),
        ({"anonymous-storage-NURLs": ["pb+tor://x@y/z#v=1"]}, "tor addresses"),
        ({"anonymous-storage-NURLs": [furl("server")]}, "1.19 or later"),
        ({"anonymous-storage-FURL": "nonsense"}, "fURL"),
        ({"anonymous-storage-FURL": 5}, "fURL"),
        ({"permutation-seed-base32": "1"}, "base32"),
        ({"permutation-seed-base32": 5}, "seed"),
        ({"permutation-seed-base32": "a" * 10_000}, "seed"),
    ],
)
def test_what_makes_a_server_unusable_is_said(changes: dict, fault: str) -> None:
    record = record_of(KEY, announcement("server", **changes), "there")
    assert record.fault is not None
    assert fault in record.fault
    assert "swissnum" not in record.fault
    assert record.name == "server"


@pytest.mark.parametrize(
    ("nickname", "shown"),
    [
        ("attic", "attic"),
        (None, KEY[3:11]),
        ("", KEY[3:11]),
        ("  ", KEY[3:11]),
        (5, KEY[3:11]),
        ("a\x1b[31mb\nc", "a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}c"),
        ("x" * 1000, "x" * 39 + "…"),
        ("größe", "größe"),
    ],
)
def test_names_are_fit_to_be_shown(nickname: object, shown: str) -> None:
    assert record_of(KEY, announcement("x", nickname=nickname), "").name == shown


def test_bare_nurls() -> None:
    nurls = [parse_nurl(nurl("server", f"127.0.0.{i}:1")) for i in (1, 2)]
    record = bare_record(nurls, "the command line")
    assert record.is_bare
    assert record.name == "127.0.0.1:1"
    assert (record.server_id, record.permutation_seed, record.fault) == (None, None, None)
    assert record.verifying_key is None
    assert bare_record(nurls[1:], "").key == record.key
    assert bare_record(nurls, "", "attic").name == "attic"
    assert not record_of(KEY, announcement("server"), "").is_bare


def test_where_it_was_said_does_not_make_another_server() -> None:
    record = record_of(KEY, announcement("server"), "here")
    assert record == replace(record, origin="there")


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
KEYS = [*announcement("server"), "grid-manager-certificates", "storage-options"]


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(KEYS), json_like), st.text(max_size=60))
def test_no_announcement_can_do_harm(values: dict, key: str) -> None:
    record = record_of(key, values, "")
    assert record.name.isprintable()
    assert record.name
    assert record.fault is not None or record.nurls
