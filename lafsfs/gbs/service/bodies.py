"""Bodies of requests, checked against their CDDL, and of replies, in CBOR.

What is wrong is a :class:`~lafsfs.errors.FormatError` whose message quotes nothing. Fields that
nobody asked for are as wrong as missing ones, as the CDDL has it. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cbor2

from lafsfs.errors import FormatError
from lafsfs.formats import cbor
from lafsfs.gbs.service.limits import MAX_SHARES, MAX_SHNUM, MAX_VECTORS, MAX_WRITES
from lafsfs.grid.api import ReadVector, TestVector, TestWriteVectors, WriteVector

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lafsfs.grid.api import Allocation, ServerVersion, TestWriteResult

V1 = b"http://allmydata.org/tahoe/protocols/storage/v1"
MAX_REASON = 32765  # bytes of a corruption advisory (CDDL)
MAX_UINT = (1 << 63) - 1  # what an offset or size may be: the largest that a file can have

_DEPTH = 6  # a set in a request for an allocation, and a vector's field in a test-and-write
_ITEMS = 5 * MAX_WRITES + MAX_SHARES * (8 + 7 * MAX_VECTORS) + 5 * MAX_VECTORS + 16


@dataclass(frozen=True, slots=True)
class AllocateRequest:
    """``POST /storage/v1/immutable/:storage_index``. ``size`` in bytes."""

    shnums: frozenset[int]
    size: int


@dataclass(frozen=True, slots=True)
class TestWriteRequest:
    """``POST /storage/v1/mutable/:storage_index/read-test-write``."""

    __test__ = False

    vectors: Mapping[int, TestWriteVectors]
    reads: tuple[ReadVector, ...]


# --- shapes ---------------------------------------------------------------------------------------


def _fields(value: object, *names: str) -> tuple[Any, ...]:
    """The values of a map that has exactly these keys."""
    if not isinstance(value, dict) or value.keys() != set(names):
        raise FormatError(f"not a map of {', '.join(names)}")
    return tuple(value[name] for name in names)


def _uint(value: object, limit: int = MAX_UINT) -> int:
    if type(value) is not int or not 0 <= value <= limit:
        raise FormatError(f"not a number from 0 to {limit}")
    return value


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise FormatError("not a byte string")
    return value


def _list(value: object, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise FormatError(f"not a list of at most {most}")
    return value


# --- requests -------------------------------------------------------------------------------------


def parse_allocate(body: bytes) -> AllocateRequest:
    """Read a request for an allocation. Raises FormatError."""
    message = cbor.decode(body, max_depth=4, max_items=MAX_SHARES + 8)
    shnums, size = _fields(message, "share-numbers", "allocated-size")
    if not isinstance(shnums, set | frozenset):
        raise FormatError("share-numbers is not a set")
    return AllocateRequest(frozenset(_uint(n, MAX_SHNUM) for n in shnums), _uint(size))


def parse_reason(body: bytes) -> str:
    """Read a corruption advisory: one printable line. Raises FormatError."""
    (reason,) = _fields(cbor.decode(body, max_depth=2, max_items=3), "reason")
    if not isinstance(reason, str) or not 1 <= len(reason.encode()) <= MAX_REASON:
        raise FormatError(f"reason is not a text of 1 to {MAX_REASON} bytes")
    return "".join(c if c.isprintable() else "?" for c in reason)


def parse_test_write(body: bytes) -> TestWriteRequest:
    """Read a read-test-write. Raises FormatError."""
    message = cbor.decode(body, max_depth=_DEPTH, max_items=_ITEMS)
    shares, reads = _fields(message, "test-write-vectors", "read-vector")
    if not isinstance(shares, dict) or len(shares) > MAX_SHARES:
        raise FormatError(f"test-write-vectors is not a map of at most {MAX_SHARES}")
    return TestWriteRequest(
        {_uint(shnum, MAX_SHNUM): _vectors(share) for shnum, share in shares.items()},
        tuple(_read(read) for read in _list(reads, MAX_VECTORS)),
    )


def _vectors(share: object) -> TestWriteVectors:
    tests, writes, new_length = _fields(share, "test", "write", "new-length")
    return TestWriteVectors(
        tuple(_test(test) for test in _list(tests, MAX_VECTORS)),
        tuple(_write(write) for write in _list(writes, MAX_WRITES)),
        None if new_length is None else _uint(new_length),
    )


def _test(vector: object) -> TestVector:
    offset, size, specimen = _fields(vector, "offset", "size", "specimen")
    return TestVector(_uint(offset), _uint(size), _bytes(specimen))


def _write(vector: object) -> WriteVector:
    offset, data = _fields(vector, "offset", "data")
    return WriteVector(_uint(offset), _bytes(data))


def _read(vector: object) -> ReadVector:
    offset, size = _fields(vector, "offset", "size")
    return ReadVector(_uint(offset), _uint(size))


# --- replies --------------------------------------------------------------------------------------


def pack_version(version: ServerVersion) -> bytes:
    """``GET /storage/v1/version``. Its keys are byte strings."""
    return cbor2.dumps(
        {
            V1: {
                b"maximum-immutable-share-size": version.maximum_immutable_share_size,
                b"maximum-mutable-share-size": version.maximum_mutable_share_size,
                b"available-space": version.available_space,
            },
            b"application-version": version.application.encode(),
        }
    )


def pack_shares(shnums: Iterable[int]) -> bytes:
    """``GET /storage/v1/{kind}/:storage_index/shares``."""
    return cbor2.dumps(set(shnums))


def pack_allocation(allocation: Allocation) -> bytes:
    """The answer to a request for an allocation."""
    return cbor2.dumps(
        {"already-have": set(allocation.already_have), "allocated": set(allocation.allocated)}
    )


def pack_required(missing: Iterable[tuple[int, int]]) -> bytes:
    """The answer to part of an upload: ranges ``[begin, end)`` that are yet to come."""
    return cbor2.dumps({"required": [{"begin": start, "end": stop} for start, stop in missing]})


def pack_test_write(result: TestWriteResult) -> bytes:
    """The answer to a read-test-write."""
    reads = {shnum: list(data) for shnum, data in result.reads.items()}
    return cbor2.dumps({"success": result.success, "data": reads})
