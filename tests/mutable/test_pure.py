"""What decides without asking anybody: encoding, verification, servermaps, plans."""

from __future__ import annotations

import random
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.caps import MutableFormat, MutableWriteCap
from lafsfs.crypto import hashes
from lafsfs.crypto.merkle import HashTree
from lafsfs.errors import FormatError, HashMismatchError
from lafsfs.formats.slot import parse_share, parse_slot_header
from lafsfs.grid.happiness import happiness
from lafsfs.mutable.encode import EncodedVersion, SlotKeys, encode_version
from lafsfs.mutable.plan import ABSENT, by_server, plan_targets
from lafsfs.mutable.servermap import BadShare, MappedShare, Mode, ServerMap, rank
from lafsfs.mutable.verify import (
    SlotVerifier,
    VerifiedTrees,
    check_root,
    decrypted,
    open_private_key,
    salted_ciphertext,
)
from tests.fakes import fake_servers

if TYPE_CHECKING:
    from lafsfs.crypto.rsa import SigningKey

FORMATS = st.sampled_from(list(MutableFormat))


@st.composite
def encodings(draw: st.DrawFn) -> tuple[int, int]:
    n = draw(st.integers(1, 12))
    return draw(st.integers(1, n)), n


def checked(encoded: EncodedVersion, shnum: int) -> list[bytes]:
    """The stored blocks of a whole share, after verification."""
    share = parse_share(encoded.shares[shnum])
    blocks = share.prefix.geometry.split_blocks(share.share_data, 0)
    chain = encoded.header.sections.share_hash_chain
    check_whole(encoded.version, shnum, encoded.shares[shnum][chain.offset : chain.end], blocks)
    return blocks


def check_whole(version, shnum, chain, blocks):
    """As a retrieve of the whole file does."""
    check_root(version, shnum, chain, HashTree([hashes.block_hash(b) for b in blocks]).root)


def check_part(version, shnum, chain, tree, first, blocks):
    """As a retrieve of some segments does."""
    trees = VerifiedTrees(version)
    assert not trees.knows(shnum)
    trees.admit(shnum, trees.verified(shnum, chain, tree))
    assert trees.knows(shnum)
    trees.check(shnum, first, [hashes.block_hash(block) for block in blocks])


@settings(max_examples=60, deadline=None)
@given(
    format_=FORMATS,
    encoding=encodings(),
    size=st.one_of(st.integers(0, 300), st.sampled_from([131_071, 131_072, 131_073, 270_000])),
    seqnum=st.integers(1, 2**40),
    seed=st.integers(0, 2**32),
)
def test_any_k_shares_give_the_contents_back(
    keys: list[SigningKey],
    format_: MutableFormat,
    encoding: tuple[int, int],
    size: int,
    seqnum: int,
    seed: int,
) -> None:
    rng = random.Random(seed)
    (k, n), contents, slot = encoding, rng.randbytes(size), SlotKeys(keys[0])
    encoded = encode_version(contents, format_, k, n, seqnum, slot)
    version = encoded.version
    assert (version.seqnum, version.k, version.n, version.data_length) == (seqnum, k, n, size)
    assert sorted(encoded.shares) == list(range(n))
    verifier = SlotVerifier(slot.fingerprint)
    chosen = rng.sample(range(n), k)
    for shnum in chosen:
        assert verifier.header(encoded.shares[shnum][:4096]).prefix == version
    blocks = {shnum: checked(encoded, shnum) for shnum in chosen}
    read_key = hashes.ssk_readkey(slot.write_key)
    plain = [
        decrypted(
            salted_ciphertext(version, segment, {s: b[segment] for s, b in blocks.items()}),
            read_key,
        )
        for segment in range(version.geometry.num_segments)
    ]
    assert b"".join(plain) == contents


def test_salts_are_fresh_for_every_segment_and_version(keys: list[SigningKey]) -> None:
    slot, contents = SlotKeys(keys[0]), bytes(400_000)
    salts = []
    for _ in range(2):
        share = parse_share(encode_version(contents, MutableFormat.MDMF, 1, 1, 1, slot).shares[0])
        blocks = share.prefix.geometry.split_blocks(share.share_data, 0)
        assert len(blocks) == 4
        salts += [block[:16] for block in blocks]
        ivs = [encode_version(b"", MutableFormat.SDMF, 1, 1, 1, slot).version.iv for _ in range(2)]
        salts += [iv for iv in ivs if iv is not None]
    assert len(set(salts)) == 12


def test_a_part_is_checked_through_the_stored_tree(keys: list[SigningKey]) -> None:
    slot = SlotKeys(keys[0])
    encoded = encode_version(random.Random(4).randbytes(500_000), MutableFormat.MDMF, 2, 3, 1, slot)
    data, sections = encoded.shares[1], encoded.header.sections
    chain = data[sections.share_hash_chain.offset : sections.share_hash_chain.end]
    tree = data[sections.block_hash_tree.offset : sections.block_hash_tree.end]
    span = encoded.header.blocks_span(1, 2)
    blocks = encoded.version.geometry.split_blocks(data[span.offset : span.end], 1)
    check_part(encoded.version, 1, chain, tree, 1, blocks)
    for wrong in (
        (0, chain, tree, 1, blocks),
        (1, chain, tree, 0, blocks),
        (1, chain, tree[:32] + bytes(32) + tree[64:], 1, blocks),
        (1, chain[:-1] + b"?", tree, 1, blocks),
        (1, chain, tree, 1, [blocks[0], blocks[1][:-1] + b"?"]),
    ):
        with pytest.raises(FormatError):
            check_part(encoded.version, *wrong)


@settings(max_examples=100, deadline=None)
@given(position=st.floats(0, 0.999999), flip=st.integers(1, 255), format_=FORMATS)
def test_any_flipped_byte_is_noticed_or_does_not_matter(
    keys: list[SigningKey], position: float, flip: int, format_: MutableFormat
) -> None:
    """No reader takes other contents, and no writer another key, out of a damaged share."""
    slot = SlotKeys(keys[0])
    cap = MutableWriteCap(format_, slot.write_key, slot.fingerprint)
    encoded = _encoded_once(slot, format_)
    share = bytearray(encoded.shares[0])
    share[int(position * len(share))] ^= flip
    data = bytes(share)
    try:
        header = SlotVerifier(slot.fingerprint).header(data)
        sections = header.sections
        span = header.blocks_span(0, header.geometry.num_segments)
        blocks = header.geometry.split_blocks(data[span.offset : span.end], 0)
        chain = data[sections.share_hash_chain.offset : sections.share_hash_chain.end]
        check_whole(header.prefix, 0, chain, blocks)
        assert header.prefix == encoded.version
        assert blocks == checked(encoded, 0)
        private = data[sections.enc_privkey.offset : sections.enc_privkey.end]
        assert open_private_key(private, cap).signing_key.der == keys[0].der
    except FormatError:
        return


_ENCODED: dict[MutableFormat, EncodedVersion] = {}


def _encoded_once(slot: SlotKeys, format_: MutableFormat) -> EncodedVersion:
    if format_ not in _ENCODED:
        _ENCODED[format_] = encode_version(b"contents" * 30, format_, 1, 3, 5, slot)
    return _ENCODED[format_]


def test_a_forged_signature_is_refused(keys: list[SigningKey], format_: MutableFormat) -> None:
    mine, other = SlotKeys(keys[0]), SlotKeys(keys[1])
    honest = encode_version(b"contents", format_, 1, 1, 1, mine)
    forged = encode_version(b"forgery", format_, 1, 1, 2, other)
    verifier = SlotVerifier(mine.fingerprint)
    assert verifier.header(honest.shares[0]).prefix == honest.version
    with pytest.raises(HashMismatchError, match="public key"):
        verifier.header(forged.shares[0])
    share = bytearray(forged.shares[0])  # now with the right key, but still the wrong signature
    span = parse_slot_header(forged.shares[0]).sections.verification_key
    share[span.offset : span.end] = keys[0].verifying_key.der
    with pytest.raises(HashMismatchError, match="signature"):
        verifier.header(bytes(share))


def test_a_private_key_of_another_public_key_is_refused(keys: list[SigningKey]) -> None:
    mine, other = SlotKeys(keys[0]), SlotKeys(keys[1])
    cap = MutableWriteCap(MutableFormat.SDMF, mine.write_key, other.fingerprint)
    with pytest.raises(HashMismatchError, match="public half"):
        open_private_key(mine.encrypted(), cap)
    with pytest.raises(HashMismatchError, match="write key"):
        open_private_key(other.encrypted(), cap)


def test_keys_stay_out_of_repr(keys: list[SigningKey]) -> None:
    slot = SlotKeys(keys[0])
    encoded = encode_version(b"secret contents", MutableFormat.SDMF, 1, 1, 1, slot)
    shown = repr((slot, encoded))
    assert "secret" not in shown
    assert repr(keys[0].der)[2:30] not in shown
    assert repr(slot.write_key)[2:-1] not in shown


# --- servermaps -----------------------------------------------------------------------------------

SERVERS = fake_servers(6)


def version_at(keys: list[SigningKey], seqnum: int, k: int = 2, n: int = 4) -> EncodedVersion:
    contents = b"version %d" % seqnum
    return encode_version(contents, MutableFormat.SDMF, k, n, seqnum, SlotKeys(keys[0]))


def mapped(*found: tuple[int, int, EncodedVersion], **more: object) -> ServerMap:
    """A map of (server number, share number, version) triples."""
    shares = [MappedShare(SERVERS[i], shnum, encoded.header) for i, shnum, encoded in found]
    return replace(
        ServerMap(Mode.WRITE, MappingProxyType({share.place: share for share in shares})), **more
    )


def test_an_empty_map() -> None:
    empty = ServerMap(Mode.READ)
    assert empty.best() is None
    assert empty.newest() is None
    assert empty.highest_seqnum() == 0
    assert not empty.settled()
    assert empty.describe() == "no server answers"


def test_the_best_version_is_the_newest_that_is_recoverable(keys: list[SigningKey]) -> None:
    old, new = version_at(keys, 3), version_at(keys, 4)
    servermap = mapped((0, 0, old), (1, 1, old), (2, 0, new), (3, 0, new))
    assert servermap.best() == old.version  # two copies of one share number are one share
    assert servermap.newest() == new.version
    assert servermap.unrecoverable_newer() == [new.version]
    assert servermap.highest_seqnum() == 4
    both = mapped((0, 0, old), (1, 1, old), (2, 0, new), (3, 3, new))
    assert both.best() == new.version
    assert both.recoverable() == [new.version, old.version]
    assert both.unrecoverable_newer() == []
    assert both.describe() == ("version 4: 2 of 2 needed shares; version 3: 2 of 2 needed shares")
    assert replace(both, highest_seen=9).highest_seqnum() == 9


def test_of_two_versions_of_one_number_the_higher_root_hash_wins(keys: list[SigningKey]) -> None:
    pair = sorted((version_at(keys, 3), version_at(keys, 3)), key=lambda e: rank(e.version))
    servermap = mapped((0, 0, pair[0]), (1, 1, pair[0]), (2, 2, pair[1]), (3, 3, pair[1]))
    assert len(servermap.recoverable()) == 2
    assert servermap.best() == pair[1].version


def test_only_a_whole_and_undisturbed_version_is_settled(keys: list[SigningKey]) -> None:
    old, new = version_at(keys, 3), version_at(keys, 4)
    whole = mapped(*((i, i, new) for i in range(4)))
    assert whole.settled()
    assert not mapped(*((i, i, new) for i in range(3))).settled()
    assert not mapped((5, 0, old), *((i, i, new) for i in range(4))).settled()
    assert not replace(whole, failed={b"?" * 20: "away"}).settled()
    assert not replace(whole, highest_seen=5).settled()
    bad = BadShare(SERVERS[2], 2, b"head", "rotten")
    assert not whole.without([bad]).settled()
    assert whole.without([bad]).versions() == {new.version: frozenset({0, 1, 3})}


# --- plans ----------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(data=st.data(), n=st.integers(1, 8), count=st.integers(1, 6))
def test_a_plan_keeps_places_and_gives_every_share_one(
    keys: list[SigningKey], data: st.DataObject, n: int, count: int
) -> None:
    servers = SERVERS[:count]
    encoded = _version_for_plans(keys, n)
    places = st.tuples(st.integers(0, count - 1), st.integers(0, n - 1))
    kept = data.draw(st.sets(places, max_size=8))
    rotten = data.draw(st.sets(places, max_size=3)) - kept
    dead = data.draw(st.sets(st.integers(0, count - 1), max_size=count))
    servermap = mapped(*((i, shnum, encoded) for i, shnum in kept))
    bad = [BadShare(SERVERS[i], shnum, b"rotten bytes", "") for i, shnum in rotten]
    servermap = servermap.without(bad)
    targets = plan_targets(servermap, servers, n, {SERVERS[i].server_id for i in dead})
    where = [target.place for target in targets]
    assert len(set(where)) == len(where)
    assert not {SERVERS[i].server_id for i in dead} & {server_id for server_id, _ in where}
    for target in targets:
        (test,) = target.vectors(b"a new share").tests
        if target.place in servermap.shares:
            assert encoded.shares[target.shnum].startswith(test.specimen)
            assert len(test.specimen) == test.size > 40
        elif target.place in servermap.bad:
            assert test.specimen == b"rotten bytes"
        else:
            assert test == ABSENT
    living = count - len(dead)
    still = {
        p
        for p in (*servermap.shares, *servermap.bad)
        if p[0] not in {SERVERS[i].server_id for i in dead}
    }
    assert still <= set(where)
    if living:
        assert {shnum for _, shnum in where} == set(range(n))
        held: dict[bytes, set[int]] = {}
        for server_id, shnum in where:
            held.setdefault(server_id, set()).add(shnum)
        assert happiness(held) == min(living, n)
    else:
        assert targets == []
    assert sum(len(group) for group in by_server(targets).values()) == len(targets)


_PLANNED: dict[int, EncodedVersion] = {}


def _version_for_plans(keys: list[SigningKey], n: int) -> EncodedVersion:
    if n not in _PLANNED:
        _PLANNED[n] = version_at(keys, 1, k=1, n=n)
    return _PLANNED[n]
