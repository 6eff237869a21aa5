"""k verified shares of one version -> its contents, or blocks of some of its segments.

The servermap says where shares of the version are, and mostly holds the first bytes of each
already. Each chosen share is read, one call for what lies together, and checked against the root
hash as a whole; only then do its blocks count. k good ones decode.

Rules:

- The shares that need no further reading come first, then those of servers that answered lately,
  and of these the low share numbers, which decode for free. A bad or unreachable share is replaced
  by the next; one that is overdue gets company.
- Whole files are checked from their blocks alone; a part of a file needs the stored hash tree,
  which is fetched once.
- A share that fails because its server holds another version by now is not corrupt, only gone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from lafsfs.crypto.hashes import block_hash
from lafsfs.crypto.merkle import HashTree
from lafsfs.errors import FormatError, NotEnoughSharesError, ServerError, ServerUnavailableError
from lafsfs.formats.slot import HEADER_SIZE
from lafsfs.grid.api import ShareKind
from lafsfs.mutable.mapping import advise, all_of
from lafsfs.mutable.servermap import BadShare
from lafsfs.mutable.verify import VerifiedTrees, check_root, decrypted, salted_ciphertext

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lafsfs.crypto.merkle import IncompleteHashTree
    from lafsfs.formats.geometry import Span
    from lafsfs.mutable.mapping import SlotView
    from lafsfs.mutable.servermap import MappedShare, ServerMap, Version

T = TypeVar("T")

OVERDUE = 2.0  # seconds; then another share is read beside the one that keeps us waiting
READ_TIMEOUT = 30.0  # seconds; then the server counts as not there
MERGE_GAP = 4096  # bytes between two ranges that are cheaper read than asked for separately
INLINE_SIZE = 256 << 10  # bytes worked through on the event loop, in about a millisecond


@dataclass(frozen=True, slots=True)
class Blocks:
    """Stored blocks of k shares by share number, verified, and shares to take off the map."""

    blocks: Mapping[int, Sequence[bytes]] = field(repr=False)
    bad: Sequence[BadShare]


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What a retrieve found: the plaintext of the file, and shares to take off the map."""

    plaintext: bytes = field(repr=False)
    bad: Sequence[BadShare]


class RetrieveFailedError(NotEnoughSharesError):
    """Too few shares of a version were good. ``bad``: those that turned out corrupt."""

    def __init__(self, message: str, bad: Sequence[BadShare]) -> None:
        super().__init__(message)
        self.bad = bad


async def retrieve(
    view: SlotView, servermap: ServerMap, version: Version, read_key: bytes
) -> Retrieved:
    """The plaintext of the whole file.

    Raises:
        RetrieveFailedError: fewer than k shares of the version are good.
    """
    count = version.geometry.num_segments
    if count == 0:
        return Retrieved(b"", [])
    found = await retrieve_blocks(view, servermap, version, 0, count, VerifiedTrees(version))

    def decode() -> bytes:
        return b"".join(
            decrypted(
                salted_ciphertext(version, i, {n: b[i] for n, b in found.blocks.items()}), read_key
            )
            for i in range(count)
        )

    plaintext = await in_thread_if(count * version.segment_size > INLINE_SIZE, decode)
    return Retrieved(plaintext, found.bad)


async def retrieve_blocks(
    view: SlotView,
    servermap: ServerMap,
    version: Version,
    first: int,
    count: int,
    trees: VerifiedTrees,
) -> Blocks:
    """``count`` stored blocks from ``first`` of each of k shares; ``trees`` grows on the way.

    Raises:
        RetrieveFailedError: fewer than k shares of the version are good.
    """
    fetch = _Fetch(view, servermap, version, first, count, trees)
    return Blocks(await fetch.run(), fetch.bad)


async def in_thread_if(big: bool, work: Callable[[], T]) -> T:
    """Run CPU work here if it is small, and in a thread if it is not."""
    if big:
        return await trio.to_thread.run_sync(work)
    return work()


class _Fetch:
    """Gets k verified runs of blocks, whoever they come from."""

    def __init__(
        self,
        view: SlotView,
        servermap: ServerMap,
        version: Version,
        first: int,
        count: int,
        trees: VerifiedTrees,
    ) -> None:
        self._trees = trees
        self._view = view
        self._version = version
        self._first = first
        self._count = count
        self._whole_file = count == version.geometry.num_segments
        self._waiting = deque(sorted(servermap.shares_of(version), key=self._cost))
        self._reading: set[int] = set()
        self._good: dict[int, list[bytes]] = {}
        self._reasons: list[str] = []
        self._all_found = servermap.describe()
        self.bad: list[BadShare] = []

    def _cost(self, share: MappedShare) -> tuple[bool, bool, int]:
        missing = any(span.end > len(share.head) for span in self._spans(share))
        return missing, missing and self._view.broker.is_backing_off(share.server), share.shnum

    def _spans(self, share: MappedShare) -> list[Span]:
        """What must be read of a share: blocks, and what is not known yet to check them with."""
        sections = share.header.sections
        spans = [share.header.blocks_span(self._first, self._count)]
        if self._trees.knows(share.shnum):
            return spans
        spans.append(sections.share_hash_chain)
        return spans if self._whole_file else [*spans, sections.block_hash_tree]

    async def run(self) -> dict[int, list[bytes]]:
        """The stored blocks of k shares, by share number."""
        send, receive = trio.open_memory_channel[None](0)
        async with send, receive, trio.open_nursery() as nursery:
            spares = 0
            while len(self._good) < self._version.k:
                while len(self._good) + len(self._reading) < self._version.k + spares:
                    if not self._start_next(nursery, send):
                        break
                if not self._reading:
                    break
                with trio.move_on_after(OVERDUE) as overdue:
                    await receive.receive()
                if overdue.cancelled_caught:
                    spares += 1
            nursery.cancel_scope.cancel()
        for bad in self.bad:
            await advise(self._view, bad)
        if len(self._good) < self._version.k:
            raise RetrieveFailedError(
                f"{len(self._good)} good shares of the {self._version.k} needed: "
                + "; ".join([self._all_found, *self._reasons]),
                self.bad,
            )
        return self._good

    def _start_next(self, nursery: trio.Nursery, send: trio.MemorySendChannel[None]) -> bool:
        """Start on the best share whose number nobody has or is reading."""
        for share in self._waiting:
            if share.shnum not in self._good and share.shnum not in self._reading:
                self._waiting.remove(share)
                self._reading.add(share.shnum)
                nursery.start_soon(self._read, share, send)
                return True
        return False

    async def _read(self, share: MappedShare, send: trio.MemorySendChannel[None]) -> None:
        """Read one share and check it; note its blocks, or why not."""
        name = share.server.name
        try:
            parts = None
            with trio.move_on_after(READ_TIMEOUT):
                parts = await self._parts(share)
            if parts is None:
                raise ServerUnavailableError(f"{name} did not answer in {READ_TIMEOUT:.0f} s")
            self._good[share.shnum] = await self._check(share, parts)
        except ServerError as error:
            self._view.broker.note_failure(share.server)
            self._reasons.append(str(error))
        except FormatError as error:
            await self._blame(share, error)
        self._reading.discard(share.shnum)
        await send.send(None)

    async def _parts(self, share: MappedShare) -> list[bytes]:
        """The bytes of :meth:`_spans`, from the share's head or from its server."""
        spans = self._spans(share)
        pieces: dict[int, bytes] = {0: share.head}

        async def read(start: int, end: int) -> None:
            pieces[start] = await share.server.read_share(
                ShareKind.MUTABLE, self._view.storage_index, share.shnum, start, end - start
            )

        missing = [span for span in spans if span.end > len(share.head)]
        await all_of([partial(read, start, end) for start, end in merged(missing)])
        return [_find(pieces, span) for span in spans]

    async def _check(self, share: MappedShare, parts: list[bytes]) -> list[bytes]:
        """The share's blocks, once they are known to belong to the version."""
        data, *proof = parts
        version, trees, shnum = self._version, self._trees, share.shnum

        def check() -> tuple[list[bytes], list[bytes], IncompleteHashTree | None]:
            blocks = version.geometry.split_blocks(data, self._first)[: self._count]
            if len(blocks) < self._count:
                raise FormatError("the share ends before its blocks do")
            leaves = [block_hash(block) for block in blocks]
            if len(proof) == 1:
                check_root(version, shnum, proof[0], HashTree(leaves).root)
            tree = trees.verified(shnum, proof[0], proof[1]) if len(proof) == 2 else None
            return blocks, leaves, tree

        blocks, leaves, tree = await in_thread_if(sum(map(len, parts)) > INLINE_SIZE, check)
        if tree is not None:
            trees.admit(shnum, tree)
        if len(proof) != 1:
            trees.check(shnum, self._first, leaves)
        return blocks

    async def _blame(self, share: MappedShare, error: FormatError) -> None:
        """A share did not verify: is it corrupt, or has somebody published meanwhile?"""
        server, wanted = share.server, self._version.pack()
        try:
            head = await server.read_share(
                ShareKind.MUTABLE, self._view.storage_index, share.shnum, 0, HEADER_SIZE
            )
        except ServerError as gone:
            self._reasons.append(str(gone))
            return
        if not head.startswith(wanted):
            self._reasons.append(f"share {share.shnum} on {server.name} was replaced meanwhile")
            return
        bad = BadShare(server, share.shnum, head, str(error))
        self.bad.append(bad)
        self._reasons.append(f"share {share.shnum} on {server.name} is corrupt: {error}")


def merged(spans: Sequence[Span]) -> list[tuple[int, int]]:
    """Ranges ``(start, end)`` that cover the spans, joined where the gap is not worth a call."""
    ranges: list[tuple[int, int]] = []
    for span in sorted(span for span in spans if span.size):
        if ranges and span.offset - ranges[-1][1] <= MERGE_GAP:
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], span.end))
        else:
            ranges.append((span.offset, span.end))
    return ranges


def _find(pieces: dict[int, bytes], span: Span) -> bytes:
    """A span out of whichever piece covers it."""
    if not span.size:
        return b""
    for start, data in pieces.items():
        if start <= span.offset and span.end <= start + len(data):
            return data[span.offset - start : span.end - start]
    raise FormatError("the share ends before its sections do")
