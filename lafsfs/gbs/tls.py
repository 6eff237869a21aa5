"""TLS to a storage server, trusted for the key it shows and for nothing else.

Theory. A storage server is known by its public key: the NURL pins the SHA-256 of its
SubjectPublicKeyInfo (``http-storage-node-protocol.rst``, "Solutions"; RFC 7469). Certificates are
self-signed as a rule, and who signed one, for which name and until when says nothing here. That the
server has the private key is proven by the handshake itself.

Rules:

- The pin is compared, in constant time, before a byte of any request is written: the swissnum and
  all secrets come after.
- TLS 1.2 or later.
- The 20-byte server id, where no announcement gives one, is the SHA-1 of the certificate's DER: a
  stock node serves HTTPS with the certificate of its tub. Where an introducer gives one, it must be
  the same: a server that claims another's id would be told the write enablers made for that one.
"""

from __future__ import annotations

import hmac
import os
import ssl
from typing import TYPE_CHECKING

import trio

from lafsfs.crypto import x509
from lafsfs.errors import FormatError, ServerUnavailableError
from lafsfs.gbs.stream import TLSStream

if TYPE_CHECKING:
    from lafsfs.gbs.nurl import Nurl


def client_context() -> ssl.SSLContext:
    """How every connection is encrypted. Certificates are accepted here, and pinned afterwards."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.options |= ssl.OP_NO_RENEGOTIATION  # so that writing never waits for reading
    context.set_alpn_protocols(["http/1.1"])
    return context


async def open_pinned(
    nurl: Nurl, context: ssl.SSLContext, server_id: bytes | None = None
) -> TLSStream:
    """Connect to a server and make sure that it is the one the NURL means. Has no deadline.

    ``server_id``: what its certificate must also be of; None for any with the right key.

    Raises:
        ServerUnavailableError: nobody there, no TLS, another key or id; the message says which, and
            begins with the address.
    """
    try:
        transport = await trio.open_tcp_stream(nurl.host, nurl.port)
    except OSError as error:
        raise ServerUnavailableError(f"{nurl.authority}: {_reason(error)}") from None
    stream = TLSStream(transport, context)
    try:
        await _handshake(stream, nurl)
        if not hmac.compare_digest(_pin_of(stream, nurl), nurl.pin):
            raise ServerUnavailableError(f"{nurl.authority}: shows another key than its NURL pins")
        if server_id is not None and server_id_of(stream) != server_id:
            raise ServerUnavailableError(f"{nurl.authority}: is not the server it claims to be")
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _handshake(stream: TLSStream, nurl: Nurl) -> None:
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        reason = getattr(error.__cause__, "reason", None) or "the connection was lost"
        text = str(reason).replace("_", " ").lower()
        raise ServerUnavailableError(f"{nurl.authority}: no TLS handshake: {text}") from None


def _reason(error: OSError) -> str:
    """What the system says; of several addresses, of the last that was tried."""
    cause: BaseException | None = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[-1]
    told = cause if isinstance(cause, OSError) else error
    if isinstance(told, trio.socket.gaierror):
        return told.strerror or "no such name"
    return os.strerror(told.errno) if told.errno else "cannot be reached"


def _certificate(stream: TLSStream) -> bytes:
    """The peer's certificate as PEM, or nothing."""
    der = stream.peer_certificate
    return ssl.DER_cert_to_PEM_cert(der).encode("ascii") if der else b""


def _pin_of(stream: TLSStream, nurl: Nurl) -> bytes:
    try:
        return x509.spki_hash(_certificate(stream))
    except FormatError as error:
        raise ServerUnavailableError(f"{nurl.authority}: {error}") from None


def server_id_of(stream: TLSStream) -> bytes:
    """The 20-byte id of the server at the other end, from the certificate it showed."""
    return x509.server_id_of(_certificate(stream))
