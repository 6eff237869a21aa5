"""Maximum matchings against brute force, and placements that send no more than they must."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lafsfs.grid.happiness import happiness, place

SERVERS = "abcd"
HELD = st.dictionaries(st.sampled_from(SERVERS), st.sets(st.integers(0, 4), max_size=5))


def brute_force(held: dict[str, set[int]]) -> int:
    """Try every order of servers against every order of shares."""
    best = 0
    for shares in permutations([*range(5), *[None] * len(held)], len(held)):
        best = max(best, sum(s in held[server] for server, s in zip(held, shares, strict=True)))
    return best


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), st.sets(st.integers(0, 4), max_size=4)))
def test_happiness_is_the_size_of_a_maximum_matching(held):
    assert happiness(held) == brute_force(held)


@given(HELD, st.permutations(SERVERS), st.integers(0, 4), st.integers(1, 5))
def test_a_placement_reaches_what_the_servers_allow(existing, order, writable, n):
    servers = order[:writable]
    placement = place(existing, servers, n)
    after = {server: {s for s in shares if s < n} for server, shares in existing.items()}
    for server, shares in placement.uploads.items():
        assert server in servers
        assert shares
        assert not shares & after.get(server, set())
        after[server] = after.get(server, set()) | shares
    assert happiness(after) == placement.happiness
    anything = {server: set(range(n)) for server in servers}
    reachable = {**after, **anything}
    assert placement.happiness == happiness(reachable)
    for shnum, server in placement.homes.items():
        assert shnum in after[server]
    if servers:
        assert set(placement.homes) == set(range(n))


def test_a_fresh_upload_gives_the_first_servers_the_first_shares():
    placement = place({}, ["x", "y", "z"], 5)
    assert placement.uploads == {"x": {0, 3}, "y": {1, 4}, "z": {2}}
    assert placement.happiness == 3


def test_what_is_there_already_is_not_sent_again():
    placement = place({"x": {1}, "y": {0}}, ["y", "x"], 2)
    assert placement.uploads == {}
    assert placement.homes == {0: "y", 1: "x"}


def test_a_server_that_takes_nothing_counts_with_what_it_holds():
    placement = place({"full": {0, 1}}, ["x"], 2)
    assert placement.happiness == 2
    assert sum(len(shares) for shares in placement.uploads.values()) == 1


def test_a_new_server_gets_shares_that_nobody_holds_before_copies():
    placement = place({"x": {0, 1}}, ["x", "y"], 3)
    assert placement.uploads == {"y": {2}}


def test_a_copy_is_sent_where_only_a_copy_makes_it_happier():
    placement = place({"x": {0, 1}}, ["x", "y"], 2)
    assert placement.happiness == 2
    assert sorted(map(sorted, placement.uploads.values())) in ([[0]], [[1]])


def test_no_servers_at_all_is_not_happy():
    placement = place({}, [], 3)
    assert (placement.happiness, placement.homes) == (0, {})


@pytest.mark.parametrize("servers", [1, 100])
def test_large_grids_are_placed_too(servers):
    placement = place({}, list(range(servers)), 256)
    assert placement.happiness == servers
    loads = [len(shares) for shares in placement.uploads.values()]
    assert max(loads) - min(loads) <= 1
