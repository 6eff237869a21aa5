"""The URI extension block (UEB): what a CHK capability's hash vouches for.

A UEB is a list of fields, each a name, a colon and a netstring, sorted by name. It holds the roots
of the trees and, several times over, the numbers of the encoding. Here all numbers are one
:class:`~lafsfs.formats.geometry.CHKGeometry`: what is redundant is derived when packing and must
agree when unpacking.

Rules:

- Exactly the fields that stock Tahoe-LAFS writes, in canonical form: one byte more or less and the
  capability is another one. Uploads before Tahoe 1.0 also had two plaintext hashes; they are
  tolerated when reading and never written (``URI-extension.rst``).
- Check a UEB's hash against the capability first and unpack it then; afterwards check with
  :meth:`UEB.require` that it describes the file the capability does.
"""

from __future__ import annotations

from dataclasses import dataclass

from lafsfs.crypto.hashes import netstring
from lafsfs.errors import FormatError
from lafsfs.formats.geometry import HASH_SIZE, CHKGeometry
from lafsfs.formats.netstring import parse_netstring, parse_number

MAX_UEB_SIZE = 2000  # bytes; stock refuses larger ones, and real ones have about 330
CODEC_NAME = b"crs"

_OBSOLETE = frozenset({b"plaintext_hash", b"plaintext_root_hash"})


@dataclass(frozen=True, slots=True)
class UEB:
    """One URI extension block.

    Attributes:
        geometry: size, k, n and segment size of the file.
        crypttext_hash: 32 bytes, the tagged hash of the whole ciphertext.
        crypttext_root_hash: 32 bytes, the root of the ciphertext segments' hash tree.
        share_root_hash: 32 bytes, the root of the share hash tree.
    """

    geometry: CHKGeometry
    crypttext_hash: bytes
    crypttext_root_hash: bytes
    share_root_hash: bytes

    def __post_init__(self) -> None:
        for value in (self.crypttext_hash, self.crypttext_root_hash, self.share_root_hash):
            if len(value) != HASH_SIZE:
                raise FormatError("a hash in the UEB does not have 32 bytes")

    def _fields(self) -> dict[bytes, bytes]:
        geometry = self.geometry
        k, n = geometry.k, geometry.n
        return {
            b"codec_name": CODEC_NAME,
            b"codec_params": b"%d-%d-%d" % (geometry.segment_size, k, n),
            b"crypttext_hash": self.crypttext_hash,
            b"crypttext_root_hash": self.crypttext_root_hash,
            b"needed_shares": b"%d" % k,
            b"num_segments": b"%d" % geometry.num_segments,
            b"segment_size": b"%d" % geometry.segment_size,
            b"share_root_hash": self.share_root_hash,
            b"size": b"%d" % geometry.size,
            b"tail_codec_params": b"%d-%d-%d" % (geometry.tail_padded_size, k, n),
            b"total_shares": b"%d" % n,
        }

    def pack(self) -> bytes:
        """The block as it is stored and hashed."""
        return b"".join(
            name + b":" + netstring(value) for name, value in sorted(self._fields().items())
        )

    @classmethod
    def unpack(cls, data: bytes) -> UEB:
        """Read a block. Raises FormatError unless it is whole, canonical and consistent."""
        fields = _parse_fields(data)
        geometry = CHKGeometry(
            size=parse_number(_field(fields, b"size")),
            k=parse_number(_field(fields, b"needed_shares")),
            n=parse_number(_field(fields, b"total_shares")),
            segment_size=parse_number(_field(fields, b"segment_size")),
        )
        ueb = cls(
            geometry,
            _field(fields, b"crypttext_hash"),
            _field(fields, b"crypttext_root_hash"),
            _field(fields, b"share_root_hash"),
        )
        expected = ueb._fields()
        if not fields.keys() <= expected.keys() | _OBSOLETE:
            raise FormatError("the UEB has a field that is not known")
        for name, value in expected.items():
            if _field(fields, name) != value:
                raise FormatError(f"the UEB's {name.decode()} contradicts its other fields")
        return ueb

    def require(self, size: int, k: int, n: int) -> None:
        """Raise FormatError unless the block describes the file that the capability does."""
        geometry = self.geometry
        if (geometry.size, geometry.k, geometry.n) != (size, k, n):
            raise FormatError("the UEB describes another file than the capability")


def ueb_size(geometry: CHKGeometry) -> int:
    """Bytes of the block of a file that is still to be encoded."""
    return len(UEB(geometry, bytes(HASH_SIZE), bytes(HASH_SIZE), bytes(HASH_SIZE)).pack())


def _field(fields: dict[bytes, bytes], name: bytes) -> bytes:
    try:
        return fields[name]
    except KeyError:
        raise FormatError(f"the UEB has no {name.decode()}") from None


def _parse_fields(data: bytes) -> dict[bytes, bytes]:
    """The fields by name. Names that are repeated or not in order are refused."""
    if len(data) > MAX_UEB_SIZE:
        raise FormatError(f"a UEB of {len(data)} bytes is too large")
    fields: dict[bytes, bytes] = {}
    previous = b""
    position = 0
    while position < len(data):
        colon = data.find(b":", position)
        name = data[position:colon]
        if colon < 0 or name <= previous:
            raise FormatError(f"the UEB has no field in order at byte {position}")
        fields[name], position = parse_netstring(data, colon + 1)
        previous = name
    return fields
