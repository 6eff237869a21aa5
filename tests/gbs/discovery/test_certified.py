"""A server that announces an id must show the certificate that the id is of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cbor2
import pytest

from lafsfs.crypto import x509
from lafsfs.errors import ServerUnavailableError
from lafsfs.gbs.discovery.announcements import bare_record
from lafsfs.gbs.discovery.roster import make_server
from lafsfs.grid.api import ShareKind
from tests.gbs.hostile import CBOR, Peer, identity, serving

if TYPE_CHECKING:
    from lafsfs.gbs.discovery.roster import RemoteServer
    from lafsfs.gbs.nurl import Nurl

OWN = x509.server_id_of(identity())
SI = bytes(16)


async def lists_shares(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.reply(200, cbor2.dumps({1}), CBOR)


def server(nurl: Nurl, server_id: bytes, *, announced: bool) -> RemoteServer:
    return make_server(replace(bare_record([nurl], ""), announced=announced), server_id)


async def test_the_id_it_has() -> None:
    async with serving(lists_shares) as there:
        for announced in (True, False):
            remote = server(there.nurl, OWN, announced=announced)
            assert await remote.list_shares(ShareKind.IMMUTABLE, SI) == {1}
            await remote.aclose()


async def test_the_id_of_another() -> None:
    async with serving(lists_shares) as there:
        impostor = server(there.nurl, b"i" * 20, announced=True)
        with pytest.raises(ServerUnavailableError, match="is not the server it claims to be"):
            await impostor.list_shares(ShareKind.IMMUTABLE, SI)
        assert there.asked == []
        # Where the user says which id a server has, its slots may have been made with that one.
        vouched = server(there.nurl, b"i" * 20, announced=False)
        assert await vouched.list_shares(ShareKind.IMMUTABLE, SI) == {1}
        await vouched.aclose()
