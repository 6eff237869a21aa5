"""Record a real session as a picture for the README: ``python contrib/record_session.py OUT.svg``.

Every line typed is run in a shell, in a home that exists for this only, and what it prints is what
the picture shows; only the temporary home's path becomes ``~``.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

SESSION = (
    "lafsfs mount ~/lafs",
    "cp -r ~/pictures ~/lafs/ && ls -l ~/lafs/pictures",
    "echo 'buy milk' > ~/lafs/notes.txt && cat ~/lafs/notes.txt",
    "lafsfs umount ~/lafs && ls ~/lafs",
    "lafsfs ls -l home:",
    "grep -r milk ~/.local/share/lafsfs/storage || echo 'nothing to read there'",
)
WIDTH = 88  # columns


def run(line: str, home: Path) -> str:
    """What a shell prints for the line, with the home's path shortened."""
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"HOME": str(home), "PATH": tools, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    result = subprocess.run(
        ["bash", "-c", line],
        env=environment,
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return result.stdout.replace(str(home), "~")


def prepare(home: Path) -> None:
    """Something to copy."""
    (home / "lafs").mkdir()
    (home / "pictures").mkdir()
    for name, size in (("cat.jpg", 184_320), ("lighthouse.jpg", 2_411_724)):
        (home / "pictures" / name).write_bytes(os.urandom(size))


def record(lines: tuple[str, ...]) -> str:
    """The session as an SVG."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        prepare(home)
        for line in lines:
            console.print(Text.assemble(("$ ", "bold green"), (line, "bold")))
            console.print(Text(run(line, home).rstrip("\n")))
    svg = console.export_svg(title="lafsfs", unique_id="session")
    # The picture must not fetch fonts from anywhere: what the viewer has will do.
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(record(SESSION), encoding="utf-8")
