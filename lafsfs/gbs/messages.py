"""The bodies of requests and replies: CBOR of a few fixed shapes, and ranges in headers.

Theory. Every reply is a plain tree of numbers, bytes, texts, booleans, lists, maps and sets (tag
258), each small in number though some bytes are long. :mod:`lafsfs.formats.cbor` lets nothing else
through; here the tree is checked for its shape (``http-storage-node-protocol.rst``, the CDDL of
each endpoint).

Rules:

- Whatever is wrong is a :class:`~lafsfs.errors.ProtocolError`, whose message quotes nothing.
- Keys of a map that are not asked for are ignored: later servers may say more.
- Pure: no I/O.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import cbor2

from lafsfs.errors import FormatError, ProtocolError
from lafsfs.formats import cbor
from lafsfs.grid.api import Allocation, ServerVersion, TestWriteResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lafsfs.grid.api import ReadVector, TestWriteVectors

MIME_TYPE = "application/cbor"
V1 = b"http://allmydata.org/tahoe/protocols/storage/v1"

MAX_SHARES = 256  # in any set or map (CDDL: 0*256)
MAX_VECTORS = 30  # test vectors of a share, and read vectors (CDDL: 0*30)
MAX_REASON = 32765  # bytes of a corruption advisory (CDDL)
MAX_UINT = (1 << 64) - 1  # what a size may be
MAX_DEPTH = 4  # of nesting; a test-and-set's answer has three levels
MAX_SHARES_ITEMS = 2 * MAX_SHARES + 16  # of CBOR, in a message that has two sets
MAX_SLOT_ITEMS = MAX_SHARES * (MAX_VECTORS + 2) + 16  # ... and in a test-and-set's answer

MAX_VERSION_BODY = 4 << 10  # bytes; stock's has 170
MAX_SHARES_BODY = 8 << 10  # bytes; twice 256 share numbers have 1.6 KiB
MAX_WRITE_BODY = 1 << 20  # bytes; the ranges still missing, one for every hole
MAX_ERROR_BODY = 64 << 10  # bytes; what a server says when it refuses
MAX_SLOT_BODY = 256 << 20  # bytes; all shares of a slot in one reply

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,20})-([0-9]{1,20})/([0-9]{1,20}|\*)")


def decode(body: bytes, max_items: int = 64) -> object:
    """Decode a CBOR body of the plain kind."""
    try:
        message: object = cbor.decode(body, max_depth=MAX_DEPTH, max_items=max_items)
    except FormatError as error:
        raise ProtocolError(f"its answer is not as it should be: {error}") from None
    return message


# --- shapes ---------------------------------------------------------------------------------------


def _wrong(what: str) -> ProtocolError:
    return ProtocolError(f"its answer has not the shape of {what}")


def _uint(value: object, what: str, limit: int = MAX_UINT) -> int:
    if type(value) is not int or not 0 <= value <= limit:
        raise _wrong(what)
    return value


def _field(mapping: object, key: object, what: str) -> object:
    if not isinstance(mapping, dict) or key not in mapping:
        raise _wrong(what)
    value: object = mapping[key]
    return value


def _shnums(value: object, what: str) -> frozenset[int]:
    """Share numbers; a list is taken for a set."""
    if not isinstance(value, (set, frozenset, list)):
        raise _wrong(what)
    return frozenset(_uint(shnum, what, MAX_SHARES - 1) for shnum in value)


def parse_version(body: bytes) -> ServerVersion:
    """``GET /storage/v1/version``."""
    what = "a version"
    message = decode(body)
    limits = _field(message, V1, what)
    application = _field(message, b"application-version", what)
    if not isinstance(application, bytes):
        raise _wrong(what)
    text = application[:200].decode("utf-8", "replace")
    return ServerVersion(
        application="".join(c if c.isprintable() else "?" for c in text) or "unnamed",
        available_space=_uint(_field(limits, b"available-space", what), what),
        maximum_immutable_share_size=_uint(
            _field(limits, b"maximum-immutable-share-size", what), what
        ),
        maximum_mutable_share_size=_uint(_field(limits, b"maximum-mutable-share-size", what), what),
    )


def parse_shares(body: bytes) -> frozenset[int]:
    """``GET /storage/v1/{kind}/{storage_index}/shares``."""
    return _shnums(decode(body, MAX_SHARES_ITEMS), "a list of shares")


def pack_allocation(shnums: frozenset[int], size: int) -> bytes:
    """The body of ``POST /storage/v1/immutable/{storage_index}``."""
    return cbor2.dumps({"share-numbers": set(shnums), "allocated-size": size})


def parse_allocation(body: bytes) -> Allocation:
    """The answer to it."""
    what = "an allocation"
    message = decode(body, MAX_SHARES_ITEMS)
    return Allocation(
        already_have=_shnums(_field(message, "already-have", what), what),
        allocated=_shnums(_field(message, "allocated", what), what),
    )


def pack_reason(reason: str) -> bytes:
    """The body of a corruption advisory, cut to what servers take."""
    raw = reason.encode("utf-8", "replace")[:MAX_REASON]
    return cbor2.dumps({"reason": raw.decode("utf-8", "ignore") or "no reason given"})


def pack_test_write(vectors: Mapping[int, TestWriteVectors], reads: Sequence[ReadVector]) -> bytes:
    """The body of ``POST /storage/v1/mutable/{storage_index}/read-test-write``.

    Raises:
        ProtocolError: more vectors than servers take.
    """
    most = max((len(vector.tests) for vector in vectors.values()), default=0)
    if len(vectors) > MAX_SHARES or max(most, len(reads)) > MAX_VECTORS:
        raise ProtocolError(f"more than {MAX_VECTORS} test or read vectors in one request")
    message = {
        "test-write-vectors": {
            shnum: {
                "test": [
                    {"offset": test.offset, "size": test.size, "specimen": test.specimen}
                    for test in vector.tests
                ],
                "write": [{"offset": write.offset, "data": write.data} for write in vector.writes],
                "new-length": vector.new_length,
            }
            for shnum, vector in vectors.items()
        },
        "read-vector": [{"offset": read.offset, "size": read.size} for read in reads],
    }
    return cbor2.dumps(message)


def test_write_limit(reads: Sequence[ReadVector]) -> int:
    """How many bytes the answer to these reads may have at most."""
    per_share = sum(read.size for read in reads) + 16 * len(reads) + 16
    return min(MAX_SLOT_BODY, MAX_SHARES_BODY + MAX_SHARES * per_share)


def parse_test_write(body: bytes, reads: Sequence[ReadVector]) -> TestWriteResult:
    """The answer: for each share one bytes per read vector, none longer than was asked for."""
    what = "a test-and-set's result"
    message = decode(body, MAX_SLOT_ITEMS)
    success, data = _field(message, "success", what), _field(message, "data", what)
    if type(success) is not bool or not isinstance(data, dict):
        raise _wrong(what)
    answers: dict[int, tuple[bytes, ...]] = {}
    for shnum, answer in data.items():
        if not isinstance(answer, list) or len(answer) != len(reads):
            raise _wrong(what)
        for read, piece in zip(reads, answer, strict=True):
            if not isinstance(piece, bytes) or len(piece) > read.size:
                raise _wrong(what)
        answers[_uint(shnum, what, MAX_SHARES - 1)] = tuple(answer)
    return TestWriteResult(success, answers)


# --- ranges ---------------------------------------------------------------------------------------


def range_header(offset: int, size: int) -> str:
    """``Range`` for ``size`` > 0 bytes."""
    return f"bytes={offset}-{offset + size - 1}"


def content_range_header(offset: int, size: int) -> str:
    """``Content-Range`` of ``size`` > 0 bytes that are sent."""
    return f"bytes {offset}-{offset + size - 1}/*"


def check_range(header: str, offset: int, size: int, received: int) -> None:
    """Whether ``received`` bytes, said to be the range in the header, can answer what was asked.

    Raises:
        ProtocolError: another range, or another number of bytes.
    """
    match = _CONTENT_RANGE.fullmatch(header)
    if match is None:
        raise ProtocolError("its answer does not say which range it is")
    first, last = int(match[1]), int(match[2])
    if first != offset or not first <= last < offset + size:
        raise ProtocolError("its answer is another range than was asked for")
    total = None if match[3] == "*" else int(match[3])
    if total is not None and last != min(offset + size, total) - 1:
        raise ProtocolError("its answer is part of the range that was asked for")
    if received != last - first + 1:
        raise ProtocolError("its answer has another length than it says")
