"""Names change while publishes carry them, and nothing is lost."""

from __future__ import annotations

import os

import pytest
import trio
import trio.testing

from lafsfs.vfs.api import RENAME_EXCHANGE, SetAttributes
from lafsfs.vfs.publishing.settling import settle_names
from tests.vfs.conftest import ME, ROOT, open_world
from tests.vfs.racing import (
    UNCHANGED,
    blocked,
    contents,
    contents_of,
    during_publish,
    hang,
    refuse,
    wake,
)

CREATE = os.O_WRONLY | os.O_CREAT


# --- what verbs wait for --------------------------------------------------------------------------


async def test_verbs_do_not_wait_for_a_grid_that_hangs(calm, servers):
    ino = (await calm.path("d/f")).ino
    hang(servers)
    async with trio.open_nursery() as nursery:
        await calm.fs.setattr(ino, SetAttributes(mode=0o600), ME)
        nursery.start_soon(settle_names, calm.tree.outgoing)  # which hangs, with d in flight
        await blocked()
        await calm.mkdir("d/new")
        await calm.mkdir("d/new/newer")
        await calm.symlink("d/new/newer/l", b"target")
        await calm.rename("d/f", "e/f")
        await calm.rename("d/g", "d/new/g")
        await calm.rename("d/new", "d/renamed")
        await calm.rename("e/f", "d/renamed/g", RENAME_EXCHANGE)
        await calm.fs.link(ino, ROOT, b"linked")
        await calm.unlink("d/renamed/newer/l")
        newer = await calm.split("d/renamed/newer")
        await calm.fs.rmdir(*newer)
        assert await calm.listdir("d") == [b"renamed"]
        assert await calm.listdir("d/renamed") == [b"g"]
        assert await calm.listdir("e") == [b"f"]
        wake(servers)
    await calm.settled()
    wanted = {"d/renamed/g": b"first", "e/f": b"other", "linked": b"first"}
    assert await contents(calm) == await contents_of(calm) == wanted


async def test_what_goes_within_the_quiet_period_never_reaches_the_grid(calm, servers):
    def calls() -> int:
        return sum(len(server.calls) for server in servers)

    before = calls()
    made = await calm.mkdir("tmp")
    await calm.symlink("tmp/l", b"target")
    await calm.fs.mknod(made.ino, b"m", 0o100644, 0, ME)
    opened, _ = await calm.fs.create(made.ino, b"f", 0o644, CREATE, ME)
    await calm.fs.write(opened.handle, 0, bytes(10_000))
    await calm.unlink("tmp/f")
    await calm.flush(opened.handle)
    await calm.fs.release(opened.handle)
    await calm.rename("tmp/l", "tmp/m")
    await calm.unlink("tmp/m")
    await calm.fs.rmdir(ROOT, b"tmp")
    await calm.settled()
    assert calls() == before


async def test_a_thousand_names_are_at_most_ten_publishes(broker, tmp_path, running_clock):
    async with open_world(broker, tmp_path, max_age=1e6, quiet=1.0) as world:
        for number in range(1000):
            await world.symlink(f"l{number}", b"target")
        while world.tree.outgoing.pending:  # noqa: ASYNC110 - no event says so
            await trio.sleep(1)
        assert world.publishes() <= 10
        assert len(await world.on_grid()) == 1000


async def test_a_new_tree_is_a_publish_for_each_directory(broker, tmp_path):
    async with open_world(broker, tmp_path, max_age=1e6) as world:
        for path in ("a", "a/b", "a/b/c", "a/d"):
            await world.mkdir(path)
            await world.symlink(f"{path}/l", path.encode())
        await world.settled()
        inodes = [ROOT, *[(await world.path(path)).ino for path in ("a", "a/b", "a/b/c", "a/d")]]
        assert [world.publishes(ino) for ino in inodes] == [1, 1, 1, 1, 1]
        assert sorted(await world.on_grid("a")) == ["b", "d", "l"]


# --- while a publish carries the name -------------------------------------------------------------


@pytest.fixture(params=["lands", "fails", "half"])
def outcome(request):
    """What becomes of a publish: it lands; it fails; it fails where one server took it."""
    return request.param


CHANGES = {
    "removed": (lambda w: w.unlink("d/new"), {}),
    "renamed": (lambda w: w.rename("d/new", "d/newer"), {"d/newer": b"new"}),
    "moved": (lambda w: w.rename("d/new", "e/new"), {"e/new": b"new"}),
    "moved over": (lambda w: w.rename("d/new", "d/f"), {"d/f": b"new"}),
    "replaced": (lambda w: w.rename("d/g", "d/new"), {"d/new": b"other", "d/g": None}),
    "exchanged": (
        lambda w: w.rename("d/f", "d/new", RENAME_EXCHANGE),
        {"d/f": b"new", "d/new": b"first"},
    ),
    "back and forth": (
        lambda w: in_turn(w.rename("d/new", "e/x"), w.rename("e/x", "d/new")),
        {"d/new": b"new"},
    ),
    "made anew": (
        lambda w: in_turn(w.unlink("d/new"), w.symlink("d/new", b"x"), w.rename("d/f", "d/new")),
        {"d/new": b"first", "d/f": None},
    ),
}


async def in_turn(*verbs) -> None:
    for verb in verbs:
        await verb


@pytest.mark.parametrize("change", CHANGES)
async def test_a_new_name_changes_while_it_is_published(calm, servers, outcome, change):
    do, wanted = CHANGES[change]
    opened, _ = await calm.fs.create(*await calm.split("d/new"), 0o644, CREATE, ME)
    await calm.fs.write(opened.handle, 0, b"new")
    await calm.fs._uploader.bring(calm.tree.table[(await calm.path("d/new")).ino])
    await calm.fs.release(opened.handle)
    await during_publish(calm, servers, outcome, lambda: do(calm))
    expected = {name: data for name, data in (UNCHANGED | wanted).items() if data is not None}
    assert await contents(calm) == await contents_of(calm) == expected


OLD_CHANGES = {
    "removed": (lambda w: w.unlink("d/f"), {"d/f": None}),
    "renamed": (lambda w: w.rename("d/f", "d/x"), {"d/f": None, "d/x": b"first"}),
    "moved": (lambda w: w.rename("d/f", "e/x"), {"d/f": None, "e/x": b"first"}),
    "exchanged": (
        lambda w: w.rename("d/f", "d/g", RENAME_EXCHANGE),
        {"d/f": b"other", "d/g": b"first"},
    ),
    "replaced": (lambda w: w.rename("d/g", "d/f"), {"d/f": b"other", "d/g": None}),
    "rewritten": (lambda w: w.write("d/f", b"again"), {"d/f": b"again"}),
}


@pytest.mark.parametrize("change", [name for name in OLD_CHANGES if name != "rewritten"])
async def test_attributes_are_published_while_a_name_changes(calm, servers, outcome, change):
    do, wanted = OLD_CHANGES[change]
    ino = (await calm.path("d/f")).ino
    await calm.fs.setattr(ino, SetAttributes(mode=0o600), ME)
    await during_publish(calm, servers, outcome, lambda: do(calm))
    expected = {name: data for name, data in (UNCHANGED | wanted).items() if data is not None}
    assert await contents(calm) == await contents_of(calm) == expected


async def test_a_name_is_used_again_while_its_removal_is_published(calm, servers, outcome):
    await calm.unlink("d/f")
    await during_publish(calm, servers, outcome, lambda: calm.rename("d/g", "d/f"))
    assert await contents(calm) == await contents_of(calm) == {"d/f": b"other"}


async def test_moved_back_while_the_move_is_published(calm, servers, outcome):
    ino = (await calm.path("d/f")).ino
    await calm.rename("d/f", "d/x")
    await during_publish(calm, servers, outcome, lambda: calm.rename("d/x", "d/f"))
    assert await contents(calm) == await contents_of(calm) == UNCHANGED
    assert (await calm.path("d/f")).ino == ino


async def test_a_directory_is_renamed_while_it_is_made(calm, servers, outcome):
    await calm.mkdir("d/new")
    await calm.mkdir("d/new/l")
    await during_publish(calm, servers, outcome, lambda: calm.rename("d/new", "e/new"))
    assert await contents_of(calm, "e/new") == await contents(calm, "e/new")
    assert list(await calm.on_grid("e/new")) == ["l"]
    assert sorted(await calm.on_grid("d")) == ["f", "g"]


async def test_a_directory_is_removed_while_it_is_made(calm, servers, outcome):
    await calm.mkdir("d/new")
    parent, name = await calm.split("d/new")
    await during_publish(calm, servers, outcome, lambda: calm.fs.rmdir(parent, name))
    assert sorted(await calm.on_grid("d")) == ["f", "g"]


# --- across directories ---------------------------------------------------------------------------


async def test_exchanged_across_directories(calm):
    await calm.rename("d/f", "e/f")
    await calm.settled()
    inodes = {name: (await calm.path(name)).ino for name in ("d/g", "e/f")}
    await calm.rename("d/g", "e/f", RENAME_EXCHANGE)
    await calm.settled()
    assert await contents(calm) == {"d/g": b"first", "e/f": b"other"}
    assert (await calm.path("d/g")).ino == inodes["e/f"]
    assert (await calm.path("e/f")).ino == inodes["d/g"]


async def test_what_is_replaced_has_its_new_name_first(calm, servers):
    """f goes to e, and g takes its place: the grid never is without f."""
    await calm.rename("d/f", "e/f")
    await calm.rename("d/g", "d/f")
    index = calm.tree.directory_inode((await calm.path("e")).ino).cap.storage_index

    def fail(call) -> None:
        if call.verb == "read_test_write" and call.storage_index == index:
            refuse(servers, "read_test_write")

    for server in servers:
        server.before_call = fail
    assert await settle_names(calm.tree.outgoing)
    for server in servers:
        server.before_call, server.refuse = None, set()
    assert await contents(calm) == UNCHANGED
    await calm.settled()
    assert await contents(calm) == {"d/f": b"other", "e/f": b"first"}


async def test_a_directory_is_removed_between_the_two_publishes_of_its_move(calm):
    """The grid has it under both names. What was in it is known to be gone until both are."""
    await calm.mkdir("d/w")
    await calm.write("d/w/x", b"contents")
    await calm.settled()
    old, new = [calm.tree.directory_inode((await calm.path(path)).ino) for path in "de"]
    await calm.rename("d/w", "e/w")
    await new.directory.publisher.attempt()
    await calm.unlink("e/w/x")
    await calm.fs.rmdir(new.number, b"w")
    await old.directory.publisher.attempt()
    await calm.settled()
    assert await contents(calm) == UNCHANGED
    assert (await calm.listdir("e"), list(await calm.on_grid("e"))) == ([], [])
    assert not calm.tree.outgoing.pending


async def test_moved_into_a_directory_that_is_new(calm):
    await calm.mkdir("e/new")
    await calm.rename("d/f", "e/new/f")
    directory = calm.tree.directory_inode((await calm.path("d")).ino).directory
    await directory.publisher.attempt()
    assert await contents(calm) == UNCHANGED
    made = calm.tree.directory_inode((await calm.path("e/new")).ino).directory
    await made.publisher.attempt()
    await directory.publisher.attempt()
    assert await contents(calm) == UNCHANGED  # the new directory has it, but nothing leads there
    await calm.settled()
    assert await contents(calm) == {"d/g": b"other", "e/new/f": b"first"}
