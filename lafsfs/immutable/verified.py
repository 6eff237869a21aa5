"""What has been verified about one immutable file. Nothing unverified ever gets in here. PURE.

Theory. The capability holds the hash of the UEB. The UEB holds the roots of the share hash tree and
of the ciphertext hash tree. A share's leaf in the share hash tree is the root of its block hash
tree, whose leaves are the hashes of its blocks. So trust grows downwards, from whatever servers
happen to send: every method here checks foreign bytes against what is trusted already, and either
admits all of them or raises :class:`~lafsfs.errors.FormatError` and is as it was before.

Where all shares are needed (k = n) there is one way to decode, and every block of it is vouched
for: the ciphertext hash tree can say nothing more then, and is not looked at. Otherwise it is what
makes sure that whichever k shares are used, the contents are the same. A segment that it vouches
for is right whatever blocks it was made of, so the hashes of these are needed only when it is not,
to tell bad blocks from good ones: SHA-256 once over all that is read, instead of twice.

One object per file, shared by all readers of all its shares.
"""

from __future__ import annotations

import hmac
from contextlib import suppress
from typing import TYPE_CHECKING

from lafsfs.crypto import hashes
from lafsfs.crypto.merkle import IncompleteHashTree
from lafsfs.errors import FormatError, HashMismatchError
from lafsfs.formats.geometry import CHKGeometry
from lafsfs.formats.hashstore import parse_hash_tree, parse_share_hash_chain
from lafsfs.formats.ueb import UEB
from lafsfs.immutable.treerows import rows_over

if TYPE_CHECKING:
    from lafsfs.caps import CHKVerifyCap


class ContradictionError(FormatError):
    """What the file's own uploader vouched for contradicts itself; no other share will help."""


class VerifiedFile:
    """The trusted hashes of one file.

    ``guess``: the geometry to go by until the UEB has been seen. Whoever learns it elsewhere may
    improve on it; nothing is believed because of it.
    """

    def __init__(self, cap: CHKVerifyCap) -> None:
        self.cap = cap
        self.guess = CHKGeometry.plan(cap.size, cap.k, cap.n)
        self.geometry: CHKGeometry | None = None
        self._share_tree = IncompleteHashTree(cap.n, None)
        self._ciphertext_tree = IncompleteHashTree(1, None)
        self._block_trees: dict[int, IncompleteHashTree] = {}

    @property
    def checks_segments(self) -> bool:
        """Whether decoded segments are checked, and the blocks they are made of only if need be."""
        return self.cap.k < self.cap.n

    @property
    def likely_geometry(self) -> CHKGeometry:
        """The geometry, or before it is known, the guess: what today's clients would choose."""
        return self.geometry or self.guess

    def remember(self, segment_size: int) -> None:
        """Guess better: the file is said to be cut into segments of that size."""
        if self.geometry is None and segment_size:
            with suppress(FormatError):
                self.guess = CHKGeometry(self.cap.size, self.cap.k, self.cap.n, segment_size)

    def hinted_geometry(self, block_size: int) -> CHKGeometry:
        """The geometry if blocks had that size: segments were smaller once, and never larger.

        Raises FormatError when no client can have chosen it.
        """
        cap = self.cap
        if block_size > self.guess.block_size:  # a lie must not make anybody fetch a lot
            raise FormatError(f"blocks of {block_size} bytes are unusual")
        return CHKGeometry(cap.size, cap.k, cap.n, block_size * cap.k)

    def admit_ueb(self, data: bytes) -> None:
        """Take in the UEB, and with it the geometry and the roots.

        Raises:
            HashMismatchError: these are not the bytes the capability speaks of.
            ContradictionError: they are, but do not describe such a file.
        """
        if not hmac.compare_digest(hashes.ueb_hash(data), self.cap.ueb_hash):
            raise HashMismatchError("its UEB is not the one that the capability names")
        if self.geometry is not None:
            return
        try:
            ueb = UEB.unpack(data)
            ueb.require(self.cap.size, self.cap.k, self.cap.n)
        except FormatError as error:
            raise ContradictionError(f"the file was stored wrongly: {error}") from None
        self._share_tree = IncompleteHashTree(self.cap.n, ueb.share_root_hash)
        segments = ueb.geometry.num_segments
        self._ciphertext_tree = IncompleteHashTree(segments, ueb.crypttext_root_hash)
        self.geometry = ueb.geometry

    def _known_geometry(self) -> CHKGeometry:
        if self.geometry is None:
            raise RuntimeError("the UEB has to be admitted first")
        return self.geometry

    # --- share hash tree --------------------------------------------------------------------------

    def knows_share(self, shnum: int) -> bool:
        """Whether the root of that share's block hash tree is trusted."""
        return self._share_tree.leaf(shnum) is not None

    def admit_share_chain(self, shnum: int, data: bytes) -> None:
        """Take in a share hash chain, as stored in the share of that number."""
        self._known_geometry()
        self._share_tree.set_hashes(parse_share_hash_chain(data))
        if not self.knows_share(shnum):
            raise FormatError("its share hash chain is not that of this share number")

    def _block_tree(self, shnum: int) -> IncompleteHashTree:
        """The block hash tree of a share whose root is trusted."""
        tree = self._block_trees.get(shnum)
        if tree is None:
            root = self._share_tree.leaf(shnum)
            if root is None:
                raise RuntimeError("the share hash chain has to be admitted first")
            tree = IncompleteHashTree(self._known_geometry().num_segments, root)
            self._block_trees[shnum] = tree
        return tree

    # --- rows of the two trees over segments ------------------------------------------------------

    def block_rows(self, shnum: int, segments: range, num_segments: int) -> list[range]:
        """Rows of the share's block hash tree still missing to verify a run of blocks, top down.

        ``num_segments`` is believed only while nothing better is known. A run is not longer than
        :data:`~lafsfs.immutable.treerows.ROW_LEAVES`.
        """
        if not self.knows_share(shnum):
            return list(rows_over(segments, num_segments))
        return self._missing(self._block_tree(shnum), segments)

    def ciphertext_rows(self, segments: range, num_segments: int) -> list[range]:
        """Rows of the ciphertext hash tree still missing to verify a run of segments, top down."""
        if not self.checks_segments:
            return []
        if self.geometry is None:
            return list(rows_over(segments, num_segments))
        return self._missing(self._ciphertext_tree, segments)

    def _missing(self, tree: IncompleteHashTree, segments: range) -> list[range]:
        rows = rows_over(segments, self._known_geometry().num_segments)
        return [row for row in rows if not tree.has(row[0])]  # rows come whole

    def admit_block_row(self, shnum: int, row: range, data: bytes) -> None:
        """Take in a row of a share's block hash tree; the rows above come first."""
        _admit_row(self._block_tree(shnum), row, data)

    def admit_ciphertext_row(self, row: range, data: bytes) -> None:
        """Take in a row of the ciphertext hash tree; the rows above come first."""
        self._known_geometry()
        _admit_row(self._ciphertext_tree, row, data)

    # --- leaves -----------------------------------------------------------------------------------

    def check_block(self, shnum: int, segment: int, block_hash: bytes) -> None:
        """Raise HashMismatchError unless that is the hash of the share's block."""
        self._block_tree(shnum).set_hashes({}, leaves={segment: block_hash})

    def is_segment(self, segment: int, segment_hash: bytes) -> bool:
        """Whether that is the hash of the segment. Its rows have to be here."""
        self._known_geometry()
        try:
            self._ciphertext_tree.set_hashes({}, leaves={segment: segment_hash})
        except HashMismatchError:
            return False
        return True


def _admit_row(tree: IncompleteHashTree, row: range, data: bytes) -> None:
    nodes = parse_hash_tree(data)
    if len(nodes) != len(row):
        raise FormatError("it ends inside a hash tree")
    tree.set_hashes(dict(zip(row, nodes, strict=True)))
