"""The service as an ASGI application: who may call what, and what errors become.

Rules:

- The swissnum comes first: without it a request is answered 401, whatever it asks for and before
  its body is looked at.
- A path that does not exist is 404, a method that it does not have 405.
- An error of ours has one status. Reasons are sent where they help whoever wrote the client; they
  name nothing of this machine.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lafsfs.crypto import base32
from lafsfs.errors import (
    BadWriteEnablerError,
    FormatError,
    LafsError,
    NoSuchShareError,
    NoSuchUploadError,
    ProtocolError,
    ServerFullError,
    ServerReadOnlyError,
    ServerUnavailableError,
)
from lafsfs.gbs.service import endpoints
from lafsfs.gbs.service.endpoints import Call, Storage
from lafsfs.gbs.service.exchange import ClientGoneError, Exchange, Reply
from lafsfs.gbs.service.headers import Secret, authorization_of, is_authorized, parse_secrets
from lafsfs.gbs.service.limits import MAX_SHNUM
from lafsfs.gbs.service.refusal import Refusal
from lafsfs.grid.api import ShareKind
from lafsfs.grid.slots import TooMuchToReadError
from lafsfs.grid.uploads import (
    BeyondAllocationError,
    ConflictingWriteError,
    WrongUploadSecretError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from lafsfs.gbs.service.exchange import Receive, Send
    from lafsfs.gbs.service.metrics import Metrics

log = logging.getLogger(__name__)

_LEASE = frozenset({Secret.LEASE_RENEW, Secret.LEASE_CANCEL})
_UPLOAD = frozenset({Secret.UPLOAD})
_TEXT = ("Content-Type", "text/plain; charset=utf-8")
_BUG = "the server has a bug; its log says more"
_NONE: frozenset[Secret] = frozenset()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method on a path: what runs, which secrets it wants, and what type its refusals have.

    Stock clients look at the type of what they read before they look at the status.
    """

    run: Callable[[Storage, Call], Awaitable[Reply]]
    secrets: frozenset[Secret] = _NONE
    refusals: tuple[str, str] = _TEXT

    @property
    def name(self) -> str:
        """As metrics call it."""
        return self.run.__name__


_PREFIX = "/storage/v1/"
_INDEX = "(?P<index>[a-z2-7]{26})"
_SHNUM = "(?P<shnum>[0-9]{1,6})"
_EITHER, _IMMUTABLE, _MUTABLE = (
    f"(?P<kind>{kinds})/{_INDEX}" for kinds in ("immutable|mutable", "immutable", "mutable")
)

_READ = Endpoint(endpoints.read_share, refusals=endpoints.OCTETS)

# From a path below the prefix to its methods.
_ROUTES: tuple[tuple[str, dict[str, Endpoint]], ...] = (
    ("version", {"GET": Endpoint(endpoints.version)}),
    (f"lease/{_INDEX}", {"PUT": Endpoint(endpoints.lease, _LEASE)}),
    (f"{_EITHER}/shares", {"GET": Endpoint(endpoints.list_shares)}),
    (f"{_EITHER}/{_SHNUM}/corrupt", {"POST": Endpoint(endpoints.corrupt)}),
    (_IMMUTABLE, {"POST": Endpoint(endpoints.allocate, _LEASE | _UPLOAD)}),
    (
        f"{_IMMUTABLE}/{_SHNUM}",
        {
            "GET": _READ,
            "PATCH": Endpoint(endpoints.write_share, _UPLOAD),
        },
    ),
    (f"{_IMMUTABLE}/{_SHNUM}/abort", {"PUT": Endpoint(endpoints.abort, _UPLOAD)}),
    (f"{_MUTABLE}/{_SHNUM}", {"GET": _READ}),
    (
        f"{_MUTABLE}/read-test-write",
        {"POST": Endpoint(endpoints.read_test_write, _LEASE | {Secret.WRITE_ENABLER})},
    ),
)

# What errors are answered with: the first that fits.
_STATUSES: tuple[tuple[type[LafsError], int, str], ...] = (
    (WrongUploadSecretError, 401, ""),
    (BadWriteEnablerError, 401, ""),
    (NoSuchUploadError, 404, "no such upload"),
    (NoSuchShareError, 404, "no shares under this storage index"),
    (ConflictingWriteError, 409, "other bytes were written there before"),
    (BeyondAllocationError, 416, "past the allocated size"),
    (TooMuchToReadError, 413, "too much to read in one request"),
    (ServerReadOnlyError, 403, "this server is read-only"),
    (ServerFullError, 507, "this server is full"),
    (ServerUnavailableError, 503, "the storage is not available"),
    (ProtocolError, 400, "the request cannot be carried out"),
    (FormatError, 400, "the body is not of the required shape"),
)


def reply_to(error: LafsError, mime_type: tuple[str, str] = _TEXT) -> Reply:
    """The answer that an error becomes, with that ``Content-Type``."""
    if isinstance(error, Refusal):
        return _refusal(error.status, error.reason, mime_type, *error.headers)
    for kind, status, reason in _STATUSES:
        if isinstance(error, kind):
            detail = f": {error}" if isinstance(error, FormatError) else ""
            return _refusal(status, reason + detail, mime_type)
    log.error("a request failed", exc_info=error)
    return _refusal(500, _BUG, mime_type)


def _refusal(status: int, reason: str, *headers: tuple[str, str]) -> Reply:
    return Reply(status, headers, f"{reason}\n".encode() if reason else b"")


def find_endpoint(method: str, path: str) -> tuple[Endpoint, Mapping[str, str]]:
    """What a request is for, and what its path says. Raises Refusal, 404 or 405."""
    if path.startswith(_PREFIX):
        for pattern, methods in _ROUTES:
            match = re.fullmatch(pattern, path[len(_PREFIX) :])
            if match is None:
                continue
            if method not in methods:
                allowed = ", ".join(methods)
                raise Refusal(405, f"only {allowed} here", ("Allow", allowed))
            return methods[method], match.groupdict()
    raise Refusal(404, "no such path")


def _call_of(exchange: Exchange, endpoint: Endpoint, named: Mapping[str, str]) -> Call:
    secrets = parse_secrets(exchange.headers(b"x-tahoe-authorization"), endpoint.secrets)
    try:
        index = base32.decode(named["index"], 16) if "index" in named else b""
    except FormatError:
        raise Refusal(404, "no such storage index can be") from None
    shnum = int(named.get("shnum", "0"))
    if shnum > MAX_SHNUM:
        raise Refusal(404, "no such share number can be")
    return Call(exchange, secrets, ShareKind(named.get("kind", "immutable")), index, shnum)


class StorageApp:
    """The ASGI application."""

    def __init__(self, storage: Storage, swissnum: bytes, metrics: Metrics) -> None:
        self._storage = storage
        self._authorization = authorization_of(swissnum)
        self._metrics = metrics

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request. Nothing but a cancellation comes out."""
        if scope["type"] == "lifespan":
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        exchange = Exchange(scope, receive, send, self._storage.limits)
        with self._metrics.request() as record:
            try:
                reply = await self._reply(exchange, record.named)
                record.answered(reply.status)
                await exchange.answer(reply)
            except ClientGoneError:
                log.debug("a client went away before it was answered")
            finally:
                record.moved(exchange.received, exchange.sent)

    async def _reply(self, exchange: Exchange, named: Callable[[str], None]) -> Reply:
        mime_type = _TEXT
        try:
            if not is_authorized(exchange.header(b"authorization"), self._authorization):
                return Reply(401)
            endpoint, groups = find_endpoint(exchange.method, exchange.path)
            named(endpoint.name)
            mime_type = endpoint.refusals
            call = _call_of(exchange, endpoint, groups)
            return await endpoint.run(self._storage, call)
        except ClientGoneError:
            raise
        except LafsError as error:
            return reply_to(error, mime_type)
        except Exception:
            log.exception("%s %s failed", exchange.method, exchange.path)
            return _refusal(500, _BUG, mime_type)
