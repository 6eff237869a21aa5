"""The private key of a slot, which its shares hold encrypted: whoever writes needs it once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lafsfs.errors import FormatError, NotEnoughSharesError, ServerError
from lafsfs.grid.api import ShareKind
from lafsfs.mutable.verify import open_private_key

if TYPE_CHECKING:
    from lafsfs.caps import MutableWriteCap
    from lafsfs.mutable.encode import SlotKeys
    from lafsfs.mutable.servermap import MappedShare, ServerMap


async def load_keys(cap: MutableWriteCap, servermap: ServerMap, seen: bytes | None) -> SlotKeys:
    """The private key, out of the first share of a map that has it right.

    ``seen``: the encrypted one that a map came across, which is tried before anybody is asked.

    Raises:
        NotEnoughSharesError: no share has it.
    """
    reasons: list[str] = []
    for share in (None, *servermap.shares.values()):
        try:
            encrypted = seen if share is None else await _read(cap, share)
            if encrypted is not None:
                return open_private_key(encrypted, cap)
        except (ServerError, FormatError) as error:
            where = f"share {share.shnum} on {share.server.name}: " if share else ""
            reasons.append(f"{where}{error}")
    raise NotEnoughSharesError(
        "no share yields the private key: " + "; ".join([servermap.describe(), *reasons])
    )


async def _read(cap: MutableWriteCap, share: MappedShare) -> bytes:
    span = share.header.sections.enc_privkey
    return await share.server.read_share(
        ShareKind.MUTABLE, cap.storage_index, share.shnum, span.offset, span.size
    )
