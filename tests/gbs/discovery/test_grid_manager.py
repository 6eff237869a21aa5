"""Grid Manager certificates: which count, for whom, and until when."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.crypto import base32
from lafsfs.gbs.discovery.grid_manager import (
    MAX_CERTIFICATES,
    Certificate,
    parse_certificates,
    permitted_until,
)
from tests.gbs.discovery.announced import NOW, Signer

MANAGER, OTHER = Signer("manager"), Signer("other manager")
SERVER, NEIGHBOUR = Signer("server"), Signer("neighbour")
CERTIFICATE = MANAGER.certificate(SERVER)


def until(*certificates: Any, managers=(MANAGER.raw,), server=SERVER.raw):
    return permitted_until(managers, parse_certificates(list(certificates)), server)


def test_a_good_certificate() -> None:
    end = NOW + datetime.timedelta(days=1)
    assert until(MANAGER.certificate(SERVER)) == end
    assert until(MANAGER.certificate(SERVER), managers=(OTHER.raw, MANAGER.raw)) == end


def test_what_stock_writes() -> None:
    """The spelling of stock 1.20, a zone and microseconds included."""
    certificate = {
        "certificate": '{"expires":"2031-09-12T09:00:00.123456+00:00","public_key":"'
        f'pub-{SERVER.key}","version":1}}',
    }
    certificate["signature"] = base32.encode(MANAGER.sign(certificate["certificate"].encode()))
    assert until(certificate) == datetime.datetime(
        2031, 9, 12, 9, 0, 0, 123456, tzinfo=datetime.UTC
    )


def test_the_last_one_to_expire_counts() -> None:
    late = (NOW + datetime.timedelta(days=9)).isoformat()
    certificates = [
        MANAGER.certificate(SERVER),
        MANAGER.certificate(SERVER, expires=late),
        OTHER.certificate(SERVER, expires="2099-01-01T00:00:00+00:00"),
    ]
    assert until(*certificates) == NOW + datetime.timedelta(days=9)


def test_times_without_a_zone_are_utc() -> None:
    certificate = MANAGER.certificate(SERVER, expires="2030-06-01T12:00:00")
    assert until(certificate) == datetime.datetime(2030, 6, 1, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    "certificate",
    [
        OTHER.certificate(SERVER),
        SERVER.certificate(SERVER),
        MANAGER.certificate(NEIGHBOUR),
        MANAGER.certificate(SERVER, version=2),
        MANAGER.certificate(SERVER, expires="soon"),
        MANAGER.certificate(SERVER, public_key=5),
        MANAGER.certificate(NEIGHBOUR) | {"certificate": CERTIFICATE["certificate"]},
        CERTIFICATE | {"signature": "a"},
        CERTIFICATE | {"signature": OTHER.certificate(SERVER)["signature"]},
        CERTIFICATE | {"certificate": "x" * 100_000},
        {"certificate": CERTIFICATE["certificate"]},
        {},
        [],
        None,
        "text",
    ],
)
def test_what_counts_for_nothing(certificate: Any) -> None:
    assert until(certificate) is None
    assert until(certificate, MANAGER.certificate(SERVER)) is not None


def test_servers_without_a_key_have_no_certificates() -> None:
    assert until(MANAGER.certificate(SERVER), server=None) is None
    assert parse_certificates({"certificate": "x"}) == ()
    assert parse_certificates(None) == ()


def test_their_number_is_bounded() -> None:
    assert len(parse_certificates([MANAGER.certificate(SERVER)] * 1000)) == MAX_CERTIFICATES


@settings(max_examples=100)
@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x), max_leaves=5))
def test_signed_nonsense(claims: Any) -> None:
    """A Grid Manager is trusted about servers, and not about JSON."""
    for value in (claims, {"version": 1, "public_key": "pub-" + SERVER.key, "expires": claims}):
        text = json.dumps(value).encode()
        certificate = Certificate(text, MANAGER.sign(text))
        assert permitted_until((MANAGER.raw,), [certificate], SERVER.raw) is None
