"""Case 3: both edit the same directories and mutable files, by turns and at once.

By turns, each side sees what the other did and goes on from there: write enablers agree, whoever
made the slot. At once, nothing that either side was told had succeeded may be lost, but for what a
later write replaced, and whoever could not be served is told so.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.interop.tables import MDMF_SEGMENT, SHARES, contents
from tests.stock import WebError, wait_until

pytestmark = pytest.mark.interop

MUTABLE = ("sdmf", "mdmf")
TURNS = 2
WRITERS = 4  # files that each side puts into the directory at once
ROUNDS = 3  # of both sides writing one thing at once


def seen(path):
    """What a mount shows of a file, None where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def wait_for_names(mount, names):
    wait_until(
        lambda: set(os.listdir(mount.path)) == set(names),
        f"the mount lists {sorted(names)}",
        why_not=lambda: f"it lists {sorted(os.listdir(mount.path))}",
    )


def wait_for_contents(path, data):
    wait_until(lambda: seen(path) == data, f"{path.name} has its new contents")


# --- by turns -------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", MUTABLE)
def test_a_folder_by_turns(stock, ours, plant, format):
    tree, web = plant(format), stock.web
    names = set()
    with ours.mount(tree.what) as mount:
        for turn in range(TURNS):
            web.put_child(tree.cap, f"stock {turn}", contents=b"stock")
            web.make_child_directory(tree.cap, f"stock folder {turn}", format=format)
            names |= {f"stock {turn}", f"stock folder {turn}"}
            wait_for_names(mount, names)
            (mount / f"ours {turn}").write_bytes(b"ours")
            (mount / f"stock folder {turn}" / "inside").write_bytes(b"ours")
            (mount / f"ours folder {turn}").mkdir()
            names |= {f"ours {turn}", f"ours folder {turn}"}
            assert set(web.children(tree.cap)) == names
            assert web.get(tree.cap, f"stock folder {turn}", "inside") == b"ours"
            web.put_child(tree.cap, f"ours folder {turn}", "inside", contents=b"stock")
            wait_for_contents(mount / f"ours folder {turn}" / "inside", b"stock")
        for turn in range(TURNS):
            web.rename(tree.cap, f"ours {turn}", f"ours by stock {turn}")
            names = names - {f"ours {turn}"} | {f"ours by stock {turn}"}
            wait_for_names(mount, names)
            (mount / f"stock {turn}").rename(mount / f"stock by ours {turn}")
            names = names - {f"stock {turn}"} | {f"stock by ours {turn}"}
            assert set(web.children(tree.cap)) == names
        web.unlink(tree.cap, "ours by stock 0")
        (mount / "stock by ours 0").unlink()
        names -= {"ours by stock 0", "stock by ours 0"}
        wait_for_names(mount, names)
        assert set(web.children(tree.cap)) == names


@pytest.mark.parametrize("maker", ["stock", "ours"])
@pytest.mark.parametrize("format", MUTABLE)
def test_a_mutable_file_by_turns(stock, ours, plant, format, maker):
    tree, web = plant(), stock.web
    sizes = (2 * MDMF_SEGMENT + 5, 10, 0, 300_000)
    if maker == "stock":
        web.put_child(tree.cap, "file", contents=b"first", format=format)
    else:
        ours.run("put", "--format", format, "-", f"{tree.what}/file", contents=b"first")
    cap = web.children(tree.cap)["file"][1]["rw_uri"]
    with ours.mount(tree.what) as mount:
        path = mount / "file"
        for turn, size in enumerate(sizes):
            data = bytearray(contents(f"stock {turn}", size))
            web.put_child(tree.cap, "file", contents=bytes(data))
            wait_for_contents(path, data)
            with path.open("r+b") as file:  # in the middle, and past the end
                file.seek(size // 2)
                file.write(b"in place")
            data[size // 2 : size // 2 + 8] = b"in place"
            assert web.get(cap) == data
            os.truncate(path, size // 3)
            assert web.get(cap) == data[: size // 3]
    assert web.children(tree.cap)["file"][1]["rw_uri"] == cap


def test_a_file_replaced_by_turns(stock, ours, plant):
    tree, web = plant(), stock.web
    with ours.mount(tree.what) as mount:
        path = mount / "file"
        for turn in range(TURNS):
            data = contents(f"stock {turn}", 100_000 - 40_000 * turn)
            web.put_child(tree.cap, "file", contents=data)
            wait_for_contents(path, data)
            assert path.stat().st_size == len(data)
            with path.open("ab") as file:
                file.write(b"appended")
            assert web.get(tree.cap, "file") == data + b"appended"


# --- at once --------------------------------------------------------------------------------------


def attempt(action, *arguments, **keywords):
    """Whether it succeeded; the two ways of being told that it did not are errors alike."""
    try:
        action(*arguments, **keywords)
    except (WebError, OSError):
        return False
    return True


@pytest.mark.parametrize("format", MUTABLE)
def test_many_files_into_one_folder_at_once(stock, ours, plant, format):
    tree, web = plant(format), stock.web
    stocks = {f"stock {n}": contents("stock", 100 + n) for n in range(WRITERS)}
    mine = {f"ours {n}": contents("ours", 100 + n) for n in range(WRITERS)}
    with ours.mount(tree.what) as mount, ThreadPoolExecutor(2 * WRITERS) as pool:
        mount.expect_log("")
        done = {
            name: pool.submit(attempt, web.put_child, tree.cap, name, contents=data)
            for name, data in stocks.items()
        }
        done |= {
            name: pool.submit(attempt, (mount / name).write_bytes, data)
            for name, data in mine.items()
        }
        made = {name for name, future in done.items() if future.result()}
        assert made >= mine.keys(), "lafsfs tries again until it is the only one"
        wait_until(lambda: made <= set(os.listdir(mount.path)), "the mount lists what was made")
        for name in made:
            assert (mount / name).read_bytes() == (stocks | mine)[name]
    for name in made:
        assert web.get(tree.cap, name) == (stocks | mine)[name]
    assert set(web.children(tree.cap)) <= {*stocks, *mine}


def test_one_name_at_once(stock, ours, plant):
    """Stock replaces what is there; lafsfs keeps both under two names. Nobody's bytes mix."""
    tree, web = plant(), stock.web
    with ours.mount(tree.what) as mount, ThreadPoolExecutor(2) as pool:
        mount.expect_log("")
        for turn in range(ROUNDS):
            name, folder = f"file {turn}", f"turn {turn}"
            cap = web.make_child_directory(tree.cap, folder)
            wait_until((mount / folder).is_dir, f"the mount shows {folder}")
            theirs, mine = contents(f"stock {turn}", 5000), contents(f"ours {turn}", 6000)
            stored = pool.submit(attempt, web.put_child, cap, name, contents=theirs)
            (mount / folder / name).write_bytes(mine)
            certain = {theirs} if stored.result() else {theirs, mine}
            left = {child: web.get(cap, child) for child in web.children(cap)}
            assert left.pop(name) in certain
            assert set(left.values()) <= {mine}
            assert all(child.startswith(f"{name}.conflicted-") for child in left)


@pytest.mark.parametrize("format", MUTABLE)
def test_one_mutable_file_at_once(stock, ours, plant, format):
    """One of the two, whole, and both sides agree which.

    Who is told to have failed may have written all the same: stock gives up when it meets another
    writer half way, and then what it has written so far may be the newest version there is.
    """
    tree, web = plant(), stock.web
    cap = web.put_child(tree.cap, "file", contents=b"before", format=format)
    with ours.mount(tree.what) as mount, ThreadPoolExecutor(2) as pool:
        mount.expect_log("")
        for turn in range(ROUNDS):
            theirs = contents(f"stock {turn}", MDMF_SEGMENT + 100)
            mine = contents(f"ours {turn}", MDMF_SEGMENT + 200)
            stored = pool.submit(attempt, web.put_child, tree.cap, "file", contents=theirs)
            (mount / "file").write_bytes(mine)
            stored.result()
            left = web.get(cap)
            assert left in (theirs, mine)
            wait_for_contents(mount / "file", left)
        (mount / "file").write_bytes(b"after")
    assert web.get(cap) == b"after"
    assert web.check(cap)["results"]["count-shares-good"] == SHARES.total
