"""The documents hold: links lead somewhere, and every promise names a test that exists."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SEMANTICS = ROOT / "docs" / "semantics.md"


@functools.cache
def names_by_module() -> dict[str, set[str]]:
    """The names of all tests, without ``test_``, by the name of their module."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        names = found.setdefault(path.stem, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(node.name.removeprefix("test_"))
    return found


def promises() -> list[tuple[str, str]]:
    """Each row of the tables whose last column names tests: (promise, reference)."""
    text = SEMANTICS.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| ([^|]*test_[^|]*) \|$", text, re.MULTILINE)
    return [(promise, reference) for promise, reference in rows if promise != "promise"]


@pytest.mark.parametrize(("promise", "reference"), promises())
def test_every_promise_is_a_test(promise: str, reference: str) -> None:
    known = names_by_module()
    for part in re.split(r"[;,]\s+(?=`|test_)", reference):
        module = re.search(r"test_\w+", part)
        assert module is not None
        names = part.partition(":")[2].strip() if ":" in part else ""
        assert module[0] in known, f"{module[0]} does not exist"
        for name in filter(None, (name.strip() for name in names.split(","))):
            assert name in known[module[0]], f"{module[0]} has no test_{name}"


def test_no_promise_goes_without() -> None:
    rows = [line for line in SEMANTICS.read_text(encoding="utf-8").splitlines() if "| " in line]
    start = next(i for i, line in enumerate(rows) if "what happens" in line)
    bare = [line for line in rows[:start] if not re.search(r"test_|---|\| test \|", line)]
    assert not bare


def test_links_and_paths_lead_somewhere() -> None:
    run = subprocess.run(
        [sys.executable, str(ROOT / "contrib" / "check_docs.py")], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout
