"""Servers of happiness: on how many distinct servers does a file really lie? PURE.

Theory (``servers-of-happiness.rst``). Draw an edge from every server to every share number that it
holds. The happiness is the size of a maximum matching of that graph: the number of servers that
each contribute a share nobody else has to contribute. As long as fewer than ``happiness - k + 1``
of those servers are lost, k distinct shares remain.

:func:`place` finds where to put shares so that the happiness is as high as the servers allow, and
sends nothing that is already where it should be. Servers that take no more shares still count with
what they hold.

The matching grows by augmenting paths (Berge): a path that begins at an unmatched server, ends at
an unmatched share and alternates between edges outside and inside the matching makes it larger by
one. No vertex that was matched ever becomes unmatched.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

S = TypeVar("S")  # a server: anything hashable


@dataclass(frozen=True, slots=True)
class Placement(Generic[S]):
    """Where shares are to be.

    ``homes``: for every share number that is somewhere or can be sent somewhere, the server that
    counts for it. ``uploads``: what each server must be sent for that; a server without work is not
    in it. ``happiness``: what is reached when all of it arrives.
    """

    homes: Mapping[int, S]
    uploads: Mapping[S, frozenset[int]]
    happiness: int


def happiness(held: Mapping[S, Iterable[int]]) -> int:
    """The happiness of shares as they lie: ``held`` says which share numbers each server has."""
    return len(_match({}, {server: sorted(set(shares)) for server, shares in held.items()}))


def place(existing: Mapping[S, AbstractSet[int]], servers: Sequence[S], n: int) -> Placement[S]:
    """Decide where the shares ``0 .. n-1`` go.

    Args:
        existing: what each server holds already, those that take nothing more included.
        servers: who takes new shares, in the order of preference (permuted).
    """
    held = {
        server: sorted(shnum for shnum in shares if 0 <= shnum < n)
        for server, shares in existing.items()
    }
    anywhere = {shnum for shares in held.values() for shnum in shares}
    fresh_first = sorted(range(n), key=lambda shnum: (shnum in anywhere, shnum))
    edges: dict[S, Sequence[int]] = {
        server: [*held.get(server, ()), *fresh_first] for server in servers
    }
    matched = _match(_match({}, held), {**edges, **{s: held[s] for s in held if s not in edges}})
    homes = {shnum: server for server, shnum in matched.items()}
    reached = len(homes)
    _home_the_rest(homes, held, servers, n)
    uploads: dict[S, set[int]] = {}
    for shnum, server in sorted(homes.items()):
        if shnum not in held.get(server, ()):
            uploads.setdefault(server, set()).add(shnum)
    return Placement(homes, {s: frozenset(shares) for s, shares in uploads.items()}, reached)


def _home_the_rest(
    homes: dict[int, S], held: Mapping[S, Sequence[int]], servers: Sequence[S], n: int
) -> None:
    """Shares that raise no happiness: leave them where they are, or spread them evenly."""
    somewhere = {shnum: server for server, shares in held.items() for shnum in shares}
    load = {server: len(held.get(server, ())) for server in servers}
    for shnum, server in homes.items():
        if server in load and shnum not in held.get(server, ()):
            load[server] += 1
    for shnum in range(n):
        if shnum in homes:
            continue
        if shnum in somewhere:
            homes[shnum] = somewhere[shnum]
        elif load:
            server = min(load, key=load.__getitem__)  # the first in order among equals
            homes[shnum] = server
            load[server] += 1


def _match(start: Mapping[S, int], edges: Mapping[S, Sequence[int]]) -> dict[S, int]:
    """A maximum matching, server -> share, that grows out of ``start``."""
    matched = dict(start)
    taken = {shnum: server for server, shnum in matched.items()}
    for server in edges:
        if server not in matched:
            _augment(server, matched, taken, edges)
    return matched


def _augment(
    root: S, matched: dict[S, int], taken: dict[int, S], edges: Mapping[S, Sequence[int]]
) -> None:
    """Look breadth-first for an augmenting path from ``root``, and flip it if there is one."""
    came_from: dict[int, S] = {}
    queue = deque([root])
    while queue:
        server = queue.popleft()
        for shnum in edges[server]:
            if shnum in came_from:
                continue
            came_from[shnum] = server
            if shnum in taken:
                queue.append(taken[shnum])
                continue
            _flip(shnum, root, came_from, matched, taken)
            return


def _flip(
    shnum: int, root: S, came_from: Mapping[int, S], matched: dict[S, int], taken: dict[int, S]
) -> None:
    """Walk the path back from an unmatched share to ``root``, matching each pair on it anew."""
    while True:
        server = came_from[shnum]
        before = matched.get(server)
        matched[server], taken[shnum] = shnum, server
        if server == root or before is None:
            return
        shnum = before
