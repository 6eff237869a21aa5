"""Reading one share at one server: from an offset of the file to blocks that can be verified.

Theory. Where things lie in a share can be foreseen from the capability alone, as long as the file
was encoded the way clients do today. So the first request asks for all of it at once: header,
blocks, hash rows, share hash chain and UEB where they should be, in ranges that are fetched
together. If the header then says otherwise, or the UEB speaks of other segments, the right places
are fetched in further round trips. Once header and UEB are known, a run of consecutive blocks costs
one round trip, and is one range.

Rules:

- The share's own offsets decide (``formats.chk``); the foreseen ones only decide what to ask for.
- Everything is admitted to :class:`VerifiedFile` before it is used, except blocks. The hash of the
  segment that k blocks make says whether they are right, all at once; only if they are not, the
  hash of each block is looked at, to see whose fault it is. The blocks of a share that has not
  shown good ones yet are looked at as they come, so that a liar is found out before the others have
  answered; and so are all where nothing but the hashes of blocks verifies a segment (k = n).
- Nothing that verifies is fetched twice: whoever learns the header or needs hashes holds the turn,
  and whoever comes meanwhile fetches blocks alone and waits for the rest.
- A share that is wrong in itself is not asked again. One that is wrong about a segment may still
  be good for others, but from then on it is a suspect: asked when there is no other way.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from lafsfs.crypto.hashes import block_hash
from lafsfs.errors import CorruptShareError, FormatError, NoSuchShareError
from lafsfs.formats.chk import HEADER_SIZE_V2, CHKHeader, parse_header, plan_layout
from lafsfs.formats.geometry import HASH_SIZE, Span
from lafsfs.formats.ueb import ueb_size
from lafsfs.grid.api import ShareKind
from lafsfs.grid.asking import ask
from lafsfs.grid.cpu import work_on
from lafsfs.immutable.verified import ContradictionError, VerifiedFile
from lafsfs.immutable.window import Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lafsfs.formats.geometry import CHKGeometry
    from lafsfs.grid.api import StorageServer
    from lafsfs.grid.broker import Broker

UEB_ESTIMATE = 512  # bytes to ask for where the UEB is, when its length is not known
PROBE = Span(0, HEADER_SIZE_V2)  # what shows that a server reads shares again


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive segments: ``count`` of them from the one that ``offset`` of the file lies in.

    More than one only when it is known how the file is cut.
    """

    offset: int
    count: int = 1

    def segments(self, geometry: CHKGeometry) -> range:
        """Their numbers."""
        first = self.offset // geometry.segment_size
        return range(first, min(first + self.count, geometry.num_segments))

    def part(self, indexes: range, geometry: CHKGeometry) -> Run:
        """A part of the run, by positions in it."""
        if self.count == 1:
            return self
        return Run(self.offset + indexes.start * geometry.segment_size, len(indexes))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a share had of a run: blocks by segment number, and what was wrong with it.

    The blocks are views of what came in one piece.
    """

    blocks: Mapping[int, memoryview]
    error: CorruptShareError | None = None


class ShareReader:
    """One share at one server."""

    def __init__(
        self, broker: Broker, server: StorageServer, shnum: int, verified: VerifiedFile
    ) -> None:
        self.server = server
        self.shnum = shnum
        self.is_suspect = False  # something in it was wrong
        self.is_corrupt = False  # the share itself is
        self.has_bad_tree = False  # its copy of the ciphertext hash tree is
        self._is_proven = False  # it had good blocks, and nothing in it was wrong
        self._broker = broker
        self._verified = verified
        self._header: CHKHeader | None = None
        self._bad_segments: set[int] = set()
        self._turn = trio.Lock()

    def is_good_for(self, run: Run, index: int) -> bool:
        """Whether there is no reason yet not to ask for that block of the run."""
        segment = run.offset // self._verified.likely_geometry.segment_size + index
        return not self.is_corrupt and segment not in self._bad_segments

    async def blocks(self, run: Run, *, with_tree: bool) -> Answer:
        """Fetch the blocks of a run; with what is missing of the ciphertext hash tree.

        What verifies the blocks is there as well: :meth:`check`.

        Raises:
            CorruptShareError: the share is not what it has to be.
            NoSuchShareError: the server does not hold the share any more.
            ServerError: the server did not answer.
            ContradictionError: the file itself is wrong.
        """
        window = Window(self.read)
        try:
            header, geometry = await self._prepare(window, run, with_tree)
        except ContradictionError:
            raise
        except FormatError as error:
            raise self._corrupt(run, error) from None
        segments = run.segments(geometry)
        errors = []
        if with_tree:
            errors = self._admit_tree(window, header, geometry, segments)
        blocks, bad = await self._taken(window, header, geometry, segments)
        errors += bad
        return Answer(blocks, self._suspected(errors[0]) if errors else None)

    async def load_tree(self, run: Run) -> None:
        """Fetch what is missing of the ciphertext hash tree to verify a run. Raises as above."""
        header, geometry = self._header, self._verified.geometry
        if header is None or geometry is None:  # this share has not given anything yet
            answer = await self.blocks(run, with_tree=True)
            if answer.error is not None:
                raise answer.error
            return
        window = Window(self.read)
        segments = run.segments(geometry)
        await window.load(self._tree_spans(header, geometry, segments))
        errors = self._admit_tree(window, header, geometry, segments)
        if errors:
            raise self._suspected(errors[0])

    async def probe(self) -> None:
        """See whether the server reads shares again; the broker is told."""
        await self.read(PROBE)

    # --- learning ---------------------------------------------------------------------------------

    async def _prepare(
        self, window: Window, run: Run, with_tree: bool
    ) -> tuple[CHKHeader, CHKGeometry]:
        """Load the blocks of a run, and have everything that verifies them."""
        header, geometry = self._header, self._verified.geometry
        if header and geometry and self._can_check(run.segments(geometry)):
            await window.load(self._needs(header, geometry, run, with_tree))
            return header, geometry
        if self._turn.locked():
            likely = self._verified.likely_geometry
            foreseen = header or plan_layout(likely, ueb_size(likely)).header
            await window.load([_blocks_span(foreseen, likely, run)])
        async with self._turn:
            header, geometry = await self._learn(window, run, with_tree)
            await window.load(self._needs(header, geometry, run, with_tree))
            if not self._verified.knows_share(self.shnum):
                chain = window.exactly(header.share_hash_span)
                self._verified.admit_share_chain(self.shnum, chain)
            for row in self._missing_rows(geometry, run.segments(geometry)):
                data = window.exactly(_row_span(header.block_hashes, row))
                self._verified.admit_block_row(self.shnum, row, data)
        return header, geometry

    async def _learn(
        self, window: Window, run: Run, with_tree: bool
    ) -> tuple[CHKHeader, CHKGeometry]:
        """The header and, if nobody has it yet, the UEB; and in passing what comes next."""
        verified = self._verified
        header = self._header
        if header is None:
            header = await self._foresee(window, run, with_tree)
        if verified.geometry is None:
            verified.admit_ueb(await self._ueb(window, header, run, with_tree))
        geometry = verified.geometry
        assert geometry is not None
        header.require(geometry)
        self._header = header
        return header, geometry

    async def _foresee(self, window: Window, run: Run, with_tree: bool) -> CHKHeader:
        """Fetch the header, and everything else where it should be."""
        likely = self._verified.likely_geometry
        foreseen = plan_layout(likely, ueb_size(likely)).header
        first = Span(0, HEADER_SIZE_V2)
        await window.load([first, *self._needs(foreseen, likely, run, with_tree)])
        start = window.get(first)
        if not start:
            raise NoSuchShareError(f"{self.server.name} does not hold share {self.shnum}")
        return parse_header(start)

    async def _ueb(self, window: Window, header: CHKHeader, run: Run, with_tree: bool) -> bytes:
        """The UEB. If it is not where it was foreseen, its neighbours are not either."""
        if not window.holds(header.ueb_length_span):
            spans = [Span(header.uri_extension, UEB_ESTIMATE)]
            with suppress(FormatError):  # it is a hint, and may be nonsense
                hint = self._verified.hinted_geometry(header.block_size)
                spans += self._needs(header, hint, run, with_tree)
            await window.load(spans)
        length = header.parse_ueb_length(window.get(header.ueb_length_span))
        span = header.ueb_span(length)
        await window.load([span])
        return window.exactly(span)

    def _needs(
        self, header: CHKHeader, geometry: CHKGeometry, run: Run, with_tree: bool
    ) -> Iterator[Span]:
        """Everything still needed for verified blocks, where that header says it is."""
        verified = self._verified
        segments = run.segments(geometry)
        yield _blocks_span(header, geometry, run)
        if with_tree:
            yield from self._tree_spans(header, geometry, segments)
        for row in self._missing_rows(geometry, segments):
            yield _row_span(header.block_hashes, row)
        if not verified.knows_share(self.shnum):
            yield header.share_hash_span
        if verified.geometry is None:
            yield header.ueb_length_span
            yield header.ueb_span(ueb_size(geometry))

    def _can_check(self, segments: range) -> bool:
        verified = self._verified
        assert verified.geometry is not None
        return verified.knows_share(self.shnum) and not self._missing_rows(
            verified.geometry, segments
        )

    def _missing_rows(self, geometry: CHKGeometry, segments: range) -> list[range]:
        """Rows of the block hash tree, top down."""
        return self._verified.block_rows(self.shnum, segments, geometry.num_segments)

    def _tree_spans(
        self, header: CHKHeader, geometry: CHKGeometry, segments: range
    ) -> Iterator[Span]:
        for row in self._verified.ciphertext_rows(segments, geometry.num_segments):
            yield _row_span(header.crypttext_hash_tree, row)

    # --- verifying --------------------------------------------------------------------------------

    def _admit_tree(
        self, window: Window, header: CHKHeader, geometry: CHKGeometry, segments: range
    ) -> list[FormatError]:
        """Take in what was loaded of the ciphertext hash tree. Others will have it if it is bad."""
        verified = self._verified
        try:
            for row in verified.ciphertext_rows(segments, geometry.num_segments):
                data = window.exactly(_row_span(header.crypttext_hash_tree, row))
                verified.admit_ciphertext_row(row, data)
        except FormatError as error:
            self.has_bad_tree = True
            return [error]
        return []

    async def _taken(
        self, window: Window, header: CHKHeader, geometry: CHKGeometry, segments: range
    ) -> tuple[dict[int, memoryview], list[FormatError]]:
        """The blocks that are there and not known to be wrong; what is wrong with the others."""
        blocks: dict[int, memoryview] = {}
        errors: list[FormatError] = []
        for segment in segments:
            span = header.blocks_span(geometry, segment)
            block = window.view(span)
            if len(block) == span.size:
                blocks[segment] = block
            else:
                self._bad_segments.add(segment)
                errors.append(FormatError("the share is cut short"))
        if not (self._is_proven and self._verified.checks_segments):
            errors += await self._drop_wrong(blocks)
            self._is_proven = not (errors or self.is_suspect)
        return blocks, errors

    async def _drop_wrong(self, blocks: dict[int, memoryview]) -> list[FormatError]:
        """Take out the blocks whose hash is wrong; what is wrong with them."""
        pieces = list(blocks.values())
        digests = await work_on(sum(map(len, pieces)), _block_hashes, pieces)
        errors: list[FormatError] = []
        for segment, digest in zip(list(blocks), digests, strict=True):
            try:
                self._verified.check_block(self.shnum, segment, digest)
            except FormatError as error:
                self._bad_segments.add(segment)
                errors.append(error)
                del blocks[segment]
        return errors

    async def check(self, segment: int, block: memoryview) -> None:
        """Look at the hash of a block that :meth:`blocks` has returned.

        Raises:
            CorruptShareError: it is wrong.
        """
        errors = await self._drop_wrong({segment: block})
        if errors:
            raise self._suspected(errors[0])

    def _corrupt(self, run: Run, error: FormatError) -> CorruptShareError:
        """The share cannot verify a run; nor any other, unless it is known to be of the file."""
        geometry = self._verified.geometry
        if geometry and self._header and self._verified.knows_share(self.shnum):
            self._bad_segments.update(run.segments(geometry))
        else:
            self.is_corrupt = True
        return self._suspected(error)

    def _suspected(self, error: FormatError) -> CorruptShareError:
        self.is_suspect = True
        self._is_proven = False
        return CorruptShareError(self.server.name, self.shnum, str(error))

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


def _blocks_span(header: CHKHeader, geometry: CHKGeometry, run: Run) -> Span:
    segments = run.segments(geometry)
    return header.blocks_span(geometry, segments.start, len(segments))


def _block_hashes(blocks: Sequence[memoryview]) -> list[bytes]:
    return [block_hash(block) for block in blocks]
