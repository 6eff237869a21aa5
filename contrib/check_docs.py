"""``make docs``: the documents are Markdown and need no building; this checks that they hold.

Every relative link must lead to a file that exists, every ``#anchor`` to a heading in it, and every
path of this repository that stands in backquotes must exist.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
QUOTED_PATH = re.compile(r"`((?:lafsfs|tests|docs|contrib)/[\w./-]+)`")
HEADING = re.compile(r"^#+\s+(.*?)\s*$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors that a forge gives a document's headings."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in HEADING.findall(FENCE.sub("", text))
    }


def faults(document: Path) -> list[str]:
    """What is wrong in one document, one line each."""
    text = document.read_text(encoding="utf-8")
    prose = FENCE.sub("", text)
    found = []
    for target in LINK.findall(prose):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name) if name else document
        if not path.exists():
            found.append(f"{target}: no such file")
        elif anchor and anchor not in anchors(path.read_text(encoding="utf-8")):
            found.append(f"{target}: no such heading")
    found += [f"`{name}`: no such file" for name in QUOTED_PATH.findall(prose) if not _exists(name)]
    return [f"{document.relative_to(ROOT)}: {fault}" for fault in found]


def _exists(name: str) -> bool:
    return (ROOT / name.rstrip("/.")).exists()


def main() -> int:
    """Print every fault; the exit code tells whether there are any."""
    documents = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
    found = [fault for document in documents for fault in faults(document)]
    for fault in found:
        print(fault)
    print(f"{len(documents)} documents, {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
