"""Every way a share can be wrong: read right from the others, or a clean error. Never wrong bytes.

One file of several segments, k = 2 of n = 3, one share on each of three servers, so that one bad
share leaves exactly k good ones and two leave too few.
"""

import struct

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.errors import NotEnoughSharesError
from lafsfs.formats.chk import parse_header
from lafsfs.formats.geometry import CHKGeometry
from lafsfs.grid.api import ShareKind
from lafsfs.grid.broker import Broker
from lafsfs.grid.encoding import Encoding
from lafsfs.immutable import BytesSource, CHKFile, SegmentCache, upload
from tests import golden_data
from tests.fakes import FakeServer, fake_servers
from tests.immutable.grids import SECRETS, all_shares

SIZE = 1000
CONTENTS = golden_data.generated("fuzz", SIZE)
OTHER = golden_data.generated("another file", SIZE)
ENCODING = Encoding(2, 1, 3, max_segment_size=300)
GEOMETRY = CHKGeometry.plan(SIZE, 2, 3, 300)


def _store(data):
    servers = fake_servers(3)

    async def put():
        return await upload(
            BytesSource(data),
            broker=Broker(servers),
            secrets=SECRETS,
            encoding=ENCODING,
            convergence=b"fuzz",
        )

    cap = trio.run(put)
    return cap, all_shares(servers, cap.storage_index)


CAP, SHARES = _store(CONTENTS)
OTHER_CAP, OTHER_SHARES = _store(OTHER)
HEADER = parse_header(SHARES[0])
LENGTH = len(SHARES[0])

BOUNDARIES = sorted(
    {
        0,
        4,
        0x24,
        *(HEADER.blocks_span(GEOMETRY, segment).end for segment in range(GEOMETRY.num_segments)),
        HEADER.plaintext_hash_tree,
        HEADER.crypttext_hash_tree,
        HEADER.block_hashes,
        HEADER.share_hashes,
        HEADER.uri_extension,
        HEADER.uri_extension + 4,
        LENGTH - 1,
    }
)


def grid_of(shares):
    """One server for each share given, by share number."""
    servers = [FakeServer(f"fake{shnum}") for shnum in shares]
    for server, (shnum, data) in zip(servers, shares.items(), strict=True):
        server.put(ShareKind.IMMUTABLE, CAP.storage_index, shnum, data)
    return servers


def read_all(servers):
    """The file as a reader sees it, the last segment first."""

    async def read():
        async with SegmentCache.open() as cache:
            file = CHKFile(CAP, Broker(servers), cache)
            end = await file.read(950, 100)
            return await file.read(0, 950) + end

    return trio.run(read)


def read_or_complain(servers):
    """What a reader sees, or what the error says."""
    try:
        return read_all(servers)
    except NotEnoughSharesError as error:
        return str(error)


def check(bad):
    """With two good shares the file reads right; with one good and the bad one, it reads right or
    not at all."""
    for shnum in range(3):
        others = {n: data for n, data in SHARES.items() if n != shnum}
        assert read_all(grid_of({**others, shnum: bad(SHARES[shnum])})) == CONTENTS
    outcome = read_or_complain(grid_of({0: bad(SHARES[0]), 1: SHARES[1]}))
    assert (
        outcome == CONTENTS
        or "share 0 on fake0 is corrupt" in outcome
        or "fake0 does not hold share 0" in outcome
    )


def test_the_good_shares_are_good():
    assert len(SHARES) == 3
    assert GEOMETRY.num_segments == 4
    check(lambda share: share)


@pytest.mark.parametrize("length", BOUNDARIES)
def test_a_share_cut_at_a_boundary(length):
    check(lambda share: share[:length])
    with pytest.raises(NotEnoughSharesError):
        read_all(grid_of({0: SHARES[0][:length], 1: SHARES[1][:length]}))


@given(length=st.integers(0, LENGTH))
@settings(max_examples=30, deadline=None)
def test_a_share_cut_anywhere(length):
    check(lambda share: share[:length])


@given(position=st.integers(0, LENGTH - 1), flip=st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_any_byte_changed(position, flip):
    def change(share):
        data = bytearray(share)
        data[position] ^= flip
        return bytes(data)

    check(change)


def test_any_byte_changed_of_all_shares_at_once():
    """Step through the whole share; what the reader needs is missed, what it does not is not."""
    outcomes = {True: 0, False: 0}
    for position in range(0, LENGTH, 7):
        shares = {}
        for shnum, data in SHARES.items():
            changed = bytearray(data)
            changed[position] ^= 0x80
            shares[shnum] = bytes(changed)
        outcome = read_or_complain(grid_of(shares))
        assert outcome == CONTENTS or "is corrupt" in outcome
        outcomes[outcome == CONTENTS] += 1
    assert outcomes[True] > 10  # unused: block and data size, plaintext tree, inner nodes
    assert outcomes[False] > 100


FIELDS = {
    "version": 0,
    "block size": 4,
    "data size": 8,
    "data": 12,
    "plaintext hash tree": 16,
    "ciphertext hash tree": 20,
    "block hashes": 24,
    "share hashes": 28,
    "UEB": 32,
}


@pytest.mark.parametrize("field", FIELDS)
@given(value=st.one_of(st.integers(0, LENGTH + 50), st.integers(0, 2**32 - 1)))
@settings(max_examples=15, deadline=None)
def test_lying_offsets(field, value):
    start = FIELDS[field]
    check(lambda share: share[:start] + struct.pack(">L", value) + share[start + 4 :])


@given(length=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_lying_ueb_length(length):
    at = HEADER.uri_extension
    check(lambda share: share[:at] + struct.pack(">L", length) + share[at + 4 :])


@given(data=st.binary(max_size=400))
@settings(max_examples=30, deadline=None)
def test_arbitrary_bytes(data):
    check(lambda share: data)


@given(data=st.binary(min_size=1, max_size=200), position=st.integers(0, LENGTH))
@settings(max_examples=30, deadline=None)
def test_inserted_bytes(data, position):
    check(lambda share: share[:position] + data + share[position:])


def test_shares_of_another_file():
    for shnum in range(3):
        check(lambda share, shnum=shnum: OTHER_SHARES[shnum])


def test_a_share_under_a_wrong_number():
    check(lambda share: SHARES[2] if share != SHARES[2] else SHARES[1])


def test_a_share_that_is_another_encoding_of_the_same_contents():
    """Same key and storage index, other UEB: what an upload by another client may have left."""
    data = SHARES[0]
    at = data.index(b"crypttext_hash:") + 20
    check(lambda share: share[:at] + b"\0" * 5 + share[at + 5 :])


def test_a_server_that_sends_more_than_it_was_asked_for():
    servers = grid_of(SHARES)
    for server in servers:
        server.lie = lambda kind, index, shnum, offset, data: data + b"more"
    assert read_all(servers) == CONTENTS


def test_a_server_that_claims_shares_no_file_has():
    servers = grid_of(SHARES)
    for shnum in (3, 99, 255, 70_000):
        servers[0].put(ShareKind.IMMUTABLE, CAP.storage_index, shnum, b"?")
    assert read_all(servers) == CONTENTS
    assert read_or_complain(servers[:1]).startswith("1 good shares of 1 found")
    assert servers[0].advisories == []  # they were not even looked at


def test_a_server_that_claims_shares_it_does_not_have():
    servers = grid_of({0: b"", 1: SHARES[1], 2: SHARES[2]})
    assert read_all(servers) == CONTENTS
    assert not any(server.advisories for server in servers)  # absent, not corrupt


def test_a_share_that_changes_between_two_requests():
    servers = grid_of(SHARES)
    answers = iter(range(10_000))
    servers[0].lie = lambda kind, index, shnum, offset, data: (
        data if next(answers) % 2 else bytes(len(data))
    )
    assert read_all(servers) == CONTENTS
