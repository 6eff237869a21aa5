"""The requests of the protocol: one for each thing that a server can be asked. Pure.

Secrets go into headers, everything else into the path, the range or a CBOR body
(:mod:`lafsfs.gbs.messages`, ``http-storage-node-protocol.rst``).
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Final

from lafsfs.crypto import base32
from lafsfs.gbs import messages
from lafsfs.gbs.connection import Request
from lafsfs.grid.api import ShareKind

if TYPE_CHECKING:
    from lafsfs.grid.api import LeaseSecrets, Pieces, SlotSecrets

_ACCEPT: Final = (("Accept", messages.MIME_TYPE),)
_CONTENT: Final = ("Content-Type", messages.MIME_TYPE)
_BYTES: Final = ("Content-Type", "application/octet-stream")


def version() -> Request:
    """What the server is, and can do."""
    return Request("GET", "/storage/v1/version", _ACCEPT)


def list_shares(kind: ShareKind, storage_index: bytes) -> Request:
    """The numbers of its shares."""
    return Request("GET", f"{_path(kind, storage_index)}/shares", _ACCEPT)


def read_share(
    kind: ShareKind, storage_index: bytes, shnum: int, offset: int, size: int
) -> Request:
    """``size`` bytes of a share, at least one, from ``offset`` on."""
    headers = (("Range", messages.range_header(offset, size)),)
    return Request("GET", f"{_path(kind, storage_index)}/{shnum}", headers)


def allocate(
    storage_index: bytes,
    shnums: frozenset[int],
    size: int,
    upload_secret: bytes,
    lease: LeaseSecrets,
) -> Request:
    """Room for immutable shares of ``size`` bytes each."""
    secrets = (*_lease_headers(lease), _secret("upload-secret", upload_secret))
    body = messages.pack_allocation(shnums, size)
    path = _path(ShareKind.IMMUTABLE, storage_index)
    return Request("POST", path, (*_ACCEPT, _CONTENT, *secrets), (body,))


def write_share(
    storage_index: bytes, shnum: int, upload_secret: bytes, offset: int, data: Pieces
) -> Request:
    """Bytes of a share that was allocated, at ``offset``."""
    headers = (
        *_ACCEPT,
        _BYTES,
        ("Content-Range", messages.content_range_header(offset, sum(map(len, data)))),
        _secret("upload-secret", upload_secret),
    )
    return Request("PATCH", f"{_path(ShareKind.IMMUTABLE, storage_index)}/{shnum}", headers, data)


def abort_share(storage_index: bytes, shnum: int, upload_secret: bytes) -> Request:
    """Forget an upload."""
    path = f"{_path(ShareKind.IMMUTABLE, storage_index)}/{shnum}/abort"
    return Request("PUT", path, (_secret("upload-secret", upload_secret),))


def read_test_write(storage_index: bytes, secrets: SlotSecrets, body: bytes) -> Request:
    """``body``: as :func:`lafsfs.gbs.messages.pack_test_write` gives it."""
    headers = (
        *_ACCEPT,
        _CONTENT,
        _secret("write-enabler", secrets.write_enabler),
        *_lease_headers(secrets.lease),
    )
    path = f"{_path(ShareKind.MUTABLE, storage_index)}/read-test-write"
    return Request("POST", path, headers, (body,))


def add_lease(storage_index: bytes, lease: LeaseSecrets) -> Request:
    """A lease on all that is under a storage index."""
    path = f"/storage/v1/lease/{base32.encode(storage_index)}"
    return Request("PUT", path, _lease_headers(lease))


def advise_corrupt_share(kind: ShareKind, storage_index: bytes, shnum: int, reason: str) -> Request:
    """A complaint about a share."""
    path = f"{_path(kind, storage_index)}/{shnum}/corrupt"
    return Request("POST", path, (_CONTENT,), (messages.pack_reason(reason),))


def _path(kind: ShareKind, storage_index: bytes) -> str:
    return f"/storage/v1/{kind.value}/{base32.encode(storage_index)}"


def _secret(name: str, secret: bytes) -> tuple[str, str]:
    return ("X-Tahoe-Authorization", f"{name} {b64encode(secret).decode('ascii')}")


def _lease_headers(lease: LeaseSecrets) -> tuple[tuple[str, str], ...]:
    return (
        _secret("lease-renew-secret", lease.renew),
        _secret("lease-cancel-secret", lease.cancel),
    )
