"""Just enough of the share formats to hold the crypto layer to what stock Tahoe stored.

Independent of ``lafsfs.formats`` on purpose: these readers trust their input, since it is golden.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tests import golden_data as golden


@dataclass(frozen=True, slots=True)
class Lease:
    """What version 2 containers keep: BLAKE2b-256 of each secret."""

    hashed_renewal: bytes
    hashed_cancel: bytes


@dataclass(frozen=True, slots=True)
class CHKShare:
    """The parts of a CHK share (layout v1) that the crypto layer makes."""

    data: bytes = field(repr=False)
    block_hashes: list[bytes]
    ciphertext_hashes: list[bytes]
    share_hash_chain: dict[int, bytes]
    ueb: bytes
    lease: Lease

    def ueb_field(self, name: str) -> bytes:
        """One value out of the UEB's ``name:length:value,`` fields."""
        rest = self.ueb
        while rest:
            key, length, rest = rest.split(b":", 2)
            if key == name.encode():
                return rest[: int(length)]
            rest = rest[int(length) + 1 :]
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class SlotShare:
    """The parts of an SDMF or MDMF share that the crypto layer makes."""

    container_server_id: bytes
    write_enabler: bytes
    lease: Lease
    prefix: bytes
    root_hash: bytes
    segment_size: int
    data_length: int
    signature: bytes
    public_key: bytes
    encrypted_private_key: bytes
    share_hash_chain: dict[int, bytes]
    block_hashes: list[bytes]
    blocks: list[tuple[bytes, bytes]] = field(repr=False)  # (salt or IV, block without it)


def _hashes(data: bytes) -> list[bytes]:
    return [data[i : i + 32] for i in range(0, len(data), 32)]


def _chain(data: bytes) -> dict[int, bytes]:
    return {
        int.from_bytes(data[i : i + 2], "big"): data[i + 2 : i + 34]
        for i in range(0, len(data), 34)
    }


def chk_share(container: bytes) -> CHKShare:
    """Read an immutable container with one lease."""
    body, lease = container[12:-72], container[-72:]
    version, _, _, data, plain, ciphertext, blocks, chain, ueb = struct.unpack(">9I", body[:36])
    assert version == 1
    (ueb_length,) = struct.unpack(">I", body[ueb : ueb + 4])
    return CHKShare(
        data=body[data:plain],
        block_hashes=_hashes(body[blocks:chain]),
        ciphertext_hashes=_hashes(body[ciphertext:blocks]),
        share_hash_chain=_chain(body[chain:ueb]),
        ueb=body[ueb + 4 : ueb + 4 + ueb_length],
        lease=Lease(lease[4:36], lease[36:68]),
    )


def slot_share(container: bytes) -> SlotShare:
    """Read a mutable container with one lease and the SDMF or MDMF share in it."""
    (length,) = struct.unpack(">Q", container[84:92])
    body = container[468 : 468 + length]
    parts = _sdmf(body) if body[0] == 0 else _mdmf(body)
    return SlotShare(
        container_server_id=container[32:52],
        write_enabler=container[52:84],
        lease=Lease(container[108:140], container[140:172]),
        **parts,
    )


def _sdmf(body: bytes) -> dict[str, object]:
    _, _, root, iv, _, _, segment_size, length = struct.unpack(">BQ32s16sBBQQ", body[:75])
    sig, chain, tree, data, key, end = struct.unpack(">LLLLQQ", body[75:107])
    return {
        "prefix": body[:75],
        "root_hash": root,
        "segment_size": segment_size,
        "data_length": length,
        "signature": body[sig:chain],
        "public_key": body[107:sig],
        "encrypted_private_key": body[key:end],
        "share_hash_chain": _chain(body[chain:tree]),
        "block_hashes": _hashes(body[tree:data]),
        "blocks": [(iv, body[data:key])],
    }


def _mdmf(body: bytes) -> dict[str, object]:
    _, _, root, k, _, segment_size, length = struct.unpack(">BQ32sBBQQ", body[:59])
    key, chain, sig, public, public_end, data, tree, end = struct.unpack(">8Q", body[59:123])
    return {
        "prefix": body[:59],
        "root_hash": root,
        "segment_size": segment_size,
        "data_length": length,
        "signature": body[sig:public],
        "public_key": body[public:public_end],
        # The end of the private key is not in the offsets; the chain follows it at once.
        "encrypted_private_key": body[key:chain],
        "share_hash_chain": _chain(body[chain:sig]),
        "block_hashes": _hashes(body[tree:end]),
        "blocks": _salted_blocks(body[data:tree], k, segment_size, length),
    }


def _salted_blocks(
    data: bytes, k: int, segment_size: int, length: int
) -> list[tuple[bytes, bytes]]:
    blocks, offset = [], 0
    for start in range(0, length, segment_size or 1):
        size = -(-min(segment_size, length - start) // k)
        blocks.append((data[offset : offset + 16], data[offset + 16 : offset + 16 + size]))
        offset += 16 + size
    return blocks


def chk_shares(name: str) -> dict[int, CHKShare]:
    """All ten shares of an immutable object, by share number."""
    return {shnum: chk_share(data) for (_, shnum), data in containers(name).items()}


def slot_shares(name: str) -> dict[int, SlotShare]:
    """All ten shares of a mutable object, by share number."""
    return {shnum: slot_share(data) for (_, shnum), data in containers(name).items()}


def containers(name: str) -> dict[tuple[str, int], bytes]:
    """The containers of an object or tree, by server name and share number."""
    storage_index = (golden.OBJECTS | golden.TREES)[name].storage_index
    assert storage_index is not None
    return {key: path.read_bytes() for key, path in golden.shares_of(storage_index).items()}


EVERYTHING = golden.OBJECTS | golden.TREES
CHK = [
    name for name, entry in EVERYTHING.items() if ":CHK" in (entry.verify or "").replace("-", ":")
]
SLOTS = [name for name, entry in EVERYTHING.items() if entry.verify is not None and name not in CHK]
