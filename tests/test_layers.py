"""Imports run downwards only (docs/architecture.md): this test is the guard, a page of ``ast``."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lafsfs"

# From the bottom to the top; layers on one line are peers and never import each other.
LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(line.split())
    for line in (
        "errors",
        "crypto",
        "caps",
        "formats",
        "grid",
        "cache journal",
        "immutable mutable gbs",
        "nodes",
        "vfs",
        "fuse control",
        "mount",
        "cli",
    )
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

PURE = {"errors", "crypto", "caps", "formats"}
IMPURE_MODULES = {"trio", "pyfuse3", "socket", "ssl", "subprocess", "threading", "asyncio", "click"}

# Which layers may import a library at all.
ONLY_IN = {
    "pyfuse3": {"fuse", "mount"},
    "zfec": {"crypto"},
    "Crypto": {"crypto"},
    "cryptography": {"crypto"},
    "click": {"cli"},
    "h11": {"gbs"},
    "cbor2": {"formats", "gbs", "vfs"},
    "hypercorn": {"gbs"},
    "prometheus_client": {"gbs"},
    "foolscap": {"gbs"},
    "twisted": {"gbs"},
    "rich": {"cli"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> str:
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


def imported_names(path: Path) -> set[str]:
    """Every dotted name that a module imports, anywhere in it, relative ones made absolute."""
    package = ("lafsfs", *path.relative_to(PACKAGE).parts[:-1])
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*base, *([node.module] if node.module else [])))
            names |= {f"{stem}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downwards(path: Path) -> None:
    layer = layer_of(path)
    if layer in ("__init__", "__main__"):
        return
    assert layer in RANK, f"{path.name}: layer {layer} has no place in docs/architecture.md"
    for name in imported_names(path):
        top, _, rest = name.partition(".")
        if top == "lafsfs":
            target = rest.partition(".")[0]
            if target in ("", layer, "__version__"):
                continue
            assert RANK[target] < RANK[layer], f"{layer} imports {name}, which is not below it"
        else:
            assert layer in ONLY_IN.get(top, {layer}), f"{layer} may not import {top}"
            assert not (layer in PURE and top in IMPURE_MODULES), f"pure {layer} imports {top}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_twisted_stays_in_its_own_process(path: Path) -> None:
    """Everything but the introducer's subscriber works without it."""
    if path.parent.name != "introducer":
        names = {name.partition(".")[0] for name in imported_names(path)}
        assert names.isdisjoint({"foolscap", "twisted", "zope"})
        assert not any(".introducer.subscriber" in name for name in imported_names(path))


PURE_GROUPS = {"vfs/posix": {"lafsfs.vfs.api", "lafsfs.vfs.posix"}}


@pytest.mark.parametrize("group", PURE_GROUPS)
def test_pure_groups_import_values_only(group: str) -> None:
    for path in sorted((PACKAGE / group).glob("*.py")):
        for name in imported_names(path):
            top = name.partition(".")[0]
            assert top not in IMPURE_MODULES, f"pure {path.name} imports {top}"
            if name.startswith("lafsfs.vfs."):
                allowed = tuple(PURE_GROUPS[group])
                assert name.startswith(allowed), f"pure {path.name} imports {name}"
