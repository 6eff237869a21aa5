"""Identities of storage directories."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from lafsfs.crypto.x509 import make_node_certificate, server_id_of, spki_hash
from lafsfs.errors import FormatError

PEM = make_node_certificate()
DER = base64.b64decode(b"".join(PEM.split(b"-----")[2].split()))

# A node.pem's certificate as stock Tahoe-LAFS 1.20 makes it, and what stock derives from it.
STOCK_CERTIFICATE = b"""\
-----BEGIN CERTIFICATE-----
MIICojCCAYoCAQEwDQYJKoZIhvcNAQELBQAwFzEVMBMGA1UEAwwMbmV3cGJfdGhp
bmd5MB4XDTI2MTEyMDA5MDAyNVoXDTI3MTEyMDA5MDAyNVowFzEVMBMGA1UEAwwM
bmV3cGJfdGhpbmd5MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAyIor
B8QfvsYUvQZrC1311ol6HaCcdESTJEwxQBlOuacxlleWqYWJdAMZzDAyL4YgHyri
A0X5dMD2aUCMAiLymzMv+EWyzPhFnxd4O8wlbzZOHdYkg9uomA767pB+6C/We5pH
REkIhNFl3nW91f3AiwIxXlTPZrtdyF0UY9B5luycfiEiuUW0FeMUuevySudVFZN/
tss4Nkt8zmlwWME8SOuviIlwkP7LucZQbUZMxoV6HnaWwwJjYXo4V29n+mgMr7+H
yQoJk0bIOQCiWA6eOAz9Z1fZ2kdTNsKV731z7NvL6ZRFPpXqMduK6QS9AZqQgq1j
xUkkva5H2SW22dmoXQIDAQABMA0GCSqGSIb3DQEBCwUAA4IBAQCBUn/QRhbUOW7Q
VM6LDtym3MXybYVP8ITYTW+13zmn0LN7hJr5C8ErC8LZmdoucr6E3WnNOT8tkFTp
GjaGfFKSbpBWDlOwSEK+P8ZqRm9DuCfVFZXinzHFoQaDJ/G7yuahzUs7lWPOk38T
zt7YlxmC+VS2ywfTkZ4GffpaYHrqMJWDsNOT2x+AucsXNoP3FuU3IlBBXqw25Lq9
04eRZTblm4qpJw34iBRfPn2yNoWsMrkzifvdz4FOl+l/fsM3q4JZTu17XMIzEriB
UkF4+vUYCNh1Zo1T2+9N96B2VQCkmqYQZffJcObAo550mLJvJ1rud0g6LZSiW/+4
kjPv37p4
-----END CERTIFICATE-----
"""
STOCK_TUB_ID = "uoyv6lnrqqzv75ymfublwko3fok323k2"
STOCK_NURL_SPKI = "hVxROnhqEmtjMPbMjkDjJW5WHqpjZWwzYThL3rLaJVc"


def test_identities_of_a_stock_node() -> None:
    tub_id = base64.b32encode(server_id_of(STOCK_CERTIFICATE)).decode().lower()
    assert tub_id == STOCK_TUB_ID
    spki = base64.urlsafe_b64encode(spki_hash(STOCK_CERTIFICATE)).decode().rstrip("=")
    assert spki == STOCK_NURL_SPKI


def test_a_new_identity_is_whole() -> None:
    certificate = x509.load_pem_x509_certificate(PEM)
    key = load_pem_private_key(PEM, password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 2048
    assert key.public_key() == certificate.public_key()
    certificate.verify_directly_issued_by(certificate)  # self-signed
    assert certificate.not_valid_after_utc.year == 9999


def test_ids_are_of_the_certificate_alone() -> None:
    assert server_id_of(PEM) == server_id_of(framed(DER)) == hashlib.sha1(DER).digest()
    alone = PEM[: PEM.index(b"-----BEGIN PRIVATE")]
    behind_its_key = PEM[len(alone) :] + alone
    for pem in (alone, behind_its_key):
        assert server_id_of(pem) == server_id_of(PEM)
        assert spki_hash(pem) == spki_hash(PEM)


def test_identities_differ() -> None:
    other = make_node_certificate()
    assert server_id_of(other) != server_id_of(PEM)
    assert spki_hash(other) != spki_hash(PEM)


def framed(der: bytes) -> bytes:
    begin, end = (f"-----{word} CERTIFICATE-----\n".encode() for word in ("BEGIN", "END"))
    return begin + base64.encodebytes(der) + end


@given(st.binary(max_size=200))
def test_bytes_that_are_no_certificate(data: bytes) -> None:
    for pem in (data, framed(data), PEM[PEM.index(b"-----BEGIN PRIVATE") :]):
        with pytest.raises(FormatError):
            server_id_of(pem)
        with pytest.raises(FormatError):
            spki_hash(pem)


# The library only warns of what it means to refuse some day, such as a negative serial number.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(st.data())
def test_damaged_certificates_give_only_format_errors(draw) -> None:
    der = bytearray(DER)
    for _ in range(draw.draw(st.integers(1, 3))):
        der[draw.draw(st.integers(0, len(der) - 1))] = draw.draw(st.integers(0, 255))
    for function, size in ((server_id_of, 20), (spki_hash, 32)):
        try:
            assert len(function(framed(der))) == size
        except FormatError:
            continue


@pytest.mark.parametrize("version", [3, 66, 255])
def test_a_certificate_of_a_version_to_come(version: int) -> None:
    marker = bytes([0xA0, 3, 2, 1, 2])  # [0] EXPLICIT INTEGER 2: X.509 version 3
    assert DER.count(marker) == 1
    with pytest.raises(FormatError):
        server_id_of(framed(DER.replace(marker, marker[:-1] + bytes([version]))))
