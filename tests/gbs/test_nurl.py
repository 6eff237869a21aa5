"""NURLs: what is read, what is refused, and that no secret shows."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.errors import FormatError
from lafsfs.gbs.nurl import Nurl, parse_nurl

PIN = hashlib.sha256(b"key").digest()
HASH = urlsafe_b64encode(PIN).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("location", "host", "port", "authority"),
    [
        ("example.com:3456", "example.com", 3456, "example.com:3456"),
        ("Storage-1.Example.COM:1", "storage-1.example.com", 1, "storage-1.example.com:1"),
        ("localhost:65535", "localhost", 65535, "localhost:65535"),
        ("example.com", "example.com", 443, "example.com:443"),
        ("127.0.0.1:80", "127.0.0.1", 80, "127.0.0.1:80"),
        ("[::1]:3456", "::1", 3456, "[::1]:3456"),
        ("[2001:DB8:0::7]", "2001:db8::7", 443, "[2001:db8::7]:443"),
    ],
)
def test_addresses(location, host, port, authority):
    nurl = parse_nurl(f"pb://{HASH}@{location}/swiss#v=1")
    assert nurl == Nurl(PIN, host, port, b"swiss")
    assert nurl.authority == authority


def test_a_swissnum_may_be_escaped():
    assert parse_nurl(f"pb://{HASH}@a:1/a%2Fb%20c~#v=1").swissnum == b"a/b c~"


@given(st.binary(min_size=1, max_size=40), st.integers(1, 65535), st.booleans())
def test_what_is_written_is_read(swissnum, port, v6):
    nurl = Nurl(PIN, "::1" if v6 else "example.com", port, swissnum)
    assert parse_nurl(nurl.danger_text()) == nurl


def test_nothing_shows_the_swissnum():
    nurl = parse_nurl(f"pb://{HASH}@a:1/verysecret#v=1")
    assert "verysecret" not in repr(nurl) + str(nurl)
    assert "verysecret" in nurl.danger_text()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "begin with pb://"),
        ("https://example.com/secret", "begin with pb://"),
        (f"pb:{HASH}@a:1/secret#v=1", "begin with pb://"),
        (f"PB://{HASH}@a:1/secret#v=1", "begin with pb://"),
        (f"pb+tor://{HASH}@a.onion:1/secret#v=1", "tor addresses are not supported"),
        (f"pb+i2p://{HASH}@a.i2p:1/secret#v=1", "i2p addresses are not supported"),
        (f"pb://{HASH}@a:1/secret", "is it a fURL"),
        ("pb://sisi4zenj7cxncgvdog7szg3yxbrnamy@tcp:127.1:34399/secret", "is it a fURL"),
        (f"pb://{HASH}@a:1/secret#v=2", "version other than 1"),
        (f"pb://{HASH}@a:1/secret#", "version other than 1"),
        (f"pb://{HASH}@a:1/secret#x#v=1", "it is not pb://"),
        ("pb://a:1/secret#v=1", "no hash"),
        ("pb://@a:1/secret#v=1", "hash is not 43"),
        (f"pb://{HASH[:-1]}@a:1/secret#v=1", "hash is not 43"),
        (f"pb://{HASH}=@a:1/secret#v=1", "hash is not 43"),
        (f"pb://{HASH[:-1]}+@a:1/secret#v=1", "hash is not 43"),
        (f"pb://{'A' * 42}B@a:1/secret#v=1", "non-canonical"),
        (f"pb://{HASH}@{HASH}@a:1/secret#v=1", "it is not pb://"),
        (f"pb://{HASH}@/secret#v=1", "neither a domain name"),
        (f"pb://{HASH}@:1/secret#v=1", "neither a domain name"),
        (f"pb://{HASH}@tcp:a:1/secret#v=1", "more than one colon"),
        (f"pb://{HASH}@::1:1/secret#v=1", "more than one colon"),
        (f"pb://{HASH}@[::1/secret#v=1", "both brackets"),
        (f"pb://{HASH}@[::1]1/secret#v=1", "both brackets"),
        (f"pb://{HASH}@[::g]:1/secret#v=1", "no IPv6 address"),
        (f"pb://{HASH}@[127.0.0.1]:1/secret#v=1", "no IPv6 address"),
        (f"pb://{HASH}@256.1.1.1:1/secret#v=1", "no IPv4 address"),
        (f"pb://{HASH}@127.1:1/secret#v=1", "no IPv4 address"),
        (f"pb://{HASH}@a..b:1/secret#v=1", "neither a domain name"),
        (f"pb://{HASH}@-a:1/secret#v=1", "neither a domain name"),
        (f"pb://{HASH}@{'a' * 64}:1/secret#v=1", "neither a domain name"),
        (f"pb://{HASH}@{'a.' * 130}b:1/secret#v=1", "neither a domain name"),
        (f"pb://{HASH}@a:/secret#v=1", "port"),
        (f"pb://{HASH}@a:0/secret#v=1", "port"),
        (f"pb://{HASH}@a:65536/secret#v=1", "port"),
        (f"pb://{HASH}@a:+1/secret#v=1", "port"),
        (f"pb://{HASH}@a:1", "is it a fURL"),
        (f"pb://{HASH}@a:1#v=1", "it is not pb://"),
        (f"pb://{HASH}@a:1/#v=1", "no swissnum"),
        (f"pb://{HASH}@a:1/secret/more#v=1", "behind the swissnum"),
        (f"pb://{HASH}@a:1/secret?q#v=1", "it is not pb://"),
        (f"pb://{HASH}@a:1/sec%ret#v=1", "characters"),
        (f"pb://{HASH}@a:1/sec ret#v=1", "characters"),
        (f"pb://{HASH}@a:1/secret#v=1\n", "characters"),
        (f"pb://{HASH}@ä:1/secret#v=1", "characters"),
        (f"pb://{HASH}@a:1/{'s' * 2048}#v=1", "too long"),
    ],
)
def test_what_is_refused_says_why(text, why):
    with pytest.raises(FormatError) as caught:
        parse_nurl(text)
    assert why in str(caught.value)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=100) | st.text("pb:/@#v=1[].%aA-_", max_size=100))
def test_anything_else_is_a_format_error(text):
    for candidate in (text, f"pb://{HASH}@{text}", f"pb://{HASH}@{text}/s#v=1", f"{text}#v=1"):
        try:
            nurl = parse_nurl(candidate)
        except FormatError:
            continue
        assert parse_nurl(nurl.danger_text()) == nurl
