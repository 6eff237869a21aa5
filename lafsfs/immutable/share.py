"""Reading one share at one server: from an offset of the file to a verified block.

Theory. Where things lie in a share can be foreseen from the capability alone, as long as the file
was encoded the way clients do today. So the first request asks for all of it at once: header,
block, hash rows, share hash chain and UEB where they should be, in ranges that are fetched
together. If the header then says otherwise, or the UEB speaks of other segments, the right places
are fetched in further round trips. Once header and UEB are known, each block costs one round trip.

Rules:

- The share's own offsets decide (``formats.chk``); the foreseen ones only decide what to ask for.
- Everything is admitted to :class:`VerifiedFile` before it is used, and a block is returned only
  when its hash is right.
- A share that is wrong in itself is not asked again. One that is wrong about a segment may still
  be good for others.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from lafsfs.crypto.hashes import block_hash
from lafsfs.errors import CorruptShareError, FormatError, NoSuchShareError
from lafsfs.formats.chk import HEADER_SIZE_V2, CHKHeader, parse_header, plan_layout
from lafsfs.formats.geometry import HASH_SIZE, Span
from lafsfs.formats.ueb import ueb_size
from lafsfs.grid.api import ShareKind
from lafsfs.grid.asking import ask, plain_errors
from lafsfs.grid.cpu import work_on
from lafsfs.immutable.verified import ContradictionError, VerifiedFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lafsfs.formats.geometry import CHKGeometry
    from lafsfs.grid.api import StorageServer
    from lafsfs.grid.broker import Broker

MERGE_GAP = 4 << 10  # bytes; fetching a smaller gap costs less than a request of its own
UEB_ESTIMATE = 512  # bytes to ask for where the UEB is, when its length is not known


class ShareReader:
    """One share at one server."""

    def __init__(
        self, broker: Broker, server: StorageServer, shnum: int, verified: VerifiedFile
    ) -> None:
        self.server = server
        self.shnum = shnum
        self.failures = 0  # in a row: the server did not answer
        self._broker = broker
        self._verified = verified
        self._header: CHKHeader | None = None
        self._is_corrupt = False
        self._bad_segments: set[int] = set()

    def is_good_for(self, offset: int) -> bool:
        """Whether there is no reason yet not to ask for the block at that offset of the file."""
        segment = offset // self._verified.likely_geometry.segment_size
        return not self._is_corrupt and segment not in self._bad_segments

    async def block(self, offset: int) -> tuple[int, bytes]:
        """Fetch and verify the block of the segment that ``offset`` of the file lies in.

        Returns:
            the segment's number and the block.

        Raises:
            CorruptShareError: the share is not what it has to be.
            NoSuchShareError: the server does not hold the share any more.
            ServerError: the server did not answer.
            ContradictionError: the file itself is wrong.
        """
        segment: int | None = None
        window = _Window(self)
        try:
            geometry, header = await self._learn(window, offset)
            segment = offset // geometry.segment_size
            return segment, await self._verified_block(window, header, geometry, segment)
        except ContradictionError:
            raise
        except FormatError as error:
            if segment is None or not self._verified.knows_share(self.shnum):
                self._is_corrupt = True
            else:
                self._bad_segments.add(segment)
            raise CorruptShareError(self.server.name, self.shnum, str(error)) from None

    async def _learn(self, window: _Window, offset: int) -> tuple[CHKGeometry, CHKHeader]:
        """The header and, if nobody has it yet, the UEB; and in passing what comes next."""
        verified = self._verified
        header = self._header
        if header is None:
            header = await self._foresee(window, offset)
        if verified.geometry is None:
            verified.admit_ueb(await self._ueb(window, header, offset))
        geometry = verified.geometry
        assert geometry is not None
        header.require(geometry)
        self._header = header
        return geometry, header

    async def _foresee(self, window: _Window, offset: int) -> CHKHeader:
        """Fetch the header, and everything else where it should be."""
        likely = self._verified.likely_geometry
        foreseen = plan_layout(likely, ueb_size(likely)).header
        segment = offset // likely.segment_size
        first = Span(0, HEADER_SIZE_V2)
        await window.load([first, *self._needs(foreseen, likely, segment)])
        start = window.get(first)
        if not start:
            raise NoSuchShareError(f"{self.server.name} does not hold share {self.shnum}")
        return parse_header(start)

    async def _ueb(self, window: _Window, header: CHKHeader, offset: int) -> bytes:
        """The UEB. If it is not where it was foreseen, its neighbours are not either."""
        if not window.holds(header.ueb_length_span):
            spans = [Span(header.uri_extension, UEB_ESTIMATE)]
            with suppress(FormatError):  # it is a hint, and may be nonsense
                hint = self._verified.hinted_geometry(header.block_size)
                spans += self._needs(header, hint, offset // hint.segment_size)
            await window.load(spans)
        length = header.parse_ueb_length(window.get(header.ueb_length_span))
        span = header.ueb_span(length)
        await window.load([span])
        return window.exactly(span)

    def _needs(self, header: CHKHeader, geometry: CHKGeometry, segment: int) -> Iterator[Span]:
        """Everything still needed for a verified block, where that header says it is."""
        verified = self._verified
        yield header.blocks_span(geometry, segment)
        for row in verified.ciphertext_rows(segment, geometry.num_segments):
            yield _row_span(header.crypttext_hash_tree, row)
        for row in verified.block_rows(self.shnum, segment, geometry.num_segments):
            yield _row_span(header.block_hashes, row)
        if not verified.knows_share(self.shnum):
            yield header.share_hash_span
        if verified.geometry is None:
            yield header.ueb_length_span
            yield header.ueb_span(ueb_size(geometry))

    async def _verified_block(
        self, window: _Window, header: CHKHeader, geometry: CHKGeometry, segment: int
    ) -> bytes:
        verified = self._verified
        await window.load(self._needs(header, geometry, segment))
        if not verified.knows_share(self.shnum):
            verified.admit_share_chain(self.shnum, window.exactly(header.share_hash_span))
        for row in verified.ciphertext_rows(segment, geometry.num_segments):
            data = window.exactly(_row_span(header.crypttext_hash_tree, row))
            verified.admit_ciphertext_row(row, data)
        for row in verified.block_rows(self.shnum, segment, geometry.num_segments):
            data = window.exactly(_row_span(header.block_hashes, row))
            verified.admit_block_row(self.shnum, row, data)
        block = window.exactly(header.blocks_span(geometry, segment))
        verified.check_block(self.shnum, segment, await work_on(len(block), block_hash, block))
        return block

    async def read(self, span: Span) -> bytes:
        """A range of the share as the server has it: nothing vouches for it."""
        server, index = self.server, self._verified.cap.storage_index
        return await ask(
            self._broker,
            server,
            lambda: server.read_share(
                ShareKind.IMMUTABLE, index, self.shnum, span.offset, span.size
            ),
            size=span.size,
        )


def _row_span(tree: int, row: range) -> Span:
    """Where a row of a tree that begins at ``tree`` is in the share."""
    return Span(tree + row.start * HASH_SIZE, len(row) * HASH_SIZE)


class _Window:
    """Ranges of one share held for the time of one block."""

    def __init__(self, reader: ShareReader) -> None:
        self._reader = reader
        self._parts: list[tuple[Span, bytes]] = []

    async def load(self, spans: Iterable[Span]) -> None:
        """Fetch what is not held yet, near ranges in one request, all requests at once."""
        missing = merged(span for span in spans if not self.holds(span))
        if not missing:
            return
        with plain_errors():
            async with trio.open_nursery() as nursery:
                for span in missing:
                    nursery.start_soon(self._fetch, span)

    async def _fetch(self, span: Span) -> None:
        self._parts.append((span, await self._reader.read(span)))

    def _holding(self, span: Span) -> tuple[Span, bytes] | None:
        for part in self._parts:
            if part[0].offset <= span.offset and span.end <= part[0].end:
                return part
        return None

    def holds(self, span: Span) -> bool:
        """Whether the range was loaded."""
        return self._holding(span) is not None

    def get(self, span: Span) -> bytes:
        """A range that was loaded; shorter if the share ends before it does."""
        part = self._holding(span)
        if part is None:
            raise RuntimeError("a range was used that was not loaded")
        start = span.offset - part[0].offset
        return part[1][start : start + span.size]

    def exactly(self, span: Span) -> bytes:
        """A range that was loaded. Raises FormatError when the share ends before it does."""
        data = self.get(span)
        if len(data) != span.size:
            raise FormatError("the share is cut short")
        return data


def merged(spans: Iterable[Span]) -> list[Span]:
    """The fewest ranges that cover these, without fetching gaps of over :data:`MERGE_GAP` bytes."""
    result: list[Span] = []
    for span in sorted(spans):
        if result and span.offset <= result[-1].end + MERGE_GAP:
            last = result.pop()
            result.append(Span(last.offset, max(last.end, span.end) - last.offset))
        else:
            result.append(span)
    return result
