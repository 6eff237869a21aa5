"""YAML files read so that whatever is wrong with them can be said with a line number.

Blocking: for worker threads.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml
from yaml.constructor import SafeConstructor

from lafsfs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_FILE = 16 << 20  # bytes; the announcements of thousands of servers


@dataclass(frozen=True, slots=True)
class Located:
    """A part of a file, and where it stands."""

    path: Path
    node: yaml.Node = field(repr=False)

    @property
    def where(self) -> str:
        """``FILE, line N``, for messages."""
        return f"{self.path}, line {self.node.start_mark.line + 1}"

    def items(self) -> Iterator[tuple[Located, Located]]:
        """The keys and values of a mapping.

        Raises:
            ConfigError: it is none.
        """
        if not isinstance(self.node, yaml.MappingNode):
            raise ConfigError(f"{self.where}: a mapping (name: value) is needed here")
        for key, value in self.node.value:
            yield Located(self.path, key), Located(self.path, value)

    def elements(self) -> Iterator[Located]:
        """The elements of a list.

        Raises:
            ConfigError: it is none.
        """
        if not isinstance(self.node, yaml.SequenceNode):
            raise ConfigError(f"{self.where}: a list is needed here")
        for element in self.node.value:
            yield Located(self.path, element)

    def get(self, name: str) -> Located | None:
        """The value under a key of a mapping, or None. Raises as :meth:`items`."""
        for key, value in self.items():
            if key.node.value == name:
                return value
        return None

    def text(self) -> str:
        """A scalar as it is written, whatever YAML takes it for.

        Raises:
            ConfigError: it is none.
        """
        if not isinstance(self.node, yaml.ScalarNode):
            raise ConfigError(f"{self.where}: a single value is needed here")
        return str(self.node.value)

    def is_nothing(self) -> bool:
        """Whether there is no value behind a colon."""
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag == "tag:yaml.org,2002:null"

    def value(self) -> Any:  # noqa: ANN401 - whatever stands there
        """This part as Python objects.

        Raises:
            ConfigError: a tag that only YAML of other programs has.
        """
        try:
            return SafeConstructor().construct_document(self.node)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigError(f"{self.where}: {_reason(error)}") from None


def read_yaml(path: Path) -> Located | None:
    """The top of a YAML file; None if the file is not there, or says nothing.

    Raises:
        ConfigError: it cannot be read, is too big, or is not YAML.
    """
    text = read_text(path)
    if text is None:
        return None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}{_line_of(error)}: {_reason(error)}") from None
    return None if node is None else Located(path, node)


def read_text(path: Path) -> str | None:
    """A text file, without the mark that some editors put in front; None if it is not there.

    Raises:
        ConfigError: it cannot be read, is too big, or is not UTF-8.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_FILE:
        raise ConfigError(f"{path} has more than {MAX_FILE} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8") from None


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically, readable by its owner alone. Makes its directory.

    Raises:
        ConfigError: it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with open(os.open(aside, flags, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


def _line_of(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return "" if mark is None else f", line {mark.line + 1}"


def _reason(error: Exception) -> str:
    """Why YAML was refused, in one line and without quoting what may be secret."""
    problem = getattr(error, "problem", None)
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(problem, str) and "'" not in problem and '"' not in problem:
        return f"not valid YAML ({problem})"
    return "not valid YAML"
