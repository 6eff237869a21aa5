"""A mount and a plain directory: the same calls give the same results and leave the same trees.

Hypothesis makes up sequences of system calls; both sides make each of them, and must agree on the
result or the errno and, after every step, on everything a program can see. Now and then the file
system is unmounted and mounted again. Times agree where a program set them; where a write did, they
only have to be recent on both sides.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.mounted.harness import Grid
from tests.mounted.snapshot import Seen, snapshot

OWNERS = [(0, 0), (1234, 5678)] if os.geteuid() == 0 else [(os.getuid(), os.getgid())]
LONG_AGO = 10**18  # nanoseconds: what tests set is before, what writing sets is after

NAMES = st.sampled_from(["a", "b", "e\u0301", "long " * 40])
PATHS = st.one_of(NAMES, NAMES, st.lists(NAMES, min_size=2, max_size=3).map("/".join))
DATA = st.one_of(
    st.binary(max_size=80),
    st.builds(
        lambda seed, size: bytes([seed]) * size, st.integers(0, 255), st.integers(0, 300_000)
    ),
)
OFFSETS = st.one_of(st.integers(0, 100), st.integers(0, 400_000))
TIMES = st.integers(-(10**17), LONG_AGO)
XATTRS = st.sampled_from(["user.one", "user.two"])


class Sides(RuleBasedStateMachine):
    """One example: a fresh grid, a fresh directory, and whatever happens to both."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="lafsfs-model-"))
        self.plain = self.directory / "plain"
        self.plain.mkdir(mode=0o755)
        self.grid = Grid.create(self.directory / "grid")
        self.open: dict[str, tuple[int, int]] = {}
        self.enter()

    def enter(self) -> None:
        self.context = self.grid.mount()
        self.mount = self.context.__enter__()

    def leave(self) -> None:
        for name in list(self.open):
            self.close_file(name)
        self.context.__exit__(None, None, None)

    def teardown(self) -> None:
        try:
            self.leave()
        finally:
            if not self.mount.ended:
                self.mount.kill()
            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def sides(self) -> tuple[Path, Path]:
        return self.plain, self.mount.path

    def both(self, call) -> None:
        """Make a call on both sides and compare what comes of it."""
        plain, mounted = (outcome(call, root) for root in self.sides)
        assert mounted == plain

    # --- files ------------------------------------------------------------------------------------

    @rule(path=PATHS, data=DATA)
    def write(self, path, data):
        def call(root):
            with opened(root / path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
                return os.write(descriptor, data)

        self.both(call)

    @rule(path=PATHS, data=DATA, offset=OFFSETS)
    def write_at(self, path, data, offset):
        def call(root):
            with opened(root / path, os.O_RDWR) as descriptor:
                os.pwrite(descriptor, data, offset)
                return os.pread(descriptor, 1000, max(0, offset - 10))

        self.both(call)

    @rule(path=PATHS, data=DATA)
    def append(self, path, data):
        def call(root):
            with opened(root / path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as descriptor:
                return os.write(descriptor, data)

        self.both(call)

    @rule(path=PATHS, size=OFFSETS)
    def truncate(self, path, size):
        self.both(lambda root: os.truncate(root / path, size))

    @rule(path=PATHS)
    def create_exclusively(self, path):
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        self.both(lambda root: os.close(os.open(root / path, flags, 0o640)))

    # --- files that stay open ---------------------------------------------------------------------

    @rule(path=PATHS)
    def open_file(self, path):
        if path in self.open:
            return
        plain, mounted = (
            outcome(lambda root: os.open(root / path, os.O_RDWR | os.O_NONBLOCK), root)
            for root in self.sides
        )
        if isinstance(plain, int) and isinstance(mounted, int):
            self.open[path] = (plain, mounted)
        else:
            assert mounted == plain

    def handled(self, data, call) -> None:
        name = data.draw(st.sampled_from(sorted(self.open)))
        plain, mounted = (outcome(call, descriptor) for descriptor in self.open[name])
        assert mounted == plain

    @precondition(lambda self: self.open)
    @rule(data=st.data(), contents=DATA, offset=OFFSETS)
    def write_open(self, data, contents, offset):
        self.handled(data, lambda fd: os.pwrite(fd, contents, offset))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), offset=OFFSETS)
    def read_open(self, data, offset):
        self.handled(
            data,
            lambda fd: (os.pread(fd, 5000, offset), os.fstat(fd).st_size, os.fstat(fd).st_nlink),
        )

    @precondition(lambda self: self.open)
    @rule(data=st.data(), size=OFFSETS)
    def truncate_open(self, data, size):
        self.handled(data, lambda fd: os.ftruncate(fd, size))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def fsync_open(self, data):
        self.handled(data, os.fsync)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def close_open(self, data):
        self.close_file(data.draw(st.sampled_from(sorted(self.open))))

    def close_file(self, name):
        for descriptor in self.open.pop(name):
            os.close(descriptor)

    # --- names ------------------------------------------------------------------------------------

    @rule(path=PATHS)
    def mkdir(self, path):
        self.both(lambda root: os.mkdir(root / path))

    @rule(path=PATHS)
    def rmdir(self, path):
        self.both(lambda root: os.rmdir(root / path))

    @rule(path=PATHS)
    def unlink(self, path):
        self.both(lambda root: os.unlink(root / path))

    @rule(old=PATHS, new=PATHS)
    def rename(self, old, new):
        self.both(lambda root: os.rename(root / old, root / new))

    @rule(path=PATHS, leads_to=st.one_of(NAMES, st.just("../b/c"), st.just("x" * 1000)))
    def symlink(self, path, leads_to):
        self.both(lambda root: os.symlink(leads_to, root / path))

    @rule(old=PATHS, new=PATHS)
    def link(self, old, new):
        self.both(lambda root: os.link(root / old, root / new, follow_symlinks=False))

    @rule(path=PATHS)
    def mkfifo(self, path):
        self.both(lambda root: os.mkfifo(root / path, 0o604))

    # --- attributes -------------------------------------------------------------------------------

    @rule(path=PATHS, mode=st.sampled_from([0o600, 0o644, 0o755, 0o4711, 0o1777]))
    def chmod(self, path, mode):
        self.both(lambda root: os.chmod(root / path, mode))

    @rule(path=PATHS, owner=st.sampled_from(OWNERS))
    def chown(self, path, owner):
        self.both(lambda root: os.chown(root / path, *owner, follow_symlinks=False))

    @rule(path=PATHS, atime=TIMES, mtime=TIMES)
    def utime(self, path, atime, mtime):
        self.both(lambda root: os.utime(root / path, ns=(atime, mtime), follow_symlinks=False))

    @rule(path=PATHS, name=XATTRS, value=st.binary(max_size=20))
    def setxattr(self, path, name, value):
        self.both(lambda root: os.setxattr(root / path, name, value))

    @rule(path=PATHS, name=XATTRS)
    def removexattr(self, path, name):
        self.both(lambda root: os.removexattr(root / path, name))

    # --- the whole --------------------------------------------------------------------------------

    @rule()
    def remount(self):
        self.leave()
        self.enter()

    @invariant()
    def trees_agree(self):
        plain, mounted = (comparable(snapshot(root, numbers=False)) for root in self.sides)
        assert mounted == plain


def outcome(call, side):
    """What a call returns, or the name of its errno."""
    try:
        return call(side)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


@contextmanager
def opened(path, flags):
    """A descriptor for a moment; a fifo that nobody reads is an error and not a wait."""
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def comparable(tree: dict[str, Seen]) -> dict[str, Seen]:
    """A snapshot with every time that writing set, and those of directories, made alike."""
    return {
        path: seen
        if seen.mtime_ns <= LONG_AGO and seen.size is not None
        else replace(seen, mtime_ns=0)
        for path, seen in tree.items()
    }


TestSides = Sides.TestCase
TestSides.settings = settings(
    max_examples=int(os.environ.get("LAFSFS_MODEL_EXAMPLES", "8")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
