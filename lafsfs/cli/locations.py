"""What a user writes to name something in a tree: ``alias:``, ``alias:path``, or a capability.

Arguments are visible to everybody on the machine (``ps``), so a capability among them is used but
warned about; ``-`` reads one from standard input instead.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from lafsfs.caps import IMMUTABLE_PREFIX, READONLY_PREFIX, Cap, parse
from lafsfs.cli.aliases import HOME, check_alias_name
from lafsfs.errors import BadCapabilityError, BadNameError, UsageError

if TYPE_CHECKING:
    from lafsfs.cli.aliases import Aliases

_CAPABILITY_STARTS = ("URI:", f"{READONLY_PREFIX}URI:", f"{IMMUTABLE_PREFIX}URI:")
_MAX_INPUT = 64 * 1024  # bytes read from standard input for one capability


@dataclass(frozen=True, slots=True)
class Location:
    """A starting capability and the names of the edges to follow from it.

    ``start`` is how to name the beginning in messages: never a capability.
    """

    root: Cap
    path: tuple[str, ...]
    start: str

    @property
    def shown(self) -> str:
        """How to name it in messages."""
        separator = "/" if self.path and not self.start.endswith(":") else ""
        return self.start + separator + "/".join(self.path)

    @property
    def name(self) -> str | None:
        """The last edge's name, or None at the root."""
        return self.path[-1] if self.path else None

    @property
    def parent(self) -> Location:
        """Where the last edge starts.

        Raises:
            UsageError: at the root.
        """
        if not self.path:
            raise UsageError(f"{self.shown} is a whole tree: name something in it")
        return Location(self.root, self.path[:-1], self.start)

    def child(self, name: str) -> Location:
        """The location one edge further."""
        return Location(self.root, (*self.path, name), self.start)


def looks_like_capability(text: str) -> bool:
    """Whether the text is meant as a capability and not as an alias with a path."""
    return text.startswith(_CAPABILITY_STARTS)


def find_location(text: str, aliases: Aliases) -> Location:
    """Understand a command line argument.

    Raises:
        UsageError: no alias, capability or ``-``; or no such alias.
        BadCapabilityError: meant as a capability, but malformed.
        ConfigError: the aliases file is broken.
    """
    if text == "-":
        return Location(read_capability(), (), "the capability on standard input")
    if looks_like_capability(text):
        click.echo(
            "lafsfs: warning: others can see a capability on the command line; "
            "use an alias, or - and standard input",
            err=True,
        )
        root, _, path = text.partition("/")
        return Location(parse(root), split_path(path), "the capability")
    name, colon, path = text.partition(":")
    if not colon:
        names = aliases.names() or [HOME]
        start = HOME if HOME in names else names[0]
        meant = f"{text}:" if text in names else f"{start}:{text}"
        raise UsageError(f"{text!r} is not alias:path; did you mean {meant}?")
    name = check_alias_name(name)
    return Location(aliases.get(name), split_path(path), f"{name}:")


def split_path(path: str) -> tuple[str, ...]:
    """The names in a path; empty ones (``//``, a trailing ``/``) do not count.

    Raises:
        BadNameError: ``.`` or ``..``, which name nothing in a tree of capabilities, or not UTF-8.
    """
    names = tuple(name for name in path.split("/") if name)
    for name in names:
        if name in (".", ".."):
            raise BadNameError("a path in a tree cannot have '.' or '..' in it")
        if not name.isascii():
            try:
                name.encode("utf-8")
            except UnicodeEncodeError:
                raise BadNameError("a path in a tree must be UTF-8") from None
    return names


def read_secret(kind: str) -> str:
    """One word from standard input, hidden while it is typed at a terminal.

    Raises:
        BadCapabilityError: nothing there, or more than one word. ``kind`` is what to call it.
    """
    if sys.stdin.isatty():
        text: str = click.prompt(kind[:1].upper() + kind[1:], hide_input=True, err=True)
    else:
        text = sys.stdin.buffer.read(_MAX_INPUT).decode("utf-8", "replace")
    words = text.split()
    if not words:
        raise BadCapabilityError(f"there is no {kind} on standard input")
    if len(words) > 1:
        raise BadCapabilityError(f"one {kind} is wanted on standard input, and nothing else")
    return words[0]


def read_capability() -> Cap:
    """One capability of a known kind from standard input.

    Raises:
        BadCapabilityError: nothing there, more than one, malformed or unknown.
    """
    return parse(read_secret("capability"))
