"""The aliases file: names for the capabilities that everything else hangs from.

The format is stock Tahoe-LAFS's ``private/aliases``: one ``name: capability`` per line, ``#`` for
comments. Lines that are not understood are kept, and complained about only when their name is
asked for, so that one bad line does not lock a user out of the others. Whoever loses this file
loses the folders: it is replaced atomically, readable by its owner alone, and changed only under a
lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from lafsfs.caps import Cap, parse
from lafsfs.errors import BadCapabilityError, ChildExistsError, ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOME = "home"  # what is mounted unless something else is said
ROOT_ALIAS = "tahoe"  # what stock calls the tree of a user who has only one
_FORBIDDEN = frozenset(":/#\\ \t\r\n\0")


def check_alias_name(name: str) -> str:
    """Return ``name`` without the colon a user may have put behind it.

    Raises:
        UsageError: a name that the file or a command line could not hold, or that looks like a
            capability.
    """
    name = name.removesuffix(":")
    if not name or name.startswith("-") or not name.isprintable() or _FORBIDDEN & set(name):
        raise UsageError("an alias is one word without ':', '/', '#' or spaces")
    if name == "URI":
        raise UsageError("'URI' cannot be an alias: capabilities begin with it")
    return name


class Aliases:
    """The aliases in one file. Every method reads the file anew; it is small and others edit it."""

    def __init__(
        self, path: Path, *, read_only: bool = False, root_cap: Path | None = None
    ) -> None:
        """``read_only``: somebody else's. ``root_cap``: a file with what ``tahoe:`` leads to."""
        self.path = path
        self._read_only = read_only
        self._root_cap = root_cap

    def __repr__(self) -> str:
        return f"Aliases({str(self.path)!r})"

    def names(self) -> list[str]:
        """All names, in the file's order."""
        return list(self._entries())

    def __contains__(self, name: object) -> bool:
        return name in self._entries()

    def get(self, name: str) -> Cap:
        """The capability of that name.

        Raises:
            UsageError: there is no such alias.
            ConfigError: the file cannot be read, or the line holds no capability.
        """
        entries = self._entries()
        if name not in entries:
            known = ", ".join(f"{known}:" for known in entries) or "none yet"
            raise UsageError(f"there is no alias {name!r} (there are: {known})")
        try:
            return parse(entries[name])
        except BadCapabilityError as error:
            raise ConfigError(f"{self._where(name)}: alias {name!r}: {error}") from None

    def require_writable(self) -> None:
        """Raise UsageError if these aliases are only read."""
        if self._read_only:
            raise UsageError(
                f"{self.path} belongs to a Tahoe node and is only read; tahoe add-alias changes it"
            )

    def add(self, name: str, cap: Cap) -> None:
        """Add a new name.

        Raises:
            ChildExistsError: the name is taken; nothing is overwritten.
            ConfigError: the file cannot be written.
            UsageError: the aliases are only read.
        """
        self.require_writable()
        with self._locked():
            if name in self:
                raise ChildExistsError(f"there is an alias {name!r} already")
            lines = self._lines()
            self._write([*lines, f"{name}: {cap.danger_text()}"])

    def remove(self, name: str) -> None:
        """Remove a name, and with it perhaps the last copy of the capability.

        Raises:
            UsageError: there is no such alias, or the aliases are only read.
            ConfigError: the file cannot be written.
        """
        self.require_writable()
        with self._locked():
            if name not in self:
                raise UsageError(f"there is no alias {name!r}")
            self._write([line for line in self._lines() if _split(line)[0] != name])

    def _entries(self) -> dict[str, str]:
        root = _lines_of(self._root_cap) if self._root_cap is not None else []
        found = {ROOT_ALIAS: root[0].strip()} if root and root[0].strip() else {}
        pairs = (_split(line) for line in self._lines())
        return found | {name: text for name, text in pairs if name is not None}

    def _where(self, name: str) -> str:
        """``FILE, line N`` of a name; the last line of that name counts."""
        found = [n for n, line in enumerate(self._lines(), 1) if _split(line)[0] == name]
        return f"{self.path}, line {found[-1]}" if found else f"{self._root_cap}, line 1"

    def _lines(self) -> list[str]:
        return _lines_of(self.path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from changing the file between our reading and replacing it."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(f"cannot use {self.path.parent}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, lines: list[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        try:
            write_private(self.path, text.encode())
        except OSError as error:
            raise ConfigError(f"cannot write {self.path}: {error.strerror}") from error


def _lines_of(path: Path) -> list[str]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    try:
        return data.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8") from None


def write_private(path: Path, data: bytes) -> None:
    """Replace a file atomically and durably, readable by its owner alone. Raises OSError."""
    path = path.resolve()  # a symbolic link to the file stays one
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        temporary.unlink(missing_ok=True)


def _split(line: str) -> tuple[str | None, str]:
    stripped = line.strip()
    if not stripped or stripped.startswith("#"):
        return None, ""
    name, colon, text = stripped.partition(":")
    return (name.strip() if colon else None), text.strip()
