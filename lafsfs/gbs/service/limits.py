"""What one client, and all of them together, can cost the server.

Every buffer, body, connection and wait of the service is bounded by a number on this page.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_SHNUM = 255  # a file has at most 256 shares
MAX_SHARES = 256  # in any set or map (CDDL: 0*256)
MAX_VECTORS = 30  # test vectors of a share, and read vectors (CDDL: 0*30)
MAX_WRITES = 1 << 16  # write vectors in one request: stock sends one for each segment and salt

MAX_ALLOCATE_BODY = 8 << 10  # bytes, as stock
MAX_REASON_BODY = 32 << 10  # bytes, as stock
MAX_HEADERS = 16 << 10  # bytes of request line and headers; four secrets have 300

PIECE = 256 << 10  # bytes that are read or written, and held in memory, at a time
DRAINED = 2 << 20  # bytes of a refused request that are read all the same, so that its sender
# gets to see the answer before the connection ends
THREAD_SIZE = 64 << 10  # bytes of CBOR from which a thread is worth its hop


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be set, and is for tests.

    Attributes:
        connections: open at a time. When there are more, the one that was silent for longest goes.
        silent: seconds for which a connection is left alone even then.
        handshake: seconds until TLS must stand.
        idle: seconds between two requests, and from the handshake to the first. Stock clients keep
            idle connections for 240.
        grace: seconds for which a client may be slow or silent; after that a request's body must
            have arrived, and a reply must be taken, at ``slowest``.
        slowest: bytes per second.
        drain: seconds for which the rest of a refused request is read.
        shutdown: seconds for requests under way to end in.
        slot_body: bytes of a read-test-write request.
        slot_reply: bytes that it may read.
        memory: bytes of decoded requests and replies of slots at a time.
    """

    connections: int = 1000
    silent: float = 5.0
    handshake: float = 20.0
    idle: float = 300.0
    grace: float = 60.0
    slowest: float = 1024.0
    drain: float = 5.0
    shutdown: float = 10.0
    slot_body: int = 256 << 20
    slot_reply: int = 256 << 20
    memory: int = 1 << 30
