"""fURLs: the tub id is right, nothing else passes, and the secret end shows nowhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.errors import FormatError
from lafsfs.gbs.discovery.furl import parse_furl
from tests.gbs.discovery.announced import furl, nurl, tub_id


def test_what_is_in_one() -> None:
    parsed = parse_furl(furl("a", "tcp:host:1,tor:abc.onion:2"))
    assert parsed.tub_id == tub_id("a")
    assert parsed.hints == "tcp:host:1,tor:abc.onion:2"
    assert parsed.danger_text() == furl("a", "tcp:host:1,tor:abc.onion:2")
    assert "swissnum" not in repr(parsed) + parsed.shown


def test_tub_ids_are_read_as_stock_reads_them() -> None:
    text = furl("a")
    tub = text[5:37]
    assert parse_furl(text.replace(tub, tub.upper())) == parse_furl(text)
    assert parse_furl(furl("unlisted", "")).hints == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pb://",
        "http://example.com/x",
        furl("a")[:-20].rpartition("/")[0],
        furl("a").replace("pb://", "pb://a"),
        furl("a").replace("@", ""),
        furl("a") + "/more",
        furl("a") + "\n",
        furl("a") + " x",
        furl("é"),
        "pb://" + "a" * 5000 + "@tcp:x:1/y",
        nurl("a"),
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse_furl(text)
    assert "swissnum" not in str(caught.value)


def test_a_nurl_is_called_one() -> None:
    with pytest.raises(FormatError, match="NURL"):
        parse_furl(nurl("a"))


@given(st.text(max_size=100) | st.text("pb:/@abc234,#v=1", max_size=80).map("pb://".__add__))
def test_arbitrary_text(text: str) -> None:
    try:
        parsed = parse_furl(text)
    except FormatError:
        return
    assert parse_furl(parsed.danger_text()) == parsed
