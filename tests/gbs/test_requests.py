"""What goes over the line for each question, as ``http-storage-node-protocol.rst`` has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lafsfs.gbs import requests
from lafsfs.grid.api import LeaseSecrets, ShareKind, SlotSecrets

if TYPE_CHECKING:
    from lafsfs.gbs.connection import Request

INDEX = bytes(16)
SHARES = "/storage/v1/immutable/aaaaaaaaaaaaaaaaaaaaaaaaaa"
SLOT = "/storage/v1/mutable/aaaaaaaaaaaaaaaaaaaaaaaaaa"
LEASE = LeaseSecrets(b"r" * 32, b"c" * 32)
UPLOAD = b"u" * 32

CASES = [
    (requests.version(), "GET", "/storage/v1/version", set()),
    (requests.list_shares(ShareKind.MUTABLE, INDEX), "GET", f"{SLOT}/shares", set()),
    (requests.read_share(ShareKind.IMMUTABLE, INDEX, 3, 5, 7), "GET", f"{SHARES}/3", set()),
    (
        requests.allocate(INDEX, frozenset({1}), 9, UPLOAD, LEASE),
        "POST",
        SHARES,
        {"lease-renew-secret", "lease-cancel-secret", "upload-secret"},
    ),
    (
        requests.write_share(INDEX, 1, UPLOAD, 5, (b"123", b"4567")),
        "PATCH",
        f"{SHARES}/1",
        {"upload-secret"},
    ),
    (requests.abort_share(INDEX, 1, UPLOAD), "PUT", f"{SHARES}/1/abort", {"upload-secret"}),
    (
        requests.read_test_write(INDEX, SlotSecrets(b"w" * 32, LEASE), b"{}"),
        "POST",
        f"{SLOT}/read-test-write",
        {"write-enabler", "lease-renew-secret", "lease-cancel-secret"},
    ),
    (
        requests.add_lease(INDEX, LEASE),
        "PUT",
        "/storage/v1/lease/aaaaaaaaaaaaaaaaaaaaaaaaaa",
        {"lease-renew-secret", "lease-cancel-secret"},
    ),
    (
        requests.advise_corrupt_share(ShareKind.IMMUTABLE, INDEX, 2, "why"),
        "POST",
        f"{SHARES}/2/corrupt",
        set(),
    ),
]


@pytest.mark.parametrize(
    ("request_", "method", "path", "secrets"), CASES, ids=[f"{c[1]} {c[2]}" for c in CASES]
)
def test_each_shows_the_secrets_it_needs_and_no_other(
    request_: Request, method: str, path: str, secrets: set[str]
) -> None:
    assert (request_.method, request_.target) == (method, path)
    shown = [value for name, value in request_.headers if name == "X-Tahoe-Authorization"]
    assert {value.split(" ")[0] for value in shown} == secrets
    assert len(shown) == len(secrets)


def test_ranges_are_closed() -> None:
    read = dict(requests.read_share(ShareKind.IMMUTABLE, INDEX, 3, 5, 7).headers)
    assert read["Range"] == "bytes=5-11"
    written = dict(requests.write_share(INDEX, 1, UPLOAD, 5, (b"123", b"4567")).headers)
    assert written["Content-Range"] == "bytes 5-11/*"
