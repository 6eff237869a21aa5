"""Read, test and write a mutable slot on disk, atomically between processes (blocking).

Theory. A slot write happens under the lock of its storage index, and by replacement: each share's
next version is written to a file aside and fsynced, and only when all of them are whole are they
renamed into place and the directory fsynced. Killed or out of space before the first rename, the
slot is as it was; killed between two renames, some shares are new and some old, which is what a
mutable file's readers and writers are made to live with; a single file is never half of each.

Rules (``http-storage-node-protocol.rst``, mutable; and stock 1.20 as it behaves):

- The write enabler must be right for every share there is, even to read through here.
- Reads show what was there before, for every share of the slot.
- An absent share reads as empty in every test. Naming it without writing to it does not make it.
- A share's identity stays the one that it was made with; new shares get the directory's.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lafsfs.crypto import base32
from lafsfs.errors import BadWriteEnablerError, ProtocolError, ServerFullError
from lafsfs.formats import containers
from lafsfs.formats.containers import Lease, MutableContainer
from lafsfs.grid import disk
from lafsfs.grid.api import TestWriteResult
from lafsfs.grid.shares import (
    MUTABLE_OWNER,
    finish_slot,
    parse_container,
    read_data,
    read_slot_leases,
    slot_aside,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lafsfs.grid.api import ReadVector, SlotSecrets, TestVector, TestWriteVectors
    from lafsfs.grid.shares import ShareDirectory


class TooMuchToReadError(ProtocolError):
    """What was to be read is more than the caller wants in memory."""


@dataclass(frozen=True, slots=True)
class OpenShare:
    """A share of the slot as it is before the write."""

    fd: int
    container: MutableContainer


def read_test_write(
    directory: ShareDirectory,
    storage_index: bytes,
    secrets: SlotSecrets,
    vectors: Mapping[int, TestWriteVectors],
    reads: Sequence[ReadVector],
    expires: float,
    max_read: int | None = None,
) -> TestWriteResult:
    """See :class:`lafsfs.grid.api.StorageServer`.

    Args:
        expires: of the lease that is left behind.
        max_read: bytes that the reads may come to; None allows any number.

    Raises:
        LockBusyError: somebody else is at this slot; nothing has happened.
        TooMuchToReadError: more than ``max_read``; nothing has happened.
    """
    changing = any(v.writes or v.new_length is not None for v in vectors.values())
    with disk.translated(directory.name, writing=changing):
        directory.check_present()
        lock = directory.locks.held(disk.stripe_of(storage_index), shared=not changing)
        with lock, contextlib.ExitStack() as files:
            held = _open_shares(directory, storage_index, files)
            _check_enabler(directory, held, secrets)
            if max_read is not None and _to_read(held, reads) > max_read:
                raise TooMuchToReadError(f"more than {max_read} bytes to read in one request")
            before = {
                shnum: tuple(read_data(s.fd, s.container, r.offset, r.size) for r in reads)
                for shnum, s in held.items()
            }
            success = all(_passes(held.get(shnum), vector) for shnum, vector in vectors.items())
            if success and changing:
                _write(directory, storage_index, held, secrets, vectors, expires)
    return TestWriteResult(success, before)


def _open_shares(
    directory: ShareDirectory, storage_index: bytes, files: contextlib.ExitStack
) -> dict[int, OpenShare]:
    held = {}
    for shnum, path in directory.share_files(storage_index).items():
        with contextlib.suppress(FileNotFoundError):
            fd = files.enter_context(disk.opened(path, os.O_RDONLY))
            container = parse_container(fd)
            if isinstance(container, MutableContainer):
                held[shnum] = OpenShare(fd, container)
            elif container is not None:
                raise ProtocolError(f"{directory.name} holds an immutable file there, not a slot")
    return held


def _check_enabler(
    directory: ShareDirectory, held: Mapping[int, OpenShare], secrets: SlotSecrets
) -> None:
    for shnum, share in held.items():
        if share.container.accepts(secrets.write_enabler):
            continue
        maker = share.container.server_id
        hint = (
            f"; it was made while the server's id was {base32.encode(maker)}"
            if maker != directory.server_id
            else ""
        )
        raise BadWriteEnablerError(
            f"share {shnum} in {directory.name} has another write enabler{hint}"
        )


def _to_read(held: Mapping[int, OpenShare], reads: Sequence[ReadVector]) -> int:
    """How many bytes the reads come to."""
    return sum(
        max(0, min(read.size, share.container.data_length - read.offset))
        for share in held.values()
        for read in reads
    )


def _passes(share: OpenShare | None, vector: TestWriteVectors) -> bool:
    return all(_read_for(share, test) == test.specimen for test in vector.tests)


def _read_for(share: OpenShare | None, test: TestVector) -> bytes:
    """What a test compares: no more than shows whether it is longer than the specimen."""
    if share is None:
        return b""
    size = min(test.size, len(test.specimen) + 1)
    return read_data(share.fd, share.container, test.offset, size)


def _write(
    directory: ShareDirectory,
    storage_index: bytes,
    held: Mapping[int, OpenShare],
    secrets: SlotSecrets,
    vectors: Mapping[int, TestWriteVectors],
    expires: float,
) -> None:
    """Prepare every share aside, then let them appear together; or fail and leave all as it was."""
    bucket = directory.bucket(storage_index)
    new = MutableContainer.new(directory.server_id, secrets.write_enabler)
    lease = Lease.shown(
        MUTABLE_OWNER, secrets.lease.renew, secrets.lease.cancel, expires, directory.server_id
    )
    written = {n: v for n, v in vectors.items() if v.new_length != 0 and (n in held or v.writes)}
    deleted = {n for n, v in vectors.items() if v.new_length == 0 and n in held}
    if not written and not deleted:
        return
    _check_room(directory, held, written)
    directory.make_bucket(storage_index)
    try:
        for shnum, vector in written.items():
            _prepare(bucket / str(shnum), held.get(shnum), new, vector, lease)
    except (OSError, ProtocolError):
        for shnum in written:
            slot_aside(bucket / str(shnum)).unlink(missing_ok=True)
        _remove_if_empty(bucket)
        raise
    for shnum in written:
        slot_aside(bucket / str(shnum)).replace(bucket / str(shnum))
    for shnum in deleted:
        (bucket / str(shnum)).unlink(missing_ok=True)
        slot_aside(bucket / str(shnum)).unlink(missing_ok=True)
    disk.fsync_directory(bucket)
    _remove_if_empty(bucket)


def _check_room(
    directory: ShareDirectory,
    held: Mapping[int, OpenShare],
    written: Mapping[int, TestWriteVectors],
) -> None:
    """Refuse what the volume could never hold: a hole in a file costs nothing until it is copied.

    Raises:
        ServerFullError: the shares would grow by more than the volume has free.
    """
    growth = 0
    for shnum, vector in written.items():
        old = held[shnum].container.data_length if shnum in held else 0
        growth += _length_after(old, vector) - old
    if growth > 0 and growth > directory.space().available:
        raise ServerFullError(f"{directory.name} has no room for {growth} bytes more")


def _length_after(old: int, vector: TestWriteVectors) -> int:
    """How long a share's data is once a vector was applied to it.

    Raises:
        ProtocolError: longer than any share can be.
    """
    length = max([old, *(write.offset + len(write.data) for write in vector.writes)])
    if length > containers.MAX_MUTABLE_SHARE_SIZE:
        raise ProtocolError("a mutable share cannot be that long")
    return length if vector.new_length is None else min(length, vector.new_length)


def _prepare(
    path: Path,
    share: OpenShare | None,
    new: MutableContainer,
    vector: TestWriteVectors,
    lease: Lease,
) -> None:
    """Write a share's next version aside: the old data, the writes over it, then cut."""
    container = new if share is None else share.container
    old = container.data_length
    length = _length_after(old, vector)
    leases = () if share is None else read_slot_leases(share.fd, container)
    start = containers.MUTABLE_DATA_OFFSET
    with disk.opened(slot_aside(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC) as fd:
        kept = min(old, length)
        replaced = any(w.offset == 0 and len(w.data) >= kept for w in vector.writes)
        if share is not None and not replaced:
            disk.copy_range(share.fd, fd, start, kept)
        for write in vector.writes:
            disk.write_at(fd, start + write.offset, write.data)
        finish_slot(fd, container, length, containers.with_lease(leases, lease))


def _remove_if_empty(bucket: Path) -> None:
    """Leave no directory behind without shares in it."""
    with contextlib.suppress(OSError):
        bucket.rmdir()
        disk.fsync_directory(bucket.parent)
